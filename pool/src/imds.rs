//! The port to the instance metadata service: what an instance knows of itself without an EC2 call.
//!
//! IMDS is a hint. It lags behind EC2 by seconds, so its silence about an interface or an address proves nothing.

use std::future::Future;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::address::{Prefix, SubnetCidr};
use crate::id::{EniId, InstanceId, InstanceType, MacAddress, SecurityGroupId, SubnetId, VpcId, Zone};

/// The instance itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceIdentity {
    pub instance: InstanceId,
    pub instance_type: InstanceType,
    pub zone: Zone,
    /// `placement/region`.
    pub region: String,
    /// MAC of the primary interface (`mac`).
    pub primary_mac: MacAddress,
    /// The primary interface's primary address (`local-ipv4`).
    pub primary_ip: Ipv4Addr,
}

/// One interface as `network/interfaces/macs/<mac>/` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsEni {
    pub id: EniId,
    pub mac: MacAddress,
    pub device_index: u32,
    pub network_card: u32,
    pub subnet: SubnetId,
    pub subnet_cidr: SubnetCidr,
    pub vpc: VpcId,
    /// `vpc-ipv4-cidr-blocks`: all ranges of the VPC.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// `local-ipv4s`; the first is the primary address.
    pub addresses: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
    pub security_groups: Vec<SecurityGroupId>,
}

/// Why IMDS gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImdsError {
    /// Not reachable, or no answer in time. On EC2 this means that IMDS is switched off or the hop limit is too low.
    #[error("the instance metadata service does not answer: {0}")]
    Unavailable(String),
    /// The path does not exist (yet).
    #[error("the instance metadata service has no {0}")]
    NotFound(String),
    /// Something answered that is not what IMDS documents.
    #[error("the instance metadata service answered {path} with {value:?}")]
    Malformed { path: String, value: String },
}

/// The instance metadata service (version 2, with session tokens).
pub trait Imds: Send + Sync + 'static {
    fn identity(&self) -> impl Future<Output = Result<InstanceIdentity, ImdsError>> + Send;
    /// The MACs of all interfaces that IMDS knows by now.
    fn macs(&self) -> impl Future<Output = Result<Vec<MacAddress>, ImdsError>> + Send;
    fn eni(&self, mac: MacAddress) -> impl Future<Output = Result<ImdsEni, ImdsError>> + Send;
}
