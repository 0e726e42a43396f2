//! Watches this node's ENIPool and the classes, and hands what they ask for to the engine and to the host's plumbing.
//! With the API server away the last word stands.

use std::collections::BTreeMap;
use std::time::Duration;

use enipool_crds::enipool::ENIPoolStatus;
use enipool_crds::{Allocation, DEFAULT_CLASS, ENIPool, ENIPoolClass};
use enipool_pool::node::HoldReason;
use enipool_pool::{Timestamp, Zone};
use futures::StreamExt;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::presence::Presence;
use super::report::Surroundings;
use super::watches::{Pauses, patient};
use super::wishes::{HostWishes, Wishes, wishes};
use crate::engine::{Pool, PoolSnapshot, Shortage};

/// What the writer of the status needs to know from here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Whether there is an ENIPool to write to.
    pub exists: bool,
    /// The ENIPool's uid.
    pub pool_uid: Option<String>,
    pub surroundings: Surroundings,
    /// The status that was there when the ENIPool was first seen: its transition times live on.
    pub found: ENIPoolStatus,
}

/// Everything that the watches feed.
pub struct Intake {
    pub client: Client,
    pub node: String,
    /// The node's availability zone.
    pub zone: Zone,
    /// What holds where neither ENIPool nor class says anything: the agent's flags.
    pub flags: Wishes,
    pub pool: Pool,
    pub host: watch::Sender<HostWishes>,
    pub seen: watch::Sender<Seen>,
    /// Added to the limits after which the agent plans for itself.
    pub jitter: Duration,
    pub clock: fn() -> Timestamp,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("node", &self.node).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Known {
    pool: Option<ENIPool>,
    classes: BTreeMap<String, ENIPoolClass>,
    presence: Presence,
    away: bool,
    problems: Vec<String>,
}

impl Known {
    fn allocation(&self) -> Option<&Allocation> {
        self.pool.as_ref()?.spec.allocation.as_ref()
    }

    fn class(&self) -> Option<&ENIPoolClass> {
        self.classes.get(self.allocation().map_or(DEFAULT_CLASS, |allocation| allocation.class.as_str()))
    }
}

impl Intake {
    /// Runs until `shutdown`. Never fails: with the API server away it goes on trying, with growing pauses.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut known = Known { away: true, ..Known::default() };
        let own = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let pauses = Pauses::new(u64::from(self.jitter.subsec_millis()));
        let pools = watcher(Api::<DeserializeGuard<ENIPool>>::all(self.client.clone()), own);
        let mut pools = patient(pools, pauses.clone()).boxed();
        let classes = Api::<DeserializeGuard<ENIPoolClass>>::all(self.client.clone());
        let mut classes = patient(watcher(classes, watcher::Config::default()), pauses).boxed();
        let mut snapshots = self.pool.snapshot();
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(event) = pools.next() => self.pool_event(&mut known, event),
                Some(event) = classes.next() => class_event(&mut known, event),
                _ = tick.tick() => {}
            }
            let starved = waits_for_the_operator(&snapshots.borrow_and_update());
            let now = (self.clock)();
            known.presence.starved(starved, now);
            known.away = known.presence.away(self.jitter, now);
            self.publish(&mut known);
        }
    }

    fn pool_event(&self, known: &mut Known, event: watcher::Result<Event<DeserializeGuard<ENIPool>>>) {
        known.presence.reachable(event.is_ok(), (self.clock)());
        match event {
            Ok(Event::Apply(guard) | Event::InitApply(guard)) => match guard.0 {
                Ok(pool) => {
                    let before = known.allocation().cloned();
                    known.pool = Some(pool);
                    if known.allocation().is_some() && known.allocation() != before.as_ref() {
                        let answers = known.allocation().and_then(Allocation::answers);
                        known.presence.allocated(answers, (self.clock)());
                    }
                }
                Err(error) => tracing::warn!(%error, "this node's ENIPool cannot be read; the last good one stands"),
            },
            Ok(Event::Delete(_)) => known.pool = None,
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, "watching this node's ENIPool; trying again"),
        }
    }

    /// Tells engine, host and writer what changed, each only if it did.
    fn publish(&self, known: &mut Known) {
        let wishes = wishes(&self.flags, known.pool.as_ref(), known.class(), &self.zone, known.away);
        if wishes.problems != known.problems {
            for problem in &wishes.problems {
                tracing::warn!(problem, "part of what is asked for cannot be done");
            }
            known.problems.clone_from(&wishes.problems);
        }
        if *self.pool.config() != wishes.engine {
            tracing::info!(operator_away = known.away, targets = ?wishes.engine.policy.targets,
                allocation = ?wishes.engine.allocation, "new aims");
            self.pool.set_config(wishes.engine);
        }
        self.host.send_if_modified(|host| {
            let changed = *host != wishes.host;
            *host = wishes.host;
            changed
        });
        let surroundings = Surroundings {
            generation: known.pool.as_ref().and_then(|pool| pool.metadata.generation),
            operator_away: known.away,
            asked_at: known.presence.asked_at(),
            class_missing: wishes.class_missing,
        };
        self.seen.send_if_modified(|seen| {
            let exists = known.pool.is_some();
            let uid = known.pool.as_ref().and_then(|pool| pool.metadata.uid.clone());
            let changed = seen.exists != exists || seen.surroundings != surroundings || seen.pool_uid != uid;
            if exists && !seen.exists {
                seen.found = known.pool.as_ref().and_then(|pool| pool.status.clone()).unwrap_or_default();
            }
            (seen.exists, seen.pool_uid, seen.surroundings) = (exists, uid, surroundings);
            changed
        });
    }
}

fn class_event(known: &mut Known, event: watcher::Result<Event<DeserializeGuard<ENIPoolClass>>>) {
    match event {
        Ok(Event::Apply(guard) | Event::InitApply(guard)) => match guard.0 {
            Ok(class) => {
                known.classes.insert(class.name_any(), class);
            }
            Err(error) => tracing::warn!(%error, "an ENIPoolClass cannot be read; the last good one stands"),
        },
        Ok(Event::Delete(guard)) => {
            known.classes.remove(&guard.name_any());
        }
        Ok(Event::Init | Event::InitDone) => {}
        Err(error) => tracing::warn!(%error, "watching ENIPoolClasses; trying again"),
    }
}

/// Whether pods wait for nothing but the operator's leave: for a turn, or because it keeps the rest of a subnet for others.
fn waits_for_the_operator(snapshot: &PoolSnapshot) -> bool {
    let withheld = snapshot.config.allocation.as_ref().is_some_and(|allocation| allocation.withheld > 0);
    !snapshot.waiting.is_empty()
        && match snapshot.shortage {
            Some(Shortage::Hold(HoldReason::AwaitingTurn | HoldReason::Ceiling)) => true,
            Some(Shortage::Hold(HoldReason::SubnetExhausted)) => withheld,
            _ => false,
        }
}
