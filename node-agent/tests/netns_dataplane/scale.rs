//! What must not grow with the pods of a node.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use enipool_agent::dataplane::Dataplane;

use crate::lab::can_run;
use crate::traffic::udp;
use crate::vpc::{Node, Pod, Vpc, eni};

const MANY: u32 = 250;
const FEW: u32 = 10;
/// ADDs that are timed before the times are compared.
const ROUND: usize = 20;
/// A machine that does other things gets as many rounds to show what an ADD takes by itself.
const ROUNDS: usize = 5;

/// A node with one secondary ENI of that many addresses, of which the last few are not given to pods at once.
fn node(vpc: &Vpc, number: u8, pods: u32) -> (Node, Vec<Pod>, Vec<Ipv4Addr>) {
    let mut node = Node::new(vpc, number, 0);
    let mut eni = eni(number, 1);
    let first = Ipv4Addr::new(10, 0, 100 + 2 * number, 1).to_bits();
    let spare = u32::try_from(ROUND * ROUNDS).unwrap();
    eni.addresses = (0..pods + spare).map(|n| Ipv4Addr::from_bits(first + n)).collect();
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

/// The quickest one tells what the work costs; all others what else this machine was doing.
fn quickest(times: &[Duration]) -> Duration {
    times.iter().copied().min().unwrap()
}

fn no_slower(with_many: &[Duration], with_few: &[Duration]) -> bool {
    quickest(with_many) < quickest(with_few) * 3 / 2
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
            // Turn about, so that what else happens on this machine hits both alike. More rounds bring each side nearer to
            // what it costs: they forgive noise, and nothing that grows with the pods.
            let spare: Vec<_> = full_spare.iter().zip(&empty_spare).collect();
            for round in spare.chunks(ROUND) {
                for (one, two) in round {
                    let (pod, took) = add(&dataplane, **one).await;
                    with_many.push(took);
                    made.push(pod);
                    let (pod, took) = add(&other, **two).await;
                    with_few.push(took);
                    made.push(pod);
                }
                if no_slower(&with_many, &with_few) {
                    break;
                }
            }
        });
        for pod in &many {
            let start = Instant::now();
            dataplane.del_pod(pod.address, &pod.spec().host_ifname).await.unwrap();
            dels.push(start.elapsed());
        }
    });
    dels.sort();
    // A DEL that waited for the kernel's farewell to the pod's interface would do so each time.
    let del = dels[dels.len() / 20];
    assert!(
        no_slower(&with_many, &with_few),
        "an ADD took {:?} with {FEW} pods and {:?} with {MANY}",
        quickest(&with_few),
        quickest(&with_many)
    );
    assert!(del < Duration::from_millis(5), "a DEL waited for the kernel: {del:?}");
}
