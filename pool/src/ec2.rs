//! The port to EC2: the calls an ENI pool needs, as plain data in and out, and every way they fail as a closed enum.
//!
//! `enipool-cloud` implements it with the AWS SDK, `ec2-sim` with its model. Nothing here retries or waits: whether a
//! call is worth repeating is in [`Retry`], when to repeat it is for the caller.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::address::{Prefix, SubnetCidr};
use crate::id::{
    AttachmentId, ClientToken, EniId, InstanceId, InstanceType, MacAddress, SecurityGroupId, SubnetId, VpcId, Zone,
};

/// Tags of a resource.
pub type Tags = BTreeMap<String, String>;

/// EC2's `status` of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EniStatus {
    Available,
    Associated,
    Attaching,
    InUse,
    Detaching,
    /// `pending`, or a state that this version does not know: not ours to use yet.
    Pending,
}

/// EC2's `interfaceType`, as far as the pool treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceType {
    /// `interface`: an ordinary ENI.
    Interface,
    /// `trunk`: carries branch ENIs of "security groups for pods"; never given pod addresses.
    Trunk,
    /// `efa` and `efa-only`: for MPI traffic; never managed.
    Efa,
    /// Made by another AWS service (load balancer, NAT gateway, …).
    Other,
}

/// Where and how an interface is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub id: AttachmentId,
    /// Absent when another AWS account or service attached it.
    pub instance: Option<InstanceId>,
    /// EC2's `deviceIndex`; 0 is the primary interface.
    pub device_index: u32,
    /// EC2's `networkCardIndex`; the pool uses card 0 only.
    pub network_card: u32,
    pub delete_on_termination: bool,
}

/// A network interface as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eni {
    pub id: EniId,
    pub status: EniStatus,
    pub interface_type: InterfaceType,
    pub mac: MacAddress,
    pub vpc: VpcId,
    pub subnet: SubnetId,
    pub zone: Zone,
    pub primary_ip: Ipv4Addr,
    /// Secondary addresses; the primary is not among them.
    pub secondary_ips: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
    pub security_groups: Vec<SecurityGroupId>,
    pub attachment: Option<Attachment>,
    pub description: String,
    pub tags: Tags,
}

/// EC2's instance state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

/// An instance, as far as the pool cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub state: InstanceState,
    pub instance_type: InstanceType,
    pub vpc: Option<VpcId>,
    pub subnet: Option<SubnetId>,
    pub zone: Zone,
    /// (device index, network card) of every attached interface, ours or not.
    pub device_indexes: Vec<(u32, u32)>,
}

/// What an instance type can hold, from `DescribeInstanceTypes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTypeLimits {
    pub instance_type: InstanceType,
    /// `maximumNetworkInterfaces` of network card 0, not of the whole instance.
    pub max_enis: u32,
    /// `ipv4AddressesPerInterface`, the primary address included.
    pub ipv4_per_eni: u32,
    /// Nitro hypervisor or bare metal: prefixes can be assigned.
    pub supports_prefixes: bool,
    pub vcpus: u32,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub vpc: VpcId,
    pub zone: Zone,
    pub cidr: SubnetCidr,
    /// EC2's `availableIpAddressCount`: a delegated prefix counts as sixteen used.
    pub available_ips: u32,
    pub tags: Tags,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub vpc: VpcId,
    pub name: String,
    pub tags: Tags,
}

/// Addresses or prefixes to assign: EC2 takes one kind per call on Assign and on Create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Supply {
    /// Secondary addresses; 0 with Create means the primary only.
    Addresses(u32),
    /// /28 prefixes.
    Prefixes(u32),
}

/// What EC2 handed out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    pub addresses: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
}

/// `CreateNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateEni {
    pub subnet: SubnetId,
    pub security_groups: Vec<SecurityGroupId>,
    pub supply: Supply,
    pub description: String,
    pub tags: Tags,
    pub client_token: ClientToken,
}

/// Which interfaces to describe. The variants are ANDed fields of one filter; an empty filter is refused by adapters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniFilter {
    pub ids: Vec<EniId>,
    /// Attached to this instance.
    pub instance: Option<InstanceId>,
    pub vpc: Option<VpcId>,
    pub status: Option<EniStatus>,
    /// Exact tag values, all of which must match.
    pub tags: Tags,
    /// Tag keys that must be present, whatever their value.
    pub tag_keys: Vec<String>,
}

/// Resources by id, or by tags within a VPC (both empty: all of the VPC).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector<Id> {
    pub ids: Vec<Id>,
    pub vpc: Option<VpcId>,
    pub zone: Option<Zone>,
    pub tags: Tags,
}

