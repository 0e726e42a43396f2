//! Pods whose address EC2 does not show on an interface of the node, and the address's return.

use std::time::Duration;

use ec2_sim::model::Delay;
use ec2_sim::{FaultKind, FaultRule, SimConfig, Timing};

use crate::node::{Node, key, pod};
use crate::{in_seconds, warm_ips};

#[tokio::test(start_paused = true)]
async fn addresses_taken_by_hand_are_noticed_through_imds_and_the_pod_keeps_its_lease() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(2)).await;
    let lease = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    node.settle().await;
    node.take_by_hand(&lease).await;
    let mut snapshot = node.pool.snapshot();
    let seen = snapshot.wait_for(|snapshot| !snapshot.strays.is_empty()).await.unwrap().clone();
    assert_eq!(seen.strays[0].address, lease.address);
    assert!(node.pool.owns(lease.address), "a late DEL that names it must not take the pod's link down");
    assert!(seen.notices.iter().any(|notice| notice.kind == "StrayAddress" && notice.text.contains("default/pod-1")));
    assert_eq!(node.pool.lookup(&key(1)).map(|lease| lease.address), Some(lease.address));
    assert_eq!(node.pool.release(&key(1)).unwrap().map(|lease| lease.address), Some(lease.address));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_back_by_hand_is_a_plain_lease_again_though_the_kernel_refuses_at_first() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    let lease = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    node.settle().await;
    node.take_by_hand(&lease).await;
    let mut snapshot = node.pool.snapshot();
    snapshot.wait_for(|snapshot| !snapshot.strays.is_empty()).await.unwrap();

    node.kernel.refuse(true);
    node.give_by_hand(&lease);
    let refused = snapshot.wait_for(|snapshot| snapshot.notices.iter().any(|notice| notice.kind == "HostSetUp"));
    tokio::time::timeout(Duration::from_secs(300), refused).await.expect("the host is not set up anew").unwrap();
    node.kernel.refuse(false);
    let back = tokio::time::timeout(Duration::from_secs(60), snapshot.wait_for(|snapshot| snapshot.strays.is_empty()));
    let back = back.await.expect("it is a stray for ever").unwrap().clone();
    assert_eq!(back.counts.assigned, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_younger_than_imds_and_a_restart_while_ec2_is_away_is_no_stray_once_ec2_answers() {
    let timing = Timing { imds_addresses: Delay::fixed(600_000), ..Timing::none() };
    let mut node = Node::start(SimConfig { timing, ..SimConfig::instant() }, "m5.large", warm_ips(0)).await;
    let lease = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    node.kill();
    let away = node
        .shared
        .with(|model| model.inject(FaultRule { action: None, ..FaultRule::always(FaultKind::RequestLost, "") }));
    node.restart(warm_ips(0)).await;
    let mut snapshot = node.pool.snapshot();
    snapshot.wait_for(|snapshot| snapshot.strays.len() == 1).await.unwrap();
    assert_eq!(node.pool.lookup(&key(1)), Some(lease));

    node.shared.with(|model| model.end_fault(away));
    let seen = snapshot.wait_for(|snapshot| snapshot.shortage.is_none() && snapshot.strays.is_empty());
    tokio::time::timeout(Duration::from_secs(61), seen).await.expect("it is a stray for ever").unwrap();
    node.pool.acquire(key(2), pod(2), in_seconds(10)).await.expect("the stray counts for no free address");
}
