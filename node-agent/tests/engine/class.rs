//! What a change of the class does to the interfaces that exist.

use std::collections::BTreeMap;
use std::time::Duration;

use ec2_sim::SimConfig;
use ec2_sim::model::SubnetConfig;
use enipool_agent::engine::{EffectiveConfig, EniState};
use enipool_pool::SubnetCidr;

use crate::node::{Node, key, pod};
use crate::{in_seconds, warm_ips};

pub(crate) fn two_subnets() -> SimConfig {
    let subnet = |cidr: &str| SubnetConfig {
        zone: "eu-west-1a".into(),
        cidr: SubnetCidr(cidr.parse().unwrap()),
        tags: BTreeMap::new(),
    };
    SimConfig { subnets: vec![subnet("10.0.0.0/24"), subnet("10.0.1.0/24")], ..SimConfig::instant() }
}

#[tokio::test(start_paused = true)]
async fn an_interface_whose_subnet_left_the_class_gets_no_new_pod_and_goes_when_it_is_empty() {
    let config = warm_ips(2);
    let node = Node::start(two_subnets(), "m5.large", config.clone()).await;
    for n in 0..12 {
        node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
    }
    node.settle().await;
    let (old, new) = (node.subnet(0), node.subnet(1));
    let before = node.pool.snapshot().borrow().clone();
    let left = before.enis.iter().find(|eni| eni.device_index == Some(1)).unwrap();
    assert_eq!((&left.subnet, left.state), (&old, EniState::Ready));

    let chosen =
        EffectiveConfig { subnets: vec![new.clone()], class_subnets: Some([new.clone()].into()), ..config.clone() };
    let state = |wanted| {
        let snapshot = node.pool.snapshot().borrow().clone();
        snapshot.enis.iter().find(|eni| eni.id == wanted).map(|eni| eni.state)
    };
    // Somebody edits the class and takes it back.
    let calls = node.calls();
    node.pool.set_config(chosen.clone());
    node.settle().await;
    assert_eq!(state(left.id.clone()), Some(EniState::Ready));
    node.pool.set_config(config);
    node.settle().await;
    assert_eq!(node.calls(), calls, "nothing is given up for that");

    node.pool.set_config(chosen);
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(state(left.id.clone()), Some(EniState::Retiring));
    let next = node.pool.acquire(key(12), pod(12), in_seconds(60)).await.unwrap();
    let snapshot = node.pool.snapshot().borrow().clone();
    let serves = snapshot.enis.iter().find(|eni| eni.id == next.eni).unwrap();
    assert_eq!(serves.subnet, new, "the pods of the other run on");
    assert_eq!(node.pool.attachments().len(), 13);

    for n in 0..12 {
        if node.pool.lookup(&key(n)).is_some_and(|lease| lease.eni == left.id) {
            node.pool.release(&key(n)).unwrap();
        }
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(state(left.id.clone()), None);
    assert_eq!(node.interfaces(), 2, "the primary, and the one in the new subnet");
}
