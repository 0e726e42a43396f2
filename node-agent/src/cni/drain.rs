//! Deletions that plugins queued on disk while the agent was away.

use std::time::Duration;

use enipool_cni::queue::Entry;
use enipool_cni::{NetConf, Request, Verb};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::observer::Phases;
use super::ports::{Addresses, PodLinks};
use super::verbs::{Verbs, patience};

/// How often the queue is looked at when no call comes. Each call looks as well; only a deletion queued in the moment in
/// which the agent starts, or by a plugin that gave up waiting, has to wait for this.
const SWEEP: Duration = Duration::from_secs(5);

impl<A: Addresses, L: PodLinks> Verbs<A, L> {
    /// Carries out what waits in the queue, in order. Returns when all has been tried once; what failed waits for the next
    /// time.
    pub async fn drain(&self) {
        // An empty directory is the rule, and costs microseconds.
        if matches!(self.queue.entries().as_deref(), Ok([])) {
            return;
        }
        let _alone = self.draining.lock().await;
        let entries = self.queue.entries().unwrap_or_else(|error| {
            warn!(target: "plugin", dir = %self.queue.dir().display(), %error, "the queue of deletions cannot be read");
            Vec::new()
        });
        for entry in entries {
            if self.carry_out(&entry).await
                && let Err(error) = self.queue.remove(&entry)
            {
                warn!(target: "plugin", dir = %self.queue.dir().display(), %error, "a deletion stays queued and is repeated");
            }
        }
    }

    /// Whether the entry is done with.
    async fn carry_out(&self, entry: &Entry) -> bool {
        let request = match self.queue.load(entry) {
            Ok(request) => request,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // Nothing can ever be done with it. What it was about shows in the next comparison with the kernel.
                error!(target: "plugin", ?entry, %error, "a queued deletion is unreadable and is dropped");
                return true;
            }
            Err(error) => {
                warn!(target: "plugin", ?entry, %error, "a queued deletion cannot be read now");
                return false;
            }
        };
        match self.carry_out_request(&request).await {
            Ok(()) => {
                info!(target: "plugin", container = request.container_id, args = request.args, "queued DEL done");
                self.observer.drained();
                true
            }
            Err((refusal, retry)) => {
                warn!(target: "plugin", container = request.container_id, retry, "queued DEL failed: {}", refusal);
                !retry
            }
        }
    }

    async fn carry_out_request(&self, request: &Request) -> Result<(), (enipool_cni::CniError, bool)> {
        if request.verb != Verb::Del || !request.is_understood() {
            let words = "not a deletion that this agent understands";
            return Err((enipool_cni::CniError::new(enipool_cni::Code::Decode, words), false));
        }
        let conf = NetConf::parse(&request.config, Verb::Del).map_err(|error| (error, false))?;
        let deadline = Instant::now() + patience(request.timeout_ms);
        let call = self.read(request, conf, deadline).map_err(|refusal| (refusal.error, false))?;
        self.del(&call, &mut Phases::default()).await.map_err(|refusal| (refusal.error, true))
    }

    /// Looks at the queue every few seconds until `shutdown`.
    pub(super) async fn sweep(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.drain().await;
        }
    }
}
