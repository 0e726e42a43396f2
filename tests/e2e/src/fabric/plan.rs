//! From what is plugged in and what should be, to the commands that make it so. Pure: returns scripts for `ip -batch` and `nft -f`.
//!
//! [`Changes`] lists them in the order in which they are run: what goes loses its routes before its place in the filter,
//! and an interface that comes is in the filter before it can send.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use enipool_pool::{EniId, InstanceId};

use super::names::{INTERNET_LINK, router_link};
use super::world::{Machine, Plugged, World};

/// Scripts for the router, in the order in which to run them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// `ip` in the router: links and routes that go.
    pub(super) unplug: Vec<String>,
    /// Instances whose namespace goes.
    pub(super) switched_off: Vec<InstanceId>,
    /// Instances that need a namespace.
    pub(super) switched_on: Vec<(InstanceId, Machine)>,
    /// `ip` in the router: routes of interfaces that were there and stay.
    pub(super) routes: Vec<String>,
    /// `nft` in the router: one transaction, removals and additions.
    pub(super) filter: String,
    /// Interfaces that appear: each with the commands that make it.
    pub(super) plug: Vec<Plug>,
}

/// An interface to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plug {
    pub(super) eni: EniId,
    pub(super) interface: Plugged,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What leads from `have` to `want`.
pub(super) fn changes(have: &World, want: &World) -> Changes {
    let mut changes = Changes::default();
    let mut filter = Filter::default();

    for (id, machine) in &want.instances {
        // By id only: a tag that changes later does not rename a machine.
        if !have.instances.contains_key(id) {
            changes.switched_on.push((id.clone(), machine.clone()));
            filter.counters.push(id.clone());
        }
    }
    let gone = have.instances.keys().filter(|id| !want.instances.contains_key(id));
    changes.switched_off.extend(gone.cloned());

    for (eni, old) in &have.plugged {
        let link = router_link(eni);
        if let Some(new) = want.plugged.get(eni).filter(|new| same_link(old, new)) {
            for route in old.routes().difference(&new.routes()) {
                changes.unplug.push(format!("route del {route} dev {link}"));
            }
            for route in new.routes().difference(&old.routes()) {
                changes.routes.push(route_line(route, new.primary_ip, &link));
            }
            let (before, after) = (old.addresses(), new.addresses());
            filter.remove(&link, before.difference(&after));
            filter.add(&link, after.difference(&before));
        } else {
            changes.unplug.push(format!("link del {link}"));
            filter.remove(&link, &old.addresses());
            filter.unplug(&link, old);
        }
    }
    for (eni, new) in &want.plugged {
        if !have.plugged.get(eni).is_some_and(|old| same_link(old, new)) {
            let link = router_link(eni);
            filter.add(&link, &new.addresses());
            filter.plug(&link, new);
            changes.plug.push(Plug { eni: eni.clone(), interface: new.clone() });
        }
    }
    changes.filter = filter.script();
    changes
}

/// Whether the interface stays what it is, whatever addresses it gains or loses.
fn same_link(old: &Plugged, new: &Plugged) -> bool {
    (&old.instance, old.device_index, old.mac, old.primary_ip)
        == (&new.instance, new.device_index, new.mac, new.primary_ip)
}

impl Plug {
    /// `ip` in the router: the link with its far end in the node's namespace `node`, and all routes.
    pub(super) fn router_lines(&self, node: &str) -> Vec<String> {
        let link = router_link(&self.eni);
        let Plugged { mac, primary_ip, .. } = &self.interface;
        let device = self.interface.device();
        let mut lines = vec![
            format!("link add {link} mtu 9001 type veth peer name {device} address {mac} mtu 9001 netns {node}"),
            // Without it, the kernel lets a random 0.8 s pass before it answers ARP for another host.
            format!("ntable change name arp_cache dev {link} proxy_delay 0"),
            format!("link set {link} up"),
            format!("neigh replace {primary_ip} lladdr {mac} dev {link} nud permanent"),
            format!("route replace {primary_ip}/32 dev {link}"),
        ];
        lines.extend(self.interface.routes().iter().map(|route| route_line(route, *primary_ip, &link)));
        lines
    }

    /// `ip` in the node: what cloud-init does for the primary interface. The others come down and bare, as on EC2.
    pub(super) fn node_lines(&self) -> Vec<String> {
        let Plugged { primary_ip, subnet, device_index, .. } = &self.interface;
        if *device_index != 0 {
            return Vec::new();
        }
        let (gateway, length) = (subnet.gateway(), subnet.0.prefix_len());
        vec![
            format!("addr add {primary_ip}/{length} brd + dev eth0"),
            "link set eth0 up".into(),
            format!("route add default via {gateway} dev eth0 proto dhcp src {primary_ip} metric 512"),
            await_link("eth0"),
        ]
    }

