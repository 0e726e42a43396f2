//! The planning loop: world to snapshot, snapshot to plan, plan to writes. The only writer of `spec.allocation`.
//!
//! Level-triggered: each round plans for everything from what is there now. Rounds follow changes at once but never each
//! other faster than [`ROUND_PAUSE`], so that a crowd of changes is one round.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enipool_crds::{Allocation, ENIPool, FINALIZER, OPERATOR_FIELD_MANAGER};
use enipool_pool::budget::Budget;
use enipool_pool::ec2::{Action, Ec2ErrorKind};
use enipool_pool::fleet::{self, FleetMemory, FleetPlan, NodeAllocation};
use enipool_pool::{SecurityGroupId, Timestamp};
use futures::StreamExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::{CallError, call};
use crate::metrics::Metrics;
use crate::network::{Network, SharedNetwork};
use crate::snapshot::{self, Planned, Snapshot};
use crate::world::World;

/// On each ENIPool: the EC2 instance of its node, for the time when neither node nor agent can tell.
pub const INSTANCE_ANNOTATION: &str = "enipool.dev/instance";

/// Least time between the starts of two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// And at least this many times what the last one took: however large the cluster, planning takes a quarter of a core.
const ROUND_SHARE: u32 = 4;
/// A round at least this often, whatever the watches say.
const RESYNC: Duration = Duration::from_secs(30);
/// Figures that only inform (pods, demand, decision) are written at most this often for each node.
const INFORM_PAUSE: Duration = Duration::from_secs(3);
/// Pause after a round in which writes failed.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Writes under way at once: 5,000 nodes at 10 ms each then take 1.6 s.
const WRITES_AT_ONCE: usize = 32;
/// The field's bound in the CRD.
const DECISION_MAX: usize = 512;

/// What the loop needs, and what it keeps from round to round.
pub struct Planning {
    pub client: Client,
    pub world: World,
    pub network: SharedNetwork,
    pub budget: Arc<Mutex<Budget>>,
    pub metrics: Metrics,
    pub memory: FleetMemory,
    written: HashMap<Arc<str>, Instant>,
    throttles_seen: HashMap<Arc<str>, i64>,
}

impl std::fmt::Debug for Planning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planning").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// How urgent a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// The agent acts on it.
    Now,
    /// It tells people something.
    Inform,
    Nothing,
}

