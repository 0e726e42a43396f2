//! What our nftables table should hold, as data. Pure: the encoding is in [`super::nft`].
//!
//! The shape, in nft's words (for one secondary ENI at device index 1):
//!
//! ```text
//! table ip enipool {
//!   map addresses { type ipv4_addr : verdict; elements = { 10.0.1.5 : goto eni-1 } }  # every address the ENI owns
//!   map prefixes  { type ipv4_addr : verdict; elements = { 10.0.1.16 : goto eni-1 } } # every /28 the ENI owns
//!   map flows     { type mark : verdict; elements = { 0x80 : return, 0x1 : goto eni-1 } }
//!   set untranslated { type ipv4_addr; flags interval; elements = { 10.0.0.0/16 } }   # VPC ranges, exclusions
//!
//!   chain uplinks    { type filter hook prerouting priority mangle;                   # before anybody's DNAT
//!     ct state new fib daddr type local jump from-uplink }
//!   chain from-uplink { iifname "eth0" ct mark set ct mark or 0x80; iifname "eth1" ct mark set ct mark or 0x1 }
//!
//!   chain pods       { type filter hook prerouting priority dstnat + 10;              # after everybody's DNAT
//!     iifname "eni*" jump from-pod }
//!   chain from-pod   { ct state new ip daddr != @untranslated ct mark set ct mark or 0x80
//!     ct mark and 0xbf vmap @flows
//!     ip saddr vmap @addresses
//!     ip saddr and 255.255.255.240 vmap @prefixes }
//!   chain eni-1      { meta mark set mark and 0xffffff40 xor 0x1 }
//!
//!   chain snat       { type nat hook postrouting priority srcnat;
//!     oifname != "eni*" ct mark and 0x80 == 0x80 ip daddr != @untranslated snat to 10.0.0.10 fully-random }
//! }
//! ```
//!
//! A packet from a pod costs three hash look-ups however many pods and addresses there are. The connection mark is
//! decided by a flow's first packet, so replies leave by the interface the flow came in by, and a flow that is translated
//! stays so when the configuration changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::layout::{ENI_MARK_MASK, PRIMARY_MARK};
use super::state::{EniLink, HostState, Randomization, Snat};

/// Bits of packet and connection mark that we own.
pub(super) const OUR_BITS: u32 = ENI_MARK_MASK | PRIMARY_MARK;
pub(super) const PREFIX_MASK: u32 = !0xf;

pub(super) const ADDRESSES: &str = "addresses";
pub(super) const PREFIXES: &str = "prefixes";
const FLOWS: &str = "flows";
const UNTRANSLATED: &str = "untranslated";
const MAIN_ROUTED: &str = "main-routed";
const FROM_UPLINK: &str = "from-uplink";
pub(super) const FROM_POD: &str = "from-pod";
/// In front of the device index.
pub(super) const ENI_CHAIN: &str = "eni-";

/// The whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) maps: Vec<VerdictMap>,
    pub(super) sets: Vec<RangeSet>,
    pub(super) chains: Vec<Chain>,
}

/// From a number (an address, or a mark) to a verdict. A hash look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VerdictMap {
    pub(super) name: &'static str,
    pub(super) key: Key,
    pub(super) elements: BTreeMap<u32, Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Address,
    Mark,
}

/// Disjoint ranges of addresses, never adjacent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeSet {
    pub(super) name: &'static str,
    pub(super) ranges: Vec<Ipv4Net>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Rule>,
}

/// Where a base chain sits. Priorities as in `nft`: mangle -150, dstnat -100, srcnat 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) point: HookPoint,
    pub(super) priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookPoint {
    Prerouting,
    Postrouting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Shown by `nft list`.
    pub(super) comment: &'static str,
    pub(super) terms: Vec<Term>,
}

