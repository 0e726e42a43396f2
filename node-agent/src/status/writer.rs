//! Writes the engine's picture into the ENIPool's status: one task, one field manager, and no more often than it must.

use std::sync::Arc;
use std::time::Duration;

use enipool_crds::enipool::ENIPoolStatus;
use enipool_crds::{AGENT_FIELD_MANAGER, ENIPool};
use enipool_pool::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::intake::Seen;
use super::report::{self, Urgency};
use crate::engine::PoolSnapshot;
use crate::metrics::Metrics;

/// Least time between two writes in which no condition turned: 5,000 nodes then make 2,500 writes a second at the very
/// most, and in practice a small part of it.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// Least time between two writes that differ in counters only.
const INFORM_EVERY: Duration = Duration::from_secs(10);
/// Least time between any two writes.
const WRITE_GAP: Duration = Duration::from_millis(250);
/// Longest wait for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause after a failed write; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why a status did not get written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("no answer from the API server within {WRITE_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// The writer of this node's status.
pub struct Writer {
    pub client: Client,
    pub node: String,
    pub snapshots: watch::Receiver<Arc<PoolSnapshot>>,
    pub seen: watch::Receiver<Seen>,
    pub metrics: Metrics,
    /// When the agent began to count.
    pub counting_since: Timestamp,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Writer {
    /// Runs until `shutdown`. A write that fails is tried again with the newest picture.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let pools = Api::<ENIPool>::all(self.client.clone());
        let mut written: Option<ENIPoolStatus> = None;
        let mut last_write: Option<Instant> = None;
        let mut pause = PAUSE_MIN;
        // When to look again without being told; far away while everything is written.
        let mut due: Option<Instant> = None;
        // Counters change without a new picture.
        let mut count = interval(INFORM_EVERY);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = count.tick() => {}
                () = shutdown.cancelled() => return,
                changed = self.snapshots.changed() => if changed.is_err() { return },
                changed = self.seen.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            let seen = self.seen.borrow_and_update().clone();
            if !seen.exists {
                (written, due) = (None, None);
                continue;
            }
            let previous = written.as_ref().unwrap_or(&seen.found);
            let mut status = report::status(&self.snapshots.borrow_and_update(), seen.surroundings, previous);
            status.counters = Some(report::counters(&self.metrics.totals(), self.counting_since));
            let gap = match report::urgency(previous, &status) {
                Urgency::None if written.is_some() => {
                    due = None;
                    continue;
                }
                Urgency::None | Urgency::Inform => INFORM_EVERY,
                Urgency::Changed => WRITE_EVERY,
                Urgency::Turned => WRITE_GAP,
            };
            let now = Instant::now();
            let earliest = last_write.map_or(now, |last| last + gap);
            if now < earliest || due.is_some_and(|due| pause > PAUSE_MIN && now < due) {
                due = Some(due.filter(|_| pause > PAUSE_MIN).map_or(earliest, |due| due.max(earliest)));
                continue;
            }
            last_write = Some(now);
            let outcome = write(&pools, &self.node, &status).await;
            self.metrics.status_write(outcome.is_ok());
            match outcome {
                Ok(()) => (written, due, pause) = (Some(status), None, PAUSE_MIN),
                Err(error) => {
                    tracing::warn!(%error, ?pause, "the ENIPool's status cannot be written; trying again");
                    pause = (pause * 2).min(PAUSE_MAX);
                    due = Some(Instant::now() + pause);
                }
            }
        }
    }
}

async fn write(pools: &Api<ENIPool>, node: &str, status: &ENIPoolStatus) -> Result<(), WriteError> {
    let patch = json!({
        "apiVersion": ENIPool::api_version(&()),
        "kind": ENIPool::kind(&()),
        "metadata": { "name": node },
        "status": status,
    });
    let params = PatchParams::apply(AGENT_FIELD_MANAGER).force();
    match timeout(WRITE_TIMEOUT, pools.patch_status(node, &params, &Patch::Apply(&patch))).await {
        Ok(outcome) => outcome.map(|_| ()).map_err(WriteError::Api),
        Err(_) => Err(WriteError::Timeout),
    }
}
