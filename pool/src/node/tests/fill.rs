//! Growing and shrinking an ordinary node: how much it holds, and in how many EC2 calls.

use std::time::Duration;

use super::super::*;
use super::toy::{Toy, policy};
use crate::ec2::Supply;
use crate::targets::{Addressing, Policy, Targets};

const SECOND: Duration = Duration::from_secs(1);

fn prefix_policy(targets: Targets) -> Policy {
    Policy { addressing: Addressing::Prefix, ..policy(targets) }
}

#[test]
fn filling_an_m5_large_from_empty_to_27_pods_takes_seven_mutations() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.run(SECOND);
    toy.pods(27);
    toy.run(60 * SECOND);
    assert_eq!(toy.counts().assigned, 27);
    // Eight calls in all with the one Describe at the agent's start.
    assert_eq!(toy.total_calls(), 7, "{:?}", toy.calls);
}

#[test]
fn pods_that_come_one_by_one_cost_no_more_calls() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    for _ in 0..27 {
        toy.run(10 * SECOND);
        toy.pods(1);
        toy.run(SECOND);
        assert!(toy.waiting.is_empty(), "a warm node serves at once");
    }
    assert_eq!(toy.total_calls(), 7, "{:?}", toy.calls);
}

#[test]
fn a_burst_on_a_fresh_node_asks_for_everything_in_one_plan() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.pods(27);
    let actions: Vec<_> = toy.step().actions.iter().map(|planned| (planned.action.clone(), planned.purpose)).collect();
    assert_eq!(actions.len(), 3, "{actions:?}");
    assert!(matches!(actions[0].0, Action::Assign { supply: Supply::Addresses(9), .. }));
    for (action, index) in actions[1..].iter().zip([1, 2]) {
        let Action::Create { device_index, supply, .. } = &action.0 else { panic!("{action:?}") };
        assert_eq!((*device_index, *supply), (index, Supply::Addresses(9)));
        assert_eq!(action.1, Purpose::Demand);
    }
    toy.step();
    assert!(toy.last.actions.is_empty(), "asked once, not again while it is on its way: {:?}", toy.last);
    assert_eq!(toy.last.holds[0].reason, HoldReason::AttachInFlight);
}

#[test]
fn a_burst_of_110_on_an_m5_4xlarge_asks_for_everything_in_one_plan() {
    let mut toy = Toy::new("m5.4xlarge", policy(Targets::default()));
    toy.pods(110);
    toy.step();
    let supply: u32 = toy
        .last
        .actions
        .iter()
        .map(|planned| match planned.action {
            Action::Assign { supply: Supply::Addresses(n), .. }
            | Action::Create { supply: Supply::Addresses(n), .. } => n,
            _ => 0,
        })
        .sum();
    assert_eq!(supply, 145, "five whole ENIs of 29: {}", toy.last.decision);
    assert_eq!(toy.last.actions.len(), 5);
}

#[test]
fn the_documented_sizing_table_holds() {
    let ips = |warm, minimum| Targets { warm_ips: Some(warm), minimum_ips: Some(minimum), ..Targets::default() };
    let enis = |warm| Targets { warm_enis: Some(warm), ..Targets::default() };
    for (instance_type, targets, rows) in [
        ("t3.small", enis(1), vec![(0, vec![3]), (5, vec![3, 3, 3]), (9, vec![3, 3, 3])]),
        ("t3.small", ips(1, 1), vec![(0, vec![1]), (5, vec![3, 3]), (9, vec![3, 3, 3])]),
        ("t3.small", ips(2, 5), vec![(0, vec![3, 2]), (5, vec![3, 3, 1]), (9, vec![3, 3, 3])]),
        ("p3dn.24xlarge", enis(1), vec![(0, vec![49]), (3, vec![49, 49]), (95, vec![49, 49, 49])]),
        ("p3dn.24xlarge", ips(5, 10), vec![(0, vec![10]), (7, vec![12]), (15, vec![20]), (45, vec![49, 1])]),
    ] {
        for (pods, expected) in rows {
            let mut toy = Toy::new(instance_type, policy(targets));
            toy.pods(pods);
            toy.settle();
            assert_eq!(toy.per_eni(), expected, "{instance_type}, {targets:?}, {pods} pods: {}", toy.last.decision);
        }
    }
}

#[test]
fn the_documented_prefix_table_holds() {
    let warm = |n| Targets { warm_prefixes: Some(n), ..Targets::default() };
    let ips = |warm, minimum| Targets { warm_ips: Some(warm), minimum_ips: Some(minimum), ..Targets::default() };
    for (targets, rows) in [
        (warm(1), vec![(0, 1), (5, 2), (16, 2), (17, 3), (58, 5)]),
        (warm(0), vec![(0, 0), (5, 1), (16, 1), (17, 2)]),
        (ips(1, 1), vec![(0, 1), (5, 1), (17, 2), (58, 4)]),
        (ips(7, 20), vec![(0, 2), (5, 2), (17, 2), (58, 5)]),
    ] {
        for (pods, expected) in rows {
            let mut toy = Toy::new("t3.small", prefix_policy(targets));
            toy.pods(pods);
            toy.settle();
            assert_eq!(toy.prefixes(), expected, "{targets:?}, {pods} pods: {}", toy.last.decision);
            assert_eq!(toy.singles(), 0);
        }
    }
}

#[test]
fn a_node_that_shrank_gives_its_interfaces_back_and_keeps_what_is_warm() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.pods(27);
    toy.settle();
    assert_eq!(toy.attached(), 3);
    toy.end(0, 27);
    toy.run(Duration::from_secs(85));
    assert_eq!(toy.attached(), 3, "30 s of cooling and a minute of hysteresis are not over");
    toy.settle();
    assert_eq!(toy.per_eni(), [9]);
}

#[test]
fn pods_left_on_three_interfaces_are_not_moved_but_new_ones_go_to_the_fullest() {
    let mut toy = Toy::new("m5.large", policy(Targets { warm_ips: Some(2), ..Targets::default() }));
    toy.pods(27);
    toy.settle();
    // One pod stays on each interface.
    toy.end(1, 8);
    toy.end(2, 8);
    toy.end(3, 8);
    toy.settle();
    assert_eq!(toy.counts().assigned, 3);
    assert_eq!(toy.per_eni(), [3, 1, 1], "nothing free is kept where it would hold an interface back");
    assert_eq!(toy.last.draining.len(), 2);
    toy.pods(2);
    toy.settle();
    assert_eq!(toy.per_eni(), [5, 1, 1]);
    // The pods on the drained interfaces end: those go.
    toy.end(3, 1);
    toy.end(3, 1);
    toy.settle();
    assert_eq!(toy.attached(), 1, "{:?}", toy.per_eni());
}

#[test]
fn delete_on_termination_is_set_after_the_pods_have_their_addresses() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.pods(12);
    toy.run(Duration::from_millis(100));
    assert!(toy.last.actions.iter().all(|planned| planned.purpose <= Purpose::Warm));
    toy.settle();
    assert_eq!(toy.calls["Modify"], 2);
}
