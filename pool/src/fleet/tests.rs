//! The fleet planner: wants, shares, turns, hysteresis.

use std::time::{Duration, Instant};

use super::*;
use crate::budget::{Budget, Limit};
use crate::capacity::{Capacity, bundled};
use crate::ec2::Action;
use crate::id::{InstanceType, SubnetId};
use crate::node::Counts;
use crate::targets::{Addressing, Operations, Policy, Targets};
use crate::time::Timestamp;

fn at(seconds: u64) -> Timestamp {
    Timestamp(1_000_000 + seconds * 1000)
}

fn subnet(n: u32) -> SubnetId {
    format!("subnet-{n}").parse().unwrap()
}

fn stock(available: u32, headroom: u32) -> Vec<SubnetStock> {
    vec![SubnetStock { id: subnet(1), available, headroom }]
}

fn targets(targets: Targets) -> Policy {
    Policy { targets, ..Policy::default() }
}

fn warm(ips: u32) -> Policy {
    targets(Targets { warm_ips: Some(ips), ..Targets::default() })
}

fn eni(primary: bool) -> FleetEni {
    FleetEni {
        subnet: subnet(1),
        primary,
        retiring: false,
        addresses: 0,
        assigned: 0,
        prefixes: 0,
        singles_held: 0,
        prefixes_in_use: 0,
    }
}

fn node(name: &str, policy: Policy, pods: u32) -> NodeView {
    NodeView {
        name: name.into(),
        capacity: Capacity::new(&bundled(&InstanceType::new("m5.large")).unwrap()),
        policy,
        max_pods: None,
        pods,
        waiting: 0,
        addresses: Counts::default(),
        enis: vec![eni(true)],
        foreign_enis: 0,
        no_prefixes: false,
        subnets: vec![subnet(1)],
        given: None,
    }
}

/// The agent did what it was allotted, and its pods have their addresses.
fn follow(node: &mut NodeView, allocation: &NodeAllocation) {
    node.given = Some(Given {
        addresses: allocation.addresses,
        prefixes: allocation.prefixes,
        enis: allocation.enis,
        subnet: allocation.subnet.clone(),
    });
    let assigned = node.pods.min(allocation.addresses);
    node.addresses = Counts { assigned, cooling: 0, free: allocation.addresses - assigned };
    node.enis[0].addresses = allocation.addresses;
    node.enis[0].prefixes = allocation.prefixes;
    while node.enis.len() < allocation.enis as usize {
        node.enis.push(eni(false));
    }
}

fn plan_once(nodes: &[NodeView], stocks: &[SubnetStock]) -> FleetPlan {
    plan(nodes, stocks, &mut FleetMemory::default(), &mut Budget::published(80, at(0)), at(0))
}

#[test]
fn a_fresh_node_is_allotted_what_its_targets_ask() {
    let plan = plan_once(&[node("a", targets(Targets::default()), 0)], &stock(1000, 0));
    let allocation = &plan.allocations[0];
    assert_eq!((allocation.addresses, allocation.enis, allocation.ceiling), (9, 1, 27));
    assert_eq!(allocation.decision, "9 = 0 used + 1 warm ENI of 9");
    assert_eq!(allocation.subnet, Some(subnet(1)));
}

#[test]
fn pods_that_were_bound_just_now_raise_the_allocation_before_their_adds_come() {
    let plan = plan_once(&[node("a", targets(Targets::default()), 27)], &stock(1000, 0));
    let allocation = &plan.allocations[0];
    assert_eq!((allocation.addresses, allocation.enis, allocation.demand), (27, 3, 27));
}

#[test]
fn the_same_snapshot_gives_the_same_allocations_and_spends_nothing_twice() {
    let mut nodes = vec![node("a", warm(4), 5), node("b", targets(Targets::default()), 12)];
    let (mut memory, mut budget) = (FleetMemory::default(), Budget::published(80, at(0)));
    let first = plan(&nodes, &stock(1000, 0), &mut memory, &mut budget, at(0));
    for (node, allocation) in nodes.iter_mut().zip(&first.allocations) {
        follow(node, allocation);
    }
    let spent = budget.left(Action::CreateNetworkInterface, at(0));
    let second = plan(&nodes, &stock(1000, 0), &mut memory, &mut budget, at(0));
    assert_eq!(first.allocations.iter().map(|a| a.addresses).collect::<Vec<_>>(), [9, 27]);
    let figures = |plan: &FleetPlan| plan.allocations.iter().map(|a| (a.addresses, a.enis)).collect::<Vec<_>>();
    assert_eq!(figures(&first), figures(&second));
    assert_eq!(budget.left(Action::CreateNetworkInterface, at(0)), spent);
}

