//! The cluster's figures: sums over ENIPools, subnets and the EC2 budget. Pure: plain data in, plain data out.

use std::collections::BTreeMap;
use std::time::Duration;

use enipool_crds::{ENIPoolStatus, Reason};
use enipool_pool::SubnetId;
use enipool_pool::budget::BudgetUse;
use enipool_pool::ec2::Action;

use super::counters::Totals;

/// Most ENIs that are believed of one node: AWS's largest instances hold 15 on one network card.
const ENIS_MAX: u32 = 64;
/// Most addresses that are believed of one node: 64 ENIs of 64 slots with a /28 in each.
const ADDRESSES_MAX: u32 = 64 * 64 * 16;
/// Most pods that are believed of one node.
const PODS_MAX: u32 = 100_000;

/// All that the metrics are made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Nodes that have an ENIPool.
    pub nodes: u64,
    /// Of these, the nodes whose agent is silent. Their figures are in none of the sums of what agents report.
    pub silent_nodes: u64,
    /// Sums of what agents report.
    pub held: Held,
    /// Sums of what the operator allocated, over all nodes.
    pub planned: Planned,
    /// Pods that wait for an address, by the reason that their node reports.
    pub waiting: BTreeMap<Reason, u64>,
    /// ENIs that no node owns; `None` while they are not looked for.
    pub leaked_enis: Option<u64>,
    /// What was counted since this replica leads.
    pub totals: Totals,
    /// Mean latency of the EC2 calls of the slowest node in the last whole period, in milliseconds.
    pub slowest_node_ms: Option<f64>,
    /// Mutating actions only: reads are not part of the budget.
    pub budget: BTreeMap<Action, BudgetUse>,
    pub subnets: BTreeMap<SubnetId, SubnetFigures>,
    pub classes: BTreeMap<String, ClassFigures>,
}

/// What nodes hold and do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub enis: u64,
    pub enis_max: u64,
    pub addresses: u64,
    pub addresses_max: u64,
    pub assigned: u64,
    pub cooling: u64,
    pub available: u64,
    pub prefixes: u64,
    /// Nodes with an EC2 action or an ENI creation under way.
    pub acting_nodes: u64,
}

/// What the operator wants nodes to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Planned {
    pub pods: u64,
    pub demand: u64,
    pub allocated: u64,
    pub withheld: u64,
}

/// One subnet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubnetFigures {
    /// Free addresses as EC2 counts them.
    pub free: u32,
    /// Time until the addresses above the headroom are used up at the last hour's pace.
    pub runway: Option<Duration>,
}

/// The nodes of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassFigures {
    pub nodes: u64,
    pub addresses: u64,
    pub assigned: u64,
    pub waiting: u64,
}

impl Figures {
    /// Adds a node. `class` is empty where none matches. The status of a silent node is not to be believed.
    pub fn add_node(
        &mut self,
        class: &str,
        allocation: Option<&enipool_crds::Allocation>,
        status: Option<&ENIPoolStatus>,
        silent: bool,
    ) {
        self.nodes += 1;
        self.silent_nodes += u64::from(silent);
        if let Some(allocation) = allocation {
            self.planned.pods += count(allocation.pods, PODS_MAX);
            self.planned.demand += count(allocation.demand, PODS_MAX);
            self.planned.allocated += count(allocation.addresses, ADDRESSES_MAX);
            self.planned.withheld += count(allocation.withheld, ADDRESSES_MAX);
        }
        let class = self.classes.entry(class.to_owned()).or_default();
        class.nodes += 1;
        let Some(status) = status.filter(|_| !silent) else { return };
        let addresses = status.addresses.unwrap_or_default();
        let waiting = count(status.waiting, PODS_MAX);
        class.addresses += count(addresses.total, ADDRESSES_MAX);
        class.assigned += count(addresses.assigned, ADDRESSES_MAX);
        class.waiting += waiting;
        self.held.add(status);
        if waiting > 0 {
            *self.waiting.entry(reason(status)).or_default() += waiting;
        }
    }

    /// All pods that wait for an address.
    pub fn waiting_pods(&self) -> u64 {
        self.waiting.values().sum()
    }
}