impl Planning {
    pub fn new(
        client: Client,
        world: World,
        network: SharedNetwork,
        budget: Arc<Mutex<Budget>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            world,
            network,
            budget,
            metrics,
            memory: FleetMemory::default(),
            written: HashMap::new(),
            throttles_seen: HashMap::new(),
        }
    }

    /// Plans until the token is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.world.changes();
        loop {
            changes.mark_unchanged();
            let started = Instant::now();
            let complete = self.world.state().is_complete();
            let next = if complete { self.round().await } else { started + RESYNC };
            let pause = ROUND_PAUSE.max(started.elapsed() * ROUND_SHARE).min(RESYNC);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
                news = changes.changed() => {
                    if news.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(started + pause) => {}
            }
        }
    }

    /// One round; answers when the next is due even if nothing changes.
    async fn round(&mut self) -> Instant {
        let started = Instant::now();
        let network = self.network.get();
        let (snapshot, orphans) = {
            let state = self.world.state();
            let orphans: Vec<Arc<ENIPool>> = state
                .pools
                .iter()
                .filter(|(name, pool)| !state.nodes.contains_key(*name) && pool.metadata.deletion_timestamp.is_none())
                .map(|(_, pool)| pool.clone())
                .collect();
            (snapshot::take(&state, &network), orphans)
        };
        self.heed_throttles(&snapshot);
        let plan = self.plan(&snapshot);
        self.metrics.planned(started.elapsed());

        let (writes, inform_at) = self.due(&snapshot, &plan, &network);
        let mut next = started + RESYNC;
        next = next.min(inform_at.unwrap_or(next));
        if let Some(wake) = plan.wake_at {
            next = next.min(started + wake.since(now()).max(ROUND_PAUSE));
        }
        if self.write(writes).await + self.delete(orphans).await > 0 {
            next = next.min(Instant::now() + RETRY_PAUSE);
        }
        next
    }

    fn plan(&mut self, snapshot: &Snapshot) -> FleetPlan {
        // A panic elsewhere leaves at worst a token too few in it.
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        fleet::plan(&snapshot.views, &snapshot.stocks, &mut self.memory, &mut budget, now())
    }

    /// Agents report their throttled calls: the account's budget shrinks for all.
    fn heed_throttles(&mut self, snapshot: &Snapshot) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        for planned in &snapshot.planned {
            let Some(status) = planned.pool.as_ref().and_then(|pool| pool.status.as_ref()) else { continue };
            // The first look says how many there were before our time, and nothing about now.
            let seen = self.throttles_seen.insert(planned.name.clone(), status.throttles);
            if seen.is_none_or(|seen| seen >= status.throttles) {
                continue;
            }
            let last = status.last_ec2_error.as_ref().filter(|error| error.kind == Ec2ErrorKind::Throttled.label());
            if let Some(action) = last.and_then(|error| Action::ALL.into_iter().find(|a| a.name() == error.action)) {
                budget.throttled(action, now());
            }
        }
    }

    /// What is to be written now, most urgent first; and when what only informs is due.
    fn due(&mut self, snapshot: &Snapshot, plan: &FleetPlan, network: &Network) -> (Vec<Write>, Option<Instant>) {
        let at = Instant::now();
        let mut writes = Vec::new();
        let mut inform_at: Option<Instant> = None;
        let allocations = plan.allocations.iter().map(Some).chain(std::iter::repeat(None));
        for (planned, given) in snapshot.planned.iter().chain(&snapshot.unknown).zip(allocations) {
            let groups = network.security_groups_of(&planned.class_name());
            let allocation = given.map(|given| allocation(planned, given, groups));
            let urgency = urgency(planned, allocation.as_ref());
            let due = match urgency {
                Urgency::Nothing => continue,
                Urgency::Now => at,
                Urgency::Inform => self.written.get(&planned.name).map_or(at, |written| *written + INFORM_PAUSE),
            };
            if due > at {
                inform_at = Some(inform_at.map_or(due, |earlier| earlier.min(due)));
                continue;
            }
            self.written.insert(planned.name.clone(), at);
            let demand = allocation.as_ref().map_or(0, |allocation| allocation.demand);
            writes.push(Write { name: planned.name.clone(), demand, body: body(planned, allocation.as_ref()) });
        }
        self.written.retain(|_, written| at.duration_since(*written) < INFORM_PAUSE);
        writes.sort_by_key(|write| std::cmp::Reverse(write.demand));
        (writes, inform_at)
    }

    /// Answers how many writes failed.
    async fn write(&self, writes: Vec<Write>) -> usize {
        let pools: Api<ENIPool> = Api::all(self.client.clone());
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let outcomes = futures::stream::iter(writes).map(|write| {
            let (pools, params) = (&pools, &params);
            async move {
                let answer = call(pools.patch(&write.name, params, &Patch::Apply(&write.body))).await;
                self.metrics.wrote("allocation", &answer);
                match answer {
                    Ok(pool) => {
                        // The watch brings it too, later: until then the next round would see what was before.
                        self.world.state().put_pool(pool);
                        0
                    }
                    Err(error) => {
                        tracing::warn!(node = %write.name, error = %error.story(), "allocation cannot be written yet");
                        1
                    }
                }
            }
        });
        outcomes.buffer_unordered(WRITES_AT_ONCE).fold(0, |sum, failed| async move { sum + failed }).await
    }

    /// Pools whose node is gone: their owner reference would do it as well, only later.
    async fn delete(&self, orphans: Vec<Arc<ENIPool>>) -> usize {
        let pools: Api<ENIPool> = Api::all(self.client.clone());
        let mut failed = 0;
        for pool in orphans {
            let preconditions = Some(Preconditions { uid: pool.uid(), resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            let answer = call(pools.delete(&pool.name_any(), &params)).await;
            self.metrics.wrote("pool", &answer);
            match answer {
                Ok(_) => tracing::info!(node = %pool.name_any(), "the node is gone: its pool is being deleted"),
                Err(CallError::NotFound | CallError::Conflict(_)) => {}
                Err(error) => {
                    tracing::warn!(node = %pool.name_any(), error = %error.story(), "pool cannot be deleted yet");
                    failed += 1;
                }
            }
        }
        failed
    }
}

/// One server-side apply.
#[derive(Debug)]
struct Write {
    name: Arc<str>,
    demand: i32,
    body: Value,
}

fn now() -> Timestamp {
    let milliseconds = k8s_openapi::jiff::Timestamp::now().as_millisecond();
    Timestamp(u64::try_from(milliseconds).unwrap_or(0))
}

/// The planner's answer as the API has it.
pub fn allocation(planned: &Planned, given: &NodeAllocation, groups: &[SecurityGroupId]) -> Allocation {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let spec = planned.pool.as_ref().map(|pool| pool.spec.clone()).unwrap_or_default();
    let asked = planned.pool.as_ref().and_then(|pool| pool.status.as_ref()?.asked_at.clone());
    let mut decision = given.decision.clone();
    if planned.class.is_none() {
        decision.insert_str(0, "no ENIPoolClass matches the node, built-in defaults serve: ");
    }
    if let Some((end, _)) = decision.char_indices().nth(DECISION_MAX) {
        decision.truncate(end);
    }
    Allocation {
        class: planned.class_name(),
        enis: number(given.enis),
        addresses: number(given.addresses),
        prefixes: number(given.prefixes),
        subnet_id: given.subnet.as_ref().map(ToString::to_string),
        security_group_ids: groups.iter().map(ToString::to_string).collect(),
        ceiling: number(given.ceiling),
        pods: number(given.pods),
        demand: number(given.demand),
        withheld: number(given.withheld),
        answers: asked.or_else(|| spec.allocation.as_ref().and_then(|standing| standing.answers.clone())),
        targets: spec.effective_targets(planned.class.as_ref().map(|class| &class.spec)),
        decision,
    }
}

/// Whether and how soon this allocation (`None`: none yet) has to be written.
pub fn urgency(planned: &Planned, wanted: Option<&Allocation>) -> Urgency {
    let Some(pool) = &planned.pool else { return Urgency::Now };
    let owned = pool.owner_references().iter().any(|owner| owner.uid == planned.node.uid);
    let kept = pool.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if !owned || !kept {
        return Urgency::Now;
    }
    match (&pool.spec.allocation, wanted) {
        (_, None) => Urgency::Nothing,
        (None, Some(_)) => Urgency::Now,
        (Some(standing), Some(wanted)) if standing == wanted => Urgency::Nothing,
        (Some(standing), Some(wanted)) => {
            let acted_on = |allocation: &Allocation| Allocation {
                pods: 0,
                demand: 0,
                decision: String::new(),
                ..allocation.clone()
            };
            if acted_on(standing) == acted_on(wanted) { Urgency::Inform } else { Urgency::Now }
        }
    }
}

/// All that the operator owns of an ENIPool. What is left out would be taken away.
fn body(planned: &Planned, allocation: Option<&Allocation>) -> Value {
    let mut spec = json!({});
    if let Some(allocation) = allocation {
        spec = json!({"allocation": allocation});
    }
    let instance = planned.node.instance.as_ref().map(ToString::to_string);
    json!({
        "apiVersion": format!("{}/{}", enipool_crds::GROUP, enipool_crds::VERSION),
        "kind": "ENIPool",
        "metadata": {
            "name": planned.name.as_ref(),
            "annotations": {INSTANCE_ANNOTATION: instance},
            "finalizers": [FINALIZER],
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Node",
                "name": planned.name.as_ref(),
                "uid": planned.node.uid,
            }],
        },
        "spec": spec,
    })
}