#[test]
fn a_node_learns_how_many_of_its_pods_no_subnet_can_serve() {
    let nodes = [node("short", warm(0), 12), node("warm only", warm(9), 0)];
    let withheld = |available| {
        let plan = plan_once(&nodes, &stock(available, 100));
        plan.allocations.iter().map(|a| a.withheld).collect::<Vec<_>>()
    };
    // Twelve pods and the primary address of a second interface; warm addresses that are missing keep no pod waiting.
    assert_eq!(withheld(113), [0, 0]);
    assert_eq!(withheld(110), [3, 0]);
    assert_eq!(withheld(90), [12, 0]);
}

#[test]
fn a_node_that_waits_for_its_turn_only_is_withheld_nothing() {
    let mut budget = Budget::published(80, at(0));
    while budget.take(Action::CreateNetworkInterface, 1, at(0)).is_ok() {}
    let nodes = [node("a", warm(0), 12)];
    let plan = plan(&nodes, &stock(1000, 0), &mut FleetMemory::default(), &mut budget, at(0));
    let allocation = &plan.allocations[0];
    assert_eq!((allocation.addresses, allocation.withheld), (9, 0), "{}", allocation.decision);
}

#[test]
fn demand_comes_before_minimums_and_minimums_before_warm_addresses() {
    let minimum = targets(Targets { warm_ips: Some(0), minimum_ips: Some(6), ..Targets::default() });
    let nodes = [node("warm", warm(9), 0), node("minimum", minimum, 0), node("demand", warm(0), 5)];
    let given = |left| {
        let plan = plan_once(&nodes, &stock(left, 0));
        plan.allocations.iter().map(|a| a.addresses).collect::<Vec<_>>()
    };
    assert_eq!(given(5), [0, 0, 5]);
    assert_eq!(given(8), [0, 3, 5]);
    assert_eq!(given(13), [2, 6, 5]);
    assert_eq!(given(20), [9, 6, 5]);
}

#[test]
fn what_is_scarce_is_shared_evenly_and_the_decision_says_what_is_withheld() {
    let nodes = [node("a", warm(2), 0), node("b", warm(9), 0), node("c", warm(9), 0)];
    let plan = plan_once(&nodes, &stock(60, 50));
    let given: Vec<_> = plan.allocations.iter().map(|a| a.addresses).collect();
    assert_eq!(given, [2, 4, 4]);
    assert_eq!(plan.allocations[1].decision, "9 = 0 used + 9 warm; 5 withheld: subnet-1 has 10 left");
    assert_eq!(plan.subnets[0], SubnetPlan { id: subnet(1), in_flight: 10, left: 0, withheld: 10, nodes: 3 });
}

#[test]
fn what_is_allotted_and_not_yet_taken_is_not_given_to_another() {
    let mut a = node("a", warm(9), 0);
    a.given = Some(Given { addresses: 9, prefixes: 0, enis: 1, subnet: Some(subnet(1)) });
    let plan = plan_once(&[a, node("b", warm(9), 0)], &stock(12, 0));
    assert_eq!(plan.allocations.iter().map(|a| a.addresses).collect::<Vec<_>>(), [9, 3]);
}

#[test]
fn nodes_whose_pods_wait_have_the_first_turn_and_the_rest_waits_for_the_budget() {
    let mut nodes: Vec<_> = (0..60).map(|n| node(&format!("n{n}"), targets(Targets::default()), 27)).collect();
    nodes[59].waiting = 3;
    let (mut memory, mut budget) = (FleetMemory::default(), Budget::published(100, at(0)));
    let first = plan(&nodes, &stock(100_000, 0), &mut memory, &mut budget, at(0));
    assert_eq!(first.allocations[59].addresses, 27);
    let enis: u32 = first.allocations.iter().map(|a| a.enis - 1).sum();
    assert_eq!(enis, 50, "as many as EC2's bucket of attachments holds");
    let waits = first.allocations.iter().find(|a| a.addresses < 27).unwrap();
    assert!(waits.decision.ends_with("; waits its turn for AttachNetworkInterface"), "{}", waits.decision);
    assert_eq!(waits.addresses, 9, "slots that are there cost another action");
    let wake = first.wake_at.unwrap();
    assert_eq!(wake, Timestamp(at(0).0 + 200), "five attachments a second");

    for (node, allocation) in nodes.iter_mut().zip(&first.allocations) {
        follow(node, allocation);
    }
    let second = plan(&nodes, &stock(100_000, 0), &mut memory, &mut budget, at(10));
    assert_eq!(second.allocations.iter().map(|a| a.enis - 1).sum::<u32>(), 100);
}