    /// `ip` in the router, once both ends are up.
    pub(super) fn await_line(&self) -> String {
        await_link(&router_link(&self.eni))
    }
}

/// A link that came up drops what it is given until the kernel's link watch has seen it. To be asked about this one link
/// makes the kernel do that first (`rtnl_getlink` in Linux; since 6.2).
pub(super) fn await_link(link: &str) -> String {
    format!("link show dev {link}")
}

/// Everything but the primary address goes by way of it: one neighbour entry serves the whole interface.
fn route_line(route: &str, primary_ip: Ipv4Addr, link: &str) -> String {
    format!("route replace {route} via {primary_ip} dev {link} onlink")
}

/// The name of a node's counter: nft takes no '-' in it.
pub(super) fn counter(kind: Counter, instance: &InstanceId) -> String {
    format!("{}_{}", kind.name(), instance.as_str().replace('-', "_"))
}

/// What is counted per node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counter {
    /// Packets from an address that the interface does not own.
    Spoofed,
    /// Packets to the internet from an address without a public one.
    NoPublicAddress,
}

impl Counter {
    pub(super) const ALL: [Self; 2] = [Self::Spoofed, Self::NoPublicAddress];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Spoofed => "spoofed",
            Self::NoPublicAddress => "no_public_address",
        }
    }
}

/// Elements of the router's sets and maps (see `filter_base`) that go and come.
#[derive(Debug, Default)]
struct Filter {
    counters: Vec<InstanceId>,
    removed: BTreeMap<&'static str, Vec<String>>,
    added: BTreeMap<&'static str, Vec<String>>,
}

impl Filter {
    fn remove<'a>(&mut self, link: &str, addresses: impl IntoIterator<Item = &'a Ipv4Addr>) {
        let elements = addresses.into_iter().map(|address| format!("{link:?} . {address}"));
        self.removed.entry("owned").or_default().extend(elements);
    }

    fn add<'a>(&mut self, link: &str, addresses: impl IntoIterator<Item = &'a Ipv4Addr>) {
        let elements = addresses.into_iter().map(|address| format!("{link:?} . {address}"));
        self.added.entry("owned").or_default().extend(elements);
    }

    fn plug(&mut self, link: &str, interface: &Plugged) {
        for kind in Counter::ALL {
            let element = format!("{link:?} : {:?}", counter(kind, &interface.instance));
            self.added.entry(kind.name()).or_default().push(element);
        }
        if interface.device_index == 0 {
            self.added.entry("public").or_default().push(format!("{link:?} . {}", interface.primary_ip));
        }
    }

    fn unplug(&mut self, link: &str, interface: &Plugged) {
        for kind in Counter::ALL {
            self.removed.entry(kind.name()).or_default().push(format!("{link:?}"));
        }
        if interface.device_index == 0 {
            self.removed.entry("public").or_default().push(format!("{link:?} . {}", interface.primary_ip));
        }
    }

    fn script(self) -> String {
        let mut script = String::new();
        for instance in self.counters {
            for kind in Counter::ALL {
                // `add` leaves the counter of a node that was switched off and on again as it is.
                let _ = writeln!(script, "add counter ip fabric {}", counter(kind, &instance));
            }
        }
        for (verb, sets) in [("delete", self.removed), ("add", self.added)] {
            for (set, elements) in sets.into_iter().filter(|(_, elements)| !elements.is_empty()) {
                let _ = writeln!(script, "{verb} element ip fabric {set} {{ {} }}", elements.join(", "));
            }
        }
        script
    }
}

/// The router's filter, before anything is plugged in. Everything that a node sends comes in through a link of its ENI.
pub(super) fn filter_base() -> String {
    format!(
        r#"table ip fabric {{
  set owned {{ typeof iifname . ip saddr; }}
  set public {{ typeof iifname . ip saddr; }}
  map spoofed {{ type ifname : counter; }}
  map no_public_address {{ type ifname : counter; }}
  set offenders {{ typeof iifname . ip saddr . ip daddr; size 4096; flags dynamic; counter; }}

  chain source_check {{
    type filter hook prerouting priority raw; policy accept;
    iifname {{ "lo", "ctl", "inet" }} accept
    iifname . ip saddr @owned accept
    ip saddr 0.0.0.0 drop comment "DHCP and the like: no address yet, not a forged one"
    update @offenders {{ iifname . ip saddr . ip daddr }}
    counter name iifname map @spoofed
    drop
  }}
  chain internet_gateway {{
    iifname . ip saddr @public accept
    counter name iifname map @no_public_address
    drop
  }}
  chain nat_gateway {{
    iifname . ip saddr != @public meta mark set 1
    accept
  }}
  chain to_internet {{ jump internet_gateway; }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{INTERNET_LINK}" jump to_internet
  }}
}}
"#
    )
}

