//! The engine as the rest of the agent sees it, against the simulated EC2 on the runtime's virtual clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

mod adoption;
mod by_hand;
mod class;
mod idle;
mod node;
mod reasons;
mod refusals;
mod restart;
#[path = "../sim/mod.rs"]
mod sim;
mod starts;
mod strays;
mod surroundings;
mod taken;

use std::time::Duration;

use ec2_sim::model::Delay;
use ec2_sim::{FaultKind, FaultRule, SimConfig, Timing};
use enipool_agent::engine::{AcquireError, EffectiveConfig, EniState, Phase, Shortage};
use enipool_pool::node::HoldReason;
use enipool_pool::targets::{Operations, Policy, Targets};
use node::{Node, key, pod};
use tokio::time::Instant;

fn warm_ips(count: u32) -> EffectiveConfig {
    let targets = Targets { warm_ips: Some(count), ..Targets::default() };
    EffectiveConfig { policy: Policy { targets, ..Policy::default() }, ..EffectiveConfig::default() }
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn pods_at_once_on_an_empty_node_all_get_an_address_and_none_fails() {
    let node = Node::start(SimConfig::default(), "m5.large", EffectiveConfig::default()).await;
    let begun = Instant::now();
    let adds: Vec<_> = (0..27)
        .map(|n| {
            let pool = node.pool.clone();
            tokio::spawn(async move { pool.acquire(key(n), pod(n), in_seconds(60)).await })
        })
        .collect();
    let mut addresses = std::collections::BTreeSet::new();
    for add in adds {
        addresses.insert(add.await.unwrap().unwrap().address);
    }
    assert_eq!(addresses.len(), 27);
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_ec2_does_not_know_yet_costs_the_pod_a_moment_only() {
    let timing = Timing { visible: Delay::fixed(150), ..Timing::none() };
    let node = Node::start(SimConfig { timing, ..SimConfig::instant() }, "m5.large", warm_ips(0)).await;
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    let begun = Instant::now();
    node.pool.acquire(key(9), pod(9), in_seconds(60)).await.unwrap();
    assert!(node.calls_of("AttachNetworkInterface") > 1, "EC2 knew it at once: the test shows nothing");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_add_that_waits_in_vain_says_why_and_what_to_do() {
    let node = Node::start(SimConfig::instant(), "t3.small", warm_ips(0)).await;
    node.shared.with(|model| model.inject(FaultRule::always(FaultKind::Denied, "AssignPrivateIpAddresses")));
    node.shared.with(|model| model.inject(FaultRule::always(FaultKind::Denied, "CreateNetworkInterface")));
    let error = node.pool.acquire(key(1), pod(1), in_seconds(5)).await.unwrap_err();
    let AcquireError::TimedOut { waited, shortage, .. } = &error else { panic!("{error}") };
    assert!(*waited >= Duration::from_secs(5));
    assert_eq!(*shortage, Shortage::Hold(HoldReason::AccessDenied));
    let text = error.to_string();
    assert!(text.contains("IAM role") && text.contains("attach the IAM policy"), "{text}");
    node.pool.snapshot().wait_for(|snapshot| snapshot.waiting.is_empty()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_instance_tells_its_pods_so() {
    let node = Node::start(SimConfig::instant(), "t3.small", warm_ips(0)).await;
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
    }
    let error = node.pool.acquire(key(9), pod(9), in_seconds(10)).await.unwrap_err();
    assert!(matches!(error.label(), "MaxPods" | "InstanceLimit"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_delete_during_an_add_ends_it_and_leaves_no_lease() {
    let node = Node::start(SimConfig::instant(), "t3.small", warm_ips(0)).await;
    node.shared.with(|model| model.inject(FaultRule::always(FaultKind::Denied, "AssignPrivateIpAddresses")));
    node.shared.with(|model| model.inject(FaultRule::always(FaultKind::Denied, "CreateNetworkInterface")));
    let pool = node.pool.clone();
    let add = tokio::spawn(async move { pool.acquire(key(1), pod(1), in_seconds(60)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.pool.release(&key(1)), Ok(None));
    assert_eq!(add.await.unwrap(), Err(AcquireError::Cancelled));
    assert!(node.pool.attachments().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_add_that_nobody_waits_for_any_more_holds_no_address() {
    let node = Node::start(SimConfig::default(), "t3.small", warm_ips(0)).await;
    let wait = node.pool.acquire(key(1), pod(1), in_seconds(60));
    assert!(tokio::time::timeout(Duration::from_millis(1), wait).await.is_err(), "it waits, and is dropped");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(node.pool.attachments().is_empty());
    assert!(node.pool.snapshot().borrow().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_add_twice_at_once_gets_one_address() {
    let node = Node::start(SimConfig::default(), "t3.small", warm_ips(0)).await;
    let (pool, again) = (node.pool.clone(), node.pool.clone());
    let (first, second) =
        tokio::join!(pool.acquire(key(1), pod(1), in_seconds(60)), again.acquire(key(1), pod(1), in_seconds(60)));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(node.pool.attachments().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn leases_and_rests_survive_a_restart_that_costs_one_call() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(2)).await;
    let kept = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    let freed = node.pool.acquire(key(2), pod(2), in_seconds(30)).await.unwrap();
    node.pool.release(&key(2)).unwrap();
    node.settle().await;
    let calls = node.calls();
    node.kill();
    node.restart(warm_ips(2)).await;
    assert_eq!(node.calls(), calls + 1);
    assert_eq!(node.pool.lookup(&key(1)), Some(kept));
    let next = node.pool.acquire(key(3), pod(3), in_seconds(30)).await.unwrap();
    assert_ne!(next.address, freed.address, "it rests also after a restart");
}

#[tokio::test(start_paused = true)]
async fn an_idle_node_calls_nobody() {
    let node = Node::start(SimConfig::default(), "m5.large", EffectiveConfig::default()).await;
    node.pool.acquire(key(1), pod(1), in_seconds(60)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let calls = node.calls();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(node.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_changed_while_operations_are_off_and_what_is_there_serves() {
    let mut config = warm_ips(1);
    let node = Node::start(SimConfig::instant(), "t3.small", config.clone()).await;
    node.settle().await;
    config.policy.operations = Operations::NoCloud;
    node.pool.set_config(config);
    let calls = node.calls();
    node.pool.acquire(key(1), pod(1), in_seconds(5)).await.unwrap();
    let error = node.pool.acquire(key(2), pod(2), in_seconds(5)).await.unwrap_err();
    assert_eq!(error.label(), "Paused");
    assert_eq!(node.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_engine_ends_its_waits() {
    let node = Node::start(SimConfig::default(), "t3.small", warm_ips(0)).await;
    let pool = node.pool.clone();
    let add = tokio::spawn(async move { pool.acquire(key(1), pod(1), in_seconds(60)).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    node.shutdown.cancel();
    assert!(matches!(add.await.unwrap(), Err(AcquireError::NotServing(_))));
    let mut snapshot = node.pool.snapshot();
    snapshot.wait_for(|snapshot| snapshot.phase == Phase::Stopping).await.unwrap();
    assert!(node.pool.acquire(key(2), pod(2), in_seconds(1)).await.is_err());
}

#[tokio::test]
async fn an_add_with_a_free_address_takes_microseconds() {
    let node = Node::start(SimConfig::instant(), "m5.4xlarge", warm_ips(110)).await;
    let mut snapshot = node.pool.snapshot();
    snapshot.wait_for(|snapshot| snapshot.available() >= 110).await.unwrap();
    let mut took = Vec::new();
    for n in 0..100 {
        let begun = std::time::Instant::now();
        node.pool.acquire(key(n), pod(n), in_seconds(1)).await.unwrap();
        took.push(begun.elapsed());
    }
    took.sort();
    println!("acquire: p50 {:?}, p99 {:?}", took[50], took[99]);
    // Generous: an unoptimised build on a machine that does other things.
    assert!(took[50] < Duration::from_millis(1), "{:?}", took[50]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_which_only_the_kernel_knows_keeps_its_address() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(3)).await;
    let lease = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    node.kill();
    std::fs::remove_file(&node.journal).unwrap();
    node.kernel.show_pod(lease.address, "eni0123456789a");
    node.restart(warm_ips(3)).await;
    let attachments = node.pool.attachments();
    assert_eq!(attachments.len(), 1);
    assert_eq!((attachments[0].0.ifname.as_ref(), attachments[0].2.address), ("eni0123456789a", lease.address));
    let other = node.pool.acquire(key(2), pod(2), in_seconds(30)).await.unwrap();
    assert_ne!(other.address, lease.address);
    assert!(node.pool.snapshot().borrow().notices.iter().any(|notice| notice.kind == "ForgottenLease"));
    assert_eq!(node.pool.release_address(lease.address).unwrap().map(|lease| lease.address), Some(lease.address));
    assert_eq!(node.pool.release_address(other.address).unwrap(), None, "that one has a key");
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_which_only_the_kernel_knew_ends_when_the_pod_is_seen_gone_twice() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(3)).await;
    let forgotten = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap().address;
    let known = node.pool.acquire(key(2), pod(2), in_seconds(30)).await.unwrap().address;
    node.kill();
    let journal = std::fs::read_to_string(&node.journal).unwrap();
    let lines: Vec<_> = journal.split_inclusive('\n').filter(|line| !line.contains("container-1\"")).collect();
    std::fs::write(&node.journal, lines.concat()).unwrap();
    node.kernel.show_pod(forgotten, "eni0123456789a");
    node.restart(warm_ips(3)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.pool.attachments().len(), 2, "its pod runs, whoever knows of it");

    // A route that somebody takes away and puts back.
    node.kernel.hide_pod(forgotten);
    tokio::time::sleep(Duration::from_secs(25)).await;
    node.kernel.show_pod(forgotten, "eni0123456789a");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.pool.attachments().len(), 2);

    node.kernel.hide_pod(forgotten);
    let mut snapshot = node.pool.snapshot();
    let ended = snapshot.wait_for(|snapshot| snapshot.counts.assigned == 1).await.unwrap().clone();
    assert_eq!(ended.counts.cooling, 1, "it rests like any other");
    assert_eq!(node.pool.attachments()[0].2.address, known, "that pod runs, and has a plugin");
    node.kill();
    node.restart(warm_ips(3)).await;
    assert_eq!(node.pool.attachments().len(), 1, "written down");
}

#[tokio::test(start_paused = true)]
async fn ec2_is_asked_once_what_the_type_holds_long_after_the_first_pods_and_never_after_a_restart() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", EffectiveConfig::default()).await;
    for n in 0..27 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    assert!(node.calls() <= 8, "{} calls to fill it", node.calls());
    assert_eq!(node.calls_of("DescribeInstanceTypes"), 0);
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!(node.calls_of("DescribeInstanceTypes"), 1);
    let before = node.calls();
    node.kill();
    node.restart(EffectiveConfig::default()).await;
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(node.calls(), before + 1, "the restart's one");
}

#[tokio::test(start_paused = true)]
async fn what_ec2_said_of_the_type_wins_over_the_table_and_no_answer_leaves_the_table_standing() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(1)).await;
    let denied = node.shared.with(|model| model.inject(FaultRule::always(FaultKind::Denied, "DescribeInstanceTypes")));
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(node.calls_of("DescribeInstanceTypes"), 1, "who may not ask does not ask again");
    assert_eq!(node.pool.snapshot().borrow().capacity.map(|capacity| capacity.enis), Some(3));
    node.shared.with(|model| model.end_fault(denied));
    node.kill();
    node.restart(warm_ips(1)).await;
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let kept = std::fs::read_to_string(node.type_file()).unwrap();
    node.kill();
    std::fs::write(node.type_file(), kept.replace("\"max_enis\":3", "\"max_enis\":4")).unwrap();
    node.restart(warm_ips(1)).await;
    assert_eq!(node.pool.snapshot().borrow().capacity.map(|capacity| capacity.enis), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_ec2_is_away_serves_pods_and_changes_nothing() {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(2)).await;
    let kept = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    node.settle().await;
    node.kill();
    let away = node
        .shared
        .with(|model| model.inject(FaultRule { action: None, ..FaultRule::always(FaultKind::RequestLost, "") }));
    let begun = Instant::now();
    node.restart(warm_ips(2)).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(node.pool.lookup(&key(1)), Some(kept));
    node.pool.acquire(key(2), pod(2), in_seconds(5)).await.unwrap();
    assert_eq!(node.pool.snapshot().borrow().shortage, Some(Shortage::Hold(HoldReason::Ec2Unavailable)));
    node.shared.with(|model| model.end_fault(away));
    let mut snapshot = node.pool.snapshot();
    snapshot.wait_for(|snapshot| snapshot.shortage.is_none() && snapshot.available() == 2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_is_not_ours_is_left_alone_and_its_place_is_not_taken() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    let stranger = node.attach_by_hand(1, &[]).await;
    // The agent does not know yet: its own attach at that place is refused, and it finds out.
    for n in 0..18 {
        node.pool.acquire(key(n), pod(n), in_seconds(120)).await.unwrap();
    }
    let snapshot = node.pool.snapshot().borrow().clone();
    let view = snapshot.enis.iter().find(|eni| eni.id == stranger).unwrap();
    assert_eq!(view.state, EniState::Unmanaged);
    assert_eq!(view.unmanaged_because, Some("it has no tag of the pool"));
    assert!(node.pool.attachments().iter().all(|(_, _, lease)| lease.eni != stranger));
    assert_eq!(node.interfaces(), 3, "two of ours and the stranger; nothing is left over");
}

#[tokio::test(start_paused = true)]
async fn an_interface_whose_attach_never_ends_is_given_back() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    let stuck =
        node.shared.with(|model| model.inject(FaultRule::next(FaultKind::StuckAttach, "AttachNetworkInterface", 1)));
    let adds: Vec<_> = (0..12)
        .map(|n| {
            let pool = node.pool.clone();
            tokio::spawn(async move { pool.acquire(key(n), pod(n), in_seconds(600)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert!(node.pool.snapshot().borrow().notices.iter().any(|notice| notice.kind == "AttachStuck"));
    node.shared.with(|model| model.end_fault(stuck));
    for add in adds {
        add.await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.interfaces(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_instance_gets_no_interface_and_leaves_none_behind() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    let stopping = FaultKind::Error {
        status: 400,
        code: "IncorrectState".into(),
        message: "Instance is not in 'running' or 'stopped' state".into(),
    };
    node.shared.with(|model| model.inject(FaultRule::always(stopping, "AttachNetworkInterface")));
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
    }
    let error = node.pool.acquire(key(9), pod(9), in_seconds(30)).await.unwrap_err();
    assert_eq!(error.label(), "InstanceNotRunning");
    node.settle().await;
    assert_eq!(node.interfaces(), 1);
}

#[tokio::test(start_paused = true)]
async fn new_security_groups_reach_the_interfaces_that_exist_but_never_the_primary() {
    let mut config = warm_ips(0);
    let node = Node::start(SimConfig::default(), "m5.large", config.clone()).await;
    for n in 0..12 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    let wanted =
        node.shared.with(|model| model.security_groups().find(|group| group.name == "nodes").unwrap().id.clone());
    config.security_groups = vec![wanted.clone()];
    node.pool.set_config(config);
    node.settle().await;
    let primary = node.pool.snapshot().borrow().enis[0].id.clone();
    node.shared.with(|model| {
        for eni in model.interfaces() {
            assert_eq!(eni.security_groups == [wanted.clone()], eni.id != primary, "{eni:?}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn with_custom_networking_no_pod_gets_an_address_of_the_primary_interface() {
    let mut config = warm_ips(2);
    config.policy.use_primary_eni = false;
    let node = Node::start(SimConfig::instant(), "m5.large", config).await;
    for n in 0..18 {
        let lease = node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
        assert_ne!(lease.device_index, 0, "pod {n} has {}", lease.address);
    }
    let error = node.pool.acquire(key(18), pod(18), in_seconds(10)).await.unwrap_err();
    assert!(matches!(error.label(), "MaxPods" | "InstanceLimit"), "{error}");
    node.settle().await;
    let snapshot = node.pool.snapshot().borrow().clone();
    let primary = snapshot.enis.iter().find(|eni| eni.device_index == Some(0)).unwrap();
    assert_eq!((primary.counts.assigned, primary.gives), (0, false));
    assert_eq!(snapshot.counts.assigned, 18);
}

#[tokio::test(start_paused = true)]
async fn the_shipped_iam_policy_allows_every_call_of_a_node_s_life() {
    let policy: serde_json::Value = serde_json::from_str(include_str!("../../../deploy/iam/agent.json")).unwrap();
    let mut allowed = std::collections::BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        let actions = &statement["Action"];
        let actions = actions.as_array().map_or_else(|| std::slice::from_ref(actions), Vec::as_slice);
        allowed.extend(actions.iter().filter_map(|action| action.as_str()?.strip_prefix("ec2:")));
    }
    let node = Node::start(SimConfig::instant(), "m5.large", EffectiveConfig::default()).await;
    for n in 0..27 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    for n in 0..27 {
        node.pool.release(&key(n)).unwrap();
    }
    // The second interface stays warm, the third goes; fewer warm addresses then take some from the others.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    node.pool.set_config(warm_ips(1));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let called: Vec<_> = node.actions().into_iter().filter(|action| *action != "RunInstances").collect();
    for action in ["CreateNetworkInterface", "DetachNetworkInterface", "DeleteNetworkInterface"] {
        assert!(called.contains(&action), "this life is too quiet: {called:?}");
    }
    for action in called {
        assert!(allowed.contains(action), "deploy/iam/agent.json does not allow {action}");
    }
}
