//! What must not grow with the pods of a node.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use enipool_agent::dataplane::Dataplane;

use crate::lab::can_run;
use crate::traffic::udp;
use crate::vpc::{Node, Pod, Vpc, eni};

const MANY: u32 = 250;
const FEW: u32 = 10;
const ROUNDS: u32 = 40;

/// A node with one secondary ENI of that many addresses, of which the last few are not given to pods at once.
fn node(vpc: &Vpc, number: u8, pods: u32) -> (Node, Vec<Pod>, Vec<Ipv4Addr>) {
    let mut node = Node::new(vpc, number, 0);
    let mut eni = eni(number, 1);
    let first = Ipv4Addr::new(10, 0, 100 + 2 * number, 1).to_bits();
    eni.addresses = (0..pods + ROUNDS).map(|n| Ipv4Addr::from_bits(first + n)).collect();
    vpc.attach(&node.netns, "eth1", &eni);
    node.state.secondary.push(eni.clone());
    let (used, spare) = eni.addresses.split_at(usize::try_from(pods).unwrap());
    (node, used.iter().map(|address| Pod::new(&address.to_string(), *address)).collect(), spare.to_vec())
}

async fn fill(dataplane: &Dataplane, node: &Node, pods: &[Pod]) {
    dataplane.ensure_host(&node.state).await.unwrap();
    let before = node.netns.sh("ip rule; nft list ruleset");
    for pod in pods {
        pod.plug(dataplane).await;
    }
    assert_eq!(node.netns.sh("ip rule; nft list ruleset"), before);
}

async fn add(dataplane: &Dataplane, address: Ipv4Addr) -> (Pod, Duration) {
    let pod = Pod::new(&address.to_string(), address);
    let start = Instant::now();
    pod.plug(dataplane).await;
    (pod, start.elapsed())
}

/// The quicker ones tell what the work costs; the slower ones what else this machine is doing.
fn quick(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 4]
}

#[test]
fn two_hundred_and_fifty_pods_add_no_rule_and_make_no_add_slower() {
    if !can_run("two_hundred_and_fifty_pods_add_no_rule_and_make_no_add_slower") {
        return;
    }
    let vpc = Vpc::new();
    let (full, many, full_spare) = node(&vpc, 1, MANY);
    let (empty, few, empty_spare) = node(&vpc, 2, FEW);
    let (mut with_many, mut with_few, mut dels) = (Vec::new(), Vec::new(), Vec::new());
    let mut made = Vec::new();
    full.with_dataplane(async |dataplane| {
        fill(&dataplane, &full, &many).await;
        let (first, last) = (many.first().unwrap(), many.last().unwrap());
        assert_eq!(udp(&first.netns, &last.netns, last.address), Ok(first.address));
        empty.with_dataplane(async |other| {
            fill(&other, &empty, &few).await;
            // Turn about, so that what else happens on this machine hits both alike.
            for (one, two) in full_spare.iter().zip(&empty_spare) {
                let (pod, took) = add(&dataplane, *one).await;
                with_many.push(took);
                made.push(pod);
                let (pod, took) = add(&other, *two).await;
                with_few.push(took);
                made.push(pod);
            }
        });
        for pod in &many {
            let start = Instant::now();
            dataplane.del_pod(pod.address, &pod.spec().host_ifname).await.unwrap();
            dels.push(start.elapsed());
        }
    });
    let (with_many, with_few, del) = (quick(with_many), quick(with_few), quick(dels));
    assert!(with_many < with_few * 3 / 2, "an ADD took {with_few:?} with {FEW} pods and {with_many:?} with {MANY}");
    assert!(del < Duration::from_millis(5), "a DEL waited for the kernel: {del:?}");
}