/// How nodes reach the internet: what `to_internet` does from now on.
pub(super) fn internet_access(by_nat_gateway: bool) -> String {
    if by_nat_gateway {
        format!(
            "table ip fabric {{ chain translate {{ type nat hook postrouting priority srcnat; }}; }}\n\
             flush chain ip fabric translate\n\
             add rule ip fabric translate oifname \"{INTERNET_LINK}\" meta mark 1 masquerade\n\
             flush chain ip fabric to_internet\nadd rule ip fabric to_internet jump nat_gateway\n"
        )
    } else {
        "flush chain ip fabric to_internet\nadd rule ip fabric to_internet jump internet_gateway\n".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enipool_pool::{InstanceType, SubnetCidr, Zone};

    fn machine(name: &str) -> Machine {
        Machine { name: name.into(), instance_type: InstanceType::new("m5.large"), zone: Zone::new("z") }
    }

    fn interface(instance: &str, device_index: u32, primary: &str, secondary: &[&str], prefixes: &[&str]) -> Plugged {
        Plugged {
            instance: instance.parse().unwrap(),
            device_index,
            mac: "0a:00:00:00:00:01".parse().unwrap(),
            subnet: SubnetCidr("10.0.0.0/20".parse().unwrap()),
            primary_ip: primary.parse().unwrap(),
            secondary_ips: secondary.iter().map(|a| a.parse().unwrap()).collect(),
            prefixes: prefixes.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    fn world(plugged: &[(&str, Plugged)]) -> World {
        World {
            instances: BTreeMap::from([("i-1".parse().unwrap(), machine("n"))]),
            plugged: plugged.iter().map(|(eni, interface)| (eni.parse().unwrap(), interface.clone())).collect(),
        }
    }

    #[test]
    fn nothing_changed_means_nothing_to_do() {
        let world = world(&[("eni-a", interface("i-1", 0, "10.0.0.5", &["10.0.0.6"], &[]))]);
        assert!(changes(&world, &world).is_empty());
    }

    #[test]
    fn a_new_primary_interface_is_routed_owned_and_public() {
        let primary = interface("i-1", 0, "10.0.0.5", &["10.0.0.6"], &["10.0.1.16/28"]);
        let changes = changes(&World::default(), &world(&[("eni-a", primary)]));
        assert_eq!(changes.switched_on.len(), 1);
        assert!(changes.filter.contains(r#"add element ip fabric public { "ea" . 10.0.0.5 }"#), "{}", changes.filter);
        assert!(changes.filter.contains(r#""ea" . 10.0.1.31"#), "a prefix owns its last address: {}", changes.filter);
        let lines = changes.plug[0].router_lines("/n");
        assert!(lines.contains(&"route replace 10.0.1.16/28 via 10.0.0.5 dev ea onlink".into()), "{lines:?}");
        assert!(changes.plug[0].node_lines().iter().any(|line| line.starts_with("route add default via 10.0.0.1 ")));
    }

    #[test]
    fn a_secondary_interface_comes_bare() {
        let have = world(&[]);
        let changes = changes(&have, &world(&[("eni-b", interface("i-1", 1, "10.0.0.9", &[], &[]))]));
        assert!(changes.plug[0].node_lines().is_empty());
        assert!(!changes.filter.contains("public {"), "only the primary interface has a public address");
    }

    #[test]
    fn addresses_come_and_go_without_touching_the_link() {
        let have = world(&[("eni-a", interface("i-1", 0, "10.0.0.5", &["10.0.0.6"], &[]))]);
        let want = world(&[("eni-a", interface("i-1", 0, "10.0.0.5", &["10.0.0.7"], &[]))]);
        let changes = changes(&have, &want);
        assert!(changes.plug.is_empty());
        assert_eq!(changes.unplug, ["route del 10.0.0.6/32 dev ea"]);
        assert_eq!(changes.routes, ["route replace 10.0.0.7/32 via 10.0.0.5 dev ea onlink"]);
        assert_eq!(
            changes.filter,
            "delete element ip fabric owned { \"ea\" . 10.0.0.6 }\nadd element ip fabric owned { \"ea\" . 10.0.0.7 }\n"
        );
    }

    #[test]
    fn a_machine_switched_off_takes_its_interfaces_with_it() {
        let have = world(&[("eni-a", interface("i-1", 0, "10.0.0.5", &[], &[]))]);
        let changes = changes(&have, &World::default());
        assert_eq!(changes.unplug, ["link del ea"]);
        assert_eq!(changes.switched_off.len(), 1);
        assert!(changes.filter.contains(r#"delete element ip fabric spoofed { "ea" }"#), "{}", changes.filter);
    }
}
