//! What EC2 will not do for a node, and what breaks in the agent itself.

use std::time::Duration;

use ec2_sim::{FaultKind, FaultRule, SimConfig};

use crate::node::{Node, key, pod};
use crate::{in_seconds, warm_ips};

/// Ten pods on an m5.large whose attaches end so: the tenth needs a second interface.
async fn without_attach(fault: FaultKind, reason: &str) {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    node.shared.with(|model| model.inject(FaultRule::always(fault, "AttachNetworkInterface")));
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
    }
    for minute in 0..60 {
        let error = node.pool.acquire(key(9), pod(9), in_seconds(60)).await.unwrap_err();
        assert_eq!(error.label(), reason, "in minute {minute}");
    }
    let made = node.calls_of("CreateNetworkInterface");
    assert!((3..=10).contains(&made), "{made} interfaces made in vain within an hour");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.interfaces(), 1, "none is left over");

    // Somebody mends it; the next try succeeds.
    node.shared.with(ec2_sim::Model::end_all_faults);
    node.pool.acquire(key(9), pod(9), in_seconds(900)).await.unwrap();
    assert_eq!(node.interfaces(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_ec2_calls_full_is_tried_seldom_and_no_interface_is_left_over() {
    let full = FaultKind::Error {
        status: 400,
        code: "AttachmentLimitExceeded".into(),
        message: "Interface count exceeds the limit".into(),
    };
    without_attach(full, "InstanceLimit").await;
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_create_but_not_attach_is_tried_seldom_and_leaves_no_interface_over() {
    without_attach(FaultKind::Denied, "AccessDenied").await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_task_panics_has_failed_and_is_tried_again() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    node.pool.acquire(key(0), pod(0), in_seconds(30)).await.unwrap();
    node.kernel.panic_once();
    for n in 1..12 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    assert!(node.has_told("HostSetUp"));
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_thousands_of_pods_is_shortened_and_a_restart_knows_the_same() {
    let config = enipool_agent::engine::EffectiveConfig { cooldown: Duration::ZERO, ..warm_ips(1) };
    let mut node = Node::start(SimConfig::instant(), "m5.large", config.clone()).await;
    let kept = node.pool.acquire(key(0), pod(0), in_seconds(30)).await.unwrap();
    for n in 1..2000 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
        node.pool.release(&key(n)).unwrap();
    }
    let last = node.pool.acquire(key(2000), pod(2000), in_seconds(30)).await.unwrap();
    node.settle().await;
    assert!(std::fs::metadata(&node.journal).unwrap().len() < 64 * 1024);
    node.kill();
    node.restart(config).await;
    assert_eq!(node.pool.lookup(&key(0)), Some(kept));
    assert_eq!(node.pool.lookup(&key(2000)), Some(last));
    assert_eq!(node.pool.attachments().len(), 2);
}
