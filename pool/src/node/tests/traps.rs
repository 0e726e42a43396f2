//! What users of the AWS plugin complain of (its issue numbers in the comments), each with what happens here instead.

use std::time::Duration;

use super::super::*;
use super::toy::{COOLDOWN, Room, Toy, policy, subnet};
use crate::Prefix;
use crate::ec2::Ec2ErrorKind;
use crate::targets::{Addressing, Operations, Policy, Targets};

const SECOND: Duration = Duration::from_secs(1);

fn ips(warm: u32, minimum: u32) -> Targets {
    Targets { warm_ips: Some(warm), minimum_ips: Some(minimum), ..Targets::default() }
}

pub(super) fn warm(warm: u32) -> Targets {
    Targets { warm_ips: Some(warm), ..Targets::default() }
}

pub(super) fn addressing(addressing: Addressing, targets: Targets) -> Policy {
    Policy { addressing, ..policy(targets) }
}

pub(super) fn hold(plan: &Plan, reason: HoldReason) -> &Hold {
    plan.holds
        .iter()
        .find(|hold| hold.reason == reason)
        .unwrap_or_else(|| panic!("no {reason:?} among {:?}", plan.holds))
}

// #1700, #2896: "no available IP addresses" while the pool counts cooling ones as available.
#[test]
fn cooling_addresses_are_not_counted_as_free() {
    let mut toy = Toy::new("m5.large", policy(warm(3)));
    toy.pods(5);
    toy.settle();
    toy.end(0, 3);
    toy.pods(3);
    toy.run(5 * SECOND);
    let counts = toy.counts();
    assert_eq!((counts.assigned, counts.cooling), (5, 3));
    assert_eq!(counts.free, 3, "the warm target is met by addresses that can be handed out");
}

// The AWS plugin returns a just-freed address to EC2, which may give it to another node within seconds.
#[test]
fn a_cooling_address_is_never_given_back() {
    let mut toy = Toy::new("m5.large", policy(warm(0)));
    toy.pods(6);
    toy.settle();
    toy.end(0, 6);
    toy.run(29 * SECOND);
    assert_eq!(toy.counts().cooling, 6);
    toy.settle();
    assert_eq!(toy.counts().total(), 0);
}

// #2650, #2482: with MINIMUM_IP_TARGET alone, pod MIN+1 waits for ever.
#[test]
fn a_minimum_alone_is_a_floor_and_never_a_cap() {
    let minimum = Targets { minimum_ips: Some(4), ..Targets::default() };
    let mut toy = Toy::new("m5.large", policy(minimum));
    toy.settle();
    assert_eq!(toy.counts().free, 4);
    toy.pods(11);
    toy.settle();
    assert_eq!((toy.waiting.len(), toy.counts().assigned, toy.counts().free), (0, 11, 0));
}

// The AWS plugin cannot express "exactly zero": 0 means "not set".
#[test]
fn zero_is_a_value_for_every_target() {
    for targets in [
        warm(0),
        Targets { minimum_ips: Some(0), ..Targets::default() },
        Targets { warm_enis: Some(0), ..Targets::default() },
    ] {
        let mut toy = Toy::new("m5.large", policy(targets));
        toy.settle();
        assert_eq!((toy.counts().total(), toy.total_calls()), (0, 0), "{targets:?}");
        toy.pods(2);
        toy.settle();
        assert!(toy.waiting.is_empty(), "{targets:?}");
    }
}

// #2793: maxPods is ignored when a node is filled.
#[test]
fn warm_growth_never_passes_max_pods() {
    let mut toy = Toy::new("m5.4xlarge", policy(Targets { warm_enis: Some(3), ..Targets::default() }));
    toy.max_pods = Some(40);
    toy.pods(30);
    toy.settle();
    assert_eq!(toy.counts().total(), 40, "{}", toy.last.decision);
    assert!(toy.last.decision.ends_with("; 105 not kept: max pods is 40"), "{}", toy.last.decision);
}

#[test]
fn at_max_pods_a_new_pod_need_not_wait_for_a_cooling_address() {
    let mut toy = Toy::new("m5.4xlarge", policy(warm(2)));
    toy.max_pods = Some(20);
    toy.pods(20);
    toy.settle();
    toy.end(0, 1);
    toy.pods(1);
    toy.run(2 * SECOND);
    assert!(toy.waiting.is_empty());
    assert_eq!(toy.counts().total(), 21);
    toy.settle();
    assert_eq!(toy.counts().total(), 20, "and it is given back afterwards");
}

