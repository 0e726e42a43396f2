//! Counters of agents as counters of the cluster: what each one grew by since the last look. Pure.
//!
//! An agent counts from 0 at each start, and a node may go. The sum over the nodes would fall then; the sum of what each
//! grew by never does.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::Arc;

use enipool_crds::{Counters, ENIPoolStatus};
use enipool_pool::Timestamp;

/// Largest growth that is believed of one node between two looks: more than a node counts in weeks, milliseconds included.
const GROWTH_MAX: u64 = 1_000_000_000;

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub adds: u64,
    pub dels: u64,
    pub adds_without_address: u64,
    pub failures: u64,
    pub ec2_calls: u64,
    pub ec2_errors: u64,
    pub ec2_throttles: u64,
    pub ec2_milliseconds: u64,
    pub lost_enis: u64,
    pub lost_ips: u64,
    pub reconciled: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        *self = self.combine(more, u64::saturating_add);
    }
}

impl Totals {
    fn of(counters: &Counters, throttles: i64) -> Self {
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        Self {
            adds: count(counters.adds),
            dels: count(counters.dels),
            adds_without_address: count(counters.adds_without_address),
            failures: count(counters.failures),
            ec2_calls: count(counters.ec2_calls),
            ec2_errors: count(counters.ec2_errors),
            ec2_throttles: count(throttles),
            ec2_milliseconds: count(counters.ec2_milliseconds),
            lost_enis: count(counters.lost_enis),
            lost_ips: count(counters.lost_ips),
            reconciled: count(counters.reconciled),
        }
    }

    /// What it grew by since `before`; a counter that fell has begun again at 0.
    pub fn growth_since(self, before: Self) -> Self {
        self.combine(before, |now, before| if now >= before { now - before } else { now })
    }

    fn combine(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            adds: with(self.adds, other.adds),
            dels: with(self.dels, other.dels),
            adds_without_address: with(self.adds_without_address, other.adds_without_address),
            failures: with(self.failures, other.failures),
            ec2_calls: with(self.ec2_calls, other.ec2_calls),
            ec2_errors: with(self.ec2_errors, other.ec2_errors),
            ec2_throttles: with(self.ec2_throttles, other.ec2_throttles),
            ec2_milliseconds: with(self.ec2_milliseconds, other.ec2_milliseconds),
            lost_enis: with(self.lost_enis, other.lost_enis),
            lost_ips: with(self.lost_ips, other.lost_ips),
            reconciled: with(self.reconciled, other.reconciled),
        }
    }

    fn bounded(self) -> Self {
        self.combine(Self::default(), |value, _| value.min(GROWTH_MAX))
    }
}

/// One node's counters as last seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Timestamp,
    totals: Totals,
    round: u64,
    /// EC2 calls of the period that is running, and their milliseconds.
    period: (u64, u64),
}

/// What is kept of each node from look to look.
#[derive(Debug, Default)]
pub(super) struct NodeCounters {
    nodes: HashMap<Arc<str>, Seen>,
    round: u64,
    /// When the first look was: what an agent that is younger has counted is all new.
    began: Option<Timestamp>,
    totals: Totals,
}

