//! The things that exist in the simulated region, as plain data.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use enipool_pool::ec2::{EniStatus, InstanceState, InterfaceType, Tags};
use enipool_pool::{
    AttachmentId, EniId, InstanceId, InstanceType, MacAddress, Prefix, SecurityGroupId, SubnetCidr, SubnetId,
    Timestamp, VpcId, Zone,
};
use ipnet::Ipv4Net;
use serde::Serialize;

use super::metadata::MetadataInterface;
use super::replicated::Replicated;
use super::subnet::AddressMap;
use super::types::TypeInfo;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vpc {
    pub id: VpcId,
    pub cidrs: Vec<Ipv4Net>,
    pub tags: Tags,
}

impl Vpc {
    /// Every range with the id of its association.
    pub fn associations(&self) -> impl Iterator<Item = (String, &Ipv4Net)> {
        // Ids of their own, so that they differ between VPCs; counted up from the VPC's.
        let number = self.id.as_str().strip_prefix("vpc-").and_then(|hex| u128::from_str_radix(hex, 16).ok());
        let number = number.unwrap_or_default();
        self.cidrs.iter().zip(0..).map(move |(cidr, index)| {
            (format!("vpc-cidr-assoc-{:017x}", number.wrapping_add(index) & 0x000f_ffff_ffff_ffff_ffff), cidr)
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub vpc: VpcId,
    pub name: String,
    pub description: String,
    pub tags: Tags,
}

/// A subnet with its address map.
#[derive(Debug, Clone)]
pub struct SubnetRecord {
    pub info: SubnetInfo,
    pub map: AddressMap,
    /// `availableIpAddressCount` as readers see it.
    pub(super) shown_free: Replicated<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubnetInfo {
    pub id: SubnetId,
    pub vpc: VpcId,
    pub zone: Zone,
    pub cidr: SubnetCidr,
    pub tags: Tags,
}

/// A subnet as DescribeSubnets shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubnetView {
    #[serde(flatten)]
    pub info: SubnetInfo,
    pub available_ips: u32,
}

/// `attachment.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachStatus {
    Attaching,
    Attached,
    Detaching,
}

impl AttachStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InterfaceAttachment {
    pub id: AttachmentId,
    pub instance: InstanceId,
    pub device_index: u32,
    pub network_card: u32,
    pub status: AttachStatus,
    pub attach_time: Timestamp,
    pub delete_on_termination: bool,
    /// The interface is in the instance: from the moment the attach comes through until the detach does. EC2 tells this
    /// nobody; `status` is what it says.
    pub plugged: bool,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    pub id: EniId,
    pub mac: MacAddress,
    pub vpc: VpcId,
    pub subnet: SubnetId,
    pub zone: Zone,
    pub primary_ip: Ipv4Addr,
    pub secondary_ips: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
    pub security_groups: Vec<SecurityGroupId>,
    pub attachment: Option<InterfaceAttachment>,
    pub interface_type: InterfaceType,
    pub description: String,
    pub tags: Tags,
    pub source_dest_check: bool,
    pub created: Timestamp,
}

impl Interface {
    /// EC2's `status`: `in-use` from the attach call until the detach is done, as EC2 shows it; how far an attach or
    /// detach has come is in `attachment.status`.
    pub fn status(&self) -> EniStatus {
        if self.attachment.is_some() { EniStatus::InUse } else { EniStatus::Available }
    }

    /// Slots taken on the interface, the primary address included.
    pub fn slots(&self) -> u32 {
        u32::try_from(1 + self.secondary_ips.len() + self.prefixes.len()).unwrap_or(u32::MAX)
    }

    /// All single addresses, the primary first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        std::iter::once(self.primary_ip).chain(self.secondary_ips.iter().copied())
    }
}

/// An instance.
#[derive(Debug, Clone)]
pub struct InstanceRecord {
    pub id: InstanceId,
    pub reservation: String,
    pub state: InstanceState,
    pub info: TypeInfo,
    pub image: String,
    pub subnet: SubnetId,
    pub vpc: VpcId,
    pub zone: Zone,
    pub launch_time: Timestamp,
    pub launch_index: u32,
    pub client_token: Option<String>,
    pub tags: Tags,
    pub interfaces: Vec<EniId>,
    /// When describe calls begin to find it.
    pub(super) visible_at: Timestamp,
    /// What the instance's metadata service knows of its interfaces, late.
    pub(super) metadata: BTreeMap<EniId, Replicated<MetadataInterface>>,
}

impl InstanceRecord {
    pub fn instance_type(&self) -> &InstanceType {
        &self.info.name
    }

    /// Whether interfaces can be attached to it and detached from it. Not before it runs.
    pub fn takes_interfaces(&self) -> bool {
        matches!(self.state, InstanceState::Running | InstanceState::Stopped)
    }

    /// Whether it exists no more for those who look for its interfaces.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, InstanceState::ShuttingDown | InstanceState::Terminated)
    }
}

/// EC2's `instanceState`: code and name.
pub fn state_code(state: InstanceState) -> (u32, &'static str) {
    match state {
        InstanceState::Pending => (0, "pending"),
        InstanceState::Running => (16, "running"),
        InstanceState::ShuttingDown => (32, "shutting-down"),
        InstanceState::Terminated => (48, "terminated"),
        InstanceState::Stopping => (64, "stopping"),
        InstanceState::Stopped => (80, "stopped"),
    }
}

/// An instance as DescribeInstances shows it, with its interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceView {
    pub id: InstanceId,
    pub reservation: String,
    pub state: InstanceState,
    pub instance_type: InstanceType,
    pub image: String,
    pub vpc: VpcId,
    pub subnet: SubnetId,
    pub zone: Zone,
    pub launch_time: Timestamp,
    pub launch_index: u32,
    pub client_token: Option<String>,
    pub tags: Tags,
    /// In the order of their device indexes.
    pub interfaces: Vec<Interface>,
}

impl InstanceView {
    pub fn primary(&self) -> Option<&Interface> {
        self.interfaces.iter().find(|eni| eni.attachment.as_ref().is_some_and(|a| a.device_index == 0))
    }
}

/// EC2's form of a time: `2026-01-01T00:00:00.000Z`.
pub fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        // Beyond the year 9999, which a clock moved on demand can reach.
        Err(_) => "9999-12-31T23:59:59.999Z".to_owned(),
    }
}
