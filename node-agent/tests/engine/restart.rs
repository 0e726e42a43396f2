//! What a restart goes by until the API server answers: the last word that was kept, and not the flags.

use std::time::Duration;

use ec2_sim::SimConfig;
use enipool_agent::dataplane::{Randomization, Snat};
use enipool_agent::engine::EffectiveConfig;
use enipool_agent::status::kept::{Kept, WishesFile, first_wishes};
use enipool_agent::status::wishes::{HostWishes, Wishes};
use enipool_crds::class::{ENIPoolClassStatus, ResourceSelector, SubnetStatus};
use enipool_crds::condition::{self, ConditionType, Reason};
use enipool_crds::{Allocation, ENIPool, ENIPoolClass, ENIPoolClassSpec, Operations, SnatMode, TargetFields, fixtures};
use enipool_pool::Zone;
use enipool_pool::targets::{Policy, Targets};
use tokio::time::Instant;

use crate::class::two_subnets;
use crate::in_seconds;
use crate::node::{Node, key, pod};

/// The chart's: a whole interface warm.
fn flags() -> Wishes {
    let targets = Targets { warm_enis: Some(1), ..Targets::default() };
    Wishes {
        engine: EffectiveConfig { policy: Policy { targets, ..Policy::default() }, ..EffectiveConfig::default() },
        host: HostWishes { snat: Snat::Primary { randomization: Randomization::Prng, exclude: Vec::new() }, mtu: 9001 },
        class_missing: false,
        problems: Vec::new(),
    }
}

fn zone() -> Zone {
    Zone::new("eu-west-1a")
}

/// A class that keeps two addresses warm.
fn class(edit: impl FnOnce(&mut ENIPoolClassSpec)) -> ENIPoolClass {
    let targets = TargetFields { warm_ip_target: Some(2), ..TargetFields::default() };
    let mut spec = ENIPoolClassSpec { targets, ..ENIPoolClassSpec::default() };
    edit(&mut spec);
    ENIPoolClass::new("default", spec)
}

fn pool(edit: impl FnOnce(&mut ENIPool)) -> ENIPool {
    let mut pool = fixtures::new_pool("node");
    edit(&mut pool);
    pool
}

fn allocation(addresses: i32, ceiling: i32) -> Allocation {
    Allocation { class: "default".into(), addresses, enis: 1, ceiling, ..Allocation::default() }
}

fn file(node: &Node) -> WishesFile {
    WishesFile::open(node.state_dir(), node.instance())
}

/// The watches bring this.
fn hear(node: &Node, word: &Kept) {
    file(node).keep(Some(word.clone()));
    node.pool.set_config(word.wishes(&flags(), &zone()).engine);
}

/// A node whose agent has started for the first time.
async fn first_start(sim: SimConfig) -> Node {
    Node::start(sim, "m5.large", first_wishes(&flags(), None, &zone()).engine).await
}

async fn started(sim: SimConfig, word: &Kept) -> Node {
    let node = first_start(sim).await;
    hear(&node, word);
    node.settle().await;
    node
}

/// The agent dies and starts again; no API server answers (yet).
async fn restart(node: &mut Node) {
    node.kill();
    let file = file(node);
    node.restart(first_wishes(&flags(), file.kept(), &zone()).engine).await;
}

async fn run(node: &Node, pods: std::ops::Range<u32>) {
    for n in pods {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
}

/// Longer than it takes to fetch something, and to give it back.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(200)).await;
}