/// Conditions and statements of a rule, left to right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    InputIs(String),
    InputStartsWith(String),
    OutputDoesNotStartWith(String),
    FlowIsNew,
    DestinationIsLocal,
    DestinationIn(&'static str),
    DestinationNotIn(&'static str),
    FlowMarkHas(u32),
    SetFlowMarkBits {
        clear: u32,
        set: u32,
    },
    SetPacketMarkBits {
        clear: u32,
        set: u32,
    },
    /// Verdict by masked source address.
    BySource {
        map: &'static str,
        mask: u32,
    },
    /// Verdict by masked connection mark.
    ByFlowMark {
        map: &'static str,
        mask: u32,
    },
    Verdict(Verdict),
    TranslateSource {
        to: Ipv4Addr,
        randomization: Randomization,
    },
}

/// The names of the links that carry ENIs now, by device index. An ENI whose link has not appeared is not there yet.
pub(super) type Uplinks = BTreeMap<u32, String>;

/// The table that `state` asks for.
pub(super) fn ruleset(state: &HostState, uplinks: &Uplinks, veth_prefix: &str) -> Ruleset {
    let secondary: Vec<&EniLink> =
        state.secondary.iter().filter(|eni| uplinks.contains_key(&eni.device_index)).collect();
    let mut ruleset = Ruleset::default();
    let mut from_pod = Vec::new();

    if !state.external_service_cidrs.is_empty() {
        ruleset.sets.push(RangeSet { name: MAIN_ROUTED, ranges: merged(&state.external_service_cidrs) });
    }
    if let Snat::Primary { randomization, exclude } = &state.snat {
        let untranslated: Vec<Ipv4Net> = state.vpc_cidrs.iter().chain(exclude).copied().collect();
        ruleset.sets.push(RangeSet { name: UNTRANSLATED, ranges: merged(&untranslated) });
        from_pod.push(Rule {
            comment: "to outside the VPC: by the primary interface",
            terms: vec![
                Term::FlowIsNew,
                Term::DestinationNotIn(UNTRANSLATED),
                Term::SetFlowMarkBits { clear: ENI_MARK_MASK, set: PRIMARY_MARK },
            ],
        });
        ruleset.chains.push(snat_chain(state, *randomization, veth_prefix));
    }
    from_pod.push(Rule {
        comment: "flows that belong to an interface",
        terms: vec![Term::ByFlowMark { map: FLOWS, mask: OUR_BITS }],
    });
    if !state.external_service_cidrs.is_empty() {
        from_pod.push(Rule {
            comment: "external services: as the main table says",
            terms: vec![Term::DestinationIn(MAIN_ROUTED), Term::Verdict(Verdict::Return)],
        });
    }
    from_pod.push(Rule {
        comment: "by the interface that owns the address",
        terms: vec![Term::BySource { map: ADDRESSES, mask: u32::MAX }],
    });
    from_pod.push(Rule {
        comment: "by the interface that owns the prefix",
        terms: vec![Term::BySource { map: PREFIXES, mask: PREFIX_MASK }],
    });

    ruleset.maps = maps(&secondary);
    if state.node_ports {
        ruleset.chains.extend(uplink_chains(uplinks));
    }
    ruleset.chains.push(Chain {
        name: "pods".into(),
        hook: Some(Hook { kind: "filter", point: HookPoint::Prerouting, priority: -90 }),
        rules: vec![Rule {
            comment: "from pods of this node",
            terms: vec![Term::InputStartsWith(veth_prefix.into()), Term::Verdict(Verdict::Jump(FROM_POD.into()))],
        }],
    });
    ruleset.chains.push(Chain { name: FROM_POD.into(), hook: None, rules: from_pod });
    ruleset.chains.extend(secondary.iter().map(|eni| Chain {
        name: eni_chain(eni.device_index),
        hook: None,
        rules: vec![Rule {
            comment: "to the interface's routing table",
            terms: vec![Term::SetPacketMarkBits { clear: OUR_BITS, set: eni.device_index }],
        }],
    }));
    ruleset
}

fn maps(secondary: &[&EniLink]) -> Vec<VerdictMap> {
    let goto = |eni: &EniLink| Verdict::Goto(eni_chain(eni.device_index));
    let addresses =
        secondary.iter().flat_map(|eni| eni.addresses.iter().map(|address| (address.to_bits(), goto(eni)))).collect();
    let prefixes = secondary
        .iter()
        .flat_map(|eni| eni.prefixes.iter().map(|prefix| (prefix.first().to_bits(), goto(eni))))
        .collect();
    let flows = std::iter::once((PRIMARY_MARK, Verdict::Return))
        .chain(secondary.iter().map(|eni| (eni.device_index, goto(eni))))
        .collect();
    vec![
        VerdictMap { name: ADDRESSES, key: Key::Address, elements: addresses },
        VerdictMap { name: PREFIXES, key: Key::Address, elements: prefixes },
        VerdictMap { name: FLOWS, key: Key::Mark, elements: flows },
    ]
}

/// Remembers by which interface a connection to an address of the node itself (NodePort, hostPort) came in. Looks at
/// the destination before anybody's DNAT, so it does not matter whether kube-proxy uses iptables or nftables.
fn uplink_chains(uplinks: &Uplinks) -> [Chain; 2] {
    let rule = |(device_index, name): (&u32, &String)| {
        let mark = if *device_index == 0 { PRIMARY_MARK } else { *device_index };
        Rule {
            comment: "replies leave by the interface that the flow came in by",
            terms: vec![Term::InputIs(name.clone()), Term::SetFlowMarkBits { clear: OUR_BITS, set: mark }],
        }
    };
    let base = Chain {
        name: "uplinks".into(),
        hook: Some(Hook { kind: "filter", point: HookPoint::Prerouting, priority: -150 }),
        rules: vec![Rule {
            comment: "new flows to the node itself",
            terms: vec![Term::FlowIsNew, Term::DestinationIsLocal, Term::Verdict(Verdict::Jump(FROM_UPLINK.into()))],
        }],
    };
    [base, Chain { name: FROM_UPLINK.into(), hook: None, rules: uplinks.iter().map(rule).collect() }]
}

fn snat_chain(state: &HostState, randomization: Randomization, veth_prefix: &str) -> Chain {
    Chain {
        name: "snat".into(),
        hook: Some(Hook { kind: "nat", point: HookPoint::Postrouting, priority: 100 }),
        rules: vec![Rule {
            comment: "what leaves the VPC gets the node's address",
            terms: vec![
                Term::OutputDoesNotStartWith(veth_prefix.into()),
                Term::FlowMarkHas(PRIMARY_MARK),
                Term::DestinationNotIn(UNTRANSLATED),
                Term::TranslateSource { to: state.primary.primary_address, randomization },
            ],
        }],
    }
}

pub(super) fn eni_chain(device_index: u32) -> String {
    format!("{ENI_CHAIN}{device_index}")
}

fn merged(ranges: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let whole: Vec<Ipv4Net> = ranges.iter().map(Ipv4Net::trunc).collect();
    Ipv4Net::aggregate(&whole)
}

/// How to get from one table to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// Only elements of maps differ: the usual case, when addresses come and go.
    Elements(Vec<ElementChange>),
    /// Anything else: the whole table anew, in one transaction.
    Replace,
}

