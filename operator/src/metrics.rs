//! The metrics of the operator's own process; those of the cluster are in `cluster_metrics`. Labels come from closed sets; no node, pod or ENI is ever one.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enipool_pool::cloudwatch::{CloudWatchError, CloudWatchErrorKind};
use enipool_pool::ec2::{Action, Ec2Error};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::kubernetes::CallError;

/// Why an ENI was deleted: its node is gone.
pub const NODE_GONE: &str = "node_gone";
/// Why an ENI was deleted: no node owns it.
pub const LEAKED: &str = "leaked";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    what: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeOnly {
    outcome: &'static str,
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
    deleted_enis: Family<Kind, Counter>,
    summed_up_seconds: Histogram,
    cloudwatch_requests: Family<OutcomeOnly, Counter>,
    cloudwatch_dropped: Gauge<u64, AtomicU64>,
    /// Shown by the table of the cluster's metrics.
    leaked_enis: Arc<Mutex<Option<u64>>>,
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
            deleted_enis: Family::default(),
            summed_up_seconds: Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5]),
            cloudwatch_requests: Family::default(),
            cloudwatch_dropped: Gauge::default(),
            leaked_enis: Arc::default(),
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
        registry.register("deleted_enis", "ENIs deleted, by why", metrics.deleted_enis.clone());
        registry.register_with_unit(
            "cluster_metrics",
            "Time to sum up the cluster's figures",
            Unit::Seconds,
            metrics.summed_up_seconds.clone(),
        );
        registry.register(
            "cloudwatch_requests",
            "PutMetricData requests, by outcome (ok, or the kind of error)",
            metrics.cloudwatch_requests.clone(),
        );
        registry.register(
            "cloudwatch_dropped_values",
            "Values that were never sent to CloudWatch since this replica leads: refused, or too old in a full queue",
            metrics.cloudwatch_dropped.clone(),
        );
        // Series exist from the start, so that a rate over them has no gap at the first event.
        for kind in crate::world::KINDS {
            drop(metrics.watch_errors.get_or_create(&Kind { kind }));
            drop(metrics.invalid_objects.get_or_create(&Kind { kind }));
        }
        for what in ["allocation", "class_status", "finalizer", "pool"] {
            drop(metrics.api_writes.get_or_create(&Outcome { what, outcome: "ok" }));
        }
        for action in [Action::DescribeSubnets, Action::DescribeNetworkInterfaces, Action::DeleteNetworkInterface] {
            drop(metrics.ec2_calls.get_or_create(&Outcome { what: action.name(), outcome: "ok" }));
        }
        for kind in [NODE_GONE, LEAKED] {
            drop(metrics.deleted_enis.get_or_create(&Kind { kind }));
        }
        for outcome in std::iter::once("ok").chain(CloudWatchErrorKind::ALL.map(CloudWatchErrorKind::label)) {
            drop(metrics.cloudwatch_requests.get_or_create(&OutcomeOnly { outcome }));
        }
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

    pub fn planned(&self, took: Duration) {
        self.plan_seconds.observe(took.as_secs_f64());
    }

    pub fn summed_up(&self, took: Duration) {
        self.summed_up_seconds.observe(took.as_secs_f64());
    }

    pub fn sent_to_cloudwatch(&self, answer: &Result<(), CloudWatchError>) {
        let outcome = answer.as_ref().err().map_or("ok", |error| error.kind.label());
        self.cloudwatch_requests.get_or_create(&OutcomeOnly { outcome }).inc();
    }

    pub fn dropped_for_cloudwatch(&self, values: u64) {
        self.cloudwatch_dropped.set(values);
    }

    pub fn wrote<T>(&self, what: &'static str, answer: &Result<T, CallError>) {
        let outcome = answer.as_ref().err().map_or("ok", CallError::label);
        self.api_writes.get_or_create(&Outcome { what, outcome }).inc();
    }

    pub fn called<T>(&self, action: Action, answer: &Result<T, Ec2Error>) {
        let outcome = answer.as_ref().err().map_or("ok", |error| error.kind.label());
        self.ec2_calls.get_or_create(&Outcome { what: action.name(), outcome }).inc();
    }

    /// `why` is [`NODE_GONE`] or [`LEAKED`].
    pub fn deleted(&self, why: &'static str) {
        self.deleted_enis.get_or_create(&Kind { kind: why }).inc();
    }

    pub fn leaks(&self, count: usize) {
        *self.leaked_enis.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// ENIs that no node owns; `None` before they were looked for.
    pub fn leaked_enis(&self) -> Option<u64> {
        *self.leaked_enis.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
