//! What the kernel holds for the node's ENIs, read for whoever compares it with what should be there. Runs on the control
//! thread and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use enipool_pool::id::MacAddress;
use ipnet::Ipv4Net;

use super::DataplaneError;
use super::host::Host;
use super::layout::{self, ENI_TABLE_BASE, MARK_RULE_PRIORITY, POD_RULE_PRIORITY, POD_TABLE, SOURCE_RULE_PRIORITY};
use super::netlink::{link, route, rule};
use super::nft;
use super::ruleset::{self, OUR_BITS};

/// The kernel's objects for ENIs, each by what it is for. A device index is that of EC2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EniObjects {
    /// All links but those of pods.
    pub links: BTreeMap<MacAddress, SeenLink>,
    /// The rule that leads to pods stands.
    pub pod_rule: bool,
    /// Device indexes whose rule by mark stands.
    pub mark_rules: BTreeSet<u32>,
    /// Device index and source of the rules by source.
    pub source_rules: BTreeSet<(u32, Ipv4Addr)>,
    /// The links that default routes of ENIs' tables lead over, by device index.
    pub default_routes: BTreeMap<u32, u32>,
    /// None: there is no table of ours.
    pub table: Option<NftTable>,
}

/// A link that may carry an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLink {
    pub index: u32,
    pub name: String,
    pub up: bool,
}

/// Our nftables table, as far as it speaks of ENIs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NftTable {
    pub chains: BTreeSet<String>,
    /// Device indexes by address.
    pub addresses: BTreeMap<Ipv4Addr, u32>,
    /// Device indexes by the first address of a /28.
    pub prefixes: BTreeMap<Ipv4Addr, u32>,
}

impl NftTable {
    /// The ENI by which packets from `address` leave; none: the primary one.
    pub fn leads(&self, address: Ipv4Addr) -> Option<u32> {
        let of_prefix = || self.prefixes.get(&Ipv4Addr::from_bits(address.to_bits() & ruleset::PREFIX_MASK));
        self.addresses.get(&address).or_else(of_prefix).copied()
    }

    /// The chains without which no packet of a pod on an ENI at `device_index` finds its way.
    pub fn chains_for(device_index: u32) -> [String; 3] {
        ["pods".into(), ruleset::FROM_POD.into(), ruleset::eni_chain(device_index)]
    }
}

impl Host {
    /// For ENIs at `device_indexes`.
    pub(super) fn inspect(&mut self, device_indexes: &[u32]) -> Result<EniObjects, DataplaneError> {
        let mut seen = EniObjects::default();
        for link in link::all(&mut self.netlink)? {
            if let Some(mac) = link.mac.filter(|mac| !layout::is_host_mac(*mac)) {
                // Interfaces stacked on an ENI may share its MAC: the lowest index is the ENI itself.
                let found = SeenLink { index: link.index, name: link.name, up: link.up };
                let known = seen.links.entry(mac).or_insert_with(|| found.clone());
                if found.index < known.index {
                    *known = found;
                }
            }
        }
        for rule in rule::all(&mut self.netlink)? {
            let device_index = rule.table.saturating_sub(ENI_TABLE_BASE);
            match (rule.priority, rule.mark, rule.source) {
                (POD_RULE_PRIORITY, None, None) if rule.table == POD_TABLE => seen.pod_rule = true,
                (MARK_RULE_PRIORITY, Some((mark, OUR_BITS)), None) if mark == device_index => {
                    seen.mark_rules.insert(device_index);
                }
                (SOURCE_RULE_PRIORITY, None, Some(source)) => {
                    seen.source_rules.insert((device_index, source));
                }
                _ => {}
            }
        }
        for device_index in device_indexes {
            let routes = route::in_table(&mut self.netlink, layout::eni_table(*device_index), None)?;
            let default = routes.iter().find(|route| route.destination == Ipv4Net::default());
            seen.default_routes.extend(default.map(|route| (*device_index, route.link)));
        }
        if nft::present(&mut self.nftables)? {
            seen.table = Some(NftTable {
                chains: nft::chain_names(&mut self.nftables)?.into_iter().collect(),
                addresses: device_indexes_by_address(nft::verdicts(&mut self.nftables, ruleset::ADDRESSES)?),
                prefixes: device_indexes_by_address(nft::verdicts(&mut self.nftables, ruleset::PREFIXES)?),
            });
        }
        Ok(seen)
    }
}

fn device_indexes_by_address(verdicts: Vec<(u32, String)>) -> BTreeMap<Ipv4Addr, u32> {
    let by_address = |(key, chain): (u32, String)| {
        Some((Ipv4Addr::from_bits(key), chain.strip_prefix(ruleset::ENI_CHAIN)?.parse().ok()?))
    };
    verdicts.into_iter().filter_map(by_address).collect()
}
