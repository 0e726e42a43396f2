//! The handle to the node's pool, for everybody else in the agent. Cheap to clone.
//!
//! The lock is held for microseconds and never over an await. An ADD that finds a free address does nothing but change
//! the ledger and append one line to the journal.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enipool_pool::Timestamp;
use enipool_pool::ledger::record::Record;
use enipool_pool::ledger::{AttachmentKey, Lease, PodRef};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::clock::Clock;
use super::config::EffectiveConfig;
use super::error::AcquireError;
use super::journal::Journal;
use super::machine::{Acquire, Effects, Machine, WaiterId};
use super::view::{Phase, PoolSnapshot};

/// When to try again to shorten the journal.
const COMPACT_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Somebody waits, or the configuration changed: act now.
    pub(super) urgent: Notify,
    /// An address was given or came back: act in a moment.
    pub(super) casual: Notify,
    snapshot: watch::Sender<Arc<PoolSnapshot>>,
    pub(super) clock: Clock,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) machine: Machine,
    journal: Journal,
    /// When to try again to write a journal anew that is only too long.
    compact_at: Option<Timestamp>,
    clock: Clock,
    waiting: HashMap<WaiterId, oneshot::Sender<Result<Lease, AcquireError>>>,
    pub(super) stopping: bool,
}

impl Pool {
    pub(super) fn new(mut machine: Machine, journal: Journal, clock: Clock) -> (Self, Arc<Shared>) {
        let first = machine.snapshot(Phase::Starting(machine.starting()), clock.now());
        let state = State { machine, journal, clock, compact_at: None, waiting: HashMap::new(), stopping: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            urgent: Notify::new(),
            casual: Notify::new(),
            snapshot: watch::Sender::new(Arc::new(first)),
            clock,
        });
        (Self { shared: Arc::clone(&shared) }, shared)
    }

    /// Gives `key` an address: the one that it has, or a free one, waiting for it until `deadline` if need be.
    ///
    /// Idempotent per key. Dropping the future gives up: an address that was granted but not yet returned goes back.
    pub async fn acquire(&self, key: AttachmentKey, pod: PodRef, deadline: Instant) -> Result<Lease, AcquireError> {
        let (id, granted) = {
            let mut state = self.shared.lock();
            if state.stopping {
                return Err(AcquireError::NotServing("the agent stops".into()));
            }
            match state.acquire(&key, &pod, self.shared.clock.now())? {
                Acquire::Granted(lease) => {
                    drop(state);
                    self.shared.casual.notify_one();
                    return Ok(lease);
                }
                Acquire::Refused(error) => return Err(error),
                Acquire::Waits(id) => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiting.insert(id, sender);
                    (id, receiver)
                }
            }
        };
        self.shared.urgent.notify_one();
        let mut wait = Wait { shared: &self.shared, key: &key, id, granted };
        match tokio::time::timeout_at(deadline, &mut wait.granted).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AcquireError::NotServing("the agent stops".into())),
            Err(_) => {
                // It may have been granted in this very moment; the lock decides.
                let mut state = self.shared.lock();
                if let Ok(result) = wait.granted.try_recv() {
                    return result;
                }
                let error = state.machine.why_waiting(id, self.shared.clock.now());
                state.give_up(id);
                self.shared.casual.notify_one();
                Err(error)
            }
        }
    }

    /// Takes the address from `key`, which rests from now on, and ends an ADD of it that waits. `None`: it holds none.
    pub fn release(&self, key: &AttachmentKey) -> Result<Option<Lease>, AcquireError> {
        self.change(|state, now| state.machine.release(key, now))
    }

    /// Takes back an address that was adopted from the kernel without a lease. `None`: it is not such a one.
    pub fn release_address(&self, address: Ipv4Addr) -> Result<Option<Lease>, AcquireError> {
        self.change(|state, now| state.machine.release_adopted(address, now))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, Timestamp) -> T) -> Result<T, AcquireError> {
        let mut state = self.shared.lock();
        let result = change(&mut state, self.shared.clock.now());
        let records = state.machine.take_records();
        let grants = state.machine.take_grants();
        state.grant(grants);
        // A release that cannot be written down is done all the same, and its caller told to come again: until the journal
        // has caught up, a crash would bring the lease back.
        let written = state.write(&records, self.shared.clock.now());
        drop(state);
        self.shared.casual.notify_one();
        written.map_err(|error| AcquireError::Journal(error.to_string()))?;
        Ok(result)
    }

    pub fn lookup(&self, key: &AttachmentKey) -> Option<Lease> {
        self.shared.lock().machine.ledger().lookup(key)
    }

    /// Whether `address` is one of this node's: an interface owns it, or a pod has it still although EC2 took it away.
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        self.shared.lock().machine.ledger().state(address).is_some()
    }

    /// All leases, in no particular order.
    pub fn attachments(&self) -> Vec<(AttachmentKey, PodRef, Lease)> {
        let state = self.shared.lock();
        state.machine.ledger().leases().map(|(key, pod, lease)| (key.clone(), pod.clone(), lease)).collect()
    }

    /// The picture of the pool, renewed shortly after each change.
    pub fn snapshot(&self) -> watch::Receiver<Arc<PoolSnapshot>> {
        self.shared.snapshot.subscribe()
    }

    /// Aims for this from now on.
    pub fn set_config(&self, config: EffectiveConfig) {
        let mut state = self.shared.lock();
        if *state.machine.config() != config {
            state.machine.set_config(config);
            drop(state);
            self.shared.urgent.notify_one();
        }
    }

    pub fn config(&self) -> Arc<EffectiveConfig> {
        self.shared.lock().machine.config()
    }

    /// Whether leases are given: what the node holds is known and the host is set up for it.
    pub fn serving(&self) -> bool {
        let state = self.shared.lock();
        state.machine.is_serving() && !state.stopping
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of ours in one step; the ledger itself changes in one place only, and a pod's
        // DEL must go on working.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a fresh picture.
    pub(super) fn publish(&self) {
        let mut state = self.lock();
        let phase = if state.stopping {
            Phase::Stopping
        } else if state.machine.is_serving() {
            Phase::Serving
        } else {
            Phase::Starting(state.machine.starting())
        };
        let now = self.clock.now();
        let snapshot = state.machine.snapshot(phase, now);
        drop(state);
        self.snapshot.send_replace(Arc::new(snapshot));
    }
}

