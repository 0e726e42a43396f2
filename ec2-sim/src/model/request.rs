//! Requests and responses of the EC2 actions, as plain data: what the wire protocol is decoded into and encoded from.

use std::net::Ipv4Addr;

use enipool_pool::ec2::{InstanceState, InterfaceType, Tags};
use enipool_pool::{
    AttachmentId, EniId, InstanceId, InstanceType, Prefix, SecurityGroupId, SubnetCidr, SubnetId, VpcId, Zone,
};
use ipnet::Ipv4Net;

use super::filter::Filter;
use super::page::{Page, PageRequest};
use super::resource::{InstanceView, Interface, SecurityGroup, SubnetView, Vpc};
use super::types::TypeInfo;

/// Ids, filters and pages: what every describe call takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Describe<Id> {
    pub ids: Vec<Id>,
    pub filters: Vec<Filter>,
    pub page: PageRequest,
}

impl<Id> Default for Describe<Id> {
    fn default() -> Self {
        Self { ids: Vec::new(), filters: Vec::new(), page: PageRequest::default() }
    }
}

impl<Id> Describe<Id> {
    pub fn ids(ids: impl IntoIterator<Item = Id>) -> Self {
        Self { ids: ids.into_iter().collect(), ..Self::default() }
    }

    pub fn filtered(filters: impl IntoIterator<Item = Filter>) -> Self {
        Self { filters: filters.into_iter().collect(), ..Self::default() }
    }
}

/// Addresses and prefixes for an interface: by name, by number, or both kinds by number where EC2 allows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub addresses: Vec<Ipv4Addr>,
    pub address_count: Option<u32>,
    pub prefixes: Vec<Prefix>,
    pub prefix_count: Option<u32>,
}

impl Wanted {
    pub fn addresses(count: u32) -> Self {
        Self { address_count: Some(count), ..Self::default() }
    }