// One full subnet stops all growth of a node for two minutes, in every other subnet too.
#[test]
fn a_full_subnet_does_not_stop_growth_in_another() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.rooms.insert(subnet(1), Room { addresses: 4, prefixes: 0 });
    toy.rooms.insert(subnet(2), Room { addresses: 500, prefixes: 0 });
    toy.pods(12);
    toy.run(10 * SECOND);
    assert!(toy.waiting.is_empty(), "{:?}", toy.last);
    assert_eq!(toy.counts().assigned, 12);
}

// EC2 grants a call in whole or not at all; the AWS plugin retries with a single address only.
#[test]
fn the_last_addresses_of_a_subnet_are_used_to_the_last_one() {
    let mut toy = Toy::new("m5.xlarge", policy(warm(2)));
    toy.rooms.insert(subnet(1), Room { addresses: 7, prefixes: 0 });
    toy.pods(8);
    toy.run(20 * SECOND);
    assert_eq!((toy.counts().assigned, toy.waiting.len()), (7, 1));
    let hold = hold(&toy.last, HoldReason::SubnetExhausted);
    assert_eq!((hold.purpose, &hold.subnet), (Purpose::Demand, &Some(subnet(1))));
    let calls = toy.total_calls();
    toy.run(60 * SECOND);
    assert_eq!(toy.total_calls(), calls, "it is not asked again and again");
    toy.rooms.insert(subnet(1), Room { addresses: 50, prefixes: 0 });
    toy.run(Duration::from_secs(700));
    assert!(toy.waiting.is_empty(), "it finds out by itself that there are addresses again");
}

// #2749, #1634, #2045, #3105, #3264: prefix delegation is all or nothing when no contiguous /28 is left.
#[test]
fn without_a_free_prefix_pods_get_single_addresses_and_prefixes_return_later() {
    for mode in [Addressing::Prefix, Addressing::Mixed] {
        let mut toy = Toy::new("m5.large", addressing(mode, Targets { warm_prefixes: Some(1), ..Targets::default() }));
        toy.rooms.insert(subnet(1), Room { addresses: 300, prefixes: 0 });
        toy.pods(10);
        toy.run(5 * SECOND);
        assert!(toy.waiting.is_empty(), "{mode}: {:?}", toy.last);
        assert_eq!((toy.prefixes(), toy.counts().assigned), (0, 10));
        toy.rooms.insert(subnet(1), Room { addresses: 300, prefixes: 20 });
        toy.pods(10);
        toy.run(Duration::from_mins(20));
        assert!(toy.prefixes() > 0, "{mode}: {:?}", toy.last);
        assert!(toy.waiting.is_empty());
        toy.settle();
        if mode == Addressing::Prefix {
            assert_eq!((toy.singles(), toy.prefixes()), (20, 1), "only what pods use, and one prefix that is warm");
            toy.end(0, 20);
            toy.pods(20);
            toy.settle();
            assert_eq!(toy.singles(), 0, "a new generation of pods lives on prefixes again");
        }
    }
}

#[test]
fn a_node_without_prefixes_does_not_waste_calls_on_asking_for_them() {
    let mut toy = Toy::new("m5.large", addressing(Addressing::Prefix, Targets::default()));
    toy.rooms.insert(subnet(1), Room { addresses: 300, prefixes: 0 });
    toy.pods(20);
    toy.run(60 * SECOND);
    let calls = toy.total_calls();
    toy.run(Duration::from_hours(1));
    let asked = toy.total_calls() - calls;
    assert!(asked <= 12, "{asked} calls in an hour without a free prefix");
}

// #2460: addresses are taken in map order, so that interfaces never run empty.
#[test]
fn under_churn_pods_gather_where_most_are_and_interfaces_run_empty() {
    let mut toy = Toy::new("m5.xlarge", policy(warm(3)));
    toy.pods(50);
    toy.settle();
    assert_eq!(toy.attached(), 4);
    for round in 0..40 {
        toy.end(7 * round, if round < 30 { 2 } else { 1 });
        toy.pods(1);
        toy.run(40 * SECOND);
    }
    toy.settle();
    assert_eq!(toy.counts().assigned, 20);
    assert!(toy.attached() <= 3, "20 pods on {:?}", toy.per_eni());
}

// #420, #1400: one interface per five-second loop.
#[test]
fn interfaces_are_made_in_parallel() {
    let mut toy = Toy::new("m5.4xlarge", policy(warm(0)));
    toy.pods(200);
    toy.run(Duration::from_millis(700));
    assert!(toy.waiting.is_empty(), "200 pods in one round of calls: {:?}", toy.last);
    assert_eq!(toy.attached(), 7);
}

