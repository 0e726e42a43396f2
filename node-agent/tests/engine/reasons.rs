//! What an ADD is told that waits in vain for addresses which EC2 has given already.

use std::time::Duration;

use ec2_sim::model::Delay;
use ec2_sim::{FaultKind, FaultRule, SimConfig, Timing};
use enipool_agent::engine::{AcquireError, EffectiveConfig};

use crate::class::two_subnets;
use crate::node::{Node, key, pod};
use crate::{in_seconds, warm_ips};

#[tokio::test(start_paused = true)]
async fn an_add_that_the_kernel_keeps_waiting_is_told_so_in_the_kernel_s_words() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    node.kernel.refuse(true);
    let error = node.pool.acquire(key(1), pod(1), in_seconds(10)).await.unwrap_err();
    assert_eq!(error.label(), "HostNotSetUp");
    let text = error.to_string();
    assert!(text.contains("it is told to refuse") && text.contains("enipool-agent doctor"), "{text}");
    node.kernel.refuse(false);
    node.pool.acquire(key(1), pod(1), in_seconds(60)).await.unwrap();
    assert_eq!(node.pool.snapshot().borrow().shortage, None);
}

/// A node whose second interface goes to another subnet than its first.
async fn in_two_subnets(sim: SimConfig) -> (Node, EffectiveConfig) {
    let node = Node::start(sim, "m5.large", warm_ips(0)).await;
    let config = EffectiveConfig { subnets: vec![node.subnet(1)], ..warm_ips(0) };
    node.pool.set_config(config.clone());
    (node, config)
}

#[tokio::test(start_paused = true)]
async fn an_add_that_waits_for_a_subnet_s_range_is_told_who_does_not_tell_it() {
    let timing = Timing { imds_attach: Delay::fixed(24 * 3_600_000), ..Timing::none() };
    let (node, _) = in_two_subnets(SimConfig { timing, ..two_subnets() }).await;
    let denied = node.shared.with(|model| model.inject(FaultRule::always(FaultKind::Denied, "DescribeSubnets")));
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
    }
    let error = node.pool.acquire(key(9), pod(9), in_seconds(30)).await.unwrap_err();
    assert_eq!(error.label(), "AccessDenied");
    let text = error.to_string();
    assert!(text.contains("DescribeSubnets") && text.contains("attach the IAM policy"), "{text}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = node.calls_of("DescribeSubnets");
    assert!(asked < 40, "{asked} calls in an hour");
    node.shared.with(|model| model.end_fault(denied));
    node.pool.acquire(key(9), pod(9), in_seconds(600)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subnet_s_range_that_imds_tells_costs_no_call() {
    let (mut node, config) = in_two_subnets(two_subnets()).await;
    for n in 0..10 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
    }
    node.settle().await;
    assert_eq!(node.calls_of("DescribeSubnets"), 0);
    let before = node.calls();
    node.kill();
    node.restart(config).await;
    node.pool.acquire(key(10), pod(10), in_seconds(30)).await.unwrap();
    assert_eq!(node.calls_of("DescribeSubnets"), 0);
    node.settle().await;
    assert!(node.calls() <= before + 2, "the restart's one, and one for the last pod's address");
}

#[tokio::test(start_paused = true)]
async fn an_add_is_told_when_the_interface_may_be_there_and_never_that_it_is_due() {
    let timing = Timing { attach: Delay::fixed(60_000), ..Timing::none() };
    let node = Node::start(SimConfig { timing, ..SimConfig::instant() }, "m5.large", warm_ips(0)).await;
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
    }
    let told = |error: &AcquireError| match error {
        AcquireError::TimedOut { shortage, eta, .. } => (shortage.label(), *eta),
        _ => panic!("{error}"),
    };
    let early = node.pool.acquire(key(9), pod(9), in_seconds(2)).await.unwrap_err();
    let (reason, eta) = told(&early);
    assert_eq!(reason, "AttachInFlight");
    assert!(eta.is_some_and(|eta| (1..=5).contains(&eta.as_secs())), "{eta:?} of some five seconds");
    let late = node.pool.acquire(key(9), pod(9), in_seconds(20)).await.unwrap_err();
    assert_eq!(told(&late), ("AttachInFlight", None), "later than usual: nobody knows");
}

#[tokio::test(start_paused = true)]
async fn an_add_is_told_when_the_next_address_has_rested() {
    let node = Node::start(SimConfig::instant(), "t3.small", warm_ips(0)).await;
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
    }
    node.pool.release(&key(1)).unwrap();
    let error = node.pool.acquire(key(9), pod(9), in_seconds(10)).await.unwrap_err();
    let AcquireError::TimedOut { shortage, eta, .. } = &error else { panic!("{error}") };
    assert_eq!(shortage.label(), "Cooling", "the instance is full, but one address only rests");
    assert_eq!(eta.map(|eta| eta.as_secs()), Some(20), "of thirty seconds ten have passed: {error}");
    node.pool.acquire(key(9), pod(9), in_seconds(21)).await.unwrap();
}
