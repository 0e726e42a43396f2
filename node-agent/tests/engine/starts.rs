//! What a start finds that is not as the journal says, and what it makes of it.

use std::time::Duration;

use ec2_sim::SimConfig;
use enipool_agent::engine::Lease;
use enipool_pool::eni::Holdings;
use enipool_pool::ledger::record::{Record, VERSION};

use crate::node::{Node, key, pod};
use crate::taken::{PRIMARY, Rig, SECOND, TAKING, eni, id, instance, ip};
use crate::{in_seconds, warm_ips};

fn kinds(node: &Node) -> Vec<&'static str> {
    node.pool.snapshot().borrow().notices.iter().map(|notice| notice.kind).collect()
}

/// A node with one pod, whose agent has died.
async fn died_with_a_pod() -> (Node, Lease) {
    let mut node = Node::start(SimConfig::instant(), "m5.large", warm_ips(2)).await;
    let lease = node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    node.settle().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    node.kill();
    (node, lease)
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_taken_while_the_agent_was_away_is_told_at_the_start_and_stays_the_pod_s() {
    let (mut node, lease) = died_with_a_pod().await;
    node.take_by_hand(&lease).await;
    node.restart(warm_ips(2)).await;
    assert_eq!(kinds(&node), ["StrayAddress"]);
    assert_eq!(node.pool.lookup(&key(1)), Some(lease));
    assert_eq!(node.pool.snapshot().borrow().strays.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_pod_is_not_there_is_told_at_the_start_and_ends_after_two_looks() {
    let (mut node, lease) = died_with_a_pod().await;
    node.kernel.hide_pod(lease.address);
    node.restart(warm_ips(2)).await;
    assert_eq!(kinds(&node), ["LeaseWithoutPod"]);
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(node.pool.lookup(&key(1)), Some(lease.clone()), "one look is none");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(node.pool.lookup(&key(1)), None);
    assert_eq!(kinds(&node), ["LeaseWithoutPod", "LeaseWithoutPodEnded"]);
    assert_eq!(node.pool.snapshot().borrow().counts.cooling, 1, "it rests like any other");
    node.kill();
    node.restart(warm_ips(2)).await;
    assert_eq!(node.pool.lookup(&key(1)), None, "written down");
}

#[tokio::test(start_paused = true)]
async fn a_lease_stays_whose_add_was_cut_short_by_the_agent_s_death_and_is_repeated() {
    let (mut node, lease) = died_with_a_pod().await;
    node.kernel.hide_pod(lease.address);
    node.restart(warm_ips(2)).await;
    tokio::time::sleep(Duration::from_secs(45)).await;
    // The kernel is slow: the link is made long after the second look.
    assert_eq!(node.pool.acquire(key(1), pod(1), in_seconds(1)).await, Ok(lease.clone()));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.pool.lookup(&key(1)), Some(lease), "it ends with its DEL");
}

#[tokio::test(start_paused = true)]
async fn a_lease_stays_whose_pod_has_lost_its_route_but_not_its_link() {
    let (mut node, lease) = died_with_a_pod().await;
    node.kernel.hide_pod(lease.address);
    node.restart(warm_ips(2)).await;
    node.kernel.show_pod(lease.address, "eni-pod-1");
    tokio::time::sleep(Duration::from_secs(45)).await;
    node.kernel.hide_pod(lease.address);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.pool.lookup(&key(1)), Some(lease), "something of it was there: its runtime will delete it");
}

#[test]
fn another_instance_s_journal_is_told_and_not_used() {
    let records = vec![
        Record::Opened { version: VERSION, instance: "i-2".parse().unwrap(), at: TAKING, uptime: None },
        Record::Holds { eni: id(PRIMARY), holdings: Holdings::of(&eni(PRIMARY, &[22])), at: TAKING },
        Record::Assigned { key: key(1), pod: pod(1), address: ip(22), eni: id(PRIMARY), at: TAKING },
    ];
    let mut rig = Rig::restart(warm_ips(0), records, vec![eni(PRIMARY, &[22])]);
    assert_eq!(rig.notices(), ["ForeignJournal"]);
    assert_eq!(rig.machine.ledger().lease_count(), 0);
}

#[test]
fn an_address_that_a_journal_gives_to_two_pods_stays_with_the_younger_lease_and_is_told() {
    let lease = |n: u32, seconds: u64| {
        let at = TAKING.plus(Duration::from_secs(seconds));
        Record::Assigned { key: key(n), pod: pod(n), address: ip(22), eni: id(SECOND), at }
    };
    let records = vec![
        Record::Opened { version: VERSION, instance: instance(), at: TAKING, uptime: None },
        Record::Holds { eni: id(SECOND), holdings: Holdings::of(&eni(SECOND, &[22])), at: TAKING },
        lease(1, 1),
        lease(2, 0),
    ];
    let mut rig = Rig::restart(warm_ips(0), records, vec![eni(PRIMARY, &[]), eni(SECOND, &[22])]);
    assert!(rig.notices().contains(&"AddressTwice"), "{:?}", rig.notices());
    let holder = rig.machine.ledger().holder(ip(22)).map(|(key, _)| key.clone());
    assert_eq!(holder, Some(key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_newer_than_the_table_is_described_before_the_first_pod_and_once() {
    let mut node = Node::start_knowing(|_| None, SimConfig::instant(), "m5.xlarge", warm_ips(0)).await;
    assert_eq!(node.calls_of("DescribeInstanceTypes"), 1);
    let capacity = node.pool.snapshot().borrow().capacity.unwrap();
    assert_eq!((capacity.enis, capacity.slots_per_eni), (4, 14), "what EC2 said, and no guess");
    node.pool.acquire(key(1), pod(1), in_seconds(30)).await.unwrap();
    node.settle().await;
    node.kill();
    node.restart(warm_ips(0)).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(node.calls_of("DescribeInstanceTypes"), 1);
    assert_eq!(node.pool.snapshot().borrow().capacity.map(|capacity| capacity.enis), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_ahead_between_two_lives_ends_no_rest() {
    let (mut node, _) = died_with_a_pod().await;
    node.restart(warm_ips(2)).await;
    node.pool.release(&key(1)).unwrap();
    node.kill();
    node.clock_ahead = Duration::from_secs(3600);
    node.restart(warm_ips(2)).await;
    assert_eq!(node.pool.snapshot().borrow().counts.cooling, 1);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(node.pool.snapshot().borrow().counts.cooling, 0, "and lengthens none");
}
