//! What the kernel should hold for a node, and what has to be done to get there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::Ipv4Net;

use super::layout::{
    self, AWS_TO_POD_PRIORITY, ENI_MARK_MASK, MARK_RULE_PRIORITY, POD_RULE_PRIORITY, POD_TABLE, SOURCE_RULE_PRIORITY,
};
use super::netlink::address::{LinkAddress, SCOPE_GLOBAL};
use super::netlink::link::Link;
use super::netlink::route::{MAIN, Route};
use super::netlink::rule::Rule;
use super::plumb::pod_route;
use super::pods::PodEntry;
use super::ruleset::{OUR_BITS, Ruleset, Uplinks, ruleset};
use super::state::{DriftKind, EniLink, HostState};

/// Loose: the source has to be reachable by some interface, not by this one. With several interfaces in one subnet the
/// kernel's idea of the way back is not the VPC's.
const LOOSE: u32 = 2;

/// Links that carry ENIs now, by device index.
pub(super) type EniLinks = BTreeMap<u32, Link>;

/// Everything that should be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) links: Vec<LinkSettings>,
    /// On secondary ENI links: these and no other global ones.
    pub(super) addresses: BTreeSet<LinkAddress>,
    pub(super) rules: BTreeSet<Rule>,
    pub(super) eni_routes: BTreeSet<Route>,
    pub(super) pod_routes: BTreeSet<Route>,
    pub(super) ruleset: Ruleset,
}

/// What should be true of an ENI's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkSettings {
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// Secondary: its addresses and main-table routes are ours to say.
    pub(super) secondary: bool,
}

/// What is there, as far as it is ours or in our way.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    pub(super) links: EniLinks,
    /// Of secondary ENI links.
    pub(super) addresses: Vec<LinkAddress>,
    pub(super) rules: Vec<Rule>,
    /// In the tables of ENIs.
    pub(super) eni_routes: Vec<Route>,
    pub(super) pod_routes: Vec<Route>,
    /// Main-table routes over secondary ENI links, made by the distribution's network scripts.
    pub(super) stray_routes: Vec<Route>,
    pub(super) forwarding: bool,
}

/// One change of a kernel object (other than nftables, which changes as a whole).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    SwitchForwardingOn,
    SetUp(u32),
    SetMtu(u32, u32),
    SetLooseReversePath(u32),
    RemoveAddress(LinkAddress),
    AddAddress(LinkAddress),
    RemoveRoute(Route),
    SetRoute(Route),
    AddRule(Rule),
    RemoveRule(Rule),
}

/// What `state` asks for, given the links that exist and the pods that run.
pub(super) fn desired(
    state: &HostState,
    links: &EniLinks,
    pods: &BTreeMap<std::net::Ipv4Addr, PodEntry>,
    veth_prefix: &str,
) -> Desired {
    let uplinks: Uplinks = links.iter().map(|(device_index, link)| (*device_index, link.name.clone())).collect();
    let mut desired = Desired { ruleset: ruleset(state, &uplinks, veth_prefix), ..Desired::default() };
    desired.rules.insert(Rule { priority: POD_RULE_PRIORITY, ..lookup(POD_TABLE) });
    if let Some(link) = links.get(&state.primary.device_index) {
        desired.links.push(LinkSettings { index: link.index, mtu: state.mtu, secondary: false });
    }
    for (eni, link) in state.secondary.iter().filter_map(|eni| Some((eni, links.get(&eni.device_index)?))) {
        desired.links.push(LinkSettings { index: link.index, mtu: state.mtu, secondary: true });
        secondary(&mut desired, eni, link);
    }
    desired.pod_routes = pods.iter().map(|(address, entry)| pod_route(*address, entry.ifindex)).collect();
    desired
}

fn secondary(desired: &mut Desired, eni: &EniLink, link: &Link) {
    let table = layout::eni_table(eni.device_index);
    // A bare address: the subnet is reached through the ENI's own table, so no route to it belongs into main. It is there
    // for ARP, and for masquerading, which takes the address of the interface that a packet leaves by.
    desired.addresses.insert(LinkAddress {
        index: link.index,
        address: eni.primary_address,
        prefix_len: 32,
        scope: SCOPE_GLOBAL,
    });
    desired.eni_routes.insert(Route {
        table,
        destination: Ipv4Net::default(),
        gateway: Some(eni.subnet.gateway()),
        link: link.index,
    });
    desired.rules.insert(Rule {
        priority: MARK_RULE_PRIORITY,
        mark: Some((eni.device_index, OUR_BITS)),
        ..lookup(table)
    });
    desired.rules.insert(Rule { priority: SOURCE_RULE_PRIORITY, source: Some(eni.primary_address), ..lookup(table) });
}

fn lookup(table: u32) -> Rule {
    Rule { priority: 0, table, mark: None, source: None, destination: None }
}

