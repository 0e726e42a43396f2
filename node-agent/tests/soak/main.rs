//! Random histories of a node in virtual time: pods, targets, EC2's faults, full subnets, and a process that dies at any
//! step. Whatever happens, no address has two owners, none is taken from under a pod or before it has rested, none is
//! lost, and no interface leaks.
//!
//! `ENIPOOL_SOAK_HISTORIES` says how many (300 by default; `make soak` runs 100,000), `ENIPOOL_SOAK_SEED` where to begin,
//! and `ENIPOOL_SOAK_TELL=1` tells each step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

mod dice;
mod judge;
mod outside;
#[path = "../sim/mod.rs"]
mod sim;
mod troubles;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dice::Dice;
use ec2_sim::model::{SubnetConfig, Timing};
use ec2_sim::{FaultKind, FaultRule, SimConfig};
use enipool_agent::engine::EffectiveConfig;
use enipool_pool::SubnetCidr;
use enipool_pool::node::AllocationView;
use enipool_pool::targets::{Addressing, Operations, Policy, Targets};
use world::World;

const TYPES: [&str; 4] = ["m5.large", "t3.medium", "m5.xlarge", "t3.small"];
const ACTIONS: [&str; 9] = [
    "DescribeNetworkInterfaces",
    "CreateNetworkInterface",
    "AttachNetworkInterface",
    "ModifyNetworkInterfaceAttribute",
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
    "DetachNetworkInterface",
    "DeleteNetworkInterface",
    "DescribeSubnets",
];

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn sim(seed: u64, dice: &mut Dice) -> SimConfig {
    let bits = dice.one_of(&[20, 24, 26]);
    let cidr = format!("10.0.0.0/{bits}").parse().unwrap();
    let subnet = |zone: &str, cidr| SubnetConfig { zone: zone.into(), cidr: SubnetCidr(cidr), tags: BTreeMap::new() };
    let timing = if dice.below(4) == 0 { Timing::none() } else { Timing::realistic() };
    SimConfig { seed, timing, subnets: vec![subnet("eu-west-1a", cidr)], keep_calls: 0, ..SimConfig::default() }
}

fn policy(dice: &mut Dice) -> Policy {
    let some = |dice: &mut Dice, choices: &[u32]| {
        let choice = dice.one_of(choices);
        (dice.below(2) == 0).then_some(choice)
    };
    Policy {
        targets: Targets {
            warm_enis: some(dice, &[0, 1, 2]),
            warm_ips: some(dice, &[0, 1, 3, 8]),
            minimum_ips: some(dice, &[0, 2, 10]),
            warm_prefixes: some(dice, &[0, 1, 2]),
            max_enis: some(dice, &[1, 2, 3]),
        },
        addressing: dice.one_of(&[Addressing::Secondary, Addressing::Secondary, Addressing::Prefix, Addressing::Mixed]),
        operations: dice.one_of(&[
            Operations::Normal,
            Operations::Normal,
            Operations::Normal,
            Operations::Normal,
            Operations::NoRelease,
            Operations::NoCloud,
        ]),
        use_primary_eni: dice.below(5) > 0,
    }
}

fn config(dice: &mut Dice) -> EffectiveConfig {
    let policy = policy(dice);
    let allocation = (dice.below(4) == 0).then(|| AllocationView {
        addresses: dice.below(30),
        enis: 1 + dice.below(3),
        ..AllocationView::default()
    });
    let ceiling = (dice.below(4) == 0).then(|| 4 + dice.below(30));
    let demand = allocation.as_ref().map(|_| dice.below(20));
    EffectiveConfig { policy, allocation, ceiling, demand, ..EffectiveConfig::default() }
}

fn fault(dice: &mut Dice) -> FaultRule {
    if dice.below(6) == 0 {
        let (kind, action) = dice.one_of(&[(true, "AttachNetworkInterface"), (false, "DetachNetworkInterface")]);
        let kind = if kind { FaultKind::StuckAttach } else { FaultKind::StuckDetach };
        return FaultRule::next(kind, action, 1);
    }
    let kind = match dice.below(8) {
        0 => FaultKind::Throttle,
        1 => FaultKind::InternalError,
        2 | 3 => FaultKind::AnswerLost,
        4 => FaultKind::AppliedInternalError,
        5 => FaultKind::RequestLost,
        6 => FaultKind::InsufficientAddresses,
        _ => FaultKind::Denied,
    };
    let action = dice.one_of(&ACTIONS);
    let count = 1 + dice.below(3);
    FaultRule { skip: dice.below(3), ..FaultRule::next(kind, action, count) }
}

