//! The fleet planner and the node planner together: nodes that follow their allocations in one subnet.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::budget::Budget;
use crate::ec2::Action;
use crate::id::SubnetId;
use crate::node::tests::toy::{Toy, histories, policy};
use crate::node::{AllocationView, EniRole};
use crate::targets::{Addressing, Policy, Targets};
use crate::time::Timestamp;

const ROUND: Duration = Duration::from_secs(1);

fn subnet() -> SubnetId {
    "subnet-1".parse().unwrap()
}

struct Fleet {
    nodes: Vec<Toy>,
    size: u32,
    headroom: u32,
    memory: FleetMemory,
    budget: Budget,
    now: Timestamp,
    given: Vec<Option<Given>>,
    last: FleetPlan,
}

impl Fleet {
    fn new(policies: &[Policy], size: u32, headroom: u32) -> Self {
        let nodes: Vec<_> = policies.iter().map(|policy| Toy::new("m5.large", *policy)).collect();
        let now = nodes[0].now;
        Self {
            given: vec![None; nodes.len()],
            nodes,
            size,
            headroom,
            memory: FleetMemory::default(),
            budget: Budget::published(100, now),
            now,
            last: FleetPlan::default(),
        }
    }

    /// Free addresses, as EC2 would count them.
    fn available(&self) -> u32 {
        let taken: u32 = self.nodes.iter().map(|node| node.counts().total() + as_u32(node.attached())).sum();
        self.size.saturating_sub(taken)
    }

    fn view(&self, index: usize) -> NodeView {
        let node = &self.nodes[index];
        let eni = |eni: &crate::node::tests::toy::Eni| {
            let view = eni.view();
            FleetEni {
                subnet: view.subnet.clone(),
                primary: view.primary,
                retiring: view.role == EniRole::Retiring,
                addresses: view.addresses().total(),
                assigned: view.addresses().assigned,
                prefixes: as_u32(view.prefixes.len()),
                singles_held: view.singles.held(),
                prefixes_in_use: as_u32(view.prefixes.iter().filter(|prefix| prefix.counts.held() > 0).count()),
            }
        };
        NodeView {
            name: format!("node-{index}").into(),
            capacity: node.capacity,
            policy: node.policy,
            max_pods: None,
            pods: node.counts().assigned + as_u32(node.waiting.len()),
            waiting: as_u32(node.waiting.len()),
            addresses: node.counts(),
            enis: node.enis.iter().map(eni).collect(),
            foreign_enis: 0,
            no_prefixes: false,
            subnets: vec![subnet()],
            given: self.given[index].clone(),
        }
    }

    /// One round of the operator, and time for the agents to follow.
    fn round(&mut self) {
        let views: Vec<_> = (0..self.nodes.len()).map(|index| self.view(index)).collect();
        let stocks = [SubnetStock { id: subnet(), available: self.available(), headroom: self.headroom }];
        let before = self.budget.left(Action::AttachNetworkInterface, self.now);
        let plan = plan(&views, &stocks, &mut self.memory, &mut self.budget, self.now);
        let raised: u32 = plan
            .allocations
            .iter()
            .zip(&views)
            .map(|(allocation, view)| {
                let before = view.given.as_ref().map_or(view.enis.len(), |given| given.enis as usize);
                allocation.enis.saturating_sub(as_u32(before))
            })
            .sum();
        assert!(raised <= before, "{raised} interfaces with {before} calls left");
        for ((node, given), allocation) in self.nodes.iter_mut().zip(&mut self.given).zip(&plan.allocations) {
            node.ceiling = Some(allocation.ceiling);
            node.allocation = Some(AllocationView {
                addresses: allocation.addresses,
                enis: allocation.enis,
                prefixes: allocation.prefixes,
                subnet: allocation.subnet.clone(),
                withheld: allocation.withheld,
            });
            *given = Some(Given {
                addresses: allocation.addresses,
                prefixes: allocation.prefixes,
                enis: allocation.enis,
                subnet: allocation.subnet.clone(),
            });
            node.run(ROUND);
        }
        self.now = self.now.plus(ROUND);
        self.last = plan;
    }

    fn rounds(&mut self, count: u32) {
        (0..count).for_each(|_| self.round());
    }

