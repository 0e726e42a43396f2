//! A VPC in namespaces: a router that drops what an ENI must not send, nodes, and a host on the internet.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use enipool_agent::dataplane::{
    Dataplane, DataplaneConfig, EniLink, HostState, PodLink, PodSpec, Randomization, Snat, VethPrefix,
};
use enipool_pool::address::SubnetCidr;

use crate::lab::Netns;

pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Outside the VPC as well, but excluded from translation in the tests that say so.
pub(crate) const PEERED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

pub(crate) struct Vpc {
    pub(crate) router: Netns,
    pub(crate) internet: Netns,
    ports: AtomicU32,
}

impl Vpc {
    pub(crate) fn new() -> Self {
        let (router, internet) = (Netns::new(), Netns::new());
        router.sh("ip link add inet type veth peer name eth0
            sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
            ip addr add 10.0.0.1/32 dev lo
            ip link set inet up; ip addr add 203.0.113.1/24 dev inet; ip addr add 198.51.100.1/24 dev inet
            nft add table ip vpc
            nft 'add chain ip vpc check { type filter hook prerouting priority raw; }'");
        internet.take_link(&router, "eth0");
        internet.sh(&format!(
            "ip addr add {INTERNET}/24 dev eth0; ip addr add {PEERED}/24 dev eth0; ip link set eth0 up
             ip route add default via 203.0.113.1"
        ));
        Self { router, internet, ports: AtomicU32::new(0) }
    }

    /// Plugs an ENI into `node` as link `name` and routes its addresses to it. What it sends from any other is dropped.
    /// Returns the router's port.
    pub(crate) fn attach(&self, node: &Netns, name: &str, eni: &EniLink) -> String {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        self.router.sh(&format!(
            "ip link add {port} type veth peer name {name} address {}
             sysctl -qw net.ipv4.conf.{port}.rp_filter=0 net.ipv4.conf.{port}.send_redirects=0 net.ipv4.conf.{port}.proxy_arp=1; ip link set {port} up
             ip neigh add 169.254.0.1 lladdr {} dev {port} nud permanent",
            eni.mac, eni.mac
        ));
        node.take_link(&self.router, name);
        let mut own: Vec<String> =
            eni.addresses.iter().chain([&eni.primary_address]).map(ToString::to_string).collect();
        own.extend(eni.prefixes.iter().map(ToString::to_string));
        for address in &own {
            // As a VPC does: to the ENI's MAC, without asking whether anybody there has the address.
            self.router.sh(&format!("ip route add {address} via 169.254.0.1 dev {port} onlink"));
        }
        self.router.sh(&format!(
            "nft 'add rule ip vpc check iifname {port} ip saddr != {{ {} }} counter drop'",
            own.join(", ")
        ));
        port
    }

    /// Packets dropped because their ENI does not own their source.
    pub(crate) fn dropped(&self) -> u64 {
        let listed = self.router.sh("nft list chain ip vpc check");
        let counters =
            listed.lines().filter_map(|line| line.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
        counters.sum()
    }
}

/// An ENI with its own address and four to give away.
pub(crate) fn eni(node: u8, device_index: u32) -> EniLink {
    let index = u8::try_from(device_index).unwrap();
    let address = |last: u8| Ipv4Addr::new(10, 0, node, 10 * index + last);
    EniLink {
        eni: format!("eni-{node}{index}").parse().unwrap(),
        mac: format!("0a:00:00:00:{node:02x}:{index:02x}").parse().unwrap(),
        device_index,
        primary_address: address(10),
        subnet: SubnetCidr("10.0.0.0/16".parse().unwrap()),
        addresses: (11..15).map(address).collect(),
        prefixes: Vec::new(),
    }
}

pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) state: HostState,
    directory: tempfile::TempDir,
}

impl Node {
    /// With a primary ENI that the distribution has set up, and the given number of further ones, plugged in and bare.
    pub(crate) fn new(vpc: &Vpc, number: u8, secondary: u32) -> Self {
        let netns = Netns::new();
        let primary = eni(number, 0);
        vpc.attach(&netns, "eth0", &primary);
        netns.sh(&format!(
            "ip link set eth0 up; ip addr add {}/16 dev eth0; ip route add default via 10.0.0.1 dev eth0",
            primary.primary_address
        ));
        let secondary: Vec<EniLink> = (1..=secondary).map(|index| eni(number, index)).collect();
        for eni in &secondary {
            vpc.attach(&netns, &format!("eth{}", eni.device_index), eni);
        }
        let state = HostState {
            primary,
            secondary,
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            snat: Snat::Primary { randomization: Randomization::Prng, exclude: Vec::new() },
            node_ports: true,
            external_service_cidrs: Vec::new(),
            mtu: 1500,
        };
        Self { netns, state, directory: tempfile::tempdir().unwrap() }
    }

    /// Runs `work` with a fresh dataplane of this node, on a runtime whose only thread is inside it.
    pub(crate) fn with_dataplane<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce(Dataplane) -> F + Send) -> T {
        self.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let config = DataplaneConfig {
                    state_dir: self.directory.path().to_owned(),
                    reap_after: Duration::from_millis(50),
                    ..DataplaneConfig::default()
                };
                work(Dataplane::new(config).await.unwrap()).await
            })
        })
    }

    /// All that a person would look at to see whether the node is as it was.
    pub(crate) fn picture(&self) -> String {
        self.netns.sh(
            "ip rule; ip -4 route show table all | sort; nft list ruleset; ip -brief link; ip -oneline -4 address
             ip -oneline link | awk '{ print $2, $4, $5 }'
             sysctl net.ipv4.ip_forward; sysctl -a 2>/dev/null | grep -E 'ipv4.conf.eth[0-9]+.rp_filter'",
        )
    }
}

/// The lines that one picture has and the other has not.
pub(crate) fn difference(now: &str, wanted: &str) -> String {
    let only = |one: &str, other: &str, sign: &str| -> String {
        let lines = one.lines().filter(|line| !other.lines().any(|found| found == *line));
        lines.flat_map(|line| [sign, line, "\n"]).collect()
    };
    only(wanted, now, "-") + &only(now, wanted, "+")
}

/// A pod: a namespace and where it is plugged in.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) address: Ipv4Addr,
    pub(crate) name: String,
}

impl Pod {
    pub(crate) fn new(name: &str, address: Ipv4Addr) -> Self {
        Self { netns: Netns::new(), address, name: name.into() }
    }

    pub(crate) fn spec(&self) -> PodSpec {
        PodSpec {
            netns: self.netns.path(),
            ifname: "eth0".into(),
            host_ifname: VethPrefix::default().host_ifname("default", &self.name),
            address: self.address,
            mtu: 1500,
        }
    }

    pub(crate) async fn plug(&self, dataplane: &Dataplane) -> PodLink {
        dataplane.add_pod(&self.spec()).await.unwrap()
    }
}
