//! `usePrimaryENI: false`: pods live on secondary interfaces only, in a subnet and security groups of their own.

use std::net::Ipv4Addr;

use enipool_agent::dataplane::{EniLink, layout};
use enipool_pool::address::SubnetCidr;

use crate::lab::can_run;
use crate::traffic::{tcp, udp};
use crate::vpc::{INTERNET, Node, Pod, Vpc, eni};

const PODS_RANGE: &str = "100.64.0.0/16";

/// An ENI in the pods' subnet of its zone, which is in another range of the VPC than the nodes'.
fn pods_eni(node: u8, device_index: u32) -> EniLink {
    let index = u8::try_from(device_index).unwrap();
    let address = |last: u8| Ipv4Addr::new(100, 64, node, 10 * index + last);
    EniLink {
        primary_address: address(0),
        subnet: SubnetCidr(format!("100.64.{node}.0/24").parse().unwrap()),
        addresses: (1..5).map(address).collect(),
        ..eni(node, device_index)
    }
}

/// A node whose primary ENI has no address to give, with that many ENIs in the pods' subnet. Their security group lets
/// nobody in but the VPC; the node's lets in who asks for NodePorts.
fn node(vpc: &Vpc, number: u8, enis: u32) -> Node {
    let mut node = Node::new(vpc, number, 0);
    node.state.primary.addresses.clear();
    node.state.vpc_cidrs.push(PODS_RANGE.parse().unwrap());
    vpc.router.sh(&format!("ip addr add 100.64.{number}.1/32 dev lo"));
    for eni in (1..=enis).map(|index| pods_eni(number, index)) {
        let port = vpc.attach(&node.netns, &format!("eth{}", eni.device_index), &eni);
        vpc.router.sh(&format!(
            "nft 'add rule ip vpc groups oifname {port} ip saddr != {{ 10.0.0.0/16, {PODS_RANGE} }} counter drop'"
        ));
        node.state.secondary.push(eni);
    }
    node
}

#[test]
fn pods_in_a_subnet_of_their_own_reach_the_node_the_vpc_and_the_world_outside() {
    if !can_run("pods_in_a_subnet_of_their_own_reach_the_node_the_vpc_and_the_world_outside") {
        return;
    }
    let vpc = Vpc::new();
    vpc.router.sh("nft 'add chain ip vpc groups { type filter hook forward priority filter; }'");
    let (one, two) = (node(&vpc, 1, 2), node(&vpc, 2, 1));
    let (own, others) = (one.state.primary.primary_address, two.state.primary.primary_address);
    let pods = [0, 1].map(|at| Pod::new(&at.to_string(), one.state.secondary[at].addresses[0]));
    let there = Pod::new("there", two.state.secondary[0].addresses[0]);
    one.netns.sh(&format!(
        "nft add table ip kube-proxy
         nft 'add chain ip kube-proxy nat {{ type nat hook prerouting priority dstnat; }}'
         nft 'add rule ip kube-proxy nat fib daddr type local tcp dport 30080 dnat to {}:8080'",
        pods[1].address
    ));
    one.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&one.state).await.unwrap();
        for pod in &pods {
            pod.plug(&dataplane).await;
        }
        two.with_dataplane(async |dataplane| {
            dataplane.ensure_host(&two.state).await.unwrap();
            there.plug(&dataplane).await;
        });
        assert_eq!(udp(&pods[0].netns, &pods[1].netns, pods[1].address), Ok(pods[0].address));
        for pod in &pods {
            assert_eq!(udp(&pod.netns, &one.netns, own), Ok(pod.address), "the node");
            assert_eq!(udp(&one.netns, &pod.netns, pod.address), Ok(own), "from the node: probes");
            assert_eq!(udp(&pod.netns, &two.netns, others), Ok(pod.address), "another node");
            assert_eq!(udp(&two.netns, &pod.netns, pod.address), Ok(others), "from another node");
            assert_eq!(udp(&pod.netns, &there.netns, there.address), Ok(pod.address), "a pod of another node");
            assert_eq!(udp(&there.netns, &pod.netns, pod.address), Ok(there.address), "from a pod of another node");
            assert_eq!(udp(&pod.netns, &vpc.internet, INTERNET), Ok(own), "the world, by the node's address");
        }
        for (client, seen) in [(&vpc.internet, INTERNET), (&two.netns, others), (&there.netns, there.address)] {
            assert_eq!(tcp(client, (own, 30080), &pods[1].netns, 8080), Ok(seen), "the NodePort");
        }
        assert_eq!(vpc.dropped(), 0, "every packet left by the ENI that owns its source");
        let refused = vpc.router.sh("nft list chain ip vpc groups");
        assert_eq!(refused.matches("packets 0 ").count(), 3, "no security group was in the way: {refused}");
        let routes = one.netns.sh(&format!("ip route show table {}", layout::eni_table(2)));
        assert!(routes.contains("default via 100.64.1.1 dev eth2"), "{routes}");
    });
}