fn history(seed: u64) -> u32 {
    let mut dice = Dice::new(seed);
    let sim = sim(seed, &mut dice);
    let first = config(&mut dice);
    let mut world = World::new(seed, sim, dice.one_of(&TYPES), first);
    world.flags = EffectiveConfig { policy: policy(&mut dice), ..EffectiveConfig::default() };
    world.crash = dice.one_of(&[0, 5, 20, 60]);
    world.compact_at = dice.one_of(&[1024, 8 * 1024, 64 * 1024]);
    // Half of the histories have what people and the host do, too.
    let troubles = dice.below(2) == 0;
    if troubles {
        world.apply_fails = dice.one_of(&[0, 0, 10, 50]);
    }
    let events = 20 + dice.below(50);
    for _ in 0..events {
        match dice.below(100) {
            0..34 => {
                for _ in 0..dice.one_of(&[1, 1, 1, 2, 5, 12]) {
                    world.add();
                }
            }
            34..62 => {
                let pods = world.running_pods();
                if !pods.is_empty() {
                    for _ in 0..dice.one_of(&[1, 1, 2, 6]) {
                        let pod = dice.one_of(&pods);
                        world.del(pod);
                    }
                }
            }
            62..66 => {
                let pods: Vec<u32> = world.running_pods().into_iter().filter(|pod| world.is_known(*pod)).collect();
                if !pods.is_empty() {
                    let pod = dice.one_of(&pods);
                    world.add_again(pod);
                }
            }
            66..74 => {
                let rule = fault(&mut dice);
                world.shared.with(|model| model.inject(rule));
            }
            74..79 => {
                let config = config(&mut dice);
                world.configure(config);
            }
            79..82 => {
                let subnet = world.subnet.clone();
                let (count, every) = (dice.one_of(&[5, 40, 4000]), dice.one_of(&[1, 1, 7]));
                world.shared.with(|model| model.occupy(&subnet, count, every).unwrap());
            }
            82..84 => {
                let subnet = world.subnet.clone();
                world.shared.with(|model| model.vacate(&subnet).unwrap());
            }
            84..87 => world.kill(),
            87 => world.stranger_comes(dice.below(3)),
            88..90 => world.address_comes(),
            90..97 if troubles => trouble(&mut world, &mut dice),
            _ => {}
        }
        let pause = dice.one_of(&[0, 3, 50, 400, 2000, 9000, 35_000, 120_000]);
        let pause = u64::from(dice.below(pause + 1));
        world.pass(Duration::from_millis(pause));
    }
    settle(&mut world);
    world.crashes
}

/// What people and the host do.
fn trouble(world: &mut World, dice: &mut Dice) {
    match dice.below(12) {
        0 => world.the_journal_is_lost(),
        1..4 => world.the_journal_is_full(!world.full),
        4 | 5 => world.an_interface_is_taken(false),
        6 => world.an_interface_is_taken(true),
        7..10 => world.an_address_is_taken(),
        _ => world.an_interface_is_marked(),
    }
}

/// The troubles end; within half an hour everything is as it should be, and then nothing happens any more.
fn settle(world: &mut World) {
    world.crash = 0;
    world.apply_fails = 0;
    world.the_journal_is_full(false);
    let subnet = world.subnet.clone();
    world.shared.with(|model| {
        model.end_all_faults();
        model.vacate(&subnet).unwrap();
    });
    // Targets that a small, fragmented subnet can always meet: else the node rightly tries again now and then.
    let targets = Targets { warm_ips: Some(1), ..Targets::default() };
    let policy = Policy { targets, ..Policy::default() };
    world.configure(EffectiveConfig { policy, ..EffectiveConfig::default() });
    // Pods that a node cannot hold would wait for ever: as many stay as the smallest can.
    for pod in world.all_pods().into_iter().skip(3) {
        world.del(pod);
    }
    world.pass(Duration::from_secs(1800));
    assert!(world.is_up());
    for pod in world.stranded_pods() {
        world.del(pod);
    }
    assert_eq!(world.waiting(), 0, "pods still wait: {}", world.decision());
    world.pass(Duration::from_secs(1800));
    world.check_settled();
    let calls = world.calls();
    world.pass(Duration::from_secs(900));
    // (the check itself asked once)
    assert_eq!(world.calls(), calls, "an idle node calls EC2");
}

#[test]
fn histories() {
    let count = environment("ENIPOOL_SOAK_HISTORIES", 300);
    let first = environment("ENIPOOL_SOAK_SEED", 1);
    let begun = std::time::Instant::now();
    let (next, crashes, failed) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.load(Ordering::Relaxed) > 0 {
                        break;
                    }
                    if let Ok(died) = std::panic::catch_unwind(|| history(seed)) {
                        crashes.fetch_add(u64::from(died), Ordering::Relaxed);
                    } else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        eprintln!(
                            "history {seed} failed: ENIPOOL_SOAK_SEED={seed} ENIPOOL_SOAK_HISTORIES=1 ENIPOOL_SOAK_TELL=1"
                        );
                    }
                    let done = seed - first + 1;
                    if done.is_multiple_of(10_000) {
                        println!("{done} of {count} histories in {:.0?}", begun.elapsed());
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0, "a history failed");
    println!("{count} histories with {} deaths of the process in {:.1?}", crashes.into_inner(), begun.elapsed());
}

#[test]
fn filling_an_m5_large_to_27_pods_takes_eight_calls_a_restart_one_and_idling_none() {
    let policy = Policy { targets: Targets { warm_enis: Some(1), ..Targets::default() }, ..Policy::default() };
    let config = EffectiveConfig { policy, ..EffectiveConfig::default() };
    let mut world = World::new(1, SimConfig::instant(), "m5.large", config);
    for _ in 0..27 {
        world.add();
    }
    world.pass(Duration::from_secs(60));
    assert_eq!(world.running_pods().len(), 27);
    assert!(world.calls() <= 8, "{} calls", world.calls());
    let filled = world.calls();
    // The journal is new: EC2 is asked, once and ten minutes later, for what an older one may have known.
    world.pass(Duration::from_secs(660));
    assert_eq!(world.calls(), filled + 1, "the look for leftovers");
    let filled = world.calls();
    world.kill();
    world.pass(Duration::from_secs(60));
    assert!(world.calls() <= filled + 1, "{} calls for a restart", world.calls() - filled);
    let restarted = world.calls();
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.calls(), restarted, "an idle node calls EC2");
}
