//! Where slots, the ceiling and a subnet without /28s meet: what gives way to what, and that it does so once.

use std::time::Duration;

use super::super::*;
use super::slots::State;
use super::toy::{Room, Toy, policy, subnet};
use super::traps::{addressing, hold, warm};
use crate::Prefix;
use crate::ec2::{Ec2ErrorKind, Supply};
use crate::targets::{Addressing, Operations, Targets};

const SECOND: Duration = Duration::from_secs(1);

fn empty_prefix(nth: u32) -> (Prefix, [State; 16]) {
    (format!("10.9.{nth}.0/28").parse().unwrap(), [State::Free; 16])
}

/// What EC2 answered when `supply` was asked for on the primary interface.
fn refused(toy: &mut Toy, supply: Supply, error: &Ec2ErrorKind) {
    let assign = Action::Assign { eni: toy.enis[0].view.id.clone(), supply };
    toy.memory.refused(&assign, Some(&subnet(1)), error, toy.now);
}

#[test]
fn the_ceiling_holds_for_demand_too() {
    for mode in [Addressing::Secondary, Addressing::Prefix, Addressing::Mixed] {
        let mut toy = Toy::new("m5.xlarge", addressing(mode, warm(5)));
        toy.ceiling = Some(21);
        toy.pods(30);
        toy.settle();
        assert!(toy.counts().total() <= 21, "{mode}: {:?}", toy.counts());
        assert_eq!(toy.counts().assigned, 21, "{mode}");
        assert_eq!(hold(&toy.last, HoldReason::Ceiling).addresses, 9, "{mode}");
    }
}

#[test]
fn at_the_ceiling_an_interface_makes_room_once_for_prefixes_and_single_addresses_together() {
    let mut toy = Toy::new("t3.small", addressing(Addressing::Prefix, Targets::default()));
    toy.settle();
    assert_eq!(toy.per_eni(), [16]);
    // What the primary holds is of no use any more, and takes what the ceiling leaves. Seventeen pods come before it can go.
    (toy.policy.use_primary_eni, toy.policy.operations) = (false, Operations::NoCloud);
    toy.enis[0].singles.push(State::Free);
    toy.ceiling = Some(17);
    toy.run(SECOND);
    toy.pods(17);
    toy.policy.operations = Operations::Normal;
    toy.run(5 * SECOND);
    assert_eq!(toy.calls["Unassign"], 1, "{:?}", toy.last);
    toy.settle();
    assert_eq!((toy.per_eni(), toy.waiting.len()), (vec![0, 17], 0), "{:?}", toy.last);
}

#[test]
fn single_addresses_that_go_with_a_prefix_share_its_interface_whether_that_is_created_or_attached() {
    let custom_networking = |toy: &mut Toy| {
        toy.policy.use_primary_eni = false;
        toy.ceiling = Some(17);
    };
    let mut toy = Toy::new("t3.small", addressing(Addressing::Prefix, Targets::default()));
    custom_networking(&mut toy);
    toy.pods(17);
    toy.settle();
    assert_eq!((toy.per_eni(), toy.prefixes(), toy.singles()), (vec![0, 17], 1, 1), "{:?}", toy.last);

    // One that is there and unattached serves for both as well.
    let mut snapshot = toy.snapshot();
    let eni = &mut snapshot.enis[1];
    (eni.phase, eni.device_index, eni.singles) = (EniPhase::Detached, None, Counts::default());
    eni.prefixes.clear();
    snapshot.usage.waiting = 17;
    let plan = plan(&snapshot, &mut PlannerMemory::default(), toy.now);
    let made = plan.actions.iter().filter(|planned| matches!(planned.action, Action::Create { .. })).count();
    let attached = plan.actions.iter().filter(|planned| matches!(planned.action, Action::Attach { .. })).count();
    assert_eq!((made, attached), (0, 1), "{plan:?}");
}