/// Until an agent with a new journal has looked, once, for what an older one may have known.
async fn until_leftovers_were_looked_for() {
    tokio::time::sleep(Duration::from_secs(660)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_costs_one_call_also_where_the_flags_would_keep_an_interface_more() {
    let guided = pool(|pool| pool.spec.allocation = Some(allocation(3, 27)));
    let unguided = pool(|_| {});
    for word in [guided, unguided].map(|pool| Kept::new(&pool, Some(&class(|_| {})), pool.spec.allocation.is_none())) {
        let mut node = started(SimConfig::instant(), &word).await;
        run(&node, 0..1).await;
        until_leftovers_were_looked_for().await;
        for _ in 0..3 {
            let calls = node.calls();
            restart(&mut node).await;
            a_while().await;
            assert_eq!(node.calls(), calls + 1, "{:?}", node.actions());
        }
        assert_eq!((node.interfaces(), node.pool.snapshot().borrow().counts.total), (1, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_enipool_forbids_is_forbidden_right_after_a_restart_too() {
    for (operations, warm) in [(Operations::NoCloud, 9), (Operations::NoRelease, 0)] {
        let before = Kept::new(&pool(|_| {}), Some(&class(|_| {})), true);
        let mut node = started(SimConfig::instant(), &before).await;
        run(&node, 0..1).await;
        until_leftovers_were_looked_for().await;
        let forbids = pool(|pool| {
            pool.spec.operations = Some(operations);
            pool.spec.targets.warm_ip_target = Some(warm);
        });
        hear(&node, &Kept::new(&forbids, Some(&class(|_| {})), true));
        a_while().await;
        let calls = node.calls();
        restart(&mut node).await;
        a_while().await;
        assert_eq!(node.calls(), calls + 1, "{operations:?}: {:?}", node.actions());
    }
}

#[tokio::test(start_paused = true)]
async fn custom_networking_holds_for_the_first_pod_after_a_restart() {
    // Two subnets; the operator has found the second for the class.
    let mut class = class(|spec| {
        spec.use_primary_eni = Some(false);
        spec.subnet_selector = Some(ResourceSelector::default());
    });
    let mut node = first_start(two_subnets()).await;
    let chosen = node.subnet(1);
    let found = SubnetStatus { id: chosen.to_string(), zone: zone().to_string(), ..SubnetStatus::default() };
    let mut status = ENIPoolClassStatus { subnets: vec![found], ..ENIPoolClassStatus::default() };
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    condition::set(&mut status.conditions, ConditionType::Ready, Some(true), Reason::AsPlanned, "", None, now);
    class.status = Some(status);
    hear(&node, &Kept::new(&pool(|_| {}), Some(&class), true));
    node.settle().await;

    restart(&mut node).await;
    run(&node, 0..12).await;
    for (_, _, lease) in node.pool.attachments() {
        assert_ne!(lease.device_index, 0, "{} is of the primary interface", lease.address);
    }
    let snapshot = node.pool.snapshot().borrow().clone();
    assert_eq!(snapshot.enis.len(), 3);
    assert!(snapshot.enis.iter().all(|eni| eni.device_index == Some(0) || eni.subnet == chosen), "{:?}", snapshot.enis);
}

#[tokio::test(start_paused = true)]
async fn source_nat_and_mtu_are_those_of_the_class_from_the_start_on() {
    let class = class(|spec| {
        spec.snat = Some(enipool_crds::Snat { mode: SnatMode::External, exclude_cidrs: Vec::new() });
        spec.mtu = Some(1500);
    });
    let node = started(SimConfig::instant(), &Kept::new(&pool(|_| {}), Some(&class), true)).await;
    let host = first_wishes(&flags(), file(&node).kept(), &zone()).host;
    assert_eq!(host, HostWishes { snat: Snat::External, mtu: 1500 });
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_withholds_is_not_taken_by_a_restart() {
    let withheld = Allocation { withheld: 2, ..allocation(3, 27) };
    let word = Kept::new(&pool(|pool| pool.spec.allocation = Some(withheld)), Some(&class(|_| {})), false);
    let mut node = started(SimConfig::instant(), &word).await;
    run(&node, 0..3).await;
    node.settle().await;
    let calls = node.calls();
    restart(&mut node).await;
    let error = node.pool.acquire(key(3), pod(3), in_seconds(15)).await.unwrap_err();
    assert_eq!(error.label(), "SubnetExhausted");
    assert_eq!(node.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_an_api_server_goes_on_at_a_cautious_pace_under_the_last_targets_and_ceiling() {
    let word = Kept::new(&pool(|pool| pool.spec.allocation = Some(allocation(4, 5))), Some(&class(|_| {})), false);
    let mut node = started(SimConfig::instant(), &word).await;
    run(&node, 0..2).await;
    hear(&node, &word.alone());
    a_while().await;
    restart(&mut node).await;
    // Two more take the warm ones; only one is left under the ceiling, and no pod waits for it.
    let (begun, calls) = (Instant::now(), node.calls());
    run(&node, 2..4).await;
    let mut snapshot = node.pool.snapshot();
    snapshot.wait_for(|snapshot| snapshot.counts.total >= 5).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    run(&node, 4..5).await;
    a_while().await;
    assert_eq!(node.calls(), calls + 1);
    let error = node.pool.acquire(key(5), pod(5), in_seconds(30)).await.unwrap_err();
    assert_eq!(error.label(), "Ceiling");
}

#[tokio::test(start_paused = true)]
async fn a_rest_of_the_class_is_not_cut_to_that_of_the_flags() {
    let class = class(|spec| spec.cooldown_seconds = Some(300));
    for kept in [true, false] {
        let mut node = started(SimConfig::instant(), &Kept::new(&pool(|_| {}), Some(&class), true)).await;
        run(&node, 0..1).await;
        node.pool.release(&key(0)).unwrap();
        if !kept {
            file(&node).keep(None);
        }
        restart(&mut node).await;
        tokio::time::sleep(Duration::from_secs(290)).await;
        assert_eq!(node.pool.snapshot().borrow().counts.cooling, 1, "kept: {kept}");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(node.pool.snapshot().borrow().counts.cooling, 0, "kept: {kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_start_fetches_nothing_ahead_of_pods_until_somebody_has_spoken() {
    let node = first_start(SimConfig::instant()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.calls(), 1, "the start's look: {:?}", node.actions());
    hear(&node, &Kept::new(&pool(|_| {}), Some(&class(|_| {})), true));
    node.settle().await;
    assert_eq!((node.interfaces(), node.pool.snapshot().borrow().counts.total), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_first_start_of_which_nobody_speaks_goes_by_its_flags_before_long() {
    let node = first_start(SimConfig::instant()).await;
    let begun = Instant::now();
    node.pool.snapshot().wait_for(|snapshot| snapshot.counts.total == 9).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_first_start_wait_for_nobody_s_word_and_cost_no_more_calls_for_it() {
    let node = first_start(SimConfig::instant()).await;
    let begun = Instant::now();
    run(&node, 0..27).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    node.settle().await;
    assert!(node.calls() <= 8, "{} calls: {:?}", node.calls(), node.actions());
}

#[tokio::test(start_paused = true)]
async fn the_first_word_after_an_update_gives_nothing_back_at_once() {
    // An older agent kept no word: the node holds what its class asked for then.
    let many = class(|spec| spec.targets.warm_ip_target = Some(17));
    let mut node = started(SimConfig::instant(), &Kept::new(&pool(|_| {}), Some(&many), true)).await;
    run(&node, 0..1).await;
    a_while().await;
    assert_eq!(node.pool.snapshot().borrow().counts.total, 18);
    file(&node).keep(None);
    let calls = node.calls();
    restart(&mut node).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    hear(&node, &Kept::new(&pool(|_| {}), Some(&class(|_| {})), true));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(node.calls(), calls + 1, "less may be needed for a moment only");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(node.pool.snapshot().borrow().counts.total, 3);
}