/// Elements to take out of a map and to put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ElementChange {
    pub(super) map: &'static str,
    pub(super) remove: BTreeMap<u32, Verdict>,
    pub(super) add: BTreeMap<u32, Verdict>,
    pub(super) key: Key,
}

/// The least change from `present` to `wanted`.
pub(super) fn change(present: &Ruleset, wanted: &Ruleset) -> Change {
    if present == wanted {
        return Change::Nothing;
    }
    let names = |ruleset: &Ruleset| ruleset.maps.iter().map(|map| map.name).collect::<BTreeSet<_>>();
    if present.chains != wanted.chains || present.sets != wanted.sets || names(present) != names(wanted) {
        return Change::Replace;
    }
    let changes = present.maps.iter().zip(&wanted.maps).filter(|(old, new)| old != new).map(|(old, new)| {
        let missing_in = |from: &VerdictMap, other: &VerdictMap| {
            from.elements
                .iter()
                .filter(|(key, verdict)| other.elements.get(key) != Some(verdict))
                .map(|(key, verdict)| (*key, verdict.clone()))
                .collect()
        };
        ElementChange { map: new.name, remove: missing_in(old, new), add: missing_in(new, old), key: new.key }
    });
    Change::Elements(changes.collect())
}

#[cfg(test)]
mod tests {
    use super::super::state::fixtures::state;
    use super::*;

