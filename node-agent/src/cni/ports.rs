//! What the verbs need of the pool and of the dataplane.

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;

use enipool_pool::ledger::{AttachmentKey, Lease, PodRef};
use tokio::time::Instant;

use crate::dataplane::{DataplaneError, HostIfname, PodLink, PodSpec};
use crate::engine::AcquireError;

/// Whether the node can serve pods (STATUS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    Available,
    /// No ADD can succeed; the words say why and what to do.
    Unavailable(String),
}

/// The addresses of this node.
pub trait Addresses: Send + Sync + 'static {
    /// An address for `key`: the same again for the same key. Waits for supply until `deadline`; is ready at once when an
    /// address is free. May be dropped while it waits.
    fn acquire(
        &self,
        key: AttachmentKey,
        pod: PodRef,
        deadline: Instant,
    ) -> impl Future<Output = Result<Lease, AcquireError>> + Send;

    /// Gives the address of `key` back; `None` when it has none.
    fn release(&self, key: &AttachmentKey) -> Result<Option<Lease>, AcquireError>;

    /// Gives back an address that a pod of earlier times holds: adopted from the kernel, with no key of ours. `None` when a
    /// key of ours holds it, or nobody.
    fn release_address(&self, address: Ipv4Addr) -> Result<Option<Lease>, AcquireError>;

    fn lookup(&self, key: &AttachmentKey) -> Option<Lease>;

    fn attachments(&self) -> Vec<(AttachmentKey, PodRef, Lease)>;

    /// Whether `address` is one of this node's, in use or not, also where EC2 has taken it from a pod that runs.
    fn owns(&self, address: Ipv4Addr) -> bool;

    fn availability(&self) -> Availability;
}

/// The links of this node's pods.
pub trait PodLinks: Send + Sync + 'static {
    /// Makes the pod's link, addresses and routes, also over what an earlier attempt left.
    fn add(&self, spec: &PodSpec) -> impl Future<Output = Result<PodLink, DataplaneError>> + Send;

    /// Whether all that [`PodLinks::add`] made is still there.
    fn check(&self, spec: &PodSpec) -> impl Future<Output = Result<PodLink, DataplaneError>> + Send;

    /// Whether `ifname` in the namespace is the other end of the host's `host_ifname`.
    fn is_plugged(
        &self,
        netns: &Path,
        ifname: &str,
        host_ifname: &HostIfname,
    ) -> impl Future<Output = Result<bool, DataplaneError>> + Send;

    /// Removes what belongs to `address` on the host. What is gone already, the pod's namespace first of all, is no error.
    fn del(
        &self,
        address: Ipv4Addr,
        host_ifname: &HostIfname,
    ) -> impl Future<Output = Result<(), DataplaneError>> + Send;
}
