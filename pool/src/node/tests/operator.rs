//! Under an operator's allocation, and without it.

use std::time::Duration;

use super::super::*;
use super::toy::{Toy, policy};
use super::traps::{hold, warm};
use crate::targets::{Operations, Targets};

const SECOND: Duration = Duration::from_secs(1);

fn allotted(addresses: u32, enis: u32) -> AllocationView {
    AllocationView { addresses, enis, ..AllocationView::default() }
}

#[test]
fn a_node_takes_its_turn_only_when_its_allocation_is_raised() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.allocation = Some(allotted(9, 1));
    toy.settle();
    assert_eq!(toy.per_eni(), [9], "the operator decides, not the local targets");
    toy.pods(12);
    toy.settle();
    assert_eq!((toy.waiting.len(), toy.per_eni()), (3, vec![9]));
    let waits = hold(&toy.last, HoldReason::AwaitingTurn);
    assert_eq!((waits.purpose, waits.addresses), (Purpose::Demand, 3));
    toy.allocation = Some(allotted(18, 2));
    toy.run(SECOND);
    assert!(toy.waiting.is_empty());
    toy.settle();
    assert_eq!(toy.per_eni(), [9, 9]);
}

#[test]
fn pods_of_a_paused_node_wait_for_the_pause_to_end_and_not_for_a_turn() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.allocation = Some(allotted(9, 1));
    toy.settle();
    toy.policy.operations = Operations::NoCloud;
    toy.pods(12);
    toy.settle();
    assert!(toy.last.holds.iter().all(|hold| hold.reason == HoldReason::Paused), "{:?}", toy.last.holds);
    assert_eq!(hold(&toy.last, HoldReason::Paused).addresses, 3);
}

#[test]
fn pods_that_no_subnet_can_serve_wait_for_the_subnet_and_not_for_a_turn() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.allocation = Some(AllocationView { withheld: 3, ..allotted(9, 1) });
    toy.pods(12);
    toy.settle();
    let waits = hold(&toy.last, HoldReason::SubnetExhausted);
    assert_eq!((waits.purpose, waits.addresses), (Purpose::Demand, 3));
    assert!(toy.last.decision.contains("headroom"), "{}", toy.last.decision);
    assert_eq!(toy.per_eni(), [9], "what the subnet keeps for others is not taken");
}

#[test]
fn a_lowered_allocation_takes_only_what_nobody_uses() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.allocation = Some(allotted(27, 3));
    toy.pods(11);
    toy.settle();
    toy.allocation = Some(allotted(9, 1));
    toy.settle();
    assert_eq!(toy.counts().assigned, 11);
    assert_eq!(toy.per_eni(), [9, 2]);
}

#[test]
fn when_the_operator_goes_away_the_node_plans_for_itself_under_its_last_ceiling() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.ceiling = Some(20);
    toy.allocation = Some(allotted(9, 1));
    toy.settle();
    toy.allocation = None;
    toy.pods(25);
    toy.settle();
    assert_eq!((toy.counts().total(), toy.waiting.len()), (20, 5));
}

#[test]
fn with_the_operator_away_warm_addresses_come_at_a_cautious_pace_and_pods_do_not_wait() {
    let mut first_calls = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut toy = Toy::new("m5.large", policy(warm(4)));
        toy.memory = PlannerMemory::new(seed);
        toy.memory.set_alone(true, toy.now);
        let start = toy.now;
        while toy.total_calls() == 0 {
            toy.run(SECOND);
        }
        first_calls.insert(toy.now.since(start).as_secs());
        assert!(toy.now.since(start) <= 32 * SECOND);
        toy.pods(9);
        toy.run(SECOND);
        assert!(toy.waiting.is_empty(), "{:?}", toy.last);
    }
    assert!(first_calls.len() > 8, "spread over half a minute: {first_calls:?}");
}