#[test]
fn an_allocation_is_lowered_only_after_a_minute_of_less_need() {
    let mut nodes = vec![node("a", warm(2), 20)];
    let (mut memory, mut budget) = (FleetMemory::default(), Budget::published(80, at(0)));
    let stocks = stock(1000, 0);
    let first = plan(&nodes, &stocks, &mut memory, &mut budget, at(0));
    follow(&mut nodes[0], &first.allocations[0]);
    nodes[0].pods = 4;
    nodes[0].addresses = Counts { assigned: 4, cooling: 0, free: 18 };
    let second = plan(&nodes, &stocks, &mut memory, &mut budget, at(10));
    assert_eq!(second.allocations[0].addresses, 22);
    assert_eq!(second.allocations[0].decision, "6 = 4 used + 2 warm; 22 kept, needed a minute ago");
    let wake = second.wake_at.unwrap();
    assert_eq!(wake, at(75));
    let third = plan(&nodes, &stocks, &mut memory, &mut budget, wake);
    assert_eq!((third.allocations[0].addresses, third.allocations[0].enis), (6, 1));
}

#[test]
fn an_edit_of_the_targets_acts_at_once_in_both_directions() {
    let mut nodes = vec![node("a", warm(9), 0)];
    let (mut memory, mut budget) = (FleetMemory::default(), Budget::published(80, at(0)));
    let stocks = stock(1000, 0);
    let mut step = |nodes: &mut Vec<NodeView>, seconds| {
        let plan = plan(nodes, &stocks, &mut memory, &mut budget, at(seconds));
        follow(&mut nodes[0], &plan.allocations[0]);
        plan.allocations[0].addresses
    };
    assert_eq!(step(&mut nodes, 0), 9);
    nodes[0].policy = warm(2);
    assert_eq!(step(&mut nodes, 1), 2);
    nodes[0].policy = warm(12);
    assert_eq!(step(&mut nodes, 2), 12);
}

#[test]
fn a_restarted_operator_lowers_nothing_at_once() {
    let mut a = node("a", warm(2), 4);
    a.given = Some(Given { addresses: 22, prefixes: 0, enis: 3, subnet: Some(subnet(1)) });
    a.addresses = Counts { assigned: 4, cooling: 0, free: 18 };
    let plan = plan_once(&[a], &stock(1000, 0));
    assert_eq!(plan.allocations[0].addresses, 22);
}

#[test]
fn a_node_that_must_not_release_is_never_lowered_and_one_without_cloud_never_raised() {
    let mut kept = node("kept", Policy { operations: Operations::NoRelease, ..warm(0) }, 0);
    kept.given = Some(Given { addresses: 22, prefixes: 0, enis: 3, subnet: None });
    let still = node("still", Policy { operations: Operations::NoCloud, ..warm(5) }, 9);
    let nodes = [kept, still];
    let (mut memory, mut budget) = (FleetMemory::default(), Budget::published(80, at(0)));
    for seconds in [0, 100, 200] {
        let plan = plan(&nodes, &stock(1000, 0), &mut memory, &mut budget, at(seconds));
        assert_eq!(plan.allocations.iter().map(|a| a.addresses).collect::<Vec<_>>(), [22, 0]);
    }
}

#[test]
fn prefixes_are_allotted_in_whole_blocks() {
    let policy = Policy { addressing: Addressing::Prefix, ..targets(Targets::default()) };
    let plan = plan_once(&[node("a", policy, 20)], &stock(1000, 0));
    let allocation = &plan.allocations[0];
    assert_eq!((allocation.addresses, allocation.prefixes, allocation.enis, allocation.ceiling), (48, 3, 1, 112));
    let scarce = plan_once(&[node("a", policy, 20)], &stock(40, 0));
    let allocation = &scarce.allocations[0];
    assert_eq!(
        (allocation.addresses, allocation.prefixes),
        (40, 2),
        "the rest of the demand comes as single addresses"
    );
}

