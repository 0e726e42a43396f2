//! The kernel's side of the pool: veth pairs of pods, routes, policy rules, sysctls and one nftables table.
//!
//! Everything here is split in two. What the kernel *should* hold is computed by pure functions
//! from plain data; thin effects carry the difference out over netlink. This module knows no
//! EC2, no Kubernetes and no ledger, and decides nothing about who gets which address.
//!
//! Every object created on a host is listed in `docs/dataplane.md`.

mod error;
pub mod layout;
mod netlink;
mod plumb;
mod pods;
mod reaper;
mod state;
mod sysctl;
mod workers;

use std::net::Ipv4Addr;
use std::sync::Arc;

pub use error::{DataplaneError, Retry};
pub use layout::{HostIfname, VethPrefix};
pub use state::{
    AdoptedPod, DataplaneConfig, Drift, DriftKind, EniLink, HostObservation, HostReport, HostState, LinkSeen,
    ObservedPod, PodLink, PodOwner, PodSpec, Randomization, Report, Snat,
};

use plumb::Plumber;
use pods::Pods;
use reaper::Reaper;
use sysctl::Sysctl;
use workers::Workers;

/// The handle. Clones share everything.
#[derive(Debug, Clone)]
pub struct Dataplane {
    pods: Arc<Pods>,
    workers: Workers,
}

impl Dataplane {
    /// Starts the dataplane's threads in the caller's network namespace, which has to be the node's.
    pub async fn new(config: DataplaneConfig) -> Result<Self, DataplaneError> {
        let pods = Arc::new(Pods::default());
        let sysctl = Sysctl::new(&config.sysctl_root);
        let reaper = Reaper::start(config.reap_after, config.call_timeout)?;
        let workers = Workers::start(config.workers, config.queue, || {
            Plumber::new(sysctl.clone(), reaper.clone(), config.call_timeout)
        })?;
        Ok(Self { pods, workers })
    }

    /// Makes a pod's attachment. After an error nothing of it is left; repeating it after a success fails with
    /// `InterfaceInTheWay` or makes it anew: whoever may be asked twice calls [`Self::check_pod`] first.
    pub async fn add_pod(&self, spec: &PodSpec) -> Result<PodLink, DataplaneError> {
        let (spec, pods) = (spec.clone(), self.pods.clone());
        self.workers.run(move |plumber| plumber.add(&spec, &pods)).await
    }

    /// Takes a pod's routes away. Does not wait for the kernel to take its interfaces apart. Unknown pods are fine, those
    /// of the AWS plugin are known by its rules.
    pub async fn del_pod(&self, address: Ipv4Addr, host_ifname: &HostIfname) -> Result<(), DataplaneError> {
        let (host_ifname, pods) = (host_ifname.clone(), self.pods.clone());
        self.workers.run(move |plumber| plumber.delete(address, &host_ifname, &pods)).await
    }

    /// Compares a pod's attachment with what [`Self::add_pod`] makes; fails with `Differs`.
    pub async fn check_pod(&self, spec: &PodSpec) -> Result<PodLink, DataplaneError> {
        let spec = spec.clone();
        self.workers.run(move |plumber| plumber.check(&spec)).await
    }
}