/// The EC2 actions that the pool uses. One label and one token bucket each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    DescribeInstances,
    DescribeInstanceTypes,
    DescribeSubnets,
    DescribeSecurityGroups,
    DescribeNetworkInterfaces,
    CreateNetworkInterface,
    AttachNetworkInterface,
    DetachNetworkInterface,
    DeleteNetworkInterface,
    ModifyNetworkInterfaceAttribute,
    AssignPrivateIpAddresses,
    UnassignPrivateIpAddresses,
    CreateTags,
}

impl Action {
    pub const ALL: [Self; 13] = [
        Self::DescribeInstances,
        Self::DescribeInstanceTypes,
        Self::DescribeSubnets,
        Self::DescribeSecurityGroups,
        Self::DescribeNetworkInterfaces,
        Self::CreateNetworkInterface,
        Self::AttachNetworkInterface,
        Self::DetachNetworkInterface,
        Self::DeleteNetworkInterface,
        Self::ModifyNetworkInterfaceAttribute,
        Self::AssignPrivateIpAddresses,
        Self::UnassignPrivateIpAddresses,
        Self::CreateTags,
    ];

    /// EC2's own name of the action.
    pub fn name(self) -> &'static str {
        match self {
            Self::DescribeInstances => "DescribeInstances",
            Self::DescribeInstanceTypes => "DescribeInstanceTypes",
            Self::DescribeSubnets => "DescribeSubnets",
            Self::DescribeSecurityGroups => "DescribeSecurityGroups",
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::CreateNetworkInterface => "CreateNetworkInterface",
            Self::AttachNetworkInterface => "AttachNetworkInterface",
            Self::DetachNetworkInterface => "DetachNetworkInterface",
            Self::DeleteNetworkInterface => "DeleteNetworkInterface",
            Self::ModifyNetworkInterfaceAttribute => "ModifyNetworkInterfaceAttribute",
            Self::AssignPrivateIpAddresses => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses => "UnassignPrivateIpAddresses",
            Self::CreateTags => "CreateTags",
        }
    }

    /// Whether the action changes something.
    pub fn is_mutation(self) -> bool {
        !self.name().starts_with("Describe")
    }
}

/// Whether, and after what, the same call may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call later, with back-off.
    Later,
    /// The same call later, and all calls of this action more slowly.
    SlowDown,
    /// Another subnet, or smaller pieces, may serve; the same call will not until somebody frees addresses.
    Elsewhere,
    /// Describe first: our picture of EC2 is out of date.
    Refresh,
    /// Not until a person changes something.
    Never,
}

/// Every way in which a call fails, by what the pool does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ec2ErrorKind {
    #[error("EC2 throttles this account (RequestLimitExceeded)")]
    Throttled,
    /// `InsufficientFreeAddressesInSubnet`, and its `InvalidParameterValue` form of CreateNetworkInterface.
    #[error("the subnet has no free address")]
    SubnetExhausted,
    /// `InsufficientCidrBlocks`: addresses may be left, but no aligned /28.
    #[error("the subnet has no free /28 prefix")]
    NoContiguousPrefix,
    /// `AttachmentLimitExceeded`: the instance has no room for another interface.
    #[error("the instance can hold no more network interfaces")]
    AttachmentLimit,
    /// `PrivateIpAddressLimitExceeded`: the interface's slots are full.
    #[error("the network interface can hold no more addresses")]
    AddressLimit,
    /// `NetworkInterfaceLimitExceeded`: the account's quota in this region.
    #[error("the account's quota of network interfaces is used up")]
    AccountLimit,
    /// The device index is taken by another interface.
    #[error("the device index is taken")]
    DeviceIndexInUse,
    /// The instance is stopping, stopped or terminated.
    #[error("the instance is not running")]
    InstanceNotRunning,
    #[error("the network interface does not exist")]
    EniNotFound,
    #[error("the instance does not exist")]
    InstanceNotFound,
    /// `InvalidAttachmentID.NotFound`.
    #[error("the attachment does not exist")]
    AttachmentNotFound,
    /// `InvalidNetworkInterface.InUse`, `InvalidParameterValue … currently in use`.
    #[error("the network interface is in use")]
    EniInUse,
    /// An address to unassign that the interface does not hold.
    #[error("the address is not assigned to the network interface")]
    AddressNotAssigned,
    /// `IdempotentParameterMismatch`: the token was used with other parameters.
    #[error("the client token was used before with other parameters")]
    TokenMismatch,
    /// `UnauthorizedOperation`, `AccessDenied`.
    #[error("the IAM role is not allowed to do this")]
    AccessDenied,
    /// No credentials, expired credentials, clock skew.
    #[error("EC2 did not accept the credentials")]
    Credentials,
    /// EC2 answered 5xx: it may or may not have acted.
    #[error("EC2 failed inside")]
    Internal,
    /// No answer (timeout, connection lost): EC2 may or may not have acted.
    #[error("EC2 did not answer")]
    NoAnswer,
    /// An answer that we cannot read, or a code that this version does not know.
    #[error("EC2 answered with something unexpected")]
    Unexpected,
}

