//! The cluster's metrics, summed over the ENIPools: for Prometheus at each scrape, for CloudWatch and the log once a period.
//!
//! No node is scraped and the API server is not asked: everything comes from what the watches brought. Only the leader
//! does this. Nothing here decides about addresses.

mod counters;
mod figures;
mod outbox;
mod points;
mod publish;
#[cfg(test)]
mod reference;
mod silence;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enipool_crds::ENIPool;
use enipool_pool::budget::Budget;
use enipool_pool::ec2::Action;
use enipool_pool::runway::Trend;
use enipool_pool::{SubnetId, Timestamp};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::network::{Network, SharedNetwork};
use crate::world::{State, World};

pub use figures::Figures;
pub use points::{Exposed, is_counter};
pub use publish::{NAMESPACE, Post};
pub use table::{Kind, Label, METRICS, Metric, Origin};

use counters::NodeCounters;
use figures::SubnetFigures;
use silence::{Sign, Silence};

/// How often the figures are summed up for Prometheus: no scraper asks more often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the loop reads and where it goes.
#[derive(Debug)]
pub struct ClusterMetrics {
    pub world: World,
    pub network: SharedNetwork,
    pub budget: Arc<Mutex<Budget>>,
    pub metrics: Metrics,
    pub exposed: Exposed,
    /// `None`: CloudWatch is off.
    pub post: Option<Post>,
    /// Name of the cluster, in CloudWatch's dimension.
    pub cluster: String,
    /// Namespace of the agents' pods.
    pub namespace: String,
    /// Time between two rounds of log lines and requests to CloudWatch.
    pub period: Duration,
}

/// What is kept from look to look.
#[derive(Debug, Default)]
pub struct Memory {
    counters: NodeCounters,
    silence: Silence,
    trends: BTreeMap<SubnetId, Trend>,
    slowest_node_ms: Option<f64>,
}

/// The times of one look.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// By which agents say when they started.
    pub wall: Timestamp,
    /// That does not step.
    pub steady: Timestamp,
}

/// A node as the watches show it.
#[derive(Debug, Clone)]
pub struct PoolSeen {
    pub name: Arc<str>,
    pub pool: Arc<ENIPool>,
    /// The agent's pod is ready.
    pub agent_ready: bool,
}

/// The nodes that have an ENIPool, with what is known of their agents in `namespace`.
pub fn seen(state: &State, namespace: &str) -> Vec<PoolSeen> {
    let ready = state.nodes_with_ready_agent(namespace);
    let alive = |(name, pool): &(&Arc<str>, &Arc<ENIPool>)| {
        state.nodes.contains_key(*name) && pool.metadata.deletion_timestamp.is_none()
    };
    let pools = state.pools.iter().filter(alive);
    pools
        .map(|(name, pool)| PoolSeen { name: name.clone(), pool: pool.clone(), agent_ready: ready.contains(name) })
        .collect()
}

impl Memory {
    /// One look at the whole cluster.
    pub fn look(&mut self, pools: &[PoolSeen], network: &Network, at: Clocks) -> Figures {
        let mut figures = Figures { slowest_node_ms: self.slowest_node_ms, ..Figures::default() };
        self.silence.begin();
        for PoolSeen { name, pool, agent_ready } in pools {
            let status = pool.status.as_ref();
            let sign = Sign {
                ready: *agent_ready,
                generation: pool.metadata.generation,
                observed: status.and_then(|status| status.observed_generation),
            };
            let silent = self.silence.is_silent(name, sign, at.steady);
            let allocation = pool.spec.allocation.as_ref();
            let class = allocation.map_or("", |allocation| allocation.class.as_str());
            figures.add_node(class, allocation, status, silent);
        }
        let statuses = pools.iter().filter_map(|seen| Some((&seen.name, seen.pool.status.as_ref()?)));
        figures.totals = self.counters.look(statuses, at.wall);
        figures.subnets = self.subnets(network, at.steady);
        figures
    }

    fn subnets(&mut self, network: &Network, now: Timestamp) -> BTreeMap<SubnetId, SubnetFigures> {
        self.trends.retain(|id, _| network.subnets.contains_key(id));
        let figures = network.subnets.values().map(|subnet| {
            let trend = self.trends.entry(subnet.id.clone()).or_default();
            trend.note(now, subnet.available_ips);
            let left = subnet.available_ips.saturating_sub(network.headroom(&subnet.id));
            (subnet.id.clone(), SubnetFigures { free: subnet.available_ips, runway: trend.runway(left) })
        });
        figures.collect()
    }

    /// Ends a period: what is a mean over it is known from now on.
    pub fn end_period(&mut self) {
        self.slowest_node_ms = self.counters.end_period();
    }
}

impl ClusterMetrics {
    /// Sums up until the token is cancelled. From then on Prometheus sees no figures.
    pub async fn run(self, stop: CancellationToken) {
        let _hidden_at_the_end = Hide(self.exposed.clone());
        let mut memory = Memory::default();
        let mut reported = Figures::default();
        let mut due = Instant::now();
        let began = Instant::now();
        let mut ticks = interval(LOOK_EVERY.min(self.period));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let pools = {
                let state = self.world.state();
                if !state.is_complete() {
                    continue;
                }
                seen(&state, &self.namespace)
            };
            let started = Instant::now();
            let ends = started >= due;
            if ends {
                memory.end_period();
            }
            let steady = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let wall = wall_clock();
            // An hour ahead, so that a time before the start can be named.
            let at = Clocks { wall, steady: Timestamp(steady.saturating_add(3_600_000)) };
            let mut figures = memory.look(&pools, &self.network.get(), at);
            figures.leaked_enis = self.metrics.leaked_enis();
            figures.budget = self.budget_use(wall);
            let figures = Arc::new(figures);
            self.exposed.show(Some(figures.clone()));
            if ends {
                self.report(&figures, &reported, wall);
                reported = Figures::clone(&figures);
                due += self.period;
                if due < started {
                    due = started + self.period;
                }
            }
            self.metrics.summed_up(started.elapsed());
        }
    }

    fn report(&self, now: &Figures, before: &Figures, at: Timestamp) {
        for line in points::log_lines(now, before) {
            tracing::info!("{line}");
        }
        if let Some(post) = &self.post {
            post.send(points::data(now, before, &self.cluster, at));
        }
    }

    fn budget_use(&self, now: Timestamp) -> BTreeMap<Action, enipool_pool::budget::BudgetUse> {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let mutations = Action::ALL.into_iter().filter(|action| action.is_mutation());
        mutations.map(|action| (action, budget.usage(action, now))).collect()
    }
}

fn wall_clock() -> Timestamp {
    Timestamp(u64::try_from(k8s_openapi::jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

/// Hides the figures when it is dropped: also when the loop is cancelled because the Lease was lost.
struct Hide(Exposed);

impl Drop for Hide {
    fn drop(&mut self) {
        self.0.show(None);
    }
}

#[cfg(test)]
#[path = "cluster_metrics/tests.rs"]
mod tests;