/// Eighteen pods on single addresses fill two interfaces of an m5.large but for its warm prefix's slot on the third.
#[test]
fn single_addresses_of_pods_keep_their_slots_when_a_node_goes_over_to_prefixes() {
    let policy = Policy { addressing: Addressing::Prefix, ..targets(Targets::default()) };
    let mut a = node("a", policy, 18);
    a.addresses = Counts { assigned: 18, cooling: 0, free: 16 };
    a.enis = vec![
        FleetEni { addresses: 9, assigned: 9, singles_held: 9, ..eni(true) },
        FleetEni { addresses: 9, assigned: 9, singles_held: 9, ..eni(false) },
        FleetEni { addresses: 16, prefixes: 1, ..eni(false) },
    ];
    let allocation = &plan_once(&[a], &stock(1000, 0)).allocations[0];
    assert_eq!((allocation.addresses, allocation.prefixes, allocation.enis), (34, 1, 3));
}

/// With custom networking switched on, a /28 of the primary has five pods and eleven addresses that no pod can use. 28 pods
/// with single addresses fill two more interfaces, and the /28 for a new pod needs the fourth.
#[test]
fn addresses_that_no_pod_can_use_hide_neither_what_pods_need_nor_the_slots_of_the_others() {
    let policy = Policy { addressing: Addressing::Prefix, use_primary_eni: false, ..warm(0) };
    let mut a = node("a", policy, 34);
    a.capacity = Capacity::new(&bundled(&InstanceType::new("m5.xlarge")).unwrap());
    a.waiting = 1;
    a.addresses = Counts { assigned: 33, cooling: 0, free: 11 };
    a.enis = vec![
        FleetEni { addresses: 16, assigned: 5, prefixes: 1, prefixes_in_use: 1, ..eni(true) },
        FleetEni { addresses: 14, assigned: 14, singles_held: 14, ..eni(false) },
        FleetEni { addresses: 14, assigned: 14, singles_held: 14, ..eni(false) },
    ];
    let allocation = &plan_once(&[a], &stock(1000, 0)).allocations[0];
    assert_eq!((allocation.addresses, allocation.prefixes, allocation.enis), (28 + 2 * 16 - 11, 2, 4));
    assert_eq!(allocation.ceiling, 112 + 11, "112 of use");
}

#[test]
fn the_next_interface_goes_where_most_is_left_and_stays_there() {
    let stocks = [
        SubnetStock { id: subnet(1), available: 5, headroom: 0 },
        SubnetStock { id: subnet(2), available: 500, headroom: 0 },
    ];
    let mut a = node("a", targets(Targets::default()), 12);
    a.subnets = vec![subnet(1), subnet(2)];
    let first = plan_once(std::slice::from_ref(&a), &stocks);
    assert_eq!(first.allocations[0].subnet, Some(subnet(2)));
    a.given = Some(Given { addresses: 27, prefixes: 0, enis: 3, subnet: Some(subnet(1)) });
    a.addresses = Counts { assigned: 12, cooling: 0, free: 15 };
    assert_eq!(plan_once(&[a], &stocks).allocations[0].subnet, Some(subnet(1)), "nothing more is wanted");
}

#[test]
fn five_thousand_nodes_are_planned_in_well_under_a_hundred_milliseconds() {
    let mut nodes: Vec<_> = (0..5000).map(|n| node(&format!("node-{n}"), warm(n % 9), n % 27)).collect();
    let stocks: Vec<_> = (0..6).map(|n| SubnetStock { id: subnet(n), available: 8000, headroom: 100 }).collect();
    for (n, node) in nodes.iter_mut().enumerate() {
        node.subnets = vec![subnet(u32::try_from(n).unwrap() % 6), subnet(1)];
    }
    let (mut memory, mut budget) = (FleetMemory::default(), Budget::published(80, at(0)));
    budget.set_limit(Action::CreateNetworkInterface, Limit::per_second(100_000, 5), at(0));
    let mut best = Duration::MAX;
    for round in 0..5 {
        let started = Instant::now();
        let plan = plan(&nodes, &stocks, &mut memory, &mut budget, at(round));
        best = best.min(started.elapsed());
        assert_eq!(plan.allocations.len(), 5000);
    }
    // Unoptimised, on whatever machine runs this: a release build is some ten times faster.
    assert!(best < Duration::from_millis(500), "{best:?}");
    eprintln!("5,000 nodes in {best:?}");
}
