//! The control thread: carries out what concerns the whole node, one thing at a time, and repairs what others change.
//!
//! Signals of the monitor only say that something may differ. What differs is found by comparing, so a lost or a
//! needless signal does no harm; a full comparison every minute finds what nobody signalled.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use super::host::{Host, Pass, TableCheck};
use super::layout::{HostIfname, NFT_TABLE};
use super::monitor::SharedWatch;
use super::netlink::{Batch, link};
use super::{DataplaneError, Drift, DriftKind};

/// Signals that may wait. They carry no information that a comparison would not find.
const QUEUE: usize = 1024;
/// Changes come in bursts (a script, a restart of a network daemon): one repair for all.
const SETTLE: Duration = Duration::from_millis(20);
/// Least time between two repairs, so that a quarrel with another program costs little.
const BETWEEN_REPAIRS: Duration = Duration::from_millis(400);
const FULL_COMPARISON: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce(&mut Control) + Send>;

/// What the control thread is woken by.
pub(super) enum Signal {
    Job(Job),
    /// Rules, routes, links or addresses may differ.
    CompareObjects,
    /// Anything may differ: notifications were lost.
    CompareAll,
    /// Somebody else changed our nftables table.
    TableChanged {
        by: String,
    },
    /// A pod's host interface went without a DEL.
    PodLinkGone {
        address: Ipv4Addr,
        host_ifname: HostIfname,
        ifindex: u32,
    },
    /// Somebody set a pod's host interface down.
    PodLinkDown {
        ifindex: u32,
    },
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(_) => f.write_str("Job"),
            Self::CompareObjects => f.write_str("CompareObjects"),
            Self::CompareAll => f.write_str("CompareAll"),
            Self::TableChanged { by } => write!(f, "TableChanged by {by}"),
            Self::PodLinkGone { host_ifname, .. } => write!(f, "PodLinkGone {host_ifname}"),
            Self::PodLinkDown { ifindex } => write!(f, "PodLinkDown {ifindex}"),
        }
    }
}

/// Sends to the control thread, which ends when the last of these is gone.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    signals: SyncSender<Signal>,
    /// A signal found no room.
    lost: Arc<AtomicBool>,
}

impl Controller {
    /// Runs `job` on the control thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Control) -> T + Send + 'static,
    ) -> Result<T, DataplaneError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |control| {
            // An answer that nobody waits for any more is of no use to anybody.
            let _ = answer.send(job(control));
        });
        self.signals.try_send(Signal::Job(job)).map_err(|error| match error {
            TrySendError::Full(_) => DataplaneError::Overloaded { waiting: QUEUE },
            TrySendError::Disconnected(_) => DataplaneError::Stopped,
        })?;
        answered.await.map_err(|_| DataplaneError::Stopped)
    }

    /// One whose signals go to a test.
    #[cfg(test)]
    pub(super) fn for_tests() -> (Self, Receiver<Signal>) {
        let (signals, received) = sync_channel(QUEUE);
        (Self { signals, lost: Arc::default() }, received)
    }

    /// Never waits.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(TrySendError::Full(_)) = self.signals.try_send(signal) {
            self.lost.store(true, Ordering::Release);
        }
    }
}

/// The control thread's own.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) host: Host,
    watch: SharedWatch,
    drift: broadcast::Sender<Drift>,
    objects: bool,
    table: TableCheck,
    /// Who changed the table.
    culprit: Option<String>,
    downed: Vec<u32>,
    dirty_since: Option<Instant>,
    repaired_at: Option<Instant>,
    compared_at: Instant,
}

/// Starts the control thread in the caller's network namespace.
pub(super) fn start(
    host: Host,
    watch: SharedWatch,
    drift: broadcast::Sender<Drift>,
) -> Result<Controller, DataplaneError> {
    let (signals, received) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicBool::new(false));
    let controller = Controller { signals, lost: lost.clone() };
    let control = Control {
        host,
        watch,
        drift,
        objects: false,
        table: TableCheck::Trust,
        culprit: None,
        downed: Vec::new(),
        dirty_since: None,
        repaired_at: None,
        compared_at: Instant::now(),
    };
    std::thread::Builder::new()
        .name("enipool-control".into())
        .stack_size(512 * 1024)
        .spawn(move || control.work(&received, &lost))
        .map_err(|error| DataplaneError::io("start the control thread", error))?;
    Ok(controller)
}