// #3544, #725, #2875: foreign interfaces are adopted or miscounted.
#[test]
fn foreign_interfaces_take_their_slot_and_are_never_touched() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.attach_foreign(1);
    toy.pods(27);
    toy.settle();
    assert_eq!((toy.counts().assigned, toy.waiting.len()), (18, 9));
    let hold = hold(&toy.last, HoldReason::InstanceLimit);
    assert_eq!((hold.purpose, hold.addresses), (Purpose::Demand, 9));
    assert_eq!(toy.calls["Create"], 1);
}

#[test]
fn a_foreign_interface_on_another_network_card_takes_no_slot_of_the_default_card() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.attach_foreign(1);
    toy.enis[1].view.network_card = 1;
    toy.enis[1].view.device_index = None;
    toy.pods(27);
    toy.settle();
    assert!(toy.waiting.is_empty());
    assert_eq!(toy.calls["Create"], 2);
}

#[test]
fn max_enis_caps_the_interfaces_the_primary_included() {
    let mut toy = Toy::new("m5.large", policy(Targets { max_enis: Some(2), warm_enis: Some(3), ..Targets::default() }));
    toy.settle();
    assert_eq!(toy.per_eni(), [9, 9]);
}

#[test]
fn custom_networking_leaves_the_primary_interface_alone() {
    let mut toy = Toy::new("m5.large", Policy { use_primary_eni: false, ..policy(Targets::default()) });
    toy.pods(20);
    toy.settle();
    assert_eq!(toy.per_eni(), [0, 9, 9]);
    assert_eq!(toy.waiting.len(), 2, "two interfaces of nine");
    hold(&toy.last, HoldReason::InstanceLimit);
}

#[test]
fn pods_that_run_on_the_primary_stay_when_custom_networking_is_switched_on_and_no_new_ones_come() {
    let mut toy = Toy::new("m5.large", policy(warm(2)));
    toy.pods(5);
    toy.settle();
    toy.policy.use_primary_eni = false;
    toy.step();
    assert_eq!(toy.last.closed, [toy.enis[0].view.id.clone()]);
    toy.pods(2);
    toy.settle();
    assert_eq!((toy.counts().assigned, toy.waiting.len()), (7, 0));
    assert_eq!(toy.per_eni(), [5, 4], "its free addresses went back");
}

#[test]
fn a_live_switch_to_prefixes_drains_single_addresses_and_breaks_no_pod() {
    let mut toy = Toy::new("m5.large", policy(Targets::default()));
    toy.pods(25);
    toy.settle();
    assert_eq!(toy.per_eni(), [9, 9, 9], "every slot is taken");
    toy.policy.addressing = Addressing::Prefix;
    toy.settle();
    assert_eq!((toy.counts().assigned, toy.singles(), toy.prefixes()), (25, 25, 1));
    toy.pods(17);
    toy.settle();
    assert!(toy.waiting.is_empty(), "one prefix had 16 addresses: {:?}", toy.last);
    toy.end(0, 20);
    toy.settle();
    assert!(toy.singles() < 25, "slots of single addresses go as their pods end");
    assert_eq!(toy.counts().assigned, 22);
}

#[test]
fn a_live_switch_back_to_single_addresses_drains_prefixes() {
    let mut toy = Toy::new("m5.large", addressing(Addressing::Prefix, Targets::default()));
    toy.pods(20);
    toy.settle();
    assert_eq!(toy.prefixes(), 3);
    toy.policy.addressing = Addressing::Secondary;
    toy.settle();
    assert_eq!(toy.prefixes(), 2, "the empty one went at once");
    assert_eq!(toy.counts().assigned, 20);
    toy.pods(5);
    toy.run(5 * SECOND);
    assert!(toy.singles() >= 5);
    toy.end(0, 25);
    toy.settle();
    assert_eq!((toy.prefixes(), toy.singles()), (0, 9));
}

#[test]
fn mixed_takes_a_prefix_rather_than_another_interface() {
    let mut toy = Toy::new("m5.large", addressing(Addressing::Mixed, warm(2)));
    toy.pods(4);
    toy.settle();
    assert_eq!((toy.singles(), toy.prefixes()), (6, 0), "singles while slots are plenty");
    toy.pods(30);
    toy.settle();
    assert_eq!(toy.attached(), 1, "{:?}", toy.per_eni());
    assert!(toy.prefixes() >= 2 && toy.waiting.is_empty());
}

