//! What changes around a node while its agent runs, or while it does not: the VPC's ranges, the node's security groups.

use std::time::Duration;

use ec2_sim::{FaultKind, FaultRule, SimConfig};
use enipool_agent::engine::EffectiveConfig;

use crate::node::{Node, key, pod};
use crate::{in_seconds, warm_ips};

const MINUTE_AND_SOME: Duration = Duration::from_secs(90);

#[tokio::test(start_paused = true)]
async fn a_range_that_the_vpc_gets_or_loses_reaches_the_host_within_two_minutes_and_costs_no_call() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(2)).await;
    node.settle().await;
    assert_eq!(node.kernel.vpc_cidrs(), ["10.0.0.0/16"]);
    let calls = node.calls();
    for cidrs in [&["10.0.0.0/16", "100.64.0.0/16"][..], &["10.0.0.0/16"]] {
        node.set_vpc_cidrs(cidrs);
        tokio::time::sleep(MINUTE_AND_SOME).await;
        assert_eq!(node.kernel.vpc_cidrs(), cidrs);
    }
    assert_eq!(node.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_the_vpc_gets_reaches_a_node_whose_interfaces_change_all_the_time() {
    let node = Node::start(SimConfig::instant(), "m5.large", warm_ips(0)).await;
    node.set_vpc_cidrs(&["10.0.0.0/16", "100.64.0.0/16"]);
    for n in 0..6 {
        node.pool.acquire(key(n), pod(n), in_seconds(30)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(node.kernel.vpc_cidrs().len(), 2);
}

/// A node with three interfaces.
async fn with_three_interfaces() -> Node {
    let node = Node::start(SimConfig::instant(), "m5.large", EffectiveConfig::default()).await;
    for n in 0..20 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    node
}

#[tokio::test(start_paused = true)]
async fn interfaces_follow_the_node_s_security_groups_and_new_ones_get_them() {
    let node = Node::start(SimConfig::instant(), "m5.large", EffectiveConfig::default()).await;
    for n in 0..9 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    let nodes = node.group("nodes");
    assert!(node.groups().values().all(|groups| *groups != [nodes.clone()]) && !node.groups().is_empty());
    node.set_groups_by_hand(&node.primary(), std::slice::from_ref(&nodes)).await;
    tokio::time::sleep(MINUTE_AND_SOME).await;
    for n in 9..20 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    assert_eq!(node.groups().len(), 2);
    assert!(node.groups().values().all(|groups| *groups == [nodes.clone()]), "{:?}", node.groups());
    let calls = node.calls();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(node.calls(), calls, "and nothing more is asked for it");
}

#[tokio::test(start_paused = true)]
async fn interfaces_follow_a_change_of_the_node_s_security_groups_that_came_while_the_agent_was_away() {
    let mut node = with_three_interfaces().await;
    let (nodes, own) = (node.group("nodes"), node.group("default"));
    let odd = node.groups().into_keys().next().unwrap();
    node.set_groups_by_hand(&odd, &[nodes.clone(), own.clone()]).await;
    node.kill();
    node.set_groups_by_hand(&node.primary(), std::slice::from_ref(&nodes)).await;
    let before = node.calls();
    node.restart(EffectiveConfig::default()).await;
    node.settle().await;
    assert_eq!(node.calls(), before + 2, "one to see, one to change the one that had the node's groups");
    let groups = node.groups();
    assert_eq!(groups[&odd], [nodes.clone(), own], "somebody gave it groups of its own");
    assert!(groups.iter().filter(|(id, _)| **id != odd).all(|(_, groups)| *groups == [nodes.clone()]), "{groups:?}");
    node.kill();
    node.restart(EffectiveConfig::default()).await;
    node.settle().await;
    assert_eq!(node.calls(), before + 3, "the next start only looks");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_ec2_refuses_at_first_is_made_up_for_also_after_a_restart() {
    let mut node = with_three_interfaces().await;
    let nodes = node.group("nodes");
    let rule = FaultRule {
        caller: Some("agent".into()),
        ..FaultRule::always(FaultKind::Denied, "ModifyNetworkInterfaceAttribute")
    };
    let denied = node.shared.with(|model| model.inject(rule));
    node.set_groups_by_hand(&node.primary(), std::slice::from_ref(&nodes)).await;
    tokio::time::sleep(MINUTE_AND_SOME).await;
    node.kill();
    node.shared.with(|model| model.end_fault(denied));
    node.restart(EffectiveConfig::default()).await;
    node.settle().await;
    assert!(node.groups().values().all(|groups| *groups == [nodes.clone()]), "{:?}", node.groups());
}