    fn waiting(&self) -> usize {
        self.nodes.iter().map(|node| node.waiting.len()).sum()
    }
}

fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap()
}

#[test]
fn a_scale_up_over_forty_nodes_is_served_within_the_budget() {
    let mut fleet = Fleet::new(&[policy(Targets::default()); 40], 10_000, 0);
    fleet.rounds(3);
    for node in &mut fleet.nodes {
        node.pods(27);
    }
    // Eighty interfaces: fifty at once, then five a second.
    fleet.rounds(3);
    assert!(fleet.waiting() > 0);
    fleet.rounds(8);
    assert_eq!(fleet.waiting(), 0, "{:?}", fleet.last.allocations[39]);
}

#[test]
fn in_a_scarce_subnet_pods_come_before_warm_addresses_and_the_headroom_is_left() {
    let mut fleet = Fleet::new(&[policy(Targets::default()); 10], 150, 20);
    fleet.rounds(5);
    assert!(fleet.available() >= 20);
    for node in &mut fleet.nodes[..4] {
        node.pods(12);
    }
    // What idle nodes keep warm is theirs; what is left goes to pods first.
    fleet.rounds(20);
    assert!(fleet.available() >= 20, "{}", fleet.available());
    let withheld = fleet.last.allocations.iter().filter(|a| a.decision.contains("withheld: subnet-1 has")).count();
    assert!(withheld > 0);
    let served: Vec<_> = fleet.nodes[..4].iter().map(|node| node.counts().assigned).collect();
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(most - least <= 1, "evenly: {served:?}");
}

#[test]
fn nodes_that_shrank_give_back_what_others_wait_for() {
    let warm = policy(Targets { warm_ips: Some(1), ..Targets::default() });
    let mut fleet = Fleet::new(&[warm; 3], 45, 0);
    fleet.nodes[0].pods(20);
    fleet.nodes[1].pods(10);
    fleet.rounds(20);
    assert_eq!(fleet.waiting(), 0);
    fleet.nodes[2].pods(15);
    fleet.rounds(5);
    assert!(fleet.waiting() > 0, "the subnet is full");
    fleet.nodes[0].end(0, 20);
    fleet.rounds(30 + 65 + 35 + 5);
    assert_eq!(fleet.waiting(), 0, "{:?}", fleet.last.allocations);
}

proptest! {
    #![proptest_config(histories(24))]

    #[test]
    fn whatever_pods_do_the_headroom_is_left_and_in_the_end_all_are_served(
        warm in 0u32..6,
        mode in prop_oneof![Just(Addressing::Secondary), Just(Addressing::Prefix)],
        size in 60u32..400,
        headroom in 0u32..40,
        history in prop::collection::vec((0usize..4, 0u32..12, 0u32..12, 1u32..40), 1..12),
    ) {
        let policy = Policy { addressing: mode, ..policy(Targets { warm_ips: Some(warm), ..Targets::default() }) };
        let mut fleet = Fleet::new(&[policy; 4], size, headroom);
        for (node, come, end, rounds) in history {
            fleet.nodes[node].pods(come);
            fleet.nodes[node].end(3, end);
            fleet.rounds(rounds);
            // Beyond what was shared out there is only a /28 that an agent rounds up to, and, for as long as it takes to give
            // them back, free addresses on interfaces that are to run empty: they are replaced before they go.
            let rounding = if mode == Addressing::Prefix { 4 * 15 } else { 0 };
            let going: u32 = fleet.nodes.iter().map(Toy::free_on_draining).sum();
            let left = fleet.available() + rounding + going;
            prop_assert!(left >= headroom.min(size - 4), "{} of {}", left, headroom);
        }
        fleet.size = 10_000;
        fleet.rounds(150);
        for node in &fleet.nodes {
            let full = node.counts().assigned >= node.capacity.max_pods(mode);
            prop_assert!(node.waiting.is_empty() || full, "{:?}: {:?}", node.last, fleet.last.allocations);
        }
        let calls: u32 = fleet.nodes.iter().map(Toy::total_calls).sum();
        fleet.rounds(60);
        prop_assert_eq!(fleet.nodes.iter().map(Toy::total_calls).sum::<u32>(), calls, "a fleet at rest makes no call");
    }
}
