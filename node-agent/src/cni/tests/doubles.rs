//! A pool and a kernel that do what they are told and remember what was asked of them.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enipool_cni::{CniError, CniResult, Request, Response, Verb};
use enipool_pool::Timestamp;
use enipool_pool::ledger::{AttachmentKey, Lease, PodRef};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::cni::{Addresses, Availability, Finished, Observer, PodLinks, Verbs, VerbsConfig};
use crate::dataplane::layout::{host_mac, pod_mac};
use crate::dataplane::{DataplaneError, HostIfname, PodLink, PodSpec, VethPrefix};
use crate::engine::{AcquireError, Shortage};

pub(super) fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

pub(super) fn key(container: &str) -> AttachmentKey {
    AttachmentKey::new("net", container, "eth0")
}

fn lease(address: Ipv4Addr) -> Lease {
    Lease { address, eni: "eni-0a".parse().unwrap(), device_index: 1, since: Timestamp(0) }
}

#[derive(Debug, Default)]
struct PoolState {
    free: VecDeque<Ipv4Addr>,
    held: HashMap<AttachmentKey, (PodRef, Lease)>,
    unavailable: Option<String>,
    hoards: bool,
}

/// Hands out what was put into it, in that order.
#[derive(Debug, Clone, Default)]
pub(super) struct FakePool {
    state: Arc<Mutex<PoolState>>,
    supply: Arc<Notify>,
}

impl FakePool {
    pub(super) fn supply(&self, address: Ipv4Addr) {
        self.state.lock().unwrap().free.push_back(address);
        self.supply.notify_waiters();
    }

    pub(super) fn hold(&self, key: AttachmentKey, pod: PodRef, address: Ipv4Addr) {
        self.state.lock().unwrap().held.insert(key, (pod, lease(address)));
    }

    pub(super) fn close(&self, why: &str) {
        self.state.lock().unwrap().unavailable = Some(why.to_owned());
    }

    /// What comes back is given to nobody from now on.
    pub(super) fn hoard(&self) {
        self.state.lock().unwrap().hoards = true;
    }

    pub(super) fn free(&self) -> usize {
        self.state.lock().unwrap().free.len()
    }

    fn take(&self, key: &AttachmentKey, pod: &PodRef) -> Option<Lease> {
        let mut state = self.state.lock().unwrap();
        if let Some((_, held)) = state.held.get(key) {
            return Some(held.clone());
        }
        if state.hoards {
            return None;
        }
        let lease = lease(state.free.pop_front()?);
        state.held.insert(key.clone(), (pod.clone(), lease.clone()));
        Some(lease)
    }
}

impl Addresses for FakePool {
    async fn acquire(&self, key: AttachmentKey, pod: PodRef, deadline: Instant) -> Result<Lease, AcquireError> {
        let begun = Instant::now();
        loop {
            let supplied = self.supply.notified();
            if let Some(lease) = self.take(&key, &pod) {
                return Ok(lease);
            }
            timeout_at(deadline, supplied).await.map_err(|_| AcquireError::TimedOut {
                waited: begun.elapsed(),
                shortage: Shortage::Cooling,
                eta: None,
                detail: None,
            })?;
        }
    }

    fn release(&self, key: &AttachmentKey) -> Result<Option<Lease>, AcquireError> {
        let mut state = self.state.lock().unwrap();
        let lease = state.held.remove(key).map(|(_, lease)| lease);
        state.free.extend(lease.as_ref().map(|lease| lease.address));
        Ok(lease)
    }

    fn release_address(&self, address: Ipv4Addr) -> Result<Option<Lease>, AcquireError> {
        let adopted = |(key, (_, lease)): (&AttachmentKey, &(PodRef, Lease))| {
            (key.network.is_empty() && lease.address == address).then(|| key.clone())
        };
        let key = self.state.lock().unwrap().held.iter().find_map(adopted);
        key.map_or(Ok(None), |key| self.release(&key))
    }

    fn lookup(&self, key: &AttachmentKey) -> Option<Lease> {
        self.state.lock().unwrap().held.get(key).map(|(_, lease)| lease.clone())
    }

    fn attachments(&self) -> Vec<(AttachmentKey, PodRef, Lease)> {
        let state = self.state.lock().unwrap();
        state.held.iter().map(|(key, (pod, lease))| (key.clone(), pod.clone(), lease.clone())).collect()
    }

    fn owns(&self, address: Ipv4Addr) -> bool {
        address.octets()[..3] == [10, 0, 1]
    }

    fn availability(&self) -> Availability {
        self.state.lock().unwrap().unavailable.clone().map_or(Availability::Available, Availability::Unavailable)
    }
}

/// What was asked of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Add(Ipv4Addr),
    Check(Ipv4Addr),
    Del(Ipv4Addr, String),
}

/// A kernel that makes every link unless told to fail.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeLinks {
    asked: Arc<Mutex<Vec<Asked>>>,
    specs: Arc<Mutex<HashMap<Ipv4Addr, PodSpec>>>,
    /// The next call fails with this errno, or with `EINVAL` at -1… see [`FakeLinks::fail`].
    failures: Arc<Mutex<VecDeque<DataplaneError>>>,
    /// What each DEL takes.
    pub(super) slow_del: Arc<Mutex<Duration>>,
    /// ADDs stop here until it is notified.
    pub(super) gate: Arc<Mutex<Option<Arc<Notify>>>>,
}

