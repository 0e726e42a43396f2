//! Each call from request to answer, and ADD itself.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use enipool_cni::args::PodArgs;
use enipool_cni::config::DEFAULT_ADD_TIMEOUT_SECONDS;
use enipool_cni::frame::PROTOCOL;
use enipool_cni::{CniError, Code, DelQueue, NetConf, Request, Response, Verb};
use enipool_pool::ledger::{AttachmentKey, Lease, PodRef};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::answer;
use super::flights::{Deletion, Flights};
use super::observer::{Finished, Observer, Phases};
use super::ports::{Addresses, PodLinks};
use crate::dataplane::{DataplaneError, HostIfname, PodLink, PodSpec, VethPrefix};
use crate::engine::AcquireError;

/// What the verbs need to know besides the pool.
#[derive(Debug, Clone)]
pub struct VerbsConfig {
    /// First letters of host-side pod interfaces.
    pub veth_prefix: VethPrefix,
    /// MTU of pods' links in bytes, unless the network configuration says otherwise.
    pub mtu: u32,
    /// Directory of the deletions that plugins queued while the agent was away.
    pub del_queue: PathBuf,
}

/// The verbs of the specification over a pool and a dataplane.
pub struct Verbs<A, L> {
    pub(super) pool: A,
    pub(super) links: L,
    pub(super) flights: Flights,
    pub(super) queue: DelQueue,
    /// Held while the queue is drained: calls that come meanwhile wait for their turn behind it.
    pub(super) draining: tokio::sync::Mutex<()>,
    pub(super) observer: Arc<dyn Observer>,
    veth_prefix: VethPrefix,
    mtu: AtomicU32,
}

impl<A, L> std::fmt::Debug for Verbs<A, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verbs").field("queue", &self.queue).field("mtu", &self.mtu).finish_non_exhaustive()
    }
}

/// A call that failed: what the plugin prints, and one word for metrics.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: CniError,
    pub(super) label: &'static str,
}

impl Refusal {
    fn busy() -> Self {
        let error = CniError::new(Code::TryAgainLater, "another call for this container is still under way");
        Self { error, label: "busy" }
    }

    fn deletion_waits() -> Self {
        let error = CniError::new(Code::TryAgainLater, "this container's last network is not taken down yet")
            .details("its deletion is queued and is tried again every few seconds; plugin.log says what it waits for");
        Self { error, label: "busy" }
    }

    fn queued() -> Self {
        let error = CniError::new(Code::TryAgainLater, "deletions that were queued while the agent was away go first")
            .details("they are still being carried out; the agent's log names them");
        Self { error, label: "busy" }
    }

    pub(super) fn no_address(error: &AcquireError) -> Self {
        Self { error: answer::no_address(error), label: error.label() }
    }

    pub(super) fn kernel(what: &str, error: &DataplaneError) -> Self {
        Self { error: answer::kernel_refused(what, error), label: error.category() }
    }
}

impl From<CniError> for Refusal {
    fn from(error: CniError) -> Self {
        Self { error, label: "bad_request" }
    }
}

/// A call that speaks of one attachment, with everything read that can be wrong with it.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) request: &'a Request,
    pub(super) conf: NetConf,
    pub(super) key: AttachmentKey,
    pub(super) pod: PodRef,
    pub(super) host_ifname: HostIfname,
    /// When the plugin stops waiting, less what it takes to tell it.
    pub(super) deadline: Instant,
}

impl<A: Addresses, L: PodLinks> Verbs<A, L> {
    pub fn new(pool: A, links: L, config: VerbsConfig, observer: Arc<dyn Observer>) -> Self {
        Self {
            pool,
            links,
            flights: Flights::default(),
            queue: DelQueue::new(config.del_queue),
            draining: tokio::sync::Mutex::default(),
            observer,
            veth_prefix: config.veth_prefix,
            mtu: AtomicU32::new(config.mtu),
        }
    }

    /// Sets the MTU, in bytes, for links made from now on.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Carries one call out. `gone` ends when the plugin has died: an ADD that still waits for an address then stops.
    pub async fn answer(&self, request: &Request, gone: impl Future<Output = ()>) -> Response {
        let begun = Instant::now();
        let mut phases = Phases::default();
        let outcome = self.dispatch(request, begun + patience(request.timeout_ms), gone, &mut phases).await;
        let total = begun.elapsed();
        let label = outcome.as_ref().err().map_or("success", |refusal| refusal.label);
        self.observer.finished(&Finished { verb: request.verb, outcome: label, total, phases });
        report(request, &outcome, total, phases);
        outcome.map_or_else(|refusal| Response::failure(&refusal.error), Response::success)
    }

