//! What goes into the dataplane and what it tells: plain data without any behaviour.

use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use enipool_pool::address::{Prefix, SubnetCidr};
use enipool_pool::id::{EniId, MacAddress};
use ipnet::Ipv4Net;

use super::layout::{HostIfname, VethPrefix};

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct DataplaneConfig {
    /// First letters of host-side pod interfaces.
    pub veth_prefix: VethPrefix,
    /// Where `net/…` of `/proc/sys` can be written. In a container that is not privileged `/proc/sys` is read-only: then
    /// the chart mounts the host's `/proc/sys` elsewhere.
    pub sysctl_root: PathBuf,
    /// Directory for `found.json`: what this node looked like before the first change, for [`super::Dataplane::cleanup`].
    pub state_dir: PathBuf,
    /// Threads that do netlink work for pods. The kernel serialises most of it: more than two bring nothing.
    pub workers: NonZeroUsize,
    /// Most pod requests that may wait; the next fails with `Overloaded`.
    pub queue: usize,
    /// Longest wait for any one answer of the kernel.
    pub call_timeout: Duration,
    /// How long a veth is left to the removal of its pod's namespace before the dataplane deletes it itself.
    pub reap_after: Duration,
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self {
            veth_prefix: VethPrefix::default(),
            sysctl_root: "/proc/sys".into(),
            state_dir: "/run/enipool".into(),
            workers: NonZeroUsize::MIN.saturating_add(1),
            queue: 1024,
            call_timeout: Duration::from_secs(5),
            reap_after: Duration::from_secs(2),
        }
    }
}

/// Everything about the node (not about single pods) that the kernel should reflect. Always the whole state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    /// The interface at device index 0, which carries the node's own address.
    pub primary: EniLink,
    /// All other interfaces of the pool, each with its own device index (1 to [`super::layout::MAX_DEVICE_INDEX`]).
    pub secondary: Vec<EniLink>,
    /// All ranges of the VPC. Traffic to them is never translated.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Source address translation of what pods send out of the VPC.
    pub snat: Snat,
    /// Whether replies of NodePort (and hostPort) connections go back over the interface they came in by
    /// (`AWS_VPC_CNI_NODE_PORT_SUPPORT`).
    pub node_ports: bool,
    /// Ranges that pods reach through the main table whatever ENI they are on (`AWS_EXTERNAL_SERVICE_CIDRS`).
    pub external_service_cidrs: Vec<Ipv4Net>,
    /// MTU of all ENI links in bytes, 576 to 9001 (`AWS_VPC_ENI_MTU`).
    pub mtu: u32,
}

/// One ENI as a link of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniLink {
    pub eni: EniId,
    /// How the link is found; its name is the distribution's business.
    pub mac: MacAddress,
    /// EC2's device index; fixes routing table and mark.
    pub device_index: u32,
    /// The ENI's own address, not given to pods.
    pub primary_address: Ipv4Addr,
    /// The subnet; its router is the gateway of the ENI's table.
    pub subnet: SubnetCidr,
    /// Secondary addresses in single slots: all that the ENI owns, assigned to a pod or not.
    pub addresses: Vec<Ipv4Addr>,
    /// Delegated /28 prefixes.
    pub prefixes: Vec<Prefix>,
}