impl FakeLinks {
    pub(super) fn fail(&self, error: DataplaneError) {
        self.failures.lock().unwrap().push_back(error);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn spec(&self, address: Ipv4Addr) -> Option<PodSpec> {
        self.specs.lock().unwrap().get(&address).cloned()
    }

    /// A pod that was there before us: its link leads from `netns` to `host_ifname`.
    pub(super) fn plug(&self, address: Ipv4Addr, netns: &str, host_ifname: &str) {
        let host_ifname = HostIfname::new(host_ifname).unwrap();
        let spec = PodSpec { netns: netns.into(), ifname: "eth0".into(), host_ifname, address, mtu: 9001 };
        self.specs.lock().unwrap().insert(address, spec);
    }

    /// Somebody removes the pod's link by hand.
    pub(super) fn lose(&self, address: Ipv4Addr) {
        self.specs.lock().unwrap().remove(&address);
    }

    fn note(&self, asked: Asked) -> Result<(), DataplaneError> {
        self.asked.lock().unwrap().push(asked);
        self.failures.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

fn link(address: Ipv4Addr) -> PodLink {
    PodLink { host_mac: host_mac(address), pod_mac: pod_mac(address), host_ifindex: 9 }
}

impl PodLinks for FakeLinks {
    async fn add(&self, spec: &PodSpec) -> Result<PodLink, DataplaneError> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        self.note(Asked::Add(spec.address))?;
        self.specs.lock().unwrap().insert(spec.address, spec.clone());
        Ok(link(spec.address))
    }

    async fn check(&self, spec: &PodSpec) -> Result<PodLink, DataplaneError> {
        self.note(Asked::Check(spec.address))?;
        let specs = self.specs.lock().unwrap();
        if specs.get(&spec.address) == Some(spec) {
            return Ok(link(spec.address));
        }
        Err(DataplaneError::Differs { address: spec.address, difference: "no link".into() })
    }

    async fn is_plugged(&self, netns: &Path, ifname: &str, host_ifname: &HostIfname) -> Result<bool, DataplaneError> {
        if let Some(error) = self.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        let ends = |spec: &PodSpec| spec.netns == netns && spec.ifname == ifname && spec.host_ifname == *host_ifname;
        Ok(self.specs.lock().unwrap().values().any(ends))
    }

    async fn del(&self, address: Ipv4Addr, host_ifname: &HostIfname) -> Result<(), DataplaneError> {
        let slow = *self.slow_del.lock().unwrap();
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        self.note(Asked::Del(address, host_ifname.to_string()))?;
        self.specs.lock().unwrap().remove(&address);
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct Seen(pub(super) Mutex<Vec<Finished>>);

impl Observer for Seen {
    fn finished(&self, call: &Finished) {
        self.0.lock().unwrap().push(*call);
    }
}

/// The verbs over both doubles.
pub(super) struct Bench {
    pub(super) pool: FakePool,
    pub(super) links: FakeLinks,
    pub(super) seen: Arc<Seen>,
    pub(super) verbs: Arc<Verbs<FakePool, FakeLinks>>,
    pub(super) dir: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let (pool, links, seen) = (FakePool::default(), FakeLinks::default(), Arc::<Seen>::default());
        let dir = tempfile::tempdir().unwrap();
        let config =
            VerbsConfig { veth_prefix: VethPrefix::default(), mtu: 9001, del_queue: dir.path().join("del-queue") };
        let observer = Arc::clone(&seen) as Arc<dyn Observer>;
        let verbs = Arc::new(Verbs::new(pool.clone(), links.clone(), config, observer));
        Self { pool, links, seen, verbs, dir }
    }

    /// With addresses 10.0.1.1 to `count` free.
    pub(super) fn with_free(count: u8) -> Self {
        let bench = Self::new();
        (1..=count).for_each(|last| bench.pool.supply(address(last)));
        bench
    }

    pub(super) async fn answer(&self, request: &Request) -> Response {
        self.verbs.answer(request, std::future::pending()).await
    }

    pub(super) async fn succeed(&self, request: &Request) -> String {
        let response = self.answer(request).await;
        assert_eq!(response.exit, 0, "{}", response.stdout);
        response.stdout
    }

    pub(super) async fn add(&self, container: &str) -> CniResult {
        serde_json::from_str(&self.succeed(&request(Verb::Add, container)).await).unwrap()
    }

    pub(super) async fn fail(&self, request: &Request) -> CniError {
        let response = self.answer(request).await;
        assert_eq!(response.exit, 1, "{}", response.stdout);
        serde_json::from_str(&response.stdout).unwrap()
    }
}

pub(super) fn request(verb: Verb, container: &str) -> Request {
    Request {
        protocol: 1,
        verb,
        container_id: container.into(),
        netns: "/run/netns/a".into(),
        ifname: "eth0".into(),
        args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u1".into(),
        timeout_ms: 10_000,
        config: r#"{"cniVersion":"1.1.0","name":"net","type":"enipool-cni"}"#.into(),
    }
}

/// `request` with more keys in its configuration.
pub(super) fn with(mut request: Request, more: &serde_json::Value) -> Request {
    let mut config: serde_json::Value = serde_json::from_str(&request.config).unwrap();
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    request.config = config.to_string();
    request
}
