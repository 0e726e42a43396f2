//! The fabric by itself, with a hand-made truth in place of EC2. Needs root; says so when left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use enipool_pool::{InstanceId, InstanceType, SubnetCidr, Zone};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::drops::Drops;
use super::names::{Place, RunId};
use super::netns::{Netns, host_ip};
use super::plan::internet_access;
use super::router::{Cloud, Router, ServedImds};
use super::underlay::Underlay;
use super::world::{Machine, Plugged, World};

/// EC2 as the test says it is.
#[derive(Default)]
struct Dictated(Mutex<World>);

impl Cloud for Dictated {
    fn world(&self) -> World {
        self.0.lock().unwrap().clone()
    }

    /// Answers with the instance's id, whatever is asked.
    fn serve_imds(&self, listener: TcpListener, instance: InstanceId) -> ServedImds {
        Box::new(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = format!("HTTP/1.0 200 OK\r\n\r\n{instance}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })))
    }
}

fn root() -> bool {
    let can = nix::unistd::geteuid().is_root() && std::env::var_os("ENIPOOL_NO_NETNS").is_none();
    if !can {
        eprintln!("left out: the fabric's tests need root, and a kernel that makes network namespaces");
    }
    can
}

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

struct Lab {
    underlay: Underlay,
    router: Router,
    cloud: Arc<Dictated>,
}

impl Lab {
    /// Two machines in different subnets, each with its primary interface.
    async fn with_two_nodes() -> Self {
        Self::with_hop_limit(2).await
    }

    async fn with_hop_limit(hop_limit: u8) -> Self {
        let subnets = ["10.0.0.0/20", "10.0.16.0/20"].map(|cidr| SubnetCidr(cidr.parse().unwrap()));
        let vpc = ["10.0.0.0/16".parse().unwrap()];
        let underlay = Underlay::start(RunId::random(), &vpc, &subnets).await.unwrap();
        let cloud = Arc::new(Dictated::default());
        let router = Router::start(underlay.run.clone(), underlay.base.router.clone(), hop_limit, cloud.clone());
        let lab = Self { underlay, router, cloud };
        lab.change(|world| {
            for (number, name) in [(1, "one"), (2, "two")] {
                let (zone, instance_type) = (Zone::new("z"), InstanceType::new("m5.large"));
                world.instances.insert(id(&format!("i-{number}")), Machine { name: name.into(), instance_type, zone });
            }
            world.plugged.insert("eni-a1".parse().unwrap(), interface("i-1", 0, 0, "10.0.0.11"));
            world.plugged.insert("eni-a2".parse().unwrap(), interface("i-2", 0, 16, "10.0.16.12"));
        })
        .await;
        lab
    }

    async fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.cloud.0.lock().unwrap());
        self.router.settled().await.unwrap();
    }

    async fn on(&self, instance: &str, command: &str) -> Result<String, super::FabricError> {
        let netns = self.router.nodes().borrow()[&id(instance)].netns.clone();
        netns.exec(&command.split(' ').collect::<Vec<_>>()).await
    }

    async fn drops(&self) -> Drops {
        Drops::read(&self.underlay.base.router, &[id("i-1"), id("i-2")]).await.unwrap()
    }
}

/// An interface in the /20 whose third byte is `third`; its MAC follows from its address.
fn interface(instance: &str, device_index: u32, third: u8, primary_ip: &str) -> Plugged {
    let primary_ip: std::net::Ipv4Addr = primary_ip.parse().unwrap();
    let [.., c, d] = primary_ip.octets();
    Plugged {
        instance: id(instance),
        device_index,
        mac: format!("0a:00:00:00:{c:02x}:{d:02x}").parse().unwrap(),
        subnet: SubnetCidr(format!("10.0.{third}.0/20").parse().unwrap()),
        primary_ip,
        secondary_ips: BTreeSet::new(),
        prefixes: BTreeSet::new(),
    }
}

#[tokio::test]
async fn nodes_reach_each_other_the_control_plane_and_their_metadata() {
    if !root() {
        return;
    }
    let mut lab = Lab::with_two_nodes().await;
    lab.on("i-1", "ping -c1 -W2 10.0.16.12").await.unwrap();
    lab.on("i-1", "ping -c1 -W2 -s 8000 -M do 10.0.16.12").await.expect("jumbo frames pass unfragmented");
    lab.on("i-2", &format!("ping -c1 -W2 {}", lab.underlay.slot.control())).await.unwrap();
    lab.underlay.base.control.exec(&["ping", "-c1", "-W2", "10.0.0.11"]).await.unwrap();
    for instance in ["i-1", "i-2"] {
        assert_eq!(lab.on(instance, "curl -sm5 http://169.254.169.254/latest").await.unwrap(), instance);
    }
    assert_eq!(lab.drops().await.spoofed_total(), 0);
    lab.underlay.remove().await.unwrap();
}