impl Control {
    fn work(mut self, signals: &Receiver<Signal>, lost: &AtomicBool) {
        loop {
            if lost.swap(false, Ordering::AcqRel) {
                self.note(Signal::CompareAll);
            }
            let wait = self.due().saturating_duration_since(Instant::now());
            if wait.is_zero() {
                self.repair();
                continue;
            }
            match signals.recv_timeout(wait) {
                Ok(Signal::Job(job)) => job(&mut self),
                Ok(signal) => self.note(signal),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// When the next comparison is to be made.
    fn due(&self) -> Instant {
        let regular = self.compared_at + FULL_COMPARISON;
        let Some(since) = self.dirty_since else { return regular };
        let settled = since + SETTLE;
        self.repaired_at.map_or(settled, |last| settled.max(last + BETWEEN_REPAIRS)).min(regular)
    }

    fn note(&mut self, signal: Signal) {
        match signal {
            Signal::Job(job) => return job(self),
            Signal::CompareObjects => {}
            Signal::CompareAll => self.table = self.table.max(TableCheck::Compare),
            Signal::TableChanged { by } => {
                self.table = TableCheck::Replace;
                self.culprit = Some(by);
            }
            Signal::PodLinkDown { ifindex } => self.downed.push(ifindex),
            Signal::PodLinkGone { address, host_ifname, ifindex } => {
                return self.pod_link_gone(address, &host_ifname, ifindex);
            }
        }
        self.objects = true;
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// Nothing can be repaired: the pod's end is gone as well.
    fn pod_link_gone(&mut self, address: Ipv4Addr, host_ifname: &HostIfname, ifindex: u32) {
        if self.host.pods.remove_with(address, ifindex).is_some() {
            let detail = format!("interface {host_ifname} of pod {address} went without a DEL");
            self.tell(Drift { kind: DriftKind::PodLink, detail, repaired: false });
        }
    }

    fn repair(&mut self) {
        let regular = self.dirty_since.is_none();
        let check = if regular { TableCheck::Compare } else { self.table };
        let culprit = self.culprit.take();
        (self.objects, self.table, self.dirty_since) = (false, TableCheck::Trust, None);
        self.compared_at = Instant::now();
        self.set_pods_up();
        match self.host.pass(check) {
            Ok(pass) => self.after_repair(&pass, culprit),
            Err(error) => {
                tracing::warn!(%error, "the node could not be compared with what it should be; again in a moment");
                self.table = check;
                self.culprit = culprit;
                self.dirty_since = Some(Instant::now());
                self.repaired_at = Some(Instant::now());
            }
        }
    }

    fn after_repair(&mut self, pass: &Pass, culprit: Option<String>) {
        let interfaces_changed = self.show(pass);
        let changed = !pass.done.is_empty() || !pass.failed.is_empty() || pass.table.is_some();
        if changed {
            self.repaired_at = Some(Instant::now());
        }
        if interfaces_changed {
            // What was done for an interface that has come or gone is no repair.
            for op in &pass.done {
                tracing::info!(%op, "the node's interfaces changed");
            }
        } else {
            for op in &pass.done {
                self.tell(Drift { kind: op.drift_kind(), detail: op.to_string(), repaired: true });
            }
            if let Some(Ok(how)) = &pass.table {
                let by = culprit.map(|by| format!("; it was changed by {by}")).unwrap_or_default();
                let detail = format!("nftables table {NFT_TABLE} {how}{by}");
                self.tell(Drift { kind: DriftKind::NftTable, detail, repaired: true });
            }
        }
        for (op, error) in &pass.failed {
            self.tell(Drift { kind: op.drift_kind(), detail: format!("not done: {op}: {error}"), repaired: false });
        }
        if let Some(Err(error)) = &pass.table {
            let detail = format!("nftables table {NFT_TABLE}: {error}");
            self.tell(Drift { kind: DriftKind::NftTable, detail, repaired: false });
        }
    }

    /// A pod's interface is down for a moment while it is made, and its notification may be read late: only what is down
    /// now was set down by somebody.
    fn set_pods_up(&mut self) {
        for ifindex in std::mem::take(&mut self.downed) {
            let Some((address, entry)) = self.host.pods.by_ifindex(ifindex) else { continue };
            if !matches!(link::by_index(&mut self.host.netlink, ifindex), Ok(Some(link)) if !link.up) {
                continue;
            }
            let mut batch = Batch::new();
            link::push_up(&mut batch, ifindex, true);
            let repaired = self.host.netlink.execute("set a pod's interface up again", batch).is_ok();
            let detail = format!("interface {} of pod {address} was set down", entry.host_ifname);
            self.tell(Drift { kind: DriftKind::PodLink, detail, repaired });
        }
    }

    /// Tells the monitor what to look at. True when an ENI's link has come or gone since the last time.
    pub(super) fn show(&mut self, pass: &Pass) -> bool {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = pass.uplinks != watch.uplinks;
        watch.uplinks.clone_from(&pass.uplinks);
        watch.missing = pass.missing.iter().copied().collect();
        changed
    }

    fn tell(&self, drift: Drift) {
        if drift.repaired {
            tracing::warn!(kind = drift.kind.as_str(), detail = drift.detail, "drift repaired");
        } else {
            tracing::warn!(kind = drift.kind.as_str(), detail = drift.detail, "drift not repaired");
        }
        // Nobody listening is fine: it is in the log.
        let _ = self.drift.send(drift);
    }
}