    async fn dispatch(
        &self,
        request: &Request,
        deadline: Instant,
        gone: impl Future<Output = ()>,
        phases: &mut Phases,
    ) -> Result<String, Refusal> {
        if !request.is_understood() {
            let words = format!("the plugin speaks protocol {}, the agent {PROTOCOL}", request.protocol);
            return Err(CniError::new(Code::TryAgainLater, words)
                .details("they may be one version apart; restart the agent's pod, which installs its own plugin")
                .into());
        }
        let conf = NetConf::parse(&request.config, request.verb)?;
        let version = conf.version;
        self.dispatch_verb(request, conf, deadline, gone, phases).await.map_err(|mut refusal| {
            refusal.error = refusal.error.in_version(version);
            refusal
        })
    }

    async fn dispatch_verb(
        &self,
        request: &Request,
        conf: NetConf,
        deadline: Instant,
        gone: impl Future<Output = ()>,
        phases: &mut Phases,
    ) -> Result<String, Refusal> {
        match request.verb {
            Verb::Status => return self.status().map(|()| String::new()),
            Verb::Version => {
                return Err(CniError::new(Code::InvalidEnvironment, "VERSION is for the plugin to answer").into());
            }
            Verb::Add | Verb::Del | Verb::Check | Verb::Gc => {
                timeout_at(deadline, self.drain()).await.map_err(|_| Refusal::queued())?;
            }
        }
        if request.verb == Verb::Gc {
            return self.gc(&conf).await.map(|()| String::new());
        }
        let call = self.read(request, conf, deadline)?;
        match request.verb {
            Verb::Add => self.add(&call, gone, phases).await,
            Verb::Check => self.check(&call).await.map(|()| String::new()),
            _ => self.del(&call, phases).await.map(|()| String::new()),
        }
    }