impl Held {
    fn add(&mut self, status: &ENIPoolStatus) {
        let capacity = status.capacity.unwrap_or_default();
        let addresses = status.addresses.unwrap_or_default();
        let prefixes: u64 = status.enis.iter().take(ENIS_MAX as usize).map(|eni| count(eni.prefixes, 64)).sum();
        self.enis += count(status.attached_enis, ENIS_MAX);
        self.enis_max += count(capacity.enis, ENIS_MAX);
        self.addresses += count(addresses.total, ADDRESSES_MAX);
        self.addresses_max += count(capacity.addresses, ADDRESSES_MAX);
        self.assigned += count(addresses.assigned, ADDRESSES_MAX);
        self.cooling += count(addresses.cooling, ADDRESSES_MAX);
        self.available += count(addresses.available, ADDRESSES_MAX);
        self.prefixes += prefixes;
        self.acting_nodes += u64::from(status.action_in_progress.is_some() || !status.intents.is_empty());
    }
}

/// What holds up the pods that wait on a node. A reason that this version does not know counts as `AsPlanned`.
fn reason(status: &ENIPoolStatus) -> Reason {
    Reason::ALL.into_iter().find(|reason| reason.as_str() == status.reason).unwrap_or(Reason::AsPlanned)
}

/// A figure of one node, within what a node can have: one node's word never makes a sum absurd.
fn count(value: i32, most: u32) -> u64 {
    u32::try_from(value).unwrap_or(0).min(most).into()
}

#[cfg(test)]
mod tests {
    use enipool_crds::fixtures::pool_with_enis;
    use enipool_crds::{AddressCounts, Allocation, ENIPool};

    use super::*;

    fn figures<'a>(pools: impl IntoIterator<Item = (&'a ENIPool, bool)>) -> Figures {
        let mut figures = Figures::default();
        for (pool, silent) in pools {
            figures.add_node("default", pool.spec.allocation.as_ref(), pool.status.as_ref(), silent);
        }
        figures
    }

    #[test]
    fn the_figures_are_sums_over_all_nodes() {
        let (a, b) = (pool_with_enis("a", 2, 9, 5), pool_with_enis("b", 3, 9, 20));
        let sums = figures([(&a, false), (&b, false)]);
        assert_eq!((sums.nodes, sums.silent_nodes), (2, 0));
        assert_eq!((sums.held.enis, sums.held.addresses, sums.held.assigned), (5, 45, 25));
        assert_eq!(sums.classes["default"], ClassFigures { nodes: 2, addresses: 45, assigned: 25, waiting: 0 });
    }

    #[test]
    fn a_silent_node_counts_as_such_and_in_no_sum() {
        let (a, b) = (pool_with_enis("a", 2, 9, 5), pool_with_enis("b", 3, 9, 20));
        let sums = figures([(&a, false), (&b, true)]);
        assert_eq!((sums.nodes, sums.silent_nodes), (2, 1));
        assert_eq!((sums.held.enis, sums.held.addresses, sums.held.assigned), (2, 18, 5));
    }

    #[test]
    fn pods_wait_by_the_reason_of_their_node() {
        let mut pool = pool_with_enis("a", 2, 9, 18);
        let status = pool.status.as_mut().unwrap();
        (status.waiting, status.reason) = (3, Reason::SubnetExhausted.to_string());
        pool.spec.allocation = Some(Allocation { pods: 21, demand: 3, withheld: 3, ..Allocation::default() });
        let sums = figures([(&pool, false)]);
        assert_eq!(sums.waiting, [(Reason::SubnetExhausted, 3)].into());
        assert_eq!((sums.waiting_pods(), sums.planned.demand, sums.planned.withheld), (3, 3, 3));
    }

    #[test]
    fn one_node_s_absurd_word_stays_within_what_a_node_can_have() {
        let mut pool = pool_with_enis("a", 2, 9, 5);
        let status = pool.status.as_mut().unwrap();
        status.addresses =
            Some(AddressCounts { total: i32::MAX, assigned: i32::MIN, cooling: i32::MAX, available: -1 });
        status.waiting = i32::MAX;
        status.attached_enis = i32::MAX;
        let sums = figures([(&pool, false)]);
        assert_eq!(sums.held.addresses, u64::from(ADDRESSES_MAX));
        assert_eq!((sums.held.assigned, sums.held.available), (0, 0));
        assert_eq!((sums.held.enis, sums.waiting_pods()), (64, u64::from(PODS_MAX)));
    }
}
