//! The agent's Prometheus metrics. What the pool holds is read from its snapshot at each scrape ([`pool`]); what happens
//! is counted here as it happens. No label names an address or a pod: the number of series is bounded.

mod aws;
pub mod calls;
pub mod pool;
#[cfg(test)]
mod text;

pub use aws::{Totals, older_type};

use std::sync::Arc;
use std::time::Duration;

use enipool_pool::ec2::{Action, Ec2ErrorKind};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// The part of an ADD that took the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddPhase {
    /// Waiting for the pool to have a free address.
    Wait,
    /// Choosing the address and writing it down.
    Ledger,
    /// Building the pod's link, addresses and routes.
    Netlink,
}

impl AddPhase {
    pub const ALL: [Self; 3] = [Self::Wait, Self::Ledger, Self::Netlink];

    fn label(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Ledger => "ledger",
            Self::Netlink => "netlink",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Events that the agent counts. Cheap to clone; every method is a few atomic operations.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Recorded>);

#[derive(Debug)]
struct Recorded {
    add_seconds: Family<OutcomeLabel, Histogram>,
    add_phase_seconds: Family<PhaseLabel, Histogram>,
    del_seconds: Family<OutcomeLabel, Histogram>,
    ec2_call_seconds: Family<ActionLabels, Histogram>,
    time_to_address_seconds: Histogram,
    drift_repaired: Family<KindLabel, Counter>,
    status_writes: Family<OutcomeLabel, Counter>,
    startup_seconds: Histogram,
    aws: aws::AwsNames,
}

/// 0.25 ms to 60 s: from a warm ADD to the longest wait for an address.
const ADD_BUCKETS: [f64; 16] =
    [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0];
/// 10 ms to 20 s: EC2 answers in 0.1 to 3 s, and is given up after 10.
const EC2_BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 10.0, 20.0];

/// 10 ms to two minutes: from a restart to a start that waits for EC2.
const STARTUP_BUCKETS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 120.0];

fn add_histogram() -> Histogram {
    Histogram::new(ADD_BUCKETS)
}

fn ec2_histogram() -> Histogram {
    Histogram::new(EC2_BUCKETS)
}