impl State {
    fn acquire(&mut self, key: &AttachmentKey, pod: &PodRef, now: Timestamp) -> Result<Acquire, AcquireError> {
        let answer = self.machine.acquire(key, pod, now);
        let records = self.machine.take_records();
        let grants = self.machine.take_grants();
        if let Err(error) = self.write(&records, now) {
            self.refuse(&records, grants, &error);
            if let Acquire::Waits(id) = answer {
                self.machine.stop_waiting(id);
            }
            return Err(AcquireError::Journal(error.to_string()));
        }
        self.grant(grants);
        Ok(answer)
    }

    /// Settles the machine, writes its records and hands its grants out; what is left is to be started.
    pub(super) fn step(&mut self, now: Timestamp) -> Result<Effects, io::Error> {
        let mut effects = self.machine.step(now);
        let grants = std::mem::take(&mut effects.grants);
        if let Err(error) = self.write(&effects.records, now) {
            self.refuse(&effects.records, grants, &error);
            self.machine.not_started(effects.starts, now);
            return Err(error);
        }
        self.grant(grants);
        if self.journal.is_long() && self.compact_at.is_none_or(|at| at <= now) {
            self.compact_at = None;
            if let Err(error) = self.rewrite(now) {
                // It is only long: what was written counts, and what it says to start is started.
                tracing::warn!(%error, "cannot write the ledger's journal anew; it grows on");
                self.compact_at = Some(now.plus(COMPACT_AGAIN));
            }
        }
        Ok(effects)
    }

    /// Writes down what the end of an operation produced.
    pub(super) fn write_pending(&mut self, now: Timestamp) -> io::Result<()> {
        let records = self.machine.take_records();
        self.write(&records, now)
    }

    /// Writes these records, or, when earlier ones were lost, everything.
    fn write(&mut self, records: &[Record], now: Timestamp) -> io::Result<()> {
        if self.journal.is_behind() { self.rewrite(now) } else { self.journal.append(records) }
    }

    fn rewrite(&mut self, now: Timestamp) -> io::Result<()> {
        let records = self.machine.journal(now, self.clock.uptime());
        self.journal.rewrite(&records)
    }

    fn grant(&mut self, grants: Vec<(WaiterId, Result<Lease, AcquireError>)>) {
        for (id, result) in grants {
            if let Some(sender) = self.waiting.remove(&id) {
                // The receiver lives as long as its Wait, which takes the lease back when nobody wants it.
                let _ = sender.send(result);
            }
        }
    }

    /// Leases that could not be written down are taken back; those that were written before stay.
    fn refuse(
        &mut self,
        unwritten: &[Record],
        grants: Vec<(WaiterId, Result<Lease, AcquireError>)>,
        error: &io::Error,
    ) {
        for record in unwritten {
            if let Record::Assigned { key, .. } = record {
                self.machine.undo(key);
            }
        }
        for (id, result) in grants {
            let stays = |lease: &Lease| self.machine.ledger().holder(lease.address).is_some();
            let refused = result.as_ref().is_ok_and(|lease| !stays(lease));
            if let Some(sender) = self.waiting.remove(&id) {
                let _ = sender.send(if refused { Err(AcquireError::Journal(error.to_string())) } else { result });
            }
        }
    }

    fn give_up(&mut self, id: WaiterId) {
        self.waiting.remove(&id);
        self.machine.stop_waiting(id);
    }

    /// Ends all waiting ADDs.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for (id, sender) in std::mem::take(&mut self.waiting) {
            self.machine.stop_waiting(id);
            let _ = sender.send(Err(AcquireError::NotServing("the agent stops".into())));
        }
    }
}

/// An ADD that waits. Dropped early, it leaves no lease behind that nobody knows of.
struct Wait<'a> {
    shared: &'a Shared,
    key: &'a AttachmentKey,
    id: WaiterId,
    granted: oneshot::Receiver<Result<Lease, AcquireError>>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.give_up(self.id);
        if let Ok(Ok(_)) = self.granted.try_recv() {
            let now = self.shared.clock.now();
            state.machine.release(self.key, now);
            let records = state.machine.take_records();
            if let Err(error) = state.write(&records, now) {
                tracing::error!(%error, "cannot write the ledger's journal");
            }
            drop(state);
            self.shared.casual.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
