//! The kernel's side of the pool: veth pairs of pods, routes, policy rules, sysctls and one nftables table.
//!
//! Everything here is split in two. What the kernel *should* hold is computed by pure functions
//! from plain data; thin effects carry the difference out over netlink. This module knows no
//! EC2, no Kubernetes and no ledger, and decides nothing about who gets which address.
//!
//! Every object created on a host is listed in `docs/dataplane.md`.

mod cleanup;
mod control;
mod desired;
mod error;
mod found;
mod host;
mod inspect;
pub mod layout;
mod monitor;
mod netlink;
mod nft;
mod observe;
#[cfg(test)]
mod page;
mod plumb;
mod pods;
mod reaper;
mod ruleset;
mod state;
mod sysctl;
mod workers;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use enipool_pool::id::MacAddress;
use tokio::sync::broadcast;

pub use error::{DataplaneError, Retry};
pub(crate) use found::FILE as FOUND_FILE;
pub use inspect::{EniObjects, NftTable, SeenLink};
pub use layout::{HostIfname, VethPrefix};
pub use state::{
    AdoptedPod, DataplaneConfig, Drift, DriftKind, EniLink, HostObservation, HostReport, HostState, LinkSeen,
    ObservedPod, PodLink, PodOwner, PodSpec, Randomization, Report, Snat,
};

use control::Controller;
use host::Host;
use monitor::{Listener, Monitor, SharedWatch};
use plumb::Plumber;
use pods::Pods;
use reaper::Reaper;
use sysctl::Sysctl;
use workers::Workers;

/// Events that a slow listener may lag behind before it misses the oldest.
const EVENTS: usize = 256;

/// The handle. Clones share everything; the threads behind it end with the last clone.
#[derive(Debug, Clone)]
pub struct Dataplane {
    pods: Arc<Pods>,
    workers: Workers,
    controller: Controller,
    drift: broadcast::Sender<Drift>,
    links: broadcast::Sender<LinkSeen>,
    /// Held for its end.
    _monitor: Arc<Monitor>,
}

impl Dataplane {
    /// Starts the dataplane's threads in the caller's network namespace, which has to be the node's, and its listeners on
    /// the caller's runtime. Changes nothing yet.
    #[expect(clippy::unused_async, reason = "it needs a runtime to start its listeners on, and its signature says so")]
    pub async fn new(config: DataplaneConfig) -> Result<Self, DataplaneError> {
        let pods = Arc::new(Pods::default());
        let sysctl = Sysctl::new(&config.sysctl_root);
        let reaper = Reaper::start(config.reap_after, config.call_timeout)?;
        let workers =
            Workers::start(config.workers, config.queue, || Plumber::new(&config, sysctl.clone(), reaper.clone()))?;
        let host = Host::new(&config, sysctl, pods.clone())?;
        let own_ports = host.ports().iter().chain(workers.ports()).copied().collect();
        let watch = SharedWatch::default();
        let (drift, _) = broadcast::channel(EVENTS);
        let (links, _) = broadcast::channel(EVENTS);
        let controller = control::start(host, watch.clone(), drift.clone())?;
        let listener =
            Listener { watch, pods: pods.clone(), own_ports, controller: controller.clone(), links: links.clone() };
        let monitor = Arc::new(Monitor::start(&listener)?);
        Ok(Self { pods, workers, controller, drift, links, _monitor: monitor })
    }

    /// Makes links, addresses, rules, routes and the nftables table of the node as `state` says; costs little when they
    /// are. Keeps them so until the next call, and sets ENIs up whose link comes later.
    pub async fn ensure_host(&self, state: &HostState) -> Result<HostReport, DataplaneError> {
        let state = state.clone();
        self.controller
            .run(move |control| {
                let pass = control.host.ensure(state)?;
                control.show(&pass);
                pass.report()
            })
            .await?
    }

    /// Makes a pod's attachment. After an error nothing of it is left. It is carried out even if the caller stops waiting,
    /// so whoever gives up calls [`Self::del_pod`]. Calls for one pod must follow each other, not overlap. Whoever may be
    /// asked twice for the same calls [`Self::check_pod`] first.
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

    /// Whether `ifname` in the namespace is the other end of `host_ifname`: whose link that is.
    pub async fn is_pod_plugged(
        &self,
        netns: &Path,
        ifname: &str,
        host_ifname: &HostIfname,
    ) -> Result<bool, DataplaneError> {
        let (netns, ifname, host_ifname) = (netns.to_owned(), ifname.to_owned(), host_ifname.clone());
        self.workers.run(move |plumber| plumber.is_plugged(&netns, &ifname, &host_ifname)).await
    }

    /// The pods that the kernel shows, for an agent that starts.
    pub async fn observe(&self) -> Result<HostObservation, DataplaneError> {
        self.controller.run(|control| control.host.observe()).await?
    }

    /// What the kernel holds for ENIs at `device_indexes`. Changes nothing.
    pub async fn inspect(&self, device_indexes: &[u32]) -> Result<EniObjects, DataplaneError> {
        let device_indexes = device_indexes.to_vec();
        self.controller.run(move |control| control.host.inspect(&device_indexes)).await?
    }

    /// Takes running pods over: ours after a restart, the AWS plugin's in a migration (its rules for them go).
    pub async fn adopt(&self, pods: &[AdoptedPod]) -> Result<(), DataplaneError> {
        let pods = pods.to_vec();
        self.controller.run(move |control| control.host.adopt(&pods)).await?
    }

    /// Waits until a link with that MAC is on the node; at once if it is.
    pub async fn wait_link(&self, mac: MacAddress, timeout: Duration) -> Result<LinkSeen, DataplaneError> {
        let mut links = self.links.subscribe();
        let found = self.controller.run(move |control| control.host.find_link(mac)).await??;
        if let Some(link) = found {
            return Ok(link);
        }
        let appears = async {
            loop {
                match links.recv().await {
                    Ok(link) if link.mac == mac => return Ok(link),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err(DataplaneError::Stopped),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        if let Some(link) = self.controller.run(move |control| control.host.find_link(mac)).await?? {
                            return Ok(link);
                        }
                    }
                }
            }
        };
        tokio::time::timeout(timeout, appears)
            .await
            .unwrap_or(Err(DataplaneError::Timeout { step: "wait for an interface to appear" }))
    }

    /// Links as they appear or change, except those of pods.
    pub fn links(&self) -> broadcast::Receiver<LinkSeen> {
        self.links.subscribe()
    }

    /// What others changed, and whether it could be put right.
    pub fn drift(&self) -> broadcast::Receiver<Drift> {
        self.drift.subscribe()
    }

    /// Removes everything of ours from the node and puts back what was found. Pods lose their network.
    pub async fn cleanup(&self) -> Result<Report, DataplaneError> {
        self.controller.run(|control| control.host.cleanup()).await
    }
}
