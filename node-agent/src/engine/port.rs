//! What the engine needs of the node's kernel. The dataplane implements it; tests have their own.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use enipool_pool::ledger::{AttachmentKey, PodRef};
use enipool_pool::{EniId, MacAddress, Prefix, SubnetCidr};
use ipnet::Ipv4Net;

/// An interface as the host has to be set up for it: routes, marks and rules by owner of the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEni {
    pub id: EniId,
    pub mac: MacAddress,
    pub device_index: u32,
    pub subnet: SubnetCidr,
    pub primary_ip: Ipv4Addr,
    /// Secondary addresses, in use or not.
    pub addresses: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
}

/// All that the host has to know of the pool. Whole desired state, not a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPicture {
    /// Interfaces whose link exists, the primary first. None of them is on its way out.
    pub enis: Vec<HostEni>,
    pub vpc_cidrs: Vec<Ipv4Net>,
}

/// A pod's address as the kernel shows it: a /32 route to a host-side veth, made by us or by the AWS plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPod {
    pub address: Ipv4Addr,
    pub host_ifname: String,
}

/// What the kernel shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostView {
    pub pods: Vec<HostPod>,
    /// MACs of all links that exist.
    pub links: BTreeSet<MacAddress>,
}

/// The kernel refused, or could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KernelError(pub String);

/// The node's kernel, as far as the pool needs it. Every call ends in bounded time.
pub trait Kernel: Send + Sync + 'static {
    /// Brings the host to this state. Idempotent.
    fn apply(&self, picture: &HostPicture) -> impl Future<Output = Result<(), KernelError>> + Send;
    fn observe(&self) -> impl Future<Output = Result<HostView, KernelError>> + Send;
    /// Name of the host's end of this attachment's link.
    fn host_ifname(&self, key: &AttachmentKey, pod: &PodRef) -> String;
    /// Which of `pods` have left nothing behind: neither a route to the address nor the interface.
    fn gone(&self, pods: &[HostPod]) -> impl Future<Output = Result<Vec<HostPod>, KernelError>> + Send;
    /// Ends when a link with this MAC exists; an error after `timeout`. Driven by the kernel's events, not by polling.
    fn wait_link(&self, mac: MacAddress, timeout: Duration) -> impl Future<Output = Result<(), KernelError>> + Send;
}
