//! The table of the cluster's metrics: name, kind, unit, meaning, and where the value comes from. Prometheus, CloudWatch,
//! the log lines, `docs/metrics.md` and the check of the dashboards are made from it. A metric is added here and nowhere
//! else.

use std::collections::BTreeMap;

use enipool_crds::Reason;
use enipool_pool::cloudwatch::Unit;

use super::figures::{ClassFigures, Figures, SubnetFigures};

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What is so now.
    Gauge,
    /// What was counted since this replica leads. CloudWatch and the log lines get what was counted in the period.
    Counter,
}

/// Where a metric's name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The metrics helper of the AWS VPC CNI: the same name in Prometheus and CloudWatch.
    MetricsHelper,
    /// Ours. In Prometheus: `enipool_cluster_` and the name in snake case.
    Enipool,
}

/// By what a metric is broken down: one series for each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    Reason,
    Action,
    Subnet,
    Class,
}

impl Label {
    /// Prometheus's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reason => "reason",
            Self::Action => "action",
            Self::Subnet => "subnet",
            Self::Class => "class",
        }
    }

    /// CloudWatch's dimension, beside `CLUSTER_ID`.
    pub fn dimension(self) -> &'static str {
        match self {
            Self::Reason => "REASON",
            Self::Action => "EC2_ACTION",
            Self::Subnet => "SUBNET_ID",
            Self::Class => "ENI_POOL_CLASS",
        }
    }
}

/// A metric's values now.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    /// One, that is always known.
    One(fn(&Figures) -> u64),
    /// One, or none while it is not known.
    Known(fn(&Figures) -> Option<f64>),
    /// One for each value of the label.
    By(Label, fn(&Figures) -> Vec<(String, f64)>),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// CloudWatch's name.
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub origin: Origin,
    /// What it means, for people.
    pub help: &'static str,
    pub read: Read,
    /// CloudWatch does not get this value: a series that nearly always has it costs as much there as any other.
    pub usual: Option<f64>,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, origin: Origin, help: &'static str, read: Read) -> Self {
        Self { name, kind, unit: Unit::Count, origin, help, read, usual: None }
    }

    const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    const fn usually(mut self, value: f64) -> Self {
        self.usual = Some(value);
        self
    }

    /// The name in Prometheus, without the `_total` that OpenMetrics adds to counters of ours.
    pub fn prometheus_name(&self) -> String {
        match self.origin {
            Origin::MetricsHelper => self.name.to_owned(),
            Origin::Enipool => format!("enipool_cluster_{}", snake_case(self.name)),
        }
    }

    /// The name of its series in Prometheus.
    pub fn prometheus_series(&self) -> String {
        let name = self.prometheus_name();
        if self.kind == Kind::Counter && self.origin == Origin::Enipool { name + "_total" } else { name }
    }

    /// By what it is broken down.
    pub fn label(&self) -> Option<Label> {
        match self.read {
            Read::One(_) | Read::Known(_) => None,
            Read::By(label, _) => Some(label),
        }
    }
}

/// `waitingPods` as `waiting_pods`, `leakedENIs` as `leaked_enis`, `ec2BudgetUsed` as `ec2_budget_used`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 8);
    let mut before = None::<char>;
    for c in name.chars() {
        if c.is_ascii_uppercase() && before.is_some_and(|before| !before.is_ascii_uppercase()) {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
        before = Some(c);
    }
    snake
}

/// Far below 2^53 for any cluster: nothing is lost.
#[expect(clippy::cast_precision_loss, reason = "counts of a cluster")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

fn by_class(figures: &Figures, figure: fn(&ClassFigures) -> u64) -> Vec<(String, f64)> {
    let named = figures.classes.iter().filter(|(name, _)| !name.is_empty());
    named.map(|(name, class)| (name.clone(), number(figure(class)))).collect()
}

fn by_subnet(figures: &Figures, figure: fn(&SubnetFigures) -> Option<f64>) -> Vec<(String, f64)> {
    let known = figures.subnets.iter().filter_map(|(id, subnet)| Some((id.to_string(), figure(subnet)?)));
    known.collect()
}

fn budget_used(figures: &Figures) -> Vec<(String, f64)> {
    let used = |limit: u32, left: u32| {
        let used = f64::from(limit.saturating_sub(left));
        if limit == 0 { 100.0 } else { used * 100.0 / f64::from(limit) }
    };
    figures.budget.iter().map(|(action, usage)| (action.name().into(), used(usage.limit.burst, usage.left))).collect()
}