/// Whether a rule is one of ours, whatever its details.
pub(super) fn is_our_rule(rule: &Rule) -> bool {
    is_our_table(rule.table) && matches!(rule.priority, POD_RULE_PRIORITY | MARK_RULE_PRIORITY | SOURCE_RULE_PRIORITY)
}

/// Whether a routing table is one of ours.
pub(super) fn is_our_table(table: u32) -> bool {
    (POD_TABLE..=layout::ENI_TABLE_BASE + ENI_MARK_MASK).contains(&table)
}

/// The changes that lead from `observed` to `desired`, in the order in which they have to be made.
///
/// Routes in the pod table that no known pod has are left alone: they belong to pods that the engine has yet to adopt.
pub(super) fn diff(desired: &Desired, observed: &Observed) -> Vec<Op> {
    let mut ops = Vec::new();
    if !observed.forwarding {
        ops.push(Op::SwitchForwardingOn);
    }
    for settings in &desired.links {
        let Some(link) = observed.links.values().find(|link| link.index == settings.index) else { continue };
        if link.mtu != settings.mtu {
            ops.push(Op::SetMtu(link.index, settings.mtu));
        }
        if link.rp_filter.is_some_and(|value| value != LOOSE) {
            ops.push(Op::SetLooseReversePath(link.index));
        }
        if !link.up {
            ops.push(Op::SetUp(link.index));
        }
    }
    // First what comes: a link that loses its last address, or an address that was another route's source, takes routes
    // along that are not ours.
    let missing = desired.addresses.iter().filter(|address| !observed.addresses.contains(address));
    ops.extend(missing.map(|address| Op::AddAddress(*address)));
    let stray = |address: &&LinkAddress| address.scope == SCOPE_GLOBAL && !desired.addresses.contains(address);
    ops.extend(observed.addresses.iter().filter(stray).map(|address| Op::RemoveAddress(*address)));

    ops.extend(observed.stray_routes.iter().map(|route| Op::RemoveRoute(*route)));
    let extra = observed.eni_routes.iter().filter(|route| !desired.eni_routes.contains(route));
    ops.extend(extra.map(|route| Op::RemoveRoute(*route)));
    let eni_routes = desired.eni_routes.iter().filter(|route| !observed.eni_routes.contains(route));
    let pod_routes = desired.pod_routes.iter().filter(|route| !observed.pod_routes.contains(route));
    ops.extend(eni_routes.chain(pod_routes).map(|route| Op::SetRoute(*route)));

    let missing = desired.rules.iter().filter(|rule| !observed.rules.contains(rule));
    ops.extend(missing.map(|rule| Op::AddRule(*rule)));
    let mut seen = BTreeSet::new();
    // A rule that stands twice goes once.
    let extra = observed
        .rules
        .iter()
        .filter(|rule| is_our_rule(rule))
        .filter(|rule| !desired.rules.contains(rule) || !seen.insert(**rule));
    ops.extend(extra.map(|rule| Op::RemoveRule(*rule)));
    ops
}

impl Op {
    pub(super) fn drift_kind(&self) -> DriftKind {
        match self {
            Self::SwitchForwardingOn | Self::SetLooseReversePath(_) => DriftKind::Sysctl,
            Self::SetUp(_) | Self::SetMtu(..) => DriftKind::EniLink,
            Self::RemoveAddress(_) | Self::AddAddress(_) => DriftKind::EniAddress,
            Self::RemoveRoute(route) | Self::SetRoute(route) if route.table == POD_TABLE => DriftKind::PodRoute,
            Self::RemoveRoute(_) | Self::SetRoute(_) => DriftKind::EniRoute,
            Self::AddRule(_) | Self::RemoveRule(_) => DriftKind::Rule,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchForwardingOn => write!(f, "net.ipv4.ip_forward set to 1"),
            Self::SetUp(index) => write!(f, "link {index} set up"),
            Self::SetMtu(index, mtu) => write!(f, "link {index} set to MTU {mtu}"),
            Self::SetLooseReversePath(index) => write!(f, "rp_filter of link {index} set to {LOOSE}"),
            Self::RemoveAddress(address) => {
                write!(f, "address {}/{} removed from link {}", address.address, address.prefix_len, address.index)
            }
            Self::AddAddress(address) => {
                write!(f, "address {}/{} added to link {}", address.address, address.prefix_len, address.index)
            }
            Self::RemoveRoute(route) => write!(f, "route {} removed", Words(route)),
            Self::SetRoute(route) => write!(f, "route {} added", Words(route)),
            Self::AddRule(rule) => write!(f, "rule {rule} added"),
            Self::RemoveRule(rule) => write!(f, "rule {rule} removed"),
        }
    }
}

struct Words<'a>(&'a Route);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route { table, destination, gateway, link } = self.0;
        write!(f, "{destination}")?;
        if let Some(gateway) = gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " over link {link} in table {table}")
    }
}