#[test]
fn with_mixed_addressing_a_prefix_takes_the_slot_of_the_last_free_single_address() {
    let mut toy = Toy::new("t3.small", policy(warm(1)));
    toy.pods(8);
    toy.settle();
    assert_eq!((toy.per_eni(), toy.counts().free), (vec![3, 3, 3], 1), "all nine slots are taken");
    toy.policy = addressing(Addressing::Mixed, warm(7));
    toy.settle();
    assert_eq!((toy.singles(), toy.prefixes()), (8, 1), "{:?}", toy.last);
}

#[test]
fn an_empty_prefix_that_counts_is_not_given_up_for_a_single_address() {
    for mode in [Addressing::Mixed, Addressing::Prefix] {
        let mut toy = Toy::new("t3.small", policy(warm(0)));
        toy.pods(6);
        toy.settle();
        // The ceiling has no room for another /28, and no slot is free for the two that are missing.
        toy.policy = addressing(mode, warm(20));
        toy.ceiling = Some(30);
        let eni = toy.enis[0].view.clone();
        toy.enis.push(super::slots::Eni {
            view: EniView { id: "eni-9999".parse().unwrap(), primary: false, device_index: Some(2), ..eni },
            singles: vec![State::Free; 2],
            prefixes: vec![empty_prefix(0)],
        });
        toy.settle();
        assert_eq!((toy.prefixes(), toy.counts().assigned), (1, 6), "{mode}: {:?}", toy.last);
        assert!(!toy.calls.contains_key("Unassign") || mode == Addressing::Prefix, "{mode}: {:?}", toy.calls);
    }
}

#[test]
fn a_slot_that_waits_for_room_below_the_ceiling_is_not_promised_twice() {
    let mut toy = Toy::new("t3.small", addressing(Addressing::Prefix, warm(0)));
    toy.pods(12);
    toy.settle();
    toy.enis[0].prefixes.push(empty_prefix(0));
    // What the primary holds is of no use any more. Of two /28s, one has room now, the other when the empty one has gone,
    // and the interface that is made for them has one slot left for two single addresses.
    (toy.policy.use_primary_eni, toy.ceiling) = (false, Some(50));
    toy.policy.operations = Operations::NoCloud;
    toy.step();
    toy.pods(34);
    toy.policy.operations = Operations::Normal;
    toy.settle();
    assert!(toy.waiting.is_empty(), "{:?}", toy.last);
}

#[test]
fn single_addresses_that_stand_in_for_a_prefix_keep_the_interfaces_that_they_take() {
    let mut toy = Toy::new("t3.small", addressing(Addressing::Prefix, warm(0)));
    (toy.policy.use_primary_eni, toy.ceiling) = (false, Some(35));
    // The second interface comes before the last of its addresses, and must not be let run empty meanwhile.
    refused(&mut toy, Supply::Addresses(2), &Ec2ErrorKind::SubnetExhausted);
    toy.pods(35);
    toy.settle();
    assert_eq!((toy.prefixes(), toy.singles(), toy.waiting.len()), (2, 3, 0), "{:?}", toy.last);
}

#[test]
fn an_interface_made_for_single_addresses_has_slots_left_for_the_prefixes_that_wait_for_room() {
    let mut toy = Toy::new("t3.small", addressing(Addressing::Prefix, warm(0)));
    (toy.policy.use_primary_eni, toy.policy.operations, toy.ceiling) = (false, Operations::NoCloud, Some(35));
    toy.enis[0].singles.push(State::Free);
    toy.enis[0].prefixes.extend([empty_prefix(0), empty_prefix(1)]);
    toy.step();
    // Two single addresses have room now, and EC2 grants one at a time: an interface each, the first shared with both /28s.
    refused(&mut toy, Supply::Addresses(2), &Ec2ErrorKind::SubnetExhausted);
    toy.pods(35);
    toy.policy.operations = Operations::Normal;
    toy.settle();
    assert_eq!((toy.prefixes(), toy.singles(), toy.waiting.len()), (2, 3, 0), "{:?}", toy.last);
}

