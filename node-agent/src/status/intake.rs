//! Watches this node's ENIPool and the classes, and hands what they ask for to the engine and to the host's plumbing.
//! With the API server away the last word stands, also over a restart: it is kept in a file.

use std::collections::{BTreeMap, BTreeSet};
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

use super::kept::{Kept, WishesFile};
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
    /// What was asked for before the start, and is from now on.
    pub file: WishesFile,
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
    lists: Lists,
    /// Whether [`Self::pool`] is the API server's word, and not only that from before the start.
    heard: bool,
    /// Whether anybody has said what the node should hold: before the start, or by an allocation and its class since.
    spoken: bool,
    presence: Presence,
    away: bool,
    problems: Vec<String>,
}

/// What the lists with which the watches begin have shown so far: what is missing at their end is gone.
#[derive(Default)]
struct Lists {
    pool: bool,
    classes: BTreeSet<String>,
    /// Whether it is known which classes there are.
    all_classes: bool,
}

impl Known {
    fn resumed(kept: Option<&Kept>, now: Timestamp) -> Self {
        let class = kept.and_then(Kept::class);
        Self {
            pool: kept.map(|kept| kept.pool().clone()),
            classes: class.map(|class| (class.name_any(), class.clone())).into_iter().collect(),
            lists: Lists { all_classes: kept.is_some() && class.is_none(), ..Lists::default() },
            spoken: kept.is_some(),
            presence: Presence::resumed(kept.is_some_and(Kept::is_planned_for), now),
            ..Self::default()
        }
    }

    fn allocation(&self) -> Option<&Allocation> {
        self.pool.as_ref()?.spec.allocation.as_ref()
    }

    fn class(&self) -> Option<&ENIPoolClass> {
        self.classes.get(self.allocation().map_or(DEFAULT_CLASS, |allocation| allocation.class.as_str()))
    }

    /// Whether the class in force is known, or that there is none: an ENIPool alone is half a word.
    fn is_whole(&self) -> bool {
        self.pool.is_some() && (self.class().is_some() || self.lists.all_classes)
    }

    /// Half a word is no reason to turn from the last whole one, unless nobody is there to say the other half.
    fn is_worth_acting_on(&self) -> bool {
        self.pool.is_none() || self.is_whole() || self.away
    }

    /// Whether the word that counts is still to come: until an operator has chosen the class, even that may be another.
    fn awaits_word(&mut self) -> bool {
        self.spoken |= self.heard && self.is_whole() && self.allocation().is_some();
        !self.spoken
    }

    fn pool_event(&mut self, event: watcher::Result<Event<DeserializeGuard<ENIPool>>>, now: Timestamp) {
        self.presence.reachable(event.is_ok(), now);
        match event {
            Ok(Event::Apply(guard)) => self.pool_shown(guard, now),
            Ok(Event::InitApply(guard)) => {
                self.lists.pool = true;
                self.pool_shown(guard, now);
            }
            Ok(Event::InitDone) => {
                if !std::mem::take(&mut self.lists.pool) {
                    self.pool = None;
                }
            }
            Ok(Event::Delete(_)) => self.pool = None,
            Ok(Event::Init) => {}
            Err(error) => {
                self.lists.pool = false;
                tracing::warn!(%error, "watching this node's ENIPool; trying again");
            }
        }
        self.heard &= self.pool.is_some();
    }

    fn pool_shown(&mut self, guard: DeserializeGuard<ENIPool>, now: Timestamp) {
        let pool = match guard.0 {
            Ok(pool) => pool,
            Err(error) => {
                tracing::warn!(%error, "this node's ENIPool cannot be read; the last good one stands");
                return;
            }
        };
        let before = self.allocation().cloned();
        self.pool = Some(pool);
        self.heard = true;
        if let Some(allocation) = self.allocation()
            && (before.as_ref() != Some(allocation) || !self.presence.is_planned_for())
        {
            let answers = allocation.answers();
            self.presence.allocated(answers, now);
        }
    }