#[tokio::test]
async fn the_hop_limit_decides_whether_pods_see_the_metadata() {
    if !root() {
        return;
    }
    for (hop_limit, seen_by_pods) in [(1, false), (2, true)] {
        let mut lab = Lab::with_hop_limit(hop_limit).await;
        // A pod: one hop behind the node, which hides it behind its own address.
        let pod = Netns::new(Place::Node("pod").path(&lab.underlay.run));
        host_ip(&[format!("netns add {}", Place::Node("pod").netns_name(&lab.underlay.run))]).await.unwrap();
        let node = lab.router.nodes().borrow()[&id("i-1")].netns.clone();
        let masquerade =
            "table ip t { chain c { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }; }";
        node.nft(masquerade.into()).await.unwrap();
        node.sysctl(&["net/ipv4/ip_forward=1"]).await.unwrap();
        let link = format!("link add p type veth peer name q netns {}", pod.path().display());
        node.ip(&[link, "addr add 10.99.0.1/30 dev p".into(), "link set p up".into()]).await.unwrap();
        let route = "route add default via 10.99.0.1".into();
        pod.ip(&["addr add 10.99.0.2/30 dev q".into(), "link set q up".into(), route]).await.unwrap();
        pod.exec(&["ping", "-c1", "-W2", "10.0.16.12"]).await.expect("the pod has a way out");

        let seen = pod.exec(&["curl", "-sm2", "http://169.254.169.254/"]).await;
        assert_eq!(seen.is_ok(), seen_by_pods, "hop limit {hop_limit}: {seen:?}");
        assert_eq!(lab.on("i-1", "curl -sm5 http://169.254.169.254/").await.unwrap(), "i-1", "the node sees it always");
        lab.underlay.remove().await.unwrap();
    }
}

#[tokio::test]
async fn an_attached_interface_appears_down_and_works_once_it_is_set_up() {
    if !root() {
        return;
    }
    let mut lab = Lab::with_two_nodes().await;
    let mut second = interface("i-1", 1, 0, "10.0.0.21");
    second.secondary_ips.insert("10.0.0.22".parse().unwrap());
    second.prefixes.insert("10.0.1.16/28".parse().unwrap());
    lab.change(|world| drop(world.plugged.insert("eni-b1".parse().unwrap(), second))).await;

    let link = lab.on("i-1", "ip link show eth1").await.unwrap();
    assert!(link.contains("0a:00:00:00:00:15") && link.contains("state DOWN"), "{link}");

    for setup in [
        "ip link set eth1 up",
        "ip addr add 10.0.0.22/32 dev lo",
        "ip addr add 10.0.1.31/32 dev lo",
        "ip route add default via 10.0.0.1 dev eth1 onlink table 10001",
        "ip rule add from 10.0.0.22 lookup 10001",
        "ip rule add from 10.0.1.31 lookup 10001",
    ] {
        lab.on("i-1", setup).await.unwrap();
    }
    lab.on("i-2", "ping -c1 -W2 10.0.0.22").await.expect("a secondary address is reached");
    lab.on("i-2", "ping -c1 -W2 10.0.1.31").await.expect("an address of a delegated prefix is reached");
    lab.on("i-1", "ping -c1 -W2 -I 10.0.0.22 10.0.16.12").await.unwrap();
    assert_eq!(lab.drops().await.spoofed_total(), 0);

    lab.change(|world| {
        world.plugged.get_mut(&"eni-b1".parse().unwrap()).unwrap().secondary_ips.clear();
    })
    .await;
    lab.on("i-2", "ping -c1 -W1 10.0.0.22").await.expect_err("an unassigned address is nobody's");
    lab.on("i-2", "ping -c1 -W2 10.0.1.31").await.unwrap();

    lab.change(|world| drop(world.plugged.remove(&"eni-b1".parse().unwrap()))).await;
    lab.on("i-1", "ip link show eth1").await.expect_err("a detached interface is gone");
    lab.underlay.remove().await.unwrap();
}

#[tokio::test]
async fn a_forged_source_is_dropped_and_counted() {
    if !root() {
        return;
    }
    let mut lab = Lab::with_two_nodes().await;
    // Owned, but by an interface that it does not leave through: the mistake that wrong policy routing makes.
    lab.change(|world| drop(world.plugged.insert("eni-b1".parse().unwrap(), interface("i-1", 1, 0, "10.0.0.21"))))
        .await;
    lab.on("i-1", "ip addr add 10.0.0.21/32 dev lo").await.unwrap();
    lab.on("i-1", "ping -c2 -i0.2 -W1 -I 10.0.0.21 10.0.16.12").await.expect_err("the VPC drops it");
    let drops = lab.drops().await;
    assert_eq!(drops.spoofed, BTreeMap::from([(id("i-1"), 2), (id("i-2"), 0)]));
    let [offender] = drops.offenders.as_slice() else { panic!("one kind of offence: {drops:?}") };
    assert_eq!((offender.link.as_str(), offender.packets), ("ea1", 2));
    assert_eq!(offender.source.to_string(), "10.0.0.21");
    assert_eq!(offender.destination.to_string(), "10.0.16.12");
    lab.underlay.remove().await.unwrap();
}