#[test]
fn mixed_keeps_slots_for_the_prefixes_that_max_pods_will_need() {
    let mut toy = Toy::new("m5.large", addressing(Addressing::Mixed, warm(1)));
    for _ in 0..110 {
        toy.pods(1);
        toy.run(3 * SECOND);
    }
    toy.settle();
    assert_eq!(toy.counts().assigned, 110, "{:?}: {}", toy.last.holds, toy.last.decision);
}

#[test]
fn no_release_gives_nothing_back_and_says_so() {
    let mut toy = Toy::new("m5.large", Policy { operations: Operations::NoRelease, ..policy(warm(1)) });
    toy.pods(20);
    toy.settle();
    toy.end(0, 20);
    toy.settle();
    assert_eq!(toy.counts().total(), 21);
    assert_eq!(hold(&toy.last, HoldReason::Paused).addresses, 20);
}

#[test]
fn no_cloud_calls_nothing_and_says_what_is_missing() {
    let mut toy = Toy::new("m5.large", policy(warm(5)));
    toy.settle();
    toy.policy.operations = Operations::NoCloud;
    let calls = toy.total_calls();
    toy.pods(7);
    toy.settle();
    assert_eq!((toy.total_calls(), toy.waiting.len()), (calls, 2), "what is there is handed out all the same");
    let hold = hold(&toy.last, HoldReason::Paused);
    assert_eq!((hold.purpose, hold.addresses), (Purpose::Demand, 7));
}

#[test]
fn a_young_interface_is_not_given_back() {
    let mut toy = Toy::new("m5.large", policy(warm(0)));
    toy.pods(12);
    toy.run(SECOND);
    toy.end(0, 12);
    toy.waiting.clear();
    // People lower the target: no hysteresis, but the interface is seconds old.
    toy.policy.targets = ips(0, 0);
    toy.run(COOLDOWN + SECOND);
    assert_eq!(toy.attached(), 2);
    toy.settle();
    assert_eq!(toy.attached(), 1);
}

// #405, #617: clients that retry at once when throttled.
#[test]
fn throttling_is_answered_with_growing_pauses() {
    let mut toy = Toy::new("m5.large", policy(warm(1)));
    toy.refuse = Some(Ec2ErrorKind::Throttled);
    toy.pods(3);
    toy.run(Duration::from_mins(5));
    assert!(toy.total_calls() < 15, "{:?}", toy.calls);
    assert_eq!(toy.last.holds[0].reason, HoldReason::Throttled);
    toy.refuse = None;
    toy.run(Duration::from_secs(80));
    assert!(toy.waiting.is_empty());
}

#[test]
fn without_permission_it_says_so_and_asks_seldom() {
    let mut toy = Toy::new("m5.large", policy(warm(1)));
    toy.refuse = Some(Ec2ErrorKind::AccessDenied);
    toy.pods(3);
    toy.run(Duration::from_hours(1));
    assert!(toy.total_calls() < 30, "{:?}", toy.calls);
    let hold = hold(&toy.last, HoldReason::AccessDenied);
    assert!(hold.until.is_some());
}

#[test]
fn an_interface_left_unattached_by_a_crash_is_used_or_deleted() {
    let mut toy = Toy::new("m5.large", policy(Targets { warm_enis: Some(2), ..Targets::default() }));
    toy.settle();
    // As if the agent had died between Create and Attach.
    toy.enis[1].view.phase = EniPhase::Detached;
    toy.enis[1].view.device_index = None;
    let snapshot = toy.snapshot();
    let mut memory = PlannerMemory::default();
    let settling = plan(&snapshot, &mut memory, toy.now);
    assert!(settling.actions.is_empty(), "{settling:?}");
    let again = plan(&snapshot, &mut memory, settling.wake_at.unwrap());
    let attach = Action::Attach { eni: toy.enis[1].view.id.clone(), device_index: 1 };
    assert_eq!(again.actions[0].action, attach, "{again:?}");
    assert!(!again.actions.iter().any(|planned| matches!(planned.action, Action::Create { .. })), "{again:?}");

    let mut unwanted = snapshot;
    unwanted.policy.targets = warm(0);
    let again = plan(&unwanted, &mut PlannerMemory::default(), toy.now);
    let release = Action::Release { eni: toy.enis[1].view.id.clone() };
    assert!(again.actions.iter().any(|planned| planned.action == release), "{again:?}");
}