/// A pod as the AWS plugin's rules and routes show it.
pub(super) fn aws_pods<'a>(rules: &'a [Rule], main: &'a [Route]) -> impl Iterator<Item = Route> + 'a {
    rules
        .iter()
        .filter(|rule| rule.priority == AWS_TO_POD_PRIORITY && rule.table == MAIN)
        .filter_map(|rule| rule.destination)
        .filter_map(|address| main.iter().find(|route| route.destination == Ipv4Net::from(address)).copied())
}

#[cfg(test)]
mod tests {
    use super::super::state::fixtures::{link, state};
    use super::*;

    /// A node on which everything is as `desired` says.
    fn satisfied(desired: &Desired, links: &EniLinks) -> Observed {
        Observed {
            links: links
                .iter()
                .map(|(index, link)| (*index, Link { mtu: 9001, up: true, rp_filter: Some(LOOSE), ..link.clone() }))
                .collect(),
            addresses: desired.addresses.iter().copied().collect(),
            rules: desired.rules.iter().copied().collect(),
            eni_routes: desired.eni_routes.iter().copied().collect(),
            pod_routes: desired.pod_routes.iter().copied().collect(),
            stray_routes: Vec::new(),
            forwarding: true,
        }
    }

    fn links(count: u32) -> EniLinks {
        (0..=count).map(|device_index| (device_index, link(device_index))).collect()
    }

    fn wanted(links: &EniLinks) -> Desired {
        let pods = [(
            "10.0.1.11".parse().unwrap(),
            PodEntry { host_ifname: layout::HostIfname::new("enia").unwrap(), ifindex: 77 },
        )];
        desired(&state(2), links, &BTreeMap::from(pods), "eni")
    }

    #[test]
    fn a_node_that_is_right_needs_no_change() {
        let links = links(2);
        let wanted = wanted(&links);
        assert_eq!(diff(&wanted, &satisfied(&wanted, &links)), []);
    }

    #[test]
    fn rules_grow_with_interfaces_and_not_with_pods() {
        let links = links(2);
        let pods = |count: u32| {
            (0..count)
                .map(|n| {
                    let entry = PodEntry { host_ifname: layout::HostIfname::new("enia").unwrap(), ifindex: 100 + n };
                    (std::net::Ipv4Addr::from_bits(0x0a00_0100 + n), entry)
                })
                .collect::<BTreeMap<_, _>>()
        };
        let rules = |count| desired(&state(2), &links, &pods(count), "eni").rules;
        assert_eq!(rules(0), rules(250));
        assert_eq!(rules(0).len(), 1 + 2 * 2);
    }

    #[test]
    fn an_interface_whose_link_is_not_there_yet_has_no_rules_and_no_marks() {
        let wanted = wanted(&links(1));
        assert!(wanted.rules.iter().all(|rule| rule.table != layout::eni_table(2)));
        assert!(wanted.ruleset.chains.iter().all(|chain| chain.name != "eni-2"));
    }

    #[test]
    fn what_the_distribution_did_to_a_secondary_interface_is_undone() {
        let links = links(2);
        let wanted = wanted(&links);
        let mut observed = satisfied(&wanted, &links);
        let dhcp = LinkAddress { index: 3, address: "10.0.1.20".parse().unwrap(), prefix_len: 16, scope: SCOPE_GLOBAL };
        observed.addresses.push(dhcp);
        let subnet = Route { table: MAIN, destination: "10.0.0.0/16".parse().unwrap(), gateway: None, link: 3 };
        observed.stray_routes.push(subnet);
        assert_eq!(diff(&wanted, &observed), [Op::RemoveAddress(dhcp), Op::RemoveRoute(subnet)]);
    }

    #[test]
    fn a_duplicate_rule_goes_once_and_foreign_rules_stay() {
        let links = links(1);
        let wanted = wanted(&links);
        let mut observed = satisfied(&wanted, &links);
        let ours = Rule { priority: POD_RULE_PRIORITY, ..lookup(POD_TABLE) };
        observed.rules.push(ours);
        observed.rules.push(Rule { priority: 1024, mark: Some((0x80, 0x80)), ..lookup(MAIN) });
        observed.rules.push(Rule { priority: POD_RULE_PRIORITY, ..lookup(MAIN) });
        assert_eq!(diff(&wanted, &observed), [Op::RemoveRule(ours)]);
    }

    #[test]
    fn routes_of_pods_that_nobody_has_adopted_yet_stay() {
        let links = links(1);
        let wanted = wanted(&links);
        let mut observed = satisfied(&wanted, &links);
        observed.pod_routes.push(pod_route("10.0.1.99".parse().unwrap(), 99));
        assert_eq!(diff(&wanted, &observed), []);
    }

    #[test]
    fn an_interface_that_was_set_down_is_set_up_before_its_routes_come_back() {
        let links = links(1);
        let wanted = wanted(&links);
        let mut observed = satisfied(&wanted, &links);
        observed.links.get_mut(&1).unwrap().up = false;
        let lost = observed.eni_routes.pop().unwrap();
        assert_eq!(diff(&wanted, &observed), [Op::SetUp(3), Op::SetRoute(lost)]);
    }
}