impl NodeCounters {
    /// Takes one look at all nodes, at `now` by the clock that agents use; answers what was counted since the first one.
    pub(super) fn look<'a>(
        &mut self,
        statuses: impl Iterator<Item = (&'a Arc<str>, &'a ENIPoolStatus)>,
        now: Timestamp,
    ) -> Totals {
        let began = *self.began.get_or_insert(now);
        self.round += 1;
        for (name, status) in statuses {
            let Some(counters) = &status.counters else { continue };
            let since = Timestamp(u64::try_from(counters.since.0.as_millisecond()).unwrap_or(0));
            let totals = Totals::of(counters, status.throttles);
            let seen = self.nodes.get(name);
            let growth = match seen {
                Some(seen) if seen.since == since => totals.growth_since(seen.totals),
                Some(_) => totals,
                None if since > began => totals,
                None => Totals::default(),
            };
            let growth = growth.bounded();
            let (calls, milliseconds) = seen.map_or((0, 0), |seen| seen.period);
            let period = (calls.saturating_add(growth.ec2_calls), milliseconds.saturating_add(growth.ec2_milliseconds));
            self.totals += growth;
            self.nodes.insert(name.clone(), Seen { since, totals, round: self.round, period });
        }
        self.nodes.retain(|_, seen| seen.round == self.round);
        self.totals
    }

    /// Ends a period: the highest mean of one node's EC2 calls in it, in milliseconds; `None` if there was no call.
    pub(super) fn end_period(&mut self) -> Option<f64> {
        let ended = self.nodes.values_mut().map(|seen| std::mem::take(&mut seen.period));
        // Far below 2^53: nothing is lost in the conversion.
        #[expect(clippy::cast_precision_loss, reason = "counts of one period")]
        let mean = |(calls, milliseconds): (u64, u64)| (calls > 0).then(|| milliseconds as f64 / calls as f64);
        ended
            .filter_map(mean)
            .fold(None, |highest: Option<f64>, mean| Some(highest.map_or(mean, |most| most.max(mean))))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff;

    use super::*;

    fn status(since: i64, adds: i64, calls: i64, milliseconds: i64) -> ENIPoolStatus {
        let counters = Counters {
            since: jiff::Timestamp::from_millisecond(since).unwrap().into(),
            adds,
            dels: 0,
            adds_without_address: 0,
            failures: 0,
            ec2_calls: calls,
            ec2_errors: 0,
            ec2_milliseconds: milliseconds,
            lost_enis: 0,
            lost_ips: 0,
            reconciled: 0,
        };
        ENIPoolStatus { counters: Some(counters), ..ENIPoolStatus::default() }
    }

    /// Adds that were counted after this look.
    fn look(counters: &mut NodeCounters, at: u64, nodes: &[(&str, ENIPoolStatus)]) -> u64 {
        let nodes: Vec<(Arc<str>, &ENIPoolStatus)> =
            nodes.iter().map(|(name, status)| ((*name).into(), status)).collect();
        counters.look(nodes.iter().map(|(name, status)| (name, *status)), Timestamp(at)).adds
    }

    #[test]
    fn what_was_counted_before_the_first_look_is_not_new() {
        let mut counters = NodeCounters::default();
        assert_eq!(look(&mut counters, 1000, &[("a", status(1, 500, 0, 0))]), 0);
        assert_eq!(look(&mut counters, 2000, &[("a", status(1, 507, 0, 0))]), 7);
    }

    #[test]
    fn an_agent_that_starts_again_adds_what_it_counted_since() {
        let mut counters = NodeCounters::default();
        look(&mut counters, 1000, &[("a", status(1, 500, 0, 0))]);
        assert_eq!(look(&mut counters, 3000, &[("a", status(2500, 3, 0, 0))]), 3);
        assert_eq!(look(&mut counters, 4000, &[("a", status(2500, 4, 0, 0))]), 4);
        assert_eq!(look(&mut counters, 6000, &[("a", status(5500, 900, 0, 0))]), 904, "more than before its restart");
    }

    #[test]
    fn a_node_that_comes_counts_whole_and_one_that_goes_takes_nothing() {
        let mut counters = NodeCounters::default();
        look(&mut counters, 1000, &[("a", status(1, 5, 0, 0))]);
        assert_eq!(look(&mut counters, 3000, &[("a", status(1, 5, 0, 0)), ("b", status(2000, 8, 0, 0))]), 8);
        assert_eq!(look(&mut counters, 4000, &[("b", status(2000, 9, 0, 0))]), 9);
        assert_eq!(look(&mut counters, 5000, &[]), 9);
    }

    #[test]
    fn a_counter_that_falls_never_makes_the_sum_fall() {
        let mut counters = NodeCounters::default();
        look(&mut counters, 1000, &[("a", status(1, 5, 0, 0))]);
        assert_eq!(look(&mut counters, 2000, &[("a", status(1, 2, 0, 0))]), 2);
    }

    #[test]
    fn one_node_s_absurd_counter_is_bounded() {
        let mut counters = NodeCounters::default();
        look(&mut counters, 1000, &[("a", status(1, 0, 0, 0))]);
        assert_eq!(look(&mut counters, 2000, &[("a", status(1, i64::MAX, 0, 0))]), GROWTH_MAX);
    }

    #[test]
    fn the_latency_of_a_period_is_that_of_its_slowest_node() {
        let mut counters = NodeCounters::default();
        look(&mut counters, 1000, &[("a", status(1, 0, 10, 1000)), ("b", status(1, 0, 0, 0))]);
        assert_eq!(counters.end_period(), None, "all of it was before");
        look(&mut counters, 2000, &[("a", status(1, 0, 14, 1400)), ("b", status(1, 0, 2, 600))]);
        assert_eq!(counters.end_period(), Some(300.0));
        assert_eq!(counters.end_period(), None);
    }
}