impl Metrics {
    /// Registers everything: under `enipool_`, and under `awscni_` what the AWS plugin had.
    pub fn register(registry: &mut Registry) -> Self {
        let recorded = Recorded {
            add_seconds: Family::new_with_constructor(add_histogram),
            add_phase_seconds: Family::new_with_constructor(add_histogram),
            del_seconds: Family::new_with_constructor(add_histogram),
            ec2_call_seconds: Family::new_with_constructor(ec2_histogram),
            time_to_address_seconds: add_histogram(),
            drift_repaired: Family::default(),
            status_writes: Family::default(),
            startup_seconds: Histogram::new(STARTUP_BUCKETS),
            aws: aws::AwsNames::default(),
        };
        for name in ["awscni_build", "enipool_build"] {
            registry.register(name, "Version of the agent", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        }
        registry.register_with_unit(
            "awscni_ipamd_startup_duration",
            "From the start of the process to the moment in which pods are served",
            Unit::Seconds,
            recorded.startup_seconds.clone(),
        );
        registry.register_collector(Box::new(recorded.aws.clone()));
        let registry = registry.sub_registry_with_prefix("enipool");
        let seconds = || Unit::Seconds;
        registry.register_with_unit("cni_add", "CNI ADD, whole", seconds(), recorded.add_seconds.clone());
        registry.register_with_unit(
            "cni_add_phase",
            "CNI ADD by phase: wait (for a free address), ledger, netlink",
            seconds(),
            recorded.add_phase_seconds.clone(),
        );
        registry.register_with_unit("cni_del", "CNI DEL, whole", seconds(), recorded.del_seconds.clone());
        registry.register_with_unit(
            "ec2_call",
            "EC2 calls by action and outcome (ok, or the kind of error)",
            seconds(),
            recorded.ec2_call_seconds.clone(),
        );
        registry.register_with_unit(
            "time_to_address",
            "From the moment a pod asks to the moment it has an address, waits included",
            seconds(),
            recorded.time_to_address_seconds.clone(),
        );
        registry.register(
            "drift_repaired",
            "Kernel objects of ours that somebody else changed and that were put right, by kind",
            recorded.drift_repaired.clone(),
        );
        registry.register("status_writes", "Writes of the ENIPool's status by outcome", recorded.status_writes.clone());
        // Series exist from the start, so that a rate over them has no gap at the first event.
        for phase in AddPhase::ALL {
            drop(recorded.add_phase_seconds.get_or_create(&PhaseLabel { phase: phase.label() }));
        }
        for outcome in [OK, "error"] {
            drop(recorded.status_writes.get_or_create(&OutcomeLabel { outcome }));
        }
        Self(Arc::new(recorded))
    }

    /// The node serves pods, so long after the process began.
    pub fn started(&self, took: Duration) {
        self.0.startup_seconds.observe(took.as_secs_f64());
    }

    /// A finished ADD: `success`, or the label of what went wrong (a closed set).
    pub fn add_finished(&self, outcome: &'static str, took: Duration) {
        self.0.add_seconds.get_or_create(&OutcomeLabel { outcome }).observe(took.as_secs_f64());
    }

    pub fn add_phase(&self, phase: AddPhase, took: Duration) {
        self.0.add_phase_seconds.get_or_create(&PhaseLabel { phase: phase.label() }).observe(took.as_secs_f64());
    }

    pub fn del_finished(&self, outcome: &'static str, took: Duration) {
        self.0.del_seconds.get_or_create(&OutcomeLabel { outcome }).observe(took.as_secs_f64());
    }

    /// An EC2 call that ended, with the kind of its error.
    pub fn ec2_call(&self, action: Action, error: Option<&Ec2ErrorKind>, took: Duration) {
        let labels = ActionLabels { action: action.name(), outcome: error.map_or(OK, Ec2ErrorKind::label) };
        self.0.ec2_call_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        self.0.aws.ec2_call(action, error, took);
    }

    pub fn time_to_address(&self, took: Duration) {
        self.0.time_to_address_seconds.observe(took.as_secs_f64());
    }

    /// Something of ours in the kernel was changed by somebody else and put right. `kind` is one of a closed set.
    pub fn drift_repaired(&self, kind: &'static str) {
        self.0.drift_repaired.get_or_create(&KindLabel { kind }).inc();
    }

    /// What was counted so far, for the ENIPool's status.
    pub fn totals(&self) -> Totals {
        self.0.aws.totals()
    }

    pub fn status_write(&self, ok: bool) {
        if !ok {
            self.0.aws.error("WriteStatus");
        }
        self.0.status_writes.get_or_create(&OutcomeLabel { outcome: if ok { OK } else { "error" } }).inc();
    }
}

/// Outcome of what went well.
pub const OK: &str = "ok";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What Prometheus gets after `fill` has filled the registry.
    pub(crate) fn scrape(fill: impl FnOnce(&mut Registry)) -> String {
        let mut registry = Registry::default();
        fill(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn what_happens_shows_in_the_next_scrape() {
        let text = scrape(|registry| happen(&Metrics::register(registry)));
        for line in [
            "enipool_cni_add_seconds_count{outcome=\"ok\"} 1",
            "enipool_cni_add_phase_seconds_count{phase=\"netlink\"} 1",
            "enipool_cni_add_phase_seconds_count{phase=\"wait\"} 0",
            "enipool_ec2_call_seconds_count{action=\"CreateNetworkInterface\",outcome=\"subnet_exhausted\"} 1",
            "awscni_ipamd_startup_duration_seconds_count 1",
            concat!("awscni_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    fn happen(metrics: &Metrics) {
        metrics.started(Duration::from_millis(300));
        metrics.add_finished(OK, Duration::from_millis(2));
        metrics.add_phase(AddPhase::Netlink, Duration::from_millis(1));
        metrics.ec2_call(
            Action::CreateNetworkInterface,
            Some(&Ec2ErrorKind::SubnetExhausted),
            Duration::from_millis(300),
        );
    }
}