    fn class_event(&mut self, event: watcher::Result<Event<DeserializeGuard<ENIPoolClass>>>) {
        match event {
            Ok(Event::Apply(guard)) => self.class_shown(guard),
            Ok(Event::InitApply(guard)) => {
                self.lists.classes.insert(guard.name_any());
                self.class_shown(guard);
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut self.lists.classes);
                self.classes.retain(|name, _| listed.contains(name));
                self.lists.all_classes = true;
            }
            Ok(Event::Delete(guard)) => {
                self.classes.remove(&guard.name_any());
            }
            Ok(Event::Init) => {}
            Err(error) => {
                self.lists.classes.clear();
                tracing::warn!(%error, "watching ENIPoolClasses; trying again");
            }
        }
    }

    fn class_shown(&mut self, guard: DeserializeGuard<ENIPoolClass>) {
        match guard.0 {
            Ok(class) => {
                self.classes.insert(class.name_any(), class);
            }
            Err(error) => tracing::warn!(%error, "an ENIPoolClass cannot be read; the last good one stands"),
        }
    }
}

impl Intake {
    /// Runs until `shutdown`. Never fails: with the API server away it goes on trying, with growing pauses.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut known = Known::resumed(self.file.kept(), (self.clock)());
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
                Some(event) = pools.next() => known.pool_event(event, (self.clock)()),
                Some(event) = classes.next() => known.class_event(event),
                _ = tick.tick() => {}
            }
            let starved = waits_for_the_operator(&snapshots.borrow_and_update());
            let now = (self.clock)();
            known.presence.starved(starved, now);
            known.away = known.presence.away(self.jitter, now);
            self.publish(&mut known);
        }
    }

    /// Tells engine, host and writer what changed, each only if it did.
    fn publish(&mut self, known: &mut Known) {
        let mut wishes = wishes(&self.flags, known.pool.as_ref(), known.class(), &self.zone, known.away);
        wishes.engine.awaits_word = known.awaits_word();
        if known.is_worth_acting_on() {
            self.aim(known, &wishes);
        }
        self.keep(known);
        self.tell_writer(known, wishes.class_missing);
    }

    fn keep(&mut self, known: &Known) {
        match &known.pool {
            Some(pool) if known.is_whole() => self.file.keep(Some(Kept::new(pool, known.class(), known.away))),
            Some(_) => {}
            // Never there, or gone for good: an API server that does not answer takes nothing away.
            None => self.file.keep(None),
        }
    }

    fn aim(&self, known: &mut Known, wishes: &Wishes) {
        if wishes.problems != known.problems {
            for problem in &wishes.problems {
                tracing::warn!(problem, "part of what is asked for cannot be done");
            }
            known.problems.clone_from(&wishes.problems);
        }
        if *self.pool.config() != wishes.engine {
            tracing::info!(operator_away = known.away, targets = ?wishes.engine.policy.targets,
                allocation = ?wishes.engine.allocation, "new aims");
            self.pool.set_config(wishes.engine.clone());
        }
        self.host.send_if_modified(|host| {
            let changed = *host != wishes.host;
            host.clone_from(&wishes.host);
            changed
        });
    }

    fn tell_writer(&self, known: &Known, class_missing: bool) {
        let surroundings = Surroundings {
            generation: known.pool.as_ref().and_then(|pool| pool.metadata.generation),
            operator_away: known.away,
            asked_at: known.presence.asked_at(),
            class_missing,
        };
        self.seen.send_if_modified(|seen| {
            // Before the API server has shown it, its status is not known, and must not be written over.
            let exists = known.heard;
            let uid = known.pool.as_ref().filter(|_| exists).and_then(|pool| pool.metadata.uid.clone());
            let changed = seen.exists != exists || seen.surroundings != surroundings || seen.pool_uid != uid;
            if exists && !seen.exists {
                seen.found = known.pool.as_ref().and_then(|pool| pool.status.clone()).unwrap_or_default();
            }
            (seen.exists, seen.pool_uid, seen.surroundings) = (exists, uid, surroundings);
            changed
        });
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

#[cfg(test)]
mod tests {
    use enipool_crds::fixtures;
    use kube::core::Status;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn pool(class: &str) -> ENIPool {
        let mut pool = fixtures::new_pool("node");
        pool.spec.allocation = Some(Allocation { class: class.into(), ceiling: 27, ..Allocation::default() });
        pool
    }

    fn class(name: &str) -> ENIPoolClass {
        ENIPoolClass::new(name, fixtures::default_class().spec)
    }

    fn shown<K>(object: K) -> DeserializeGuard<K> {
        DeserializeGuard(Ok(object))
    }

    fn no_answer() -> watcher::Error {
        watcher::Error::WatchError(Status::failure("the API server is away", "Away").with_code(503).boxed())
    }

    /// After a restart, with what was kept of a node of class `gpu`.
    fn resumed() -> Known {
        Known::resumed(Some(&Kept::new(&pool("gpu"), Some(&class("gpu")), false)), NOW)
    }

    #[test]
    fn the_first_word_is_an_allocation_and_its_class() {
        let mut known = Known::resumed(None, NOW);
        known.pool_event(Ok(Event::InitApply(shown(fixtures::new_pool("node")))), NOW);
        known.class_event(Ok(Event::InitApply(shown(class("default")))));
        known.class_event(Ok(Event::InitApply(shown(class("gpu")))));
        assert!(known.awaits_word(), "the operator may choose another class for the node");
        known.pool_event(Ok(Event::Apply(shown(pool("gpu")))), NOW);
        assert!(!known.awaits_word());
        known.pool_event(Ok(Event::Delete(shown(pool("gpu")))), NOW);
        assert!(!known.awaits_word(), "it is gone for good: the flags count");
    }

    #[test]
    fn an_enipool_is_not_acted_on_before_its_class_has_come_or_is_known_to_be_missing() {
        let mut known = Known::resumed(None, NOW);
        known.pool_event(Ok(Event::InitApply(shown(pool("gpu")))), NOW);
        assert!(known.awaits_word() && !known.is_worth_acting_on());
        known.class_event(Ok(Event::InitApply(shown(class("default")))));
        assert!(!known.is_worth_acting_on());
        known.class_event(Ok(Event::InitDone));
        assert!(!known.awaits_word() && known.is_worth_acting_on(), "there is none of that name");
    }

    #[test]
    fn after_a_restart_what_was_kept_counts_until_the_api_server_says_otherwise() {
        let mut known = resumed();
        assert!(!known.awaits_word() && known.is_worth_acting_on());
        assert!(!known.heard, "nothing may be written into a status that was not read");
        known.pool_event(Err(no_answer()), NOW);
        known.class_event(Err(no_answer()));
        assert_eq!((known.allocation(), known.class()), (pool("gpu").spec.allocation.as_ref(), Some(&class("gpu"))));

        known.class_event(Ok(Event::InitApply(shown(class("default")))));
        assert_eq!(known.class(), Some(&class("gpu")), "the list goes on");
        known.class_event(Ok(Event::InitDone));
        assert_eq!(known.class(), None);
        known.pool_event(Ok(Event::InitDone), NOW);
        assert_eq!(known.pool, None, "deleted while nobody watched");
    }

    #[test]
    fn a_list_that_breaks_off_takes_nothing_away_and_lends_nothing_to_the_next() {
        let mut known = resumed();
        known.class_event(Ok(Event::InitApply(shown(class("gpu")))));
        known.class_event(Err(no_answer()));
        assert!(known.class().is_some());
        known.class_event(Ok(Event::InitDone));
        assert_eq!(known.class(), None);
    }

    #[test]
    fn an_operator_that_planned_before_the_restart_still_does_and_one_that_was_away_is_back_when_its_word_is_shown() {
        let mut guided = resumed();
        assert!(!guided.presence.away(Duration::ZERO, NOW));
        let alone = Kept::new(&pool("gpu"), Some(&class("gpu")), true);
        let mut alone = Known::resumed(Some(&alone), NOW);
        assert!(alone.presence.away(Duration::ZERO, NOW));
        alone.pool_event(Ok(Event::InitApply(shown(pool("gpu")))), NOW);
        assert!(alone.heard && !alone.presence.away(Duration::ZERO, NOW));
    }
}
