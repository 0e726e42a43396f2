//! What must not grow with the pods of a node.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::lab::can_run;
use crate::traffic::udp;
use crate::vpc::{Node, Pod, Vpc};

const PODS: u32 = 250;
const FEW: usize = 10;

#[test]
fn two_hundred_and_fifty_pods_add_no_rule_and_make_no_add_slower() {
    if !can_run("two_hundred_and_fifty_pods_add_no_rule_and_make_no_add_slower") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 0);
    let mut eni = crate::vpc::eni(1, 1);
    eni.addresses = (0..PODS).map(|n| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 100, 1).to_bits() + n)).collect();
    vpc.attach(&node.netns, "eth1", &eni);
    node.state.secondary.push(eni.clone());
    let pods: Vec<Pod> = eni.addresses.iter().map(|address| Pod::new(&address.to_string(), *address)).collect();
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        let rules = node.netns.sh("ip rule; nft list ruleset");
        let mut times: Vec<Duration> = Vec::new();
        for pod in &pods {
            let start = Instant::now();
            pod.plug(&dataplane).await;
            times.push(start.elapsed());
        }
        assert_eq!(node.netns.sh("ip rule; nft list ruleset"), rules);
        let (first, last) = (pods.first().unwrap(), pods.last().unwrap());
        assert_eq!(udp(&first.netns, &last.netns, last.address), Ok(first.address));
        // The quickest ones tell what the work costs; the slowest what else this machine is doing.
        let quick = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort();
            times[times.len() / 4]
        };
        let (early, late) = (quick(&times[FEW..FEW + 50]), quick(&times[times.len() - 50..]));
        assert!(late < early * 2, "an ADD took {early:?} with few pods and {late:?} with {PODS}");
        let mut dels: Vec<Duration> = Vec::new();
        for pod in &pods {
            let start = Instant::now();
            dataplane.del_pod(pod.address, &pod.spec().host_ifname).await.unwrap();
            dels.push(start.elapsed());
        }
        dels.sort();
        assert!(
            dels[dels.len() / 2] < Duration::from_millis(5),
            "a DEL waited for the kernel: {:?}",
            dels[dels.len() / 2]
        );
        assert!(!node.netns.sh("ip route show table 10000").contains("eni"));
    });
}
