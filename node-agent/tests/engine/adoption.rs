//! An agent that has nothing written down on an instance that has interfaces and addresses: at its first start, where the
//! launch gave them, and after its journal was lost.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ec2_sim::{SimConfig, SimEc2};
use enipool_agent::engine::{EffectiveConfig, EniState, Lease};
use enipool_pool::ec2::{CreateEni, Ec2, Supply, Tags};
use enipool_pool::targets::{Addressing, Operations};
use enipool_pool::{ClientToken, InstanceId, Prefix};

use crate::node::{Node, key, pod};
use crate::{in_seconds, warm_ips};

/// Addresses for pods that EC2 says the instance owns.
fn owned(node: &Node) -> BTreeSet<Ipv4Addr> {
    let attached = node.shared.with(|model| model.truth()).enis.into_iter().filter(|eni| eni.attachment.is_some());
    attached
        .flat_map(|eni| eni.secondary_ips.into_iter().chain(eni.prefixes.into_iter().flat_map(Prefix::addresses)))
        .collect()
}

fn instance(node: &Node) -> InstanceId {
    node.shared.with(|model| model.truth()).instances[0].id.clone()
}

fn last_call(node: &Node) -> u64 {
    node.shared.with(|model| model.calls().last_seq())
}

/// The agent's calls after that one that changed anything.
fn changes(node: &Node, since: u64) -> Vec<&'static str> {
    node.shared.with(|model| {
        let calls = model.calls().since(since).filter(|call| call.caller == "agent");
        calls.map(|call| call.action).filter(|action| !action.starts_with("Describe")).collect()
    })
}

/// What a launch template can give: addresses and a prefix on the primary interface, and two more interfaces.
async fn launched_with_more(node: &Node) {
    let launch = SimEc2::new(node.shared.clone(), "launch");
    let primary = node.pool.snapshot().borrow().enis[0].id.clone();
    for supply in [Supply::Addresses(2), Supply::Prefixes(1)] {
        launch.assign(&primary, supply).await.unwrap();
    }
    for (device_index, supply) in [(1, Supply::Addresses(3)), (2, Supply::Prefixes(1))] {
        let request = CreateEni {
            subnet: node.subnet(0),
            security_groups: Vec::new(),
            supply,
            description: "of the launch template".into(),
            tags: Tags::new(),
            client_token: ClientToken::new(format!("launch-{device_index}")),
        };
        let eni = launch.create_network_interface(&request).await.unwrap();
        launch.attach_network_interface(&eni.id, &instance(node), device_index).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_launch_gave_an_instance_serves_pods_from_the_agents_first_start_on_and_nothing_is_added() {
    // No pod is there yet that would need them: they are kept all the same.
    let mut config = EffectiveConfig { manage_untagged: true, ..warm_ips(0) };
    config.policy.operations = Operations::NoRelease;
    let mut node = Node::start(SimConfig::instant(), "m5.xlarge", warm_ips(0)).await;
    node.kill();
    std::fs::remove_file(&node.journal).unwrap();
    launched_with_more(&node).await;
    let (owned, since) = (owned(&node), last_call(&node));
    assert_eq!(owned.len(), 2 + 16 + 3 + 16);

    node.restart(config).await;
    let mut given = BTreeSet::new();
    for n in 0..u32::try_from(owned.len()).unwrap() {
        given.insert(node.pool.acquire(key(n), pod(n), in_seconds(5)).await.unwrap().address);
    }
    assert_eq!(given, owned);
    // The interfaces are ours now: they go with the instance.
    let changes = changes(&node, since);
    assert!(changes.iter().all(|action| *action == "ModifyNetworkInterfaceAttribute"), "{changes:?}");
}

/// That many pods, which the kernel shows too.
async fn run_pods(node: &Node, count: u32) -> Vec<Lease> {
    let mut leases = Vec::new();
    for n in 0..count {
        let lease = node.pool.acquire(key(n), pod(n), in_seconds(60)).await.unwrap();
        node.kernel.show_pod(lease.address, &format!("eni{n:011}"));
        leases.push(lease);
    }
    leases
}

/// The second interface is needed for that many pods, and has addresses to spare.
async fn survives_the_loss_of_its_journal(instance_type: &str, addressing: Addressing, pods: u32) {
    let mut config = warm_ips(2);
    config.policy.addressing = addressing;
    let mut node = Node::start(SimConfig::instant(), instance_type, config.clone()).await;
    let leases = run_pods(&node, pods).await;
    node.settle().await;
    let (owned, since, calls) = (owned(&node), last_call(&node), node.calls());
    assert_eq!(node.interfaces(), 2);

    node.kill();
    std::fs::remove_file(&node.journal).unwrap();
    node.restart(config).await;
    let of_pods: BTreeSet<_> = leases.iter().map(|lease| lease.address).collect();
    let kept: BTreeSet<_> = node.pool.attachments().iter().map(|(_, _, lease)| lease.address).collect();
    assert_eq!(kept, of_pods, "running pods keep their addresses");
    let enis = node.pool.snapshot().borrow().enis.clone();
    assert!(enis.iter().all(|eni| eni.state == EniState::Ready), "{enis:#?}");
    let known: BTreeSet<_> = enis.iter().flat_map(|eni| &eni.addresses).map(|entry| entry.address).collect();
    assert_eq!(known, owned);
    let next = node.pool.acquire(key(pods), pod(pods), in_seconds(5)).await.unwrap();
    assert!(owned.contains(&next.address) && !of_pods.contains(&next.address), "{next:?}");
    assert_eq!(node.calls(), calls + 1, "one look");
    assert_eq!(changes(&node, since), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_its_journal_takes_over_interfaces_with_addresses_and_creates_nothing() {
    survives_the_loss_of_its_journal("m5.large", Addressing::Secondary, 12).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_its_journal_takes_over_interfaces_with_prefixes_and_creates_nothing() {
    survives_the_loss_of_its_journal("t3.small", Addressing::Prefix, 50).await;
}
