//! The operator's metrics. Labels come from closed sets; no node, pod or ENI is ever one.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use enipool_pool::ec2::{Action, Ec2Error};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::kubernetes::CallError;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    what: &'static str,
    outcome: &'static str,
}

/// Figures of the fleet after a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetFigures {
    pub nodes: u64,
    pub pods: u64,
    pub demand: u64,
    pub allocated: u64,
    pub held: u64,
    pub withheld: u64,
    pub waiting: u64,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    leader: Gauge,
    watch_errors: Family<Kind, Counter>,
    invalid_objects: Family<Kind, Counter>,
    plan_seconds: Histogram,
    api_writes: Family<Outcome, Counter>,
    ec2_calls: Family<Outcome, Counter>,
    nodes: Gauge<u64, AtomicU64>,
    pods: Gauge<u64, AtomicU64>,
    demand: Gauge<u64, AtomicU64>,
    allocated: Gauge<u64, AtomicU64>,
    held: Gauge<u64, AtomicU64>,
    withheld: Gauge<u64, AtomicU64>,
    waiting: Gauge<u64, AtomicU64>,
    deleted_enis: Family<Kind, Counter>,
    leaked_enis: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("enipool_operator");
        let metrics = Self {
            leader: Gauge::default(),
            watch_errors: Family::default(),
            invalid_objects: Family::default(),
            // From a handful of nodes (0.1 ms) to far beyond the 100 ms that 5,000 nodes may take.
            plan_seconds: Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            api_writes: Family::default(),
            ec2_calls: Family::default(),
            nodes: Gauge::default(),
            pods: Gauge::default(),
            demand: Gauge::default(),
            allocated: Gauge::default(),
            held: Gauge::default(),
            withheld: Gauge::default(),
            waiting: Gauge::default(),
            deleted_enis: Family::default(),
            leaked_enis: Gauge::default(),
        };
        registry.register("leader", "1 while this replica leads", metrics.leader.clone());
        registry.register("watch_errors", "Watches interrupted, by kind", metrics.watch_errors.clone());
        registry.register("invalid_objects", "Objects not understood, by kind", metrics.invalid_objects.clone());
        registry.register_with_unit(
            "plan",
            "Time from a picture of the cluster to its allocations",
            Unit::Seconds,
            metrics.plan_seconds.clone(),
        );
        registry.register("api_writes", "Writes to the API server, by object and outcome", metrics.api_writes.clone());
        registry.register("ec2_calls", "EC2 calls, by action and outcome", metrics.ec2_calls.clone());
        registry.register("nodes", "Nodes that have a pool", metrics.nodes.clone());
        registry.register("pods", "Pods bound to them that need an address", metrics.pods.clone());
        registry.register("demand", "Of these, pods that have no address yet", metrics.demand.clone());
        registry.register("allocated_addresses", "Addresses allocated to nodes", metrics.allocated.clone());
        registry.register("held_addresses", "Addresses that nodes hold", metrics.held.clone());
        registry.register(
            "withheld_addresses",
            "Addresses asked for that subnets cannot give",
            metrics.withheld.clone(),
        );
        registry.register("waiting_pods", "Pods whose sandbox waits for an address", metrics.waiting.clone());
        registry.register("deleted_enis", "ENIs deleted, by why", metrics.deleted_enis.clone());
        registry.register("leaked_enis", "Available ENIs of ours that no node owns", metrics.leaked_enis.clone());
        metrics
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    pub fn object_invalid(&self, kind: &'static str) {
        self.invalid_objects.get_or_create(&Kind { kind }).inc();
    }

    pub fn planned(&self, took: Duration, fleet: FleetFigures) {
        self.plan_seconds.observe(took.as_secs_f64());
        self.nodes.set(fleet.nodes);
        self.pods.set(fleet.pods);
        self.demand.set(fleet.demand);
        self.allocated.set(fleet.allocated);
        self.held.set(fleet.held);
        self.withheld.set(fleet.withheld);
        self.waiting.set(fleet.waiting);
    }

    pub fn wrote<T>(&self, what: &'static str, answer: &Result<T, CallError>) {
        let outcome = answer.as_ref().err().map_or("ok", CallError::label);
        self.api_writes.get_or_create(&Outcome { what, outcome }).inc();
    }

    pub fn called<T>(&self, action: Action, answer: &Result<T, Ec2Error>) {
        let outcome = answer.as_ref().err().map_or("ok", |error| error.kind.label());
        self.ec2_calls.get_or_create(&Outcome { what: action.name(), outcome }).inc();
    }

    /// `why` is `node_gone` or `leaked`.
    pub fn deleted(&self, why: &'static str) {
        self.deleted_enis.get_or_create(&Kind { kind: why }).inc();
    }

    pub fn leaks(&self, count: usize) {
        self.leaked_enis.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