    pub fn prefixes(count: u32) -> Self {
        Self { prefix_count: Some(count), ..Self::default() }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateInterface {
    pub subnet: Option<SubnetId>,
    pub primary_ip: Option<Ipv4Addr>,
    pub secondary: Wanted,
    pub security_groups: Vec<SecurityGroupId>,
    pub description: String,
    pub interface_type: Option<InterfaceType>,
    pub tags: Tags,
    pub client_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachInterface {
    pub interface: EniId,
    pub instance: InstanceId,
    pub device_index: u32,
    pub network_card: u32,
}

/// Exactly one attribute may be changed per call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModifyInterface {
    pub interface: EniId,
    pub change: InterfaceChange,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceChange {
    DeleteOnTermination { attachment: AttachmentId, delete: bool },
    SecurityGroups(Vec<SecurityGroupId>),
    Description(String),
    SourceDestCheck(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    pub interface: EniId,
    pub wanted: Wanted,
    pub allow_reassignment: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unassign {
    pub interface: EniId,
    pub addresses: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstances {
    pub image: String,
    pub instance_type: InstanceType,
    pub min_count: u32,
    pub max_count: u32,
    pub subnet: Option<SubnetId>,
    pub zone: Option<Zone>,
    pub private_ip: Option<Ipv4Addr>,
    pub security_groups: Vec<SecurityGroupId>,
    /// Interfaces of the launch; without any, one primary interface is made.
    pub interfaces: Vec<LaunchInterface>,
    pub instance_tags: Tags,
    pub interface_tags: Tags,
    pub client_token: Option<String>,
}

impl RunInstances {
    /// One instance.
    pub fn one(instance_type: InstanceType, subnet: SubnetId) -> Self {
        Self {
            image: "ami-0123456789abcdef0".to_owned(),
            instance_type,
            min_count: 1,
            max_count: 1,
            subnet: Some(subnet),
            zone: None,
            private_ip: None,
            security_groups: Vec::new(),
            interfaces: Vec::new(),
            instance_tags: Tags::new(),
            interface_tags: Tags::new(),
            client_token: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchInterface {
    pub device_index: u32,
    pub network_card: u32,
    /// An existing interface instead of a new one.
    pub existing: Option<EniId>,
    pub subnet: Option<SubnetId>,
    pub primary_ip: Option<Ipv4Addr>,
    pub secondary: Wanted,
    pub security_groups: Vec<SecurityGroupId>,
    pub description: String,
    /// EC2's default is true for interfaces made by the launch, false for existing ones.
    pub delete_on_termination: Option<bool>,
}

/// An EC2 call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    RunInstances(RunInstances),
    TerminateInstances(Vec<InstanceId>),
    StopInstances(Vec<InstanceId>),
    StartInstances(Vec<InstanceId>),
    DescribeInstances(Describe<InstanceId>),
    DescribeInstanceTypes(Describe<InstanceType>),
    DescribeVpcs(Describe<VpcId>),
    DescribeSubnets(Describe<SubnetId>),
    DescribeSecurityGroups(Describe<SecurityGroupId>),
    DescribeNetworkInterfaces(Describe<EniId>),
    CreateNetworkInterface(CreateInterface),
    AttachNetworkInterface(AttachInterface),
    DetachNetworkInterface { attachment: AttachmentId, force: bool },
    DeleteNetworkInterface(EniId),
    ModifyNetworkInterfaceAttribute(ModifyInterface),
    AssignPrivateIpAddresses(Assign),
    UnassignPrivateIpAddresses(Unassign),
    CreateTags { resources: Vec<String>, tags: Tags },
    CreateVpc { cidr: Ipv4Net, tags: Tags },
    CreateSubnet { vpc: VpcId, zone: Option<Zone>, cidr: SubnetCidr, tags: Tags },
    CreateSecurityGroup { vpc: VpcId, name: String, description: String, tags: Tags },
}

/// EC2's names of all actions that there are here.
pub const ACTIONS: [&str; 21] = [
    "AssignPrivateIpAddresses",
    "AttachNetworkInterface",
    "CreateNetworkInterface",
    "CreateSecurityGroup",
    "CreateSubnet",
    "CreateTags",
    "CreateVpc",
    "DeleteNetworkInterface",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
    "DetachNetworkInterface",
    "ModifyNetworkInterfaceAttribute",
    "RunInstances",
    "StartInstances",
    "StopInstances",
    "TerminateInstances",
    "UnassignPrivateIpAddresses",
];

/// What a state change of an instance answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub instance: InstanceId,
    pub previous: InstanceState,
    pub current: InstanceState,
}

/// What EC2 assigned with one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignedAddresses {
    pub addresses: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
}

/// An EC2 answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    Reservation(Vec<InstanceView>),
    StateChanges(Vec<StateChange>),
    Instances(Page<InstanceView>),
    InstanceTypes(Page<TypeInfo>),
    Vpcs(Page<Vpc>),
    Subnets(Page<SubnetView>),
    SecurityGroups(Page<SecurityGroup>),
    Interfaces(Page<Interface>),
    Interface(Box<Interface>),
    Attached {
        attachment: AttachmentId,
        network_card: u32,
    },
    Assigned {
        interface: EniId,
        assigned: AssignedAddresses,
    },
    Vpc(Vpc),
    Subnet(SubnetView),
    SecurityGroup(SecurityGroup),
    /// `<return>true</return>`.
    Done,
}

impl Request {
    /// EC2's name of the action.
    pub fn action(&self) -> &'static str {
        match self {
            Self::RunInstances(_) => "RunInstances",
            Self::TerminateInstances(_) => "TerminateInstances",
            Self::StopInstances(_) => "StopInstances",
            Self::StartInstances(_) => "StartInstances",
            Self::DescribeInstances(_) => "DescribeInstances",
            Self::DescribeInstanceTypes(_) => "DescribeInstanceTypes",
            Self::DescribeVpcs(_) => "DescribeVpcs",
            Self::DescribeSubnets(_) => "DescribeSubnets",
            Self::DescribeSecurityGroups(_) => "DescribeSecurityGroups",
            Self::DescribeNetworkInterfaces(_) => "DescribeNetworkInterfaces",
            Self::CreateNetworkInterface(_) => "CreateNetworkInterface",
            Self::AttachNetworkInterface(_) => "AttachNetworkInterface",
            Self::DetachNetworkInterface { .. } => "DetachNetworkInterface",
            Self::DeleteNetworkInterface(_) => "DeleteNetworkInterface",
            Self::ModifyNetworkInterfaceAttribute(_) => "ModifyNetworkInterfaceAttribute",
            Self::AssignPrivateIpAddresses(_) => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses(_) => "UnassignPrivateIpAddresses",
            Self::CreateTags { .. } => "CreateTags",
            Self::CreateVpc { .. } => "CreateVpc",
            Self::CreateSubnet { .. } => "CreateSubnet",
            Self::CreateSecurityGroup { .. } => "CreateSecurityGroup",
        }
    }

    /// Ids that the request names, for faults and the ledger.
    pub fn resources(&self) -> Vec<&str> {
        match self {
            Self::RunInstances(run) => run
                .subnet
                .iter()
                .map(SubnetId::as_str)
                .chain(run.interfaces.iter().filter_map(|i| i.subnet.as_ref().map(SubnetId::as_str)))
                .collect(),
            Self::TerminateInstances(ids) | Self::StopInstances(ids) | Self::StartInstances(ids) => {
                ids.iter().map(InstanceId::as_str).collect()
            }
            Self::DescribeInstances(describe) => describe.ids.iter().map(InstanceId::as_str).collect(),
            Self::DescribeInstanceTypes(describe) => describe.ids.iter().map(InstanceType::as_str).collect(),
            Self::DescribeVpcs(describe) => describe.ids.iter().map(VpcId::as_str).collect(),
            Self::DescribeSubnets(describe) => describe.ids.iter().map(SubnetId::as_str).collect(),
            Self::DescribeSecurityGroups(describe) => describe.ids.iter().map(SecurityGroupId::as_str).collect(),
            Self::DescribeNetworkInterfaces(describe) => describe.ids.iter().map(EniId::as_str).collect(),
            Self::CreateNetworkInterface(create) => create.subnet.iter().map(SubnetId::as_str).collect(),
            Self::AttachNetworkInterface(attach) => vec![attach.interface.as_str(), attach.instance.as_str()],
            Self::DetachNetworkInterface { attachment, .. } => vec![attachment.as_str()],
            Self::DeleteNetworkInterface(id) => vec![id.as_str()],
            Self::ModifyNetworkInterfaceAttribute(modify) => vec![modify.interface.as_str()],
            Self::AssignPrivateIpAddresses(assign) => vec![assign.interface.as_str()],
            Self::UnassignPrivateIpAddresses(unassign) => vec![unassign.interface.as_str()],
            Self::CreateTags { resources, .. } => resources.iter().map(String::as_str).collect(),
            Self::CreateVpc { .. } => Vec::new(),
            Self::CreateSubnet { vpc, .. } | Self::CreateSecurityGroup { vpc, .. } => vec![vpc.as_str()],
        }
    }

    /// How many instances the request asks EC2 to start or end.
    pub fn instances(&self) -> u32 {
        match self {
            Self::RunInstances(run) => run.max_count,
            Self::TerminateInstances(ids) | Self::StopInstances(ids) | Self::StartInstances(ids) => {
                u32::try_from(ids.len()).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }

    pub fn client_token(&self) -> Option<&str> {
        match self {
            Self::RunInstances(run) => run.client_token.as_deref(),
            Self::CreateNetworkInterface(create) => create.client_token.as_deref(),
            _ => None,
        }
    }

    /// Whether a describe call names nothing, filters nothing and asks for no page.
    pub fn is_unfiltered(&self) -> bool {
        fn bare<Id>(describe: &Describe<Id>) -> bool {
            describe.ids.is_empty() && describe.filters.is_empty() && !describe.page.is_paged()
        }
        match self {
            Self::DescribeInstances(describe) => bare(describe),
            Self::DescribeNetworkInterfaces(describe) => bare(describe),
            Self::DescribeSecurityGroups(describe) => bare(describe),
            _ => false,
        }
    }
}
