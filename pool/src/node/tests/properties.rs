//! Random histories: pods come and go, people change their minds, subnets run dry and fill again.
//!
//! The toy itself asserts after every step that no plan takes an address in use or cooling, touches what is not ours,
//! or goes beyond the instance; what follows here is about where it all ends.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::slots::Eni;
use super::toy::{Room, Toy, histories, policy, subnet};
use crate::address::Prefix;
use crate::ec2::Ec2ErrorKind;
use crate::targets::{Addressing, Operations, Policy, Targets};

#[derive(Debug, Clone)]
enum Event {
    Pods(u32),
    End {
        nth: u32,
        count: u32,
    },
    Pass(u64),
    Policy(Policy),
    /// What the subnet has left from now on.
    Room {
        addresses: u32,
        prefixes: u32,
    },
    Ceiling(Option<u32>),
    Refuse(Option<Ec2ErrorKind>),
    /// The agent starts anew.
    Restart,
    /// The operator comes with an allocation, or goes.
    Allocation(Option<(u32, u32)>),
}

fn small(most: u32) -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), (0..=most).prop_map(Some)]
}

fn policies() -> impl Strategy<Value = Policy> {
    let targets =
        (small(2), small(12), small(20), small(2), prop_oneof![3 => Just(None), 1 => (1u32..4).prop_map(Some)])
            .prop_map(|(warm_enis, warm_ips, minimum_ips, warm_prefixes, max_enis)| Targets {
                warm_enis,
                warm_ips,
                minimum_ips,
                warm_prefixes,
                max_enis,
            });
    let mode = prop_oneof![Just(Addressing::Secondary), Just(Addressing::Prefix), Just(Addressing::Mixed)];
    let operations =
        prop_oneof![8 => Just(Operations::Normal), 1 => Just(Operations::NoRelease), 1 => Just(Operations::NoCloud)];
    (targets, mode, operations, prop::bool::weighted(0.8)).prop_map(
        |(targets, addressing, operations, use_primary_eni)| Policy {
            targets,
            addressing,
            operations,
            use_primary_eni,
        },
    )
}

fn events() -> impl Strategy<Value = Event> {
    let refusal = prop_oneof![
        Just(Ec2ErrorKind::Throttled),
        Just(Ec2ErrorKind::AccessDenied),
        Just(Ec2ErrorKind::NoAnswer),
        Just(Ec2ErrorKind::AttachmentLimit),
        Just(Ec2ErrorKind::InstanceNotRunning),
    ];
    prop_oneof![
        6 => (1u32..20).prop_map(Event::Pods),
        5 => (0u32..40, 1u32..20).prop_map(|(nth, count)| Event::End { nth, count }),
        8 => (0u64..120_000).prop_map(Event::Pass),
        1 => policies().prop_map(Event::Policy),
        1 => (0u32..60, 0u32..6).prop_map(|(addresses, prefixes)| Event::Room { addresses, prefixes }),
        1 => prop_oneof![Just(None), (0u32..60).prop_map(Some)].prop_map(Event::Ceiling),
        1 => prop::option::of(refusal).prop_map(Event::Refuse),
        1 => Just(Event::Restart),
        1 => prop::option::of((0u32..60, 1u32..5)).prop_map(Event::Allocation),
    ]
}

fn apply(toy: &mut Toy, event: &Event) {
    match event {
        Event::Pods(count) => toy.pods(*count),
        Event::End { nth, count } => toy.end(*nth, *count),
        Event::Pass(ms) => toy.run(Duration::from_millis(*ms)),
        Event::Policy(policy) => toy.policy = *policy,
        Event::Room { addresses, prefixes } => {
            toy.rooms.insert(subnet(1), Room { addresses: *addresses, prefixes: *prefixes });
        }
        Event::Ceiling(ceiling) => toy.ceiling = *ceiling,
        Event::Refuse(error) => toy.refuse.clone_from(error),
        Event::Restart => toy.memory = PlannerMemory::new(1),
        Event::Allocation(allocation) => {
            toy.allocation = allocation.map(|(addresses, enis)| AllocationView {
                addresses,
                enis,
                prefixes: addresses / 16,
                subnet: None,
                withheld: 0,
            });
        }
    }
    toy.step();
}

