//! The dataplane as the engine's kernel, and as what the CNI verbs need: puts the engine's picture and people's wishes for
//! the host together. Decides nothing by itself.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enipool_pool::MacAddress;
use ipnet::Ipv4Net;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cni::PodLinks;
use crate::dataplane::{
    AdoptedPod, Dataplane, DataplaneError, EniLink, HostIfname, HostObservation, HostState, PodLink, PodSpec,
    VethPrefix,
};
use crate::engine::{AttachmentKey, HostEni, HostPicture, HostPod, HostView, Kernel, KernelError, PodRef, Pool};
use crate::status::wishes::HostWishes;

/// What the flags say about the host and no ENIPoolClass overrides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    pub node_ports: bool,
    pub external_service_cidrs: Vec<Ipv4Net>,
    /// First letters of host-side pod interfaces.
    pub veth_prefix: VethPrefix,
}

/// The host, as the engine sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dataplane: Dataplane,
    settings: HostSettings,
    wishes: watch::Receiver<HostWishes>,
    /// What the engine asked for last; applied again when the wishes change.
    picture: Mutex<Option<HostPicture>>,
}

impl Host {
    pub fn new(dataplane: Dataplane, settings: HostSettings, wishes: watch::Receiver<HostWishes>) -> Self {
        Self(Arc::new(Inner { dataplane, settings, wishes, picture: Mutex::new(None) }))
    }

    /// Applies the engine's last picture again whenever people change SNAT or MTU, until `shutdown`.
    pub async fn follow_wishes(self, shutdown: CancellationToken) {
        let mut wishes = self.0.wishes.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = wishes.changed() => if changed.is_err() { return },
            }
            let picture = self.0.picture.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(picture) = picture
                && let Err(error) = self.set_up(&picture).await
            {
                tracing::error!(%error, "the host cannot be set up as the class asks; the next change tries again");
            }
        }
    }

    async fn set_up(&self, picture: &HostPicture) -> Result<(), KernelError> {
        let state = state(picture, &self.0.wishes.borrow().clone(), &self.0.settings)?;
        let report = self.0.dataplane.ensure_host(&state).await.map_err(kernel_error)?;
        for change in &report.changed {
            tracing::info!(change, "host set up");
        }
        Ok(())
    }

    /// Pods that run on from before: the dataplane moves them to its own routes where they came from the AWS plugin.
    pub async fn adopt(&self, pool: &Pool) -> Result<usize, DataplaneError> {
        let observed = self.0.dataplane.observe().await?;
        let held: std::collections::HashSet<Ipv4Addr> =
            pool.attachments().into_iter().map(|(_, _, lease)| lease.address).collect();
        let pods: Vec<_> = observed
            .pods
            .into_iter()
            .filter(|pod| held.contains(&pod.address))
            .map(|pod| AdoptedPod { address: pod.address, host_ifname: pod.host_ifname })
            .collect();
        self.0.dataplane.adopt(&pods).await?;
        Ok(pods.len())
    }
}

/// The dataplane's whole state from the engine's picture.
fn state(picture: &HostPicture, wishes: &HostWishes, settings: &HostSettings) -> Result<HostState, KernelError> {
    let mut links = picture.enis.iter().map(link);
    let primary = picture.enis.iter().position(|eni| eni.device_index == 0);
    let Some(primary) = primary.and_then(|at| links.clone().nth(at)) else {
        return Err(KernelError("the primary interface is not in the picture".into()));
    };
    Ok(HostState {
        secondary: links.by_ref().filter(|link| link.device_index != 0).collect(),
        primary,
        vpc_cidrs: picture.vpc_cidrs.clone(),
        snat: wishes.snat.clone(),
        node_ports: settings.node_ports,
        external_service_cidrs: settings.external_service_cidrs.clone(),
        mtu: wishes.mtu,
    })
}

fn link(eni: &HostEni) -> EniLink {
    EniLink {
        eni: eni.id.clone(),
        mac: eni.mac,
        device_index: eni.device_index,
        primary_address: eni.primary_ip,
        subnet: eni.subnet,
        addresses: eni.addresses.clone(),
        prefixes: eni.prefixes.clone(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn kernel_error(error: DataplaneError) -> KernelError {
    KernelError(error.to_string())
}

impl Kernel for Host {
    async fn apply(&self, picture: &HostPicture) -> Result<(), KernelError> {
        *self.0.picture.lock().unwrap_or_else(PoisonError::into_inner) = Some(picture.clone());
        self.set_up(picture).await
    }

    async fn observe(&self) -> Result<HostView, KernelError> {
        let observed = self.0.dataplane.observe().await.map_err(kernel_error)?;
        let pods = observed
            .pods
            .into_iter()
            .map(|pod| HostPod { address: pod.address, host_ifname: pod.host_ifname.to_string() })
            .collect();
        Ok(HostView { pods, links: observed.links.into_iter().collect() })
    }

    fn host_ifname(&self, key: &AttachmentKey, pod: &PodRef) -> String {
        self.0.settings.veth_prefix.host_ifname_of(key, pod).to_string()
    }

    async fn gone(&self, pods: &[HostPod]) -> Result<Vec<HostPod>, KernelError> {
        let HostObservation { pods: routed, orphans, .. } = self.0.dataplane.observe().await.map_err(kernel_error)?;
        let left = |pod: &&HostPod| {
            routed.iter().any(|seen| seen.address == pod.address || seen.host_ifname.as_str() == pod.host_ifname)
                || orphans.iter().any(|link| link.as_str() == pod.host_ifname)
        };
        Ok(pods.iter().filter(|pod| !left(pod)).cloned().collect())
    }

    async fn wait_link(&self, mac: MacAddress, timeout: Duration) -> Result<(), KernelError> {
        self.0.dataplane.wait_link(mac, timeout).await.map(|_| ()).map_err(kernel_error)
    }
}

impl PodLinks for Dataplane {
    async fn add(&self, spec: &PodSpec) -> Result<PodLink, DataplaneError> {
        self.add_pod(spec).await
    }

    async fn check(&self, spec: &PodSpec) -> Result<PodLink, DataplaneError> {
        self.check_pod(spec).await
    }

    async fn is_plugged(&self, netns: &Path, ifname: &str, host_ifname: &HostIfname) -> Result<bool, DataplaneError> {
        self.is_pod_plugged(netns, ifname, host_ifname).await
    }

    async fn del(&self, address: Ipv4Addr, host_ifname: &HostIfname) -> Result<(), DataplaneError> {
        self.del_pod(address, host_ifname).await
    }
}