#[test]
fn what_waits_for_its_turn_has_its_room_below_the_ceiling_kept() {
    let mut toy = Toy::new("m5.xlarge", addressing(Addressing::Prefix, warm(0)));
    toy.pods(10);
    toy.settle();
    // Those stay on the primary. Of the other 45, 32 get two /28s, of which EC2 grants one at a time.
    toy.attach_foreign(1);
    toy.enis[1].view.role = EniRole::Pods;
    (toy.policy.use_primary_eni, toy.policy.operations, toy.ceiling) = (false, Operations::NoCloud, Some(55));
    toy.step();
    refused(&mut toy, Supply::Prefixes(2), &Ec2ErrorKind::NoContiguousPrefix);
    toy.pods(45);
    toy.policy.operations = Operations::Normal;
    let plan = toy.step();
    let supplies = plan.actions.iter().filter_map(|planned| match &planned.action {
        Action::Assign { supply, .. } => Some(*supply),
        _ => None,
    });
    assert_eq!(supplies.collect::<Vec<_>>(), [Supply::Prefixes(1), Supply::Addresses(7)], "{plan:?}");
    toy.settle();
    assert_eq!((toy.per_eni(), toy.waiting.len()), (vec![16, 39], 6), "{:?}", toy.last);
}

#[test]
fn no_room_is_made_below_the_ceiling_for_a_prefix_that_the_subnet_does_not_have() {
    let mut toy = Toy::new("m5.large", addressing(Addressing::Prefix, warm(3)));
    toy.rooms.insert(subnet(1), Room { addresses: 100, prefixes: 0 });
    refused(&mut toy, Supply::Prefixes(1), &Ec2ErrorKind::NoContiguousPrefix);
    toy.attach_foreign(1);
    (toy.enis[1].view.role, toy.enis[1].prefixes) = (EniRole::Retiring, vec![empty_prefix(0)]);
    (toy.ceiling, toy.policy.operations) = (Some(26), Operations::NoCloud);
    toy.step();
    toy.pods(5);
    toy.policy.operations = Operations::Normal;
    let plan = toy.step();
    assert!(plan.actions.iter().all(|planned| matches!(planned.action, Action::Assign { .. })), "{plan:?}");
    assert_eq!(hold(plan, HoldReason::NoContiguousPrefix).addresses, 16);
}

#[test]
fn without_permission_to_assign_one_interface_brings_what_is_missing() {
    let mut toy = Toy::new("m4.xlarge", policy(warm(2)));
    refused(&mut toy, Supply::Addresses(2), &Ec2ErrorKind::AccessDenied);
    toy.run(40 * SECOND);
    assert_eq!(toy.per_eni(), [0, 2], "{:?}", toy.last);
}

#[test]
fn what_pods_use_on_a_primary_that_gets_no_more_keeps_no_other_interface() {
    for mode in [Addressing::Secondary, Addressing::Mixed, Addressing::Prefix] {
        let warm =
            if mode == Addressing::Prefix { Targets { warm_prefixes: Some(0), ..Targets::default() } } else { warm(0) };
        let mut toy = Toy::new("t3.small", addressing(mode, warm));
        let per_eni = if mode == Addressing::Secondary { 3 } else { 48 };
        toy.max_pods = Some(1000);
        toy.pods(per_eni);
        toy.settle();
        toy.policy.use_primary_eni = false;
        toy.pods(per_eni + 1);
        toy.settle();
        assert_eq!(toy.attached(), 3, "{mode}");
        toy.end(2 * per_eni, 1);
        toy.settle();
        assert_eq!(toy.per_eni(), [per_eni, per_eni], "{mode}: {:?}", toy.last);
    }
}

#[test]
fn a_prefix_that_a_pod_is_about_to_use_is_not_given_back() {
    let mut toy = Toy::new("t3.small", addressing(Addressing::Prefix, Targets::default()));
    toy.settle();
    // The pod may use the primary from now on; under the allocation it would get a single address.
    (toy.policy.use_primary_eni, toy.policy.operations) = (false, Operations::NoCloud);
    toy.allocation = Some(AllocationView { addresses: 7, enis: 1, ..AllocationView::default() });
    toy.step();
    toy.pods(1);
    (toy.policy.use_primary_eni, toy.policy.operations) = (true, Operations::Normal);
    toy.settle();
    assert_eq!((toy.prefixes(), toy.singles(), toy.counts().assigned), (1, 0, 1), "{:?}", toy.calls);
}