/// Nothing stands in the way any more, but a ceiling.
fn calm(toy: &mut Toy, ceiling: Option<u32>) {
    toy.refuse = None;
    toy.allocation = None;
    toy.ceiling = ceiling;
    toy.policy.operations = Operations::Normal;
    toy.policy.targets.max_enis = None;
    toy.rooms.insert(subnet(1), Room { addresses: 100_000, prefixes: 5_000 });
    // Longer than the longest pause.
    toy.run(Duration::from_secs(800));
    toy.run(Duration::from_secs(800));
}

/// The most that an interface could hold beside the addresses in use on it, which cannot be moved.
fn could_hold(toy: &Toy, eni: &EniView, addressing: Addressing) -> u32 {
    let held = eni.addresses().held();
    if eni.primary && !toy.policy.use_primary_eni {
        return held;
    }
    let in_use = eni.prefixes.iter().filter(|prefix| prefix.counts.held() > 0).count();
    let in_use = u32::try_from(in_use).unwrap();
    let free_slots = toy.capacity.slots_per_eni - eni.singles.held() - in_use;
    match addressing {
        Addressing::Secondary => held + free_slots,
        Addressing::Prefix | Addressing::Mixed => eni.singles.held() + (in_use + free_slots) * Prefix::SIZE,
    }
}

/// Nothing more is asked of EC2, now and later.
fn rests(toy: &mut Toy) -> Result<(), TestCaseError> {
    prop_assert!(toy.last.actions.is_empty(), "not at rest: {:?}, {:#?}", toy.last, toy.tell());
    let calls = toy.total_calls();
    toy.run(Duration::from_hours(1));
    prop_assert_eq!(toy.total_calls(), calls, "an idle node makes no call");
    Ok(())
}

/// Pods wait only where the instance, max pods or the ceiling leave no room, and are told that one of these is it.
fn serves_what_fits(toy: &Toy) -> Result<(), TestCaseError> {
    if toy.waiting.is_empty() {
        return Ok(());
    }
    let addressing = toy.capacity.addressing(toy.policy.addressing);
    let views: Vec<_> = toy.enis.iter().map(Eni::view).collect();
    let more = toy.capacity.max_enis - u32::try_from(views.len()).unwrap();
    let slots = toy.capacity.slots_per_eni * if addressing == Addressing::Secondary { 1 } else { Prefix::SIZE };
    let instance = views.iter().map(|eni| could_hold(toy, eni, addressing)).sum::<u32>() + more * slots;
    // What is free where pods may not go, in a /28 that a pod still uses, counts below the ceiling and is of no use.
    let closed = views.iter().filter(|eni| toy.last.closed.contains(&eni.id));
    let lost: u32 = closed.map(|eni| eni.addresses().free).sum();
    let ceiling = toy.ceiling.map_or(u32::MAX, |ceiling| ceiling.saturating_sub(lost));
    let most = instance.min(toy.capacity.max_pods(addressing)).min(ceiling);
    let served = toy.counts().assigned;
    prop_assert!(served >= most, "{} of {}: {:?}, {:#?}", served, most, toy.last, toy.tell());
    let told = toy.last.holds.iter().any(|hold| {
        let limit = matches!(hold.reason, HoldReason::InstanceLimit | HoldReason::MaxPods | HoldReason::Ceiling);
        limit && hold.purpose == Purpose::Demand
    });
    prop_assert!(told, "{} wait: {:?}", toy.waiting.len(), toy.last);
    Ok(())
}

const TYPES: [&str; 4] = ["t3.small", "m5.large", "m5.xlarge", "m4.xlarge"];