    pub(super) fn read<'a>(&self, request: &'a Request, conf: NetConf, deadline: Instant) -> Result<Call<'a>, Refusal> {
        let args = PodArgs::parse(&request.args)?;
        let key = AttachmentKey::new(conf.name.as_str(), request.container_id.as_str(), request.ifname.as_str());
        let pod = PodRef { namespace: args.namespace.into(), name: args.name.into(), uid: args.uid.into() };
        let host_ifname = self.host_ifname_of(&key, &pod);
        Ok(Call { request, conf, key, pod, host_ifname, deadline })
    }

    pub(super) fn host_ifname_of(&self, key: &AttachmentKey, pod: &PodRef) -> HostIfname {
        self.veth_prefix.host_ifname_of(key, pod)
    }

    pub(super) fn veth_prefix(&self) -> &VethPrefix {
        &self.veth_prefix
    }

    pub(super) fn spec(&self, call: &Call<'_>, lease: &Lease) -> PodSpec {
        PodSpec {
            netns: call.request.netns.clone().into(),
            ifname: call.request.ifname.clone(),
            host_ifname: call.host_ifname.clone(),
            address: lease.address,
            mtu: call.conf.mtu.unwrap_or_else(|| self.mtu.load(Ordering::Relaxed)),
        }
    }

    async fn add(
        &self,
        call: &Call<'_>,
        gone: impl Future<Output = ()>,
        phases: &mut Phases,
    ) -> Result<String, Refusal> {
        let previous = call.conf.prev_result()?;
        let entered = timeout_at(call.deadline, self.flights.enter(&call.key)).await;
        let (_turn, mut deletion) = entered.map_err(|_| Refusal::busy())?;
        // A deletion that waited, was tried and failed: carried out later, it would hit what this ADD makes.
        if self.queue.holds(&call.key.network, &call.key.container_id, &call.key.ifname).unwrap_or(false) {
            return Err(Refusal::deletion_waits());
        }
        let known = self.pool.lookup(&call.key).is_some();
        // Also of a lease that is known the pool learns that a runtime asks for it.
        let lease = self.wait_for_address(call, &mut deletion, gone, phases).await?;
        let spec = self.spec(call, &lease);
        let begun = Instant::now();
        let link = self.plumb(&spec, known).await;
        phases.netlink = begun.elapsed();
        match link {
            Ok(link) => {
                answer::result(previous, &spec, &link, &call.conf.dns).to_json(call.conf.version).map_err(|error| {
                    CniError::new(Code::Io, "the result cannot be written").details(error.to_string()).into()
                })
            }
            Err(error) => {
                if !known {
                    self.undo(call, &spec).await;
                }
                Err(Refusal::kernel("set up the pod's network", &error))
            }
        }
    }

    /// Makes the pod's link. One that an earlier ADD of the same attachment made and that is whole is left alone.
    async fn plumb(&self, spec: &PodSpec, again: bool) -> Result<PodLink, DataplaneError> {
        if again {
            match self.links.check(spec).await {
                Ok(link) => return Ok(link),
                Err(error) => debug!(target: "plugin", address = %spec.address, %error, "repeated ADD mends the link"),
            }
        }
        self.links.add(spec).await
    }

    async fn wait_for_address(
        &self,
        call: &Call<'_>,
        deletion: &mut Deletion,
        gone: impl Future<Output = ()>,
        phases: &mut Phases,
    ) -> Result<Lease, Refusal> {
        let begun = Instant::now();
        let mut waited = false;
        let outcome = {
            let mut acquire = pin!(self.pool.acquire(call.key.clone(), call.pod.clone(), call.deadline));
            let watched = std::future::poll_fn(|context| match acquire.as_mut().poll(context) {
                Poll::Pending => {
                    waited = true;
                    Poll::Pending
                }
                Poll::Ready(outcome) => Poll::Ready(outcome),
            });
            tokio::select! {
                biased;
                outcome = watched => Some(outcome),
                () = deletion.arrives() => None,
                () = gone => None,
            }
        };
        *(if waited { &mut phases.wait } else { &mut phases.ledger }) = begun.elapsed();
        if let Some(outcome) = outcome {
            return outcome.map_err(|error| Refusal::no_address(&error));
        }
        // The address may have come in the moment in which we stopped waiting.
        self.give_back(call);
        Err(Refusal::no_address(&AcquireError::Cancelled))
    }

    /// After a failed first ADD: as if it had never been.
    async fn undo(&self, call: &Call<'_>, spec: &PodSpec) {
        if let Err(error) = self.links.del(spec.address, &spec.host_ifname).await {
            warn!(target: "plugin", address = %spec.address, %error, "a failed ADD left something behind in the kernel");
        }
        self.give_back(call);
    }

    fn give_back(&self, call: &Call<'_>) {
        if let Err(error) = self.pool.release(&call.key) {
            warn!(target: "plugin", key = ?call.key, %error, "an ADD that failed still holds its address until its DEL");
        }
    }
}

/// How long a call may take, from its arrival: what the plugin says, less the time that it takes to make the link and to answer.
pub(super) fn patience(timeout_ms: u64) -> Duration {
    const MARGIN: Duration = Duration::from_secs(2);
    let timeout = if timeout_ms == 0 {
        Duration::from_secs(DEFAULT_ADD_TIMEOUT_SECONDS)
    } else {
        Duration::from_millis(timeout_ms)
    };
    timeout.saturating_sub(MARGIN.min(timeout / 5))
}

fn report(request: &Request, outcome: &Result<String, Refusal>, total: Duration, phases: Phases) {
    let (verb, container, ifname) = (request.verb.as_str(), &*request.container_id, &*request.ifname);
    match outcome {
        Ok(_) if request.verb == Verb::Status => debug!(target: "plugin", verb, ?total, "done"),
        Ok(_) => info!(
            target: "plugin", verb, container, ifname, args = request.args,
            ?total, wait = ?phases.wait, netlink = ?phases.netlink, "done"
        ),
        Err(refusal) => warn!(
            target: "plugin", verb, container, ifname, args = request.args, reason = refusal.label, ?total,
            "{}", refusal.error
        ),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn an_add_leaves_time_to_tell_the_plugin() {
        assert_eq!(patience(60_000), Duration::from_secs(58));
        assert_eq!(patience(1_000), Duration::from_millis(800));
        assert_eq!(patience(0), Duration::from_secs(58), "a plugin that does not say waits for the default");
    }
}