#[tokio::test]
async fn only_a_primary_address_reaches_the_internet_unless_there_is_a_nat_gateway() {
    if !root() {
        return;
    }
    let mut lab = Lab::with_two_nodes().await;
    assert_eq!(lab.on("i-1", "curl -sm5 http://203.0.113.10/").await.unwrap(), "10.0.0.11\n");
    lab.on("i-1", "ping -c1 -W2 203.0.113.10").await.unwrap();

    let secondary = "10.0.0.77".parse().unwrap();
    lab.change(|world| {
        world.plugged.get_mut(&"eni-a1".parse().unwrap()).unwrap().secondary_ips.insert(secondary);
    })
    .await;
    lab.on("i-1", "ip addr add 10.0.0.77/32 dev lo").await.unwrap();
    lab.on("i-1", "ping -c1 -W1 -I 10.0.0.77 203.0.113.10").await.expect_err("it has no public address");
    let drops = lab.drops().await;
    assert_eq!(drops.no_public_address[&id("i-1")], 1);
    assert_eq!(drops.spoofed_total(), 0);

    lab.underlay.base.router.nft(internet_access(true)).await.unwrap();
    let seen = lab.on("i-1", "curl -sm5 --interface 10.0.0.77 http://203.0.113.10/").await.unwrap();
    assert_eq!(seen, "203.0.113.1\n");
    lab.underlay.base.router.nft(internet_access(false)).await.unwrap();
    lab.on("i-1", "ping -c1 -W1 -I 10.0.0.77 203.0.113.10").await.expect_err("the NAT gateway is gone");
    lab.underlay.remove().await.unwrap();
}

#[tokio::test]
async fn two_runs_live_side_by_side_and_leave_nothing() {
    if !root() {
        return;
    }
    let (mut one, mut two) = tokio::join!(Lab::with_two_nodes(), Lab::with_two_nodes());
    assert_ne!(one.underlay.slot, two.underlay.slot);
    for lab in [&one, &two] {
        let control = lab.underlay.slot.control().to_string();
        let ping = tokio::process::Command::new("ping").args(["-c1", "-W2", &control]).output().await.unwrap();
        assert!(ping.status.success(), "the machine reaches its control planes");
        lab.on("i-1", "ping -c1 -W2 10.0.16.12").await.unwrap();
    }
    let mut busy = one.router.nodes().borrow()[&id("i-1")].netns.command("sleep").arg("1000").spawn().unwrap();
    let runs = [one.underlay.run.clone(), two.underlay.run.clone()];
    one.underlay.remove().await.unwrap();
    busy.wait().await.expect("what ran on a node ended with it");
    two.on("i-1", "ping -c1 -W2 10.0.16.12").await.expect("the other run goes on");
    two.underlay.remove().await.unwrap();
    two.underlay.remove().await.expect("removing twice is no error");

    let traces = std::process::Command::new("sh")
        .args([
            "-c",
            "ip netns; ip -o link; ls /run/enipool-fabric /run/enipool-fabric/slots; cat /run/enipool-fabric/slots/*",
        ])
        .output()
        .unwrap();
    let traces = String::from_utf8(traces.stdout).unwrap();
    for run in runs {
        assert!(!traces.contains(run.as_str()), "{run} left something:\n{traces}");
    }
}

#[tokio::test]
async fn an_interface_that_cannot_be_plugged_in_is_said_and_tried_again() {
    if !root() {
        return;
    }
    let mut lab = Lab::with_two_nodes().await;
    lab.on("i-1", "ip link add eth1 type veth peer name other").await.unwrap();
    let second = interface("i-1", 1, 0, "10.0.0.21");
    lab.cloud.0.lock().unwrap().plugged.insert("eni-b1".parse().unwrap(), second);
    let error = lab.router.settled().await.expect_err("the name is taken");
    assert!(error.contains("File exists") && error.contains("peer name eth1"), "{error}");

    lab.on("i-1", "ip link del eth1").await.unwrap();
    lab.router.settled().await.expect("nothing is in the way now");
    lab.on("i-1", "ip link show eth1").await.unwrap();
    lab.underlay.remove().await.unwrap();
}

#[tokio::test]
async fn a_machine_switched_off_is_gone_and_comes_back_fresh() {
    if !root() {
        return;
    }
    let mut lab = Lab::with_two_nodes().await;
    let world = lab.cloud.world();
    lab.on("i-2", "ip addr add 10.9.9.9/32 dev lo").await.unwrap();
    lab.change(|world| {
        world.instances.remove(&id("i-2"));
        world.plugged.remove(&"eni-a2".parse().unwrap());
    })
    .await;
    lab.on("i-1", "ping -c1 -W1 10.0.16.12").await.expect_err("nobody is there");
    assert!(!lab.router.nodes().borrow().contains_key(&id("i-2")));

    lab.change(|now| *now = world).await;
    lab.on("i-1", "ping -c1 -W2 10.0.16.12").await.unwrap();
    assert_eq!(lab.on("i-2", "curl -sm5 http://169.254.169.254/").await.unwrap(), "i-2");
    let addresses = lab.on("i-2", "ip addr show dev lo").await.unwrap();
    assert!(!addresses.contains("10.9.9.9"), "a boot starts from nothing: {addresses}");
    lab.underlay.remove().await.unwrap();
}