fn budget_pace(figures: &Figures) -> Vec<(String, f64)> {
    figures.budget.iter().map(|(action, usage)| (action.name().into(), f64::from(usage.pace_percent))).collect()
}

/// Every reason, so that a series is there before the first pod waits for it.
fn waiting_by_reason(figures: &Figures) -> Vec<(String, f64)> {
    let every: BTreeMap<Reason, u64> = Reason::ALL.into_iter().map(|reason| (reason, 0)).collect();
    let waiting = |reason| figures.waiting.get(reason).copied().unwrap_or(0);
    every.keys().map(|reason| (reason.to_string(), number(waiting(reason)))).collect()
}

use Kind::{Counter, Gauge};
use Origin::{Enipool, MetricsHelper};
use Read::{By, Known, One};

/// All metrics of the cluster. The first seven are those of the AWS VPC CNI's troubleshooting guide, in its order of sums,
/// actions and errors; then come what the metrics helper has added since, and ours.
pub const METRICS: [Metric; 37] = [
    Metric::new(
        "maxIPAddresses",
        Gauge,
        MetricsHelper,
        "Addresses for pods that the nodes could hold if their subnets had room",
        One(|f| f.held.addresses_max),
    ),
    Metric::new(
        "totalIPAddresses",
        Gauge,
        MetricsHelper,
        "Addresses for pods that the nodes hold, those of prefixes included",
        One(|f| f.held.addresses),
    ),
    Metric::new("assignIPAddresses", Gauge, MetricsHelper, "Addresses that pods use", One(|f| f.held.assigned)),
    Metric::new(
        "eniMaxAvailable",
        Gauge,
        MetricsHelper,
        "Network interfaces that the nodes' instance types can hold",
        One(|f| f.held.enis_max),
    ),
    Metric::new(
        "eniAllocated",
        Gauge,
        MetricsHelper,
        "Network interfaces of the pool that are attached to nodes, the primary ones included",
        One(|f| f.held.enis),
    ),
    Metric::new(
        "ipamdActionInProgress",
        Gauge,
        MetricsHelper,
        "Nodes with an EC2 action or the creation of an interface under way",
        One(|f| f.held.acting_nodes),
    ),
    Metric::new(
        "ipamdErr",
        Counter,
        MetricsHelper,
        "CNI ADDs, DELs and GCs and writes of the ENIPool's status that failed on an agent",
        One(|f| f.totals.failures),
    ),
    Metric::new(
        "totalIPv4Prefixes",
        Gauge,
        MetricsHelper,
        "/28 prefixes that the nodes hold",
        One(|f| f.held.prefixes),
    ),
    Metric::new("addReqCount", Counter, MetricsHelper, "CNI ADDs", One(|f| f.totals.adds)),
    Metric::new("delReqCount", Counter, MetricsHelper, "CNI DELs", One(|f| f.totals.dels)),
    Metric::new("ec2ApiReqCount", Counter, MetricsHelper, "EC2 calls of agents", One(|f| f.totals.ec2_calls)),
    Metric::new(
        "ec2ApiErrCount",
        Counter,
        MetricsHelper,
        "EC2 calls of agents that failed, the throttled ones included",
        One(|f| f.totals.ec2_errors),
    ),
    Metric::new(
        "awsAPILatency",
        Gauge,
        MetricsHelper,
        "Mean latency of EC2 calls in the last period on the node where it is highest; absent if no call ended",
        Known(|f| f.slowest_node_ms),
    )
    .unit(Unit::Milliseconds),
    Metric::new(
        "forceRemoveENI",
        Counter,
        MetricsHelper,
        "Network interfaces that left an instance while the pool used them",
        One(|f| f.totals.lost_enis),
    ),
    Metric::new(
        "forceRemoveIPs",
        Counter,
        MetricsHelper,
        "Addresses that EC2 took away while a pod used them",
        One(|f| f.totals.lost_ips),
    ),
    Metric::new(
        "reconcileCount",
        Counter,
        MetricsHelper,
        "Differences between ledger, kernel and EC2 that agents found and settled",
        One(|f| f.totals.reconciled),
    ),
    Metric::new("nodes", Gauge, Enipool, "Nodes that have an ENIPool", One(|f| f.nodes)),
    Metric::new(
        "silentNodes",
        Gauge,
        Enipool,
        "Nodes whose agent has not been ready, or has not taken up its spec, for a minute; their figures are in no sum",
        One(|f| f.silent_nodes),
    ),
    Metric::new(
        "pods",
        Gauge,
        Enipool,
        "Pods bound to nodes that need an address: not on the host network, not finished",
        One(|f| f.planned.pods),
    ),
    Metric::new("demand", Gauge, Enipool, "Of these, pods that have no address yet", One(|f| f.planned.demand)),
    Metric::new(
        "waitingPods",
        Gauge,
        Enipool,
        "Pods whose sandbox waits for an address at this moment",
        One(Figures::waiting_pods),
    ),
    Metric::new(
        "waitingPodsByReason",
        Gauge,
        Enipool,
        "The same by what they wait for, as their node reports it",
        By(Label::Reason, waiting_by_reason),
    )
    .usually(0.0),
    Metric::new(
        "addsWithoutAddress",
        Counter,
        Enipool,
        "CNI ADDs that failed because there was no address",
        One(|f| f.totals.adds_without_address),
    ),
    Metric::new(
        "allocatedAddresses",
        Gauge,
        Enipool,
        "Addresses that the operator lets the nodes hold",
        One(|f| f.planned.allocated),
    ),
    Metric::new(
        "withheldAddresses",
        Gauge,
        Enipool,
        "Addresses that pods need and that no subnet of their node has left above its headroom",
        One(|f| f.planned.withheld),
    ),
    Metric::new(
        "availableAddresses",
        Gauge,
        Enipool,
        "Addresses that a pod gets at once",
        One(|f| f.held.available),
    ),
    Metric::new(
        "coolingAddresses",
        Gauge,
        Enipool,
        "Addresses that rest after their last pod",
        One(|f| f.held.cooling),
    ),
    Metric::new(
        "leakedENIs",
        Gauge,
        Enipool,
        "Unattached network interfaces of the pool that no node owns; absent without a cluster name",
        Known(|f| f.leaked_enis.map(number)),
    ),
    Metric::new(
        "ec2Throttles",
        Counter,
        Enipool,
        "EC2 calls of agents that were refused for their rate",
        One(|f| f.totals.ec2_throttles),
    ),
    Metric::new(
        "ec2BudgetUsed",
        Gauge,
        Enipool,
        "Part of the EC2 action's token bucket that is used up",
        By(Label::Action, budget_used),
    )
    .unit(Unit::Percent)
    .usually(0.0),
    Metric::new(
        "ec2BudgetPace",
        Gauge,
        Enipool,
        "Part of the EC2 action's refill rate that the operator uses: below 100 after throttling",
        By(Label::Action, budget_pace),
    )
    .unit(Unit::Percent)
    .usually(100.0),
    Metric::new(
        "subnetFreeAddresses",
        Gauge,
        Enipool,
        "Free addresses of the subnet as EC2 counts them",
        By(Label::Subnet, |f| by_subnet(f, |subnet| Some(f64::from(subnet.free)))),
    ),
    Metric::new(
        "subnetRunwaySeconds",
        Gauge,
        Enipool,
        "Time until the subnet's addresses above the headroom are used up at the last hour's pace; absent while they do not get fewer",
        By(Label::Subnet, |f| by_subnet(f, |subnet| subnet.runway.map(|runway| runway.as_secs_f64()))),
    )
    .unit(Unit::Seconds),
    Metric::new(
        "classNodes",
        Gauge,
        Enipool,
        "Nodes of the ENIPoolClass",
        By(Label::Class, |f| by_class(f, |class| class.nodes)),
    ),
    Metric::new(
        "classAddresses",
        Gauge,
        Enipool,
        "Addresses for pods that the class's nodes hold",
        By(Label::Class, |f| by_class(f, |class| class.addresses)),
    ),
    Metric::new(
        "classAssignedAddresses",
        Gauge,
        Enipool,
        "Addresses that pods on the class's nodes use",
        By(Label::Class, |f| by_class(f, |class| class.assigned)),
    ),
    Metric::new(
        "classWaitingPods",
        Gauge,
        Enipool,
        "Pods on the class's nodes whose sandbox waits for an address",
        By(Label::Class, |f| by_class(f, |class| class.waiting)),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_metrics_share_a_name() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        let series: BTreeSet<_> = METRICS.iter().map(Metric::prometheus_series).collect();
        assert_eq!((names.len(), series.len()), (METRICS.len(), METRICS.len()));
    }

    #[test]
    fn names_of_ours_are_the_same_words_in_snake_case() {
        for (name, snake) in [
            ("waitingPodsByReason", "waiting_pods_by_reason"),
            ("leakedENIs", "leaked_enis"),
            ("ec2BudgetUsed", "ec2_budget_used"),
            ("coolingAddresses", "cooling_addresses"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }
}