proptest! {
    #![proptest_config(histories(1000))]

    #[test]
    fn after_any_history_the_node_comes_to_rest_where_its_targets_say(
        instance_type in prop::sample::select(&TYPES),
        first in policies(),
        history in prop::collection::vec(events(), 1..40),
    ) {
        let mut toy = Toy::new(instance_type, first);
        for event in &history {
            apply(&mut toy, event);
        }
        calm(&mut toy, None);
        rests(&mut toy)?;
        serves_what_fits(&toy)?;

        let addressing = toy.capacity.addressing(toy.policy.addressing);
        let counts = toy.counts();
        let max_pods = toy.capacity.max_pods(addressing);
        let plan = &toy.last;
        if !toy.waiting.is_empty() {
            return Ok(());
        }
        if let Some(warm) = toy.policy.targets.warm_ips {
            let room = max_pods.saturating_sub(counts.assigned);
            let limited = plan.decision.contains("not kept");
            prop_assert!(counts.free >= warm.min(room) || limited, "{:?} of {}: {:?}, {:#?}", counts, warm, plan, toy.tell());
        }
        if let Some(minimum) = toy.policy.targets.minimum_ips {
            let limited = plan.decision.contains("not kept");
            prop_assert!(counts.total() >= minimum.min(max_pods) || limited, "{:?} of {}: {:?}, {:#?}", counts, minimum, plan, toy.tell());
        }
        let targets = &toy.policy.targets;
        if addressing == Addressing::Secondary && targets.warm_ips.is_none() && targets.minimum_ips.is_none() {
            let warm = targets.warm_enis.unwrap_or(1) * toy.capacity.slots_per_eni;
            let limited = plan.decision.contains("not kept");
            prop_assert!(counts.free >= warm || limited, "{:?} of {}: {:?}, {:#?}", counts, warm, plan, toy.tell());
        }
        // Nothing is kept that nobody asked for, but what cannot be taken out of a prefix in use.
        let blocks = if toy.prefixes() > 0 { 15 * u32::try_from(toy.prefixes()).unwrap() } else { 0 };
        prop_assert!(counts.total() <= plan.target + blocks, "{:?}: {:?}", counts, plan);
        // An interface without a pod stays only if what is needed does not fit on the others.
        for idle in toy.enis.iter().filter(|eni| !eni.view.primary && eni.view().addresses().held() == 0) {
            let others = toy.enis.iter().filter(|eni| eni.view.id != idle.view.id);
            let most: u32 = others.map(|eni| could_hold(&toy, &eni.view(), addressing)).sum();
            prop_assert!(plan.target > most, "{} is idle: {:?}, {:#?}", idle.view.id, plan, toy.tell());
        }
    }

    #[test]
    fn under_a_ceiling_the_node_comes_to_rest_with_as_many_pods_served_as_it_allows(
        instance_type in prop::sample::select(&TYPES),
        first in policies(),
        history in prop::collection::vec(events(), 1..30),
        ceiling in 0u32..80,
    ) {
        let mut toy = Toy::new(instance_type, first);
        for event in &history {
            apply(&mut toy, event);
        }
        calm(&mut toy, Some(ceiling));
        rests(&mut toy)?;
        serves_what_fits(&toy)?;
    }

    #[test]
    fn interfaces_whose_subnet_left_the_class_get_no_new_pod_and_go_with_their_last_one(
        instance_type in prop::sample::select(&TYPES),
        first in policies(),
        before in prop::collection::vec(events(), 1..20),
        after in prop::collection::vec(events(), 1..20),
    ) {
        let mut toy = Toy::new(instance_type, first);
        for event in &before {
            apply(&mut toy, event);
        }
        for eni in toy.enis.iter_mut().filter(|eni| !eni.view.primary) {
            eni.view.role = EniRole::Retiring;
        }
        // The ledger hears of it with the next plan.
        toy.step();
        let carried = |toy: &Toy| -> u32 {
            let retiring = toy.enis.iter().filter(|eni| eni.view.role == EniRole::Retiring);
            retiring.map(|eni| eni.view().addresses().assigned).sum()
        };
        let mut most = carried(&toy);
        for event in &after {
            apply(&mut toy, event);
            prop_assert!(carried(&toy) <= most, "a new pod got an address of a retiring interface");
            most = carried(&toy);
        }
        calm(&mut toy, None);
        let pods = toy.counts().assigned;
        toy.end(0, pods);
        calm(&mut toy, None);
        prop_assert!(toy.enis.iter().all(|eni| eni.view.role != EniRole::Retiring), "{:?}", toy.last);
    }

    #[test]
    fn whatever_happens_the_ceiling_is_not_passed_by_growing(
        instance_type in prop::sample::select(&TYPES),
        first in policies(),
        ceiling in 0u32..40,
        history in prop::collection::vec(events(), 1..30),
    ) {
        let mut toy = Toy::new(instance_type, first);
        toy.ceiling = Some(ceiling);
        for event in &history {
            if !matches!(event, Event::Ceiling(_)) {
                apply(&mut toy, event);
                prop_assert!(toy.counts().total() <= ceiling, "{:?} under {}", toy.counts(), ceiling);
            }
        }
    }

    #[test]
    fn growing_passes_max_pods_by_less_than_a_prefix_and_with_single_addresses_not_at_all(
        instance_type in prop::sample::select(&TYPES),
        first in policies(),
        max_pods in 1u32..60,
        history in prop::collection::vec(events(), 1..30),
    ) {
        let mut toy = Toy::new(instance_type, first);
        toy.max_pods = Some(max_pods);
        let rounding = match toy.capacity.addressing(first.addressing) {
            Addressing::Secondary => 0,
            Addressing::Prefix => 15,
            // It goes over to /28s by itself, and holds both kinds meanwhile.
            Addressing::Mixed => return Ok(()),
        };
        // Addresses that rest serve no pod: they do not count, at the time when more are asked for.
        let mut cooling = 0;
        for event in &history {
            // A change of addressing holds both kinds for a while, and so do a subnet whose /28s come and go and a ceiling
            // that leaves no room for a whole one; the operator says by itself how much.
            let both_kinds = rounding > 0 && matches!(event, Event::Ceiling(Some(_)));
            if both_kinds || matches!(event, Event::Policy(_) | Event::Room { .. } | Event::Allocation(_)) {
                continue;
            }
            // The kubelet takes no more.
            let running = toy.counts().assigned + u32::try_from(toy.waiting.len()).unwrap();
            match event {
                Event::Pods(count) => apply(&mut toy, &Event::Pods((*count).min(max_pods - running))),
                other => apply(&mut toy, other),
            }
            cooling = cooling.max(toy.counts().cooling);
            let most = max_pods + cooling + rounding + toy.free_on_draining();
            prop_assert!(toy.counts().total() <= most, "{:?}, max pods {max_pods}: {:?}", toy.counts(), toy.last);
        }
    }

    #[test]
    fn demand_that_dances_does_not_make_the_pool_flap(
        instance_type in prop::sample::select(&TYPES),
        warm in 0u32..6,
        mode in prop_oneof![Just(Addressing::Secondary), Just(Addressing::Prefix), Just(Addressing::Mixed)],
        dance in prop::collection::vec((0u32..6, 0u32..6, 0u32..20, 1u64..15_000), 100..200),
    ) {
        let mut toy = Toy::new(instance_type, Policy { addressing: mode, ..policy(Targets { warm_ips: Some(warm), ..Targets::default() }) });
        toy.pods(5);
        toy.run(Duration::from_mins(5));
        let (start, before) = (toy.now, toy.total_calls());
        for (come, go, nth, pause) in dance {
            let most = 9u32.saturating_sub(toy.counts().assigned);
            toy.pods(come.min(most));
            toy.end(nth, go.min(toy.counts().assigned.saturating_sub(1)));
            toy.run(Duration::from_millis(pause));
        }
        // At most one round of giving back and one of taking again for each time that the need was lower for a whole minute.
        let rounds = toy.now.since(start).as_secs() / 60 + 1;
        let calls = u64::from(toy.total_calls() - before);
        prop_assert!(calls <= 8 + rounds * 8, "{calls} calls in {rounds} minutes: {:?}", toy.calls);
    }

    #[test]
    fn the_same_picture_and_memory_give_the_same_plan(
        first in policies(),
        history in prop::collection::vec(events(), 1..15),
    ) {
        let mut toy = Toy::new("m5.large", first);
        for event in &history {
            apply(&mut toy, event);
        }
        let snapshot = toy.snapshot();
        let (mut one, mut other) = (toy.memory.clone(), toy.memory.clone());
        prop_assert_eq!(plan(&snapshot, &mut one, toy.now), plan(&snapshot, &mut other, toy.now));
    }
}