impl Ec2ErrorKind {
    pub fn retry(&self) -> Retry {
        match self {
            Self::Throttled => Retry::SlowDown,
            Self::SubnetExhausted | Self::NoContiguousPrefix => Retry::Elsewhere,
            Self::AttachmentLimit
            | Self::AddressLimit
            | Self::DeviceIndexInUse
            | Self::EniNotFound
            | Self::AttachmentNotFound
            | Self::EniInUse
            | Self::AddressNotAssigned
            | Self::TokenMismatch => Retry::Refresh,
            Self::Internal
            | Self::NoAnswer
            | Self::Unexpected
            | Self::Credentials
            | Self::InstanceNotRunning
            | Self::AccountLimit => Retry::Later,
            Self::AccessDenied | Self::InstanceNotFound => Retry::Never,
        }
    }

    /// Whether EC2 may have carried the call out although it failed for us.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Internal | Self::NoAnswer | Self::Unexpected)
    }

    /// A label for metrics: one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::SubnetExhausted => "subnet_exhausted",
            Self::NoContiguousPrefix => "no_contiguous_prefix",
            Self::AttachmentLimit => "attachment_limit",
            Self::AddressLimit => "address_limit",
            Self::AccountLimit => "account_limit",
            Self::DeviceIndexInUse => "device_index_in_use",
            Self::InstanceNotRunning => "instance_not_running",
            Self::EniNotFound => "eni_not_found",
            Self::InstanceNotFound => "instance_not_found",
            Self::AttachmentNotFound => "attachment_not_found",
            Self::EniInUse => "eni_in_use",
            Self::AddressNotAssigned => "address_not_assigned",
            Self::TokenMismatch => "token_mismatch",
            Self::AccessDenied => "access_denied",
            Self::Credentials => "credentials",
            Self::Internal => "internal",
            Self::NoAnswer => "no_answer",
            Self::Unexpected => "unexpected",
        }
    }
}

/// A failed EC2 call: what kind, which action, and EC2's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {kind}{}", action.name(), .message.as_ref().map_or_else(String::new, |m| format!(" ({m})")))]
pub struct Ec2Error {
    pub action: Action,
    pub kind: Ec2ErrorKind,
    /// EC2's error code and message, and its request id, for a person to read.
    pub message: Option<String>,
}

impl Ec2Error {
    pub fn new(action: Action, kind: Ec2ErrorKind) -> Self {
        Self { action, kind, message: None }
    }
    pub fn retry(&self) -> Retry {
        self.kind.retry()
    }
}

/// EC2, as the pool needs it. Every call has a deadline of its own in the adapter; dropping a future does not take the
/// call back.
pub trait Ec2: Send + Sync + 'static {
    fn describe_instances(&self, ids: &[InstanceId]) -> impl Future<Output = Result<Vec<Instance>, Ec2Error>> + Send;
    fn describe_instance_type(
        &self,
        instance_type: &InstanceType,
    ) -> impl Future<Output = Result<InstanceTypeLimits, Ec2Error>> + Send;
    fn describe_subnets(
        &self,
        selector: &Selector<SubnetId>,
    ) -> impl Future<Output = Result<Vec<Subnet>, Ec2Error>> + Send;
    fn describe_security_groups(
        &self,
        selector: &Selector<SecurityGroupId>,
    ) -> impl Future<Output = Result<Vec<SecurityGroup>, Ec2Error>> + Send;
    /// All pages. Interfaces that a filter by id does not find are left out of the answer; that is no error.
    fn describe_network_interfaces(
        &self,
        filter: &EniFilter,
    ) -> impl Future<Output = Result<Vec<Eni>, Ec2Error>> + Send;
    fn create_network_interface(&self, request: &CreateEni) -> impl Future<Output = Result<Eni, Ec2Error>> + Send;
    fn attach_network_interface(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: u32,
    ) -> impl Future<Output = Result<AttachmentId, Ec2Error>> + Send;
    fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
        delete: bool,
    ) -> impl Future<Output = Result<(), Ec2Error>> + Send;
    fn set_security_groups(
        &self,
        eni: &EniId,
        groups: &[SecurityGroupId],
    ) -> impl Future<Output = Result<(), Ec2Error>> + Send;
    fn detach_network_interface(
        &self,
        attachment: &AttachmentId,
        force: bool,
    ) -> impl Future<Output = Result<(), Ec2Error>> + Send;
    fn delete_network_interface(&self, eni: &EniId) -> impl Future<Output = Result<(), Ec2Error>> + Send;
    fn assign(&self, eni: &EniId, supply: Supply) -> impl Future<Output = Result<Assigned, Ec2Error>> + Send;
    fn unassign(
        &self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        prefixes: &[Prefix],
    ) -> impl Future<Output = Result<(), Ec2Error>> + Send;
    fn create_tags(&self, eni: &EniId, tags: &Tags) -> impl Future<Output = Result<(), Ec2Error>> + Send;
}