    fn uplinks(count: u32) -> Uplinks {
        (0..=count).map(|device_index| (device_index, format!("eth{device_index}"))).collect()
    }

    fn chains(ruleset: &Ruleset) -> Vec<&str> {
        ruleset.chains.iter().map(|chain| chain.name.as_str()).collect()
    }

    #[test]
    fn addresses_of_the_primary_interface_need_no_mark() {
        let table = ruleset(&state(1), &uplinks(1), "eni");
        let primary = state(1).primary.addresses[0].to_bits();
        let secondary = state(1).secondary[0].addresses[0].to_bits();
        assert_eq!(table.maps[0].elements.get(&primary), None);
        assert_eq!(table.maps[0].elements.get(&secondary), Some(&Verdict::Goto("eni-1".into())));
    }

    #[test]
    fn without_node_ports_and_translation_nothing_looks_at_other_traffic() {
        let mut state = state(1);
        state.node_ports = false;
        state.snat = Snat::External;
        let table = ruleset(&state, &uplinks(1), "eni");
        assert_eq!(chains(&table), ["pods", "from-pod", "eni-1"]);
        assert_eq!(table.sets, []);
    }

    #[test]
    fn overlapping_ranges_of_vpc_and_exclusions_are_merged() {
        let mut state = state(0);
        state.vpc_cidrs = vec!["10.0.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
        state.snat = Snat::Primary {
            randomization: Randomization::None,
            exclude: vec!["10.0.7.9/24".parse().unwrap(), "192.168.0.0/16".parse().unwrap()],
        };
        let table = ruleset(&state, &uplinks(0), "eni");
        let expected: Vec<Ipv4Net> = vec!["10.0.0.0/15".parse().unwrap(), "192.168.0.0/16".parse().unwrap()];
        assert_eq!(table.sets[0].ranges, expected);
    }

    #[test]
    fn a_new_address_changes_one_element_and_a_new_interface_the_whole_table() {
        let before = state(2);
        let mut after = before.clone();
        let added: Ipv4Addr = "10.0.1.99".parse().unwrap();
        let removed = after.secondary[1].addresses.remove(0);
        after.secondary[0].addresses.push(added);
        let table = |state: &HostState, links| ruleset(state, &uplinks(links), "eni");
        let Change::Elements(changes) = change(&table(&before, 2), &table(&after, 2)) else {
            panic!("more than elements")
        };
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].add.keys().copied().collect::<Vec<_>>(), [added.to_bits()]);
        assert_eq!(changes[0].remove.keys().copied().collect::<Vec<_>>(), [removed.to_bits()]);
        assert_eq!(change(&table(&before, 1), &table(&before, 2)), Change::Replace);
        assert_eq!(change(&table(&before, 2), &table(&before, 2)), Change::Nothing);
    }

    #[test]
    fn an_address_that_moves_to_another_interface_is_taken_out_before_it_is_put_in() {
        let before = state(2);
        let mut after = before.clone();
        let moved = after.secondary[1].addresses.remove(0);
        after.secondary[0].addresses.push(moved);
        let table = |state: &HostState| ruleset(state, &uplinks(2), "eni");
        let Change::Elements(changes) = change(&table(&before), &table(&after)) else { panic!("more than elements") };
        assert_eq!(changes[0].remove.get(&moved.to_bits()), Some(&Verdict::Goto("eni-2".into())));
        assert_eq!(changes[0].add.get(&moved.to_bits()), Some(&Verdict::Goto("eni-1".into())));
    }
}