/// Source address translation of traffic that leaves the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snat {
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT=true`: a NAT gateway or nobody does it; packets leave by their own ENI untouched.
    External,
    /// To the primary interface's primary address, except towards `exclude`.
    Primary { randomization: Randomization, exclude: Vec<Ipv4Net> },
}

/// How the source port is chosen (`AWS_VPC_K8S_CNI_RANDOMIZESNAT`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Randomization {
    /// `prng`: nftables' `fully-random`.
    #[default]
    Prng,
    /// `hashrandom`: nftables' `random`.
    HashRandom,
    /// `none`: the kernel keeps the port where it can.
    None,
}

/// What `ensure_host` did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostReport {
    /// ENIs of the state whose link is not on the node yet. They are set up when it appears, without another call.
    pub missing: Vec<MacAddress>,
    /// Kernel objects that were changed, one line each. Empty when all was right already.
    pub changed: Vec<String>,
}

/// A pod's attachment to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// The pod's network namespace, as the agent sees the path.
    pub netns: PathBuf,
    /// Interface name in the pod, usually `eth0`.
    pub ifname: String,
    pub host_ifname: HostIfname,
    pub address: Ipv4Addr,
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

/// A pod's attachment as made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodLink {
    pub host_mac: MacAddress,
    pub pod_mac: MacAddress,
    /// Interface index of the host's end.
    pub host_ifindex: u32,
}

/// Who made the routes of a running pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodOwner {
    Enipool,
    /// The AWS plugin: its /32 route in the main table with a rule at priority 512 for it.
    AwsPlugin,
}

/// A running pod as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPod {
    pub address: Ipv4Addr,
    pub host_ifname: HostIfname,
    pub host_ifindex: u32,
    pub owner: PodOwner,
}

/// What a restarting agent finds in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostObservation {
    /// Pods with a /32 route, in order of address.
    pub pods: Vec<ObservedPod>,
    /// Host-side pod interfaces that no /32 route names: left by an ADD or DEL cut short.
    pub orphans: Vec<HostIfname>,
    /// MACs of all links of the node, except pods'.
    pub links: Vec<MacAddress>,
    /// Whether our nftables table is there.
    pub table_present: bool,
}

/// A pod that keeps running over a restart of the agent or a change of plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedPod {
    pub address: Ipv4Addr,
    pub host_ifname: HostIfname,
}

/// Something that another program changed under us, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub kind: DriftKind,
    /// In words, with the names that `ip` and `nft` would print.
    pub detail: String,
    /// False when it could not be put right; `detail` then says why.
    pub repaired: bool,
}

/// What kind of object drifted. Fixed words, fit for a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DriftKind {
    Rule,
    PodRoute,
    EniRoute,
    EniLink,
    EniAddress,
    PodLink,
    NftTable,
    Sysctl,
}

impl DriftKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::PodRoute => "pod_route",
            Self::EniRoute => "eni_route",
            Self::EniLink => "eni_link",
            Self::EniAddress => "eni_address",
            Self::PodLink => "pod_link",
            Self::NftTable => "nft_table",
            Self::Sysctl => "sysctl",
        }
    }
}

/// A link with a MAC that somebody waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSeen {
    pub mac: MacAddress,
    pub ifindex: u32,
    pub name: String,
}

/// What `cleanup` removed and what it had to leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One line for each object removed or put back.
    pub removed: Vec<String>,
    /// One line for each object that could not be removed, with the reason.
    pub left: Vec<String>,
}

/// Values for the unit tests of the pure parts.
#[cfg(test)]
pub(super) mod fixtures {
    use super::super::netlink::link::Link;
    use super::*;

    pub(in super::super) fn eni(device_index: u32) -> EniLink {
        let index = u8::try_from(device_index).unwrap();
        let address = |last: u8| Ipv4Addr::new(10, 0, 1, 10 + 10 * index + last);
        EniLink {
            eni: format!("eni-{index}").parse().unwrap(),
            mac: MacAddress([2, 0, 0, 0, 0, index]),
            device_index,
            primary_address: address(0),
            subnet: SubnetCidr("10.0.0.0/16".parse().unwrap()),
            addresses: vec![address(1), address(2)],
            prefixes: Vec::new(),
        }
    }

    /// A node with that many secondary ENIs.
    pub(in super::super) fn state(secondary: u32) -> HostState {
        HostState {
            primary: eni(0),
            secondary: (1..=secondary).map(eni).collect(),
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            snat: Snat::Primary { randomization: Randomization::Prng, exclude: Vec::new() },
            node_ports: true,
            external_service_cidrs: Vec::new(),
            mtu: 9001,
        }
    }

    /// The bare link of the ENI at that device index.
    pub(in super::super) fn link(device_index: u32) -> Link {
        Link {
            index: 2 + device_index,
            name: format!("eth{device_index}"),
            mac: Some(eni(device_index).mac),
            mtu: 1500,
            up: false,
            kind: String::new(),
            peer: None,
            rp_filter: Some(0),
        }
    }
}