#[test]
fn an_unattached_interface_that_holds_too_much_gives_that_back_before_it_is_attached() {
    let mut toy = Toy::new("m5.large", policy(warm(0)));
    toy.pods(12);
    toy.settle();
    let id = toy.enis[1].view.id.clone();
    // What is done about it when it has three pods, `change` has been made to it, and it is not attached.
    let done = |change: &dyn Fn(&mut EniView)| -> Vec<Action> {
        let mut snapshot = toy.snapshot();
        let eni = snapshot.enis.iter_mut().find(|eni| eni.id == id).unwrap();
        assert_eq!((eni.singles.assigned, eni.slots_taken()), (3, 3));
        (eni.phase, eni.device_index) = (EniPhase::Detached, None);
        change(eni);
        let plan = plan(&snapshot, &mut PlannerMemory::default(), toy.now);
        plan.actions.into_iter().map(|planned| planned.action).filter(|action| action.eni() == Some(&id)).collect()
    };
    let empty = |nth: u32| PrefixView {
        prefix: format!("10.9.{nth}.0/28").parse().unwrap(),
        counts: Counts { free: Prefix::SIZE, ..Counts::default() },
        leaving: false,
    };
    let unassign = |singles, prefixes| Action::Unassign { eni: id.clone(), singles, prefixes };
    let attach = Action::Attach { eni: id.clone(), device_index: 1 };

    assert_eq!(done(&|eni| eni.singles.free = 6), [attach], "nine are what it may hold");
    assert_eq!(done(&|eni| eni.singles.free = 8), [unassign(2, vec![])]);
    assert_eq!(done(&|eni| eni.prefixes = (0..7).map(empty).collect()), [unassign(0, vec![empty(0).prefix])]);
    assert_eq!(done(&|eni| (eni.singles.free, eni.singles_leaving) = (6, 2)), [], "until those have gone");
    assert_eq!(done(&|eni| eni.singles.assigned = 10), [], "nothing but a pod's end helps");
    let idle = |eni: &mut EniView| eni.singles = Counts { free: 10, ..Counts::default() };
    assert_eq!(done(&idle), [Action::Release { eni: id.clone() }], "another one is sooner made");
}

#[test]
fn a_new_interface_that_ec2_does_not_know_everywhere_yet_is_on_its_way_and_no_fault_of_ec2() {
    let mut toy = Toy::new("m5.large", policy(warm(0)));
    toy.pods(12);
    toy.settle();
    let made = &mut toy.enis[1].view;
    (made.phase, made.device_index) = (EniPhase::Detached, None);
    let attach = Action::Attach { eni: made.id.clone(), device_index: 1 };
    let mut memory = PlannerMemory::default();
    memory.refused(&attach, None, &Ec2ErrorKind::EniNotFound, toy.now);
    let mut snapshot = toy.snapshot();
    snapshot.usage.waiting = 9;
    let plan = plan(&snapshot, &mut memory, toy.now);
    assert!(plan.actions.iter().all(|planned| planned.action != attach), "not at once: {plan:?}");
    let reasons: Vec<_> = plan.holds.iter().map(|hold| hold.reason).collect();
    assert!(reasons.contains(&HoldReason::AttachInFlight), "{reasons:?}");
    assert!(!reasons.contains(&HoldReason::Ec2Unavailable), "{reasons:?}");
}

#[test]
fn an_interface_in_a_subnet_that_is_no_longer_chosen_drains() {
    let mut toy = Toy::new("m5.large", policy(warm(2)));
    toy.pods(12);
    toy.settle();
    toy.enis[1].view.role = EniRole::Retiring;
    toy.settle();
    assert_eq!(toy.per_eni()[1], 3, "its pods stay, its free addresses went");
    toy.end(9, 3);
    toy.settle();
    assert!(toy.enis.iter().all(|eni| eni.view.role != EniRole::Retiring));
    assert_eq!(toy.counts().assigned, 9);
}

#[test]
fn a_few_missing_warm_addresses_wait_a_second_for_company() {
    let mut toy = Toy::new("m5.4xlarge", policy(warm(10)));
    toy.settle();
    let calls = toy.total_calls();
    for _ in 0..4 {
        toy.pods(1);
        toy.run(Duration::from_millis(200));
    }
    toy.run(5 * SECOND);
    assert_eq!(toy.counts().free, 10);
    assert_eq!(toy.total_calls() - calls, 1);
}

#[test]
fn a_restarted_agent_gives_nothing_back_at_once() {
    let mut toy = Toy::new("m5.large", policy(warm(1)));
    toy.pods(20);
    toy.settle();
    toy.end(0, 20);
    toy.run(COOLDOWN + SECOND);
    toy.memory = PlannerMemory::new(1);
    toy.run(55 * SECOND);
    assert_eq!(toy.counts().total(), 21);
    toy.settle();
    assert_eq!(toy.counts().total(), 1);
}
