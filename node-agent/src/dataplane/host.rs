//! The node's part of the kernel: reads it, compares it with what should be, changes the difference. Synchronous; runs on
//! the control thread, one thing at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use enipool_pool::id::MacAddress;
use nix::libc;

use super::desired::{self, Desired, EniLinks, Observed, Op, is_our_table};
use super::found::{FoundFile, FoundLink};
use super::layout::{self, POD_TABLE};
use super::netlink::address;
use super::netlink::link::{self, Link};
use super::netlink::socket::Refusal;
use super::netlink::{Batch, Netlink, route, rule};
use super::nft::{self, Fingerprint};
use super::pods::Pods;
use super::ruleset::{self, Change, Ruleset};
use super::sysctl::Sysctl;
use super::{DataplaneConfig, DataplaneError, HostReport, HostState, LinkSeen};

/// The control thread's state.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) netlink: Netlink,
    pub(super) nftables: Netlink,
    pub(super) sysctl: Sysctl,
    pub(super) pods: Arc<Pods>,
    pub(super) found: FoundFile,
    pub(super) veth_prefix: String,
    /// What was last asked for.
    pub(super) state: Option<HostState>,
    /// Interface indexes by MAC, to be checked before use: spares the dump of all links.
    indexes: BTreeMap<MacAddress, u32>,
    /// The table as we last made it, and as the kernel showed it then.
    applied: Option<(Ruleset, Fingerprint)>,
    /// Pods taken over whose rules by the AWS plugin still stand.
    pub(super) taken_over: BTreeSet<Ipv4Addr>,
}

/// What one pass over the node did.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) missing: Vec<MacAddress>,
    pub(super) done: Vec<Op>,
    pub(super) failed: Vec<(Op, DataplaneError)>,
    pub(super) table: Option<Result<&'static str, DataplaneError>>,
    /// Indexes of the links that carry ENIs, with their device index.
    pub(super) uplinks: BTreeMap<u32, u32>,
}

impl Pass {
    /// For whoever asked for it: an error if anything failed.
    pub(super) fn report(self) -> Result<HostReport, DataplaneError> {
        let mut changed: Vec<String> = self.done.iter().map(ToString::to_string).collect();
        let mut errors = Vec::new();
        for (op, error) in self.failed {
            tracing::warn!(%op, %error, "not done");
            errors.push(error);
        }
        match self.table {
            Some(Ok(how)) => changed.push(format!("nftables table {} {how}", layout::NFT_TABLE)),
            Some(Err(error)) => errors.push(error),
            None => {}
        }
        match errors.len() {
            0 => Ok(HostReport { missing: self.missing, changed }),
            1 => Err(errors.remove(0)),
            _ => Err(DataplaneError::Several(errors)),
        }
    }
}

/// How much to distrust the nftables table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TableCheck {
    /// It is as we left it.
    Trust,
    /// Read it back and compare.
    Compare,
    /// Somebody changed it: make it anew.
    Replace,
}

impl Host {
    /// In the caller's network namespace.
    pub(super) fn new(config: &DataplaneConfig, sysctl: Sysctl, pods: Arc<Pods>) -> Result<Self, DataplaneError> {
        Ok(Self {
            netlink: Netlink::route(config.call_timeout)?,
            nftables: Netlink::netfilter(config.call_timeout, nft::SEND_CAPACITY)?,
            sysctl,
            pods,
            found: FoundFile::open(&config.state_dir)?,
            veth_prefix: config.veth_prefix.as_str().to_owned(),
            state: None,
            indexes: BTreeMap::new(),
            applied: None,
            taken_over: BTreeSet::new(),
        })
    }

    /// The numbers by which the kernel names this host's sockets in notifications.
    pub(super) fn ports(&self) -> [u32; 2] {
        [self.netlink.port(), self.nftables.port()]
    }

    /// Makes the node as `state` says. What could not be done is in the pass.
    pub(super) fn ensure(&mut self, state: HostState) -> Result<Pass, DataplaneError> {
        self.state = Some(state);
        self.pass(TableCheck::Trust)
    }

    /// Compares everything with what was last asked for and changes the difference. Does nothing before the first
    /// [`Self::ensure`].
    pub(super) fn pass(&mut self, check: TableCheck) -> Result<Pass, DataplaneError> {
        let Some(state) = self.state.clone() else { return Ok(Pass::default()) };
        let (links, missing) = self.eni_links(&state)?;
        if !links.contains_key(&state.primary.device_index) {
            return Err(DataplaneError::NoPrimaryLink { mac: state.primary.mac });
        }
        let desired = desired::desired(&state, &links, &self.pods.all(), &self.veth_prefix);
        let observed = self.observe_objects(&state, &links)?;
        self.remember(&observed, state.primary.mac)?;
        let mut pass = Pass {
            missing,
            uplinks: links.iter().map(|(device_index, link)| (link.index, *device_index)).collect(),
            ..Pass::default()
        };
        let ops = desired::diff(&desired, &observed);
        // The table first when interfaces come, so that no packet finds a route without its mark; what it says about
        // interfaces that have gone harms nobody.
        pass.table = self.apply_table(&desired, check).transpose();
        self.carry_out(&ops, &mut pass)?;
        self.forget_aws_plugin()?;
        Ok(pass)
    }

    /// The links of the state's ENIs, and the MACs of those that are not there.
    fn eni_links(&mut self, state: &HostState) -> Result<(EniLinks, Vec<MacAddress>), DataplaneError> {
        let mut links = EniLinks::new();
        let mut missing = Vec::new();
        let mut listed = false;
        for eni in std::iter::once(&state.primary).chain(&state.secondary) {
            let mut found = self.link_at_known_index(eni.mac)?;
            if found.is_none() && !listed {
                self.list_links()?;
                listed = true;
                found = self.link_at_known_index(eni.mac)?;
            }
            match found {
                Some(link) => drop(links.insert(eni.device_index, link)),
                None => missing.push(eni.mac),
            }
        }
        Ok((links, missing))
    }

    fn link_at_known_index(&mut self, mac: MacAddress) -> Result<Option<Link>, DataplaneError> {
        let Some(index) = self.indexes.get(&mac) else { return Ok(None) };
        Ok(link::by_index(&mut self.netlink, *index)?.filter(|link| link.mac == Some(mac)))
    }

    fn list_links(&mut self) -> Result<(), DataplaneError> {
        self.indexes.clear();
        for link in link::all(&mut self.netlink)? {
            if let Some(mac) = link.mac.filter(|mac| !layout::is_host_mac(*mac)) {
                // Interfaces stacked on an ENI (VLANs, macvlans) may share its MAC: the lowest index is the ENI itself.
                let index = self.indexes.entry(mac).or_insert(link.index);
                *index = link.index.min(*index);
            }
        }
        Ok(())
    }

    /// The link with that MAC.
    pub(super) fn find_link(&mut self, mac: MacAddress) -> Result<Option<LinkSeen>, DataplaneError> {
        let mut found = self.link_at_known_index(mac)?;
        if found.is_none() {
            self.list_links()?;
            found = self.link_at_known_index(mac)?;
        }
        Ok(found.map(|link| LinkSeen { mac, ifindex: link.index, name: link.name }))
    }

    fn observe_objects(&mut self, state: &HostState, links: &EniLinks) -> Result<Observed, DataplaneError> {
        let mut observed = Observed {
            rules: rule::all(&mut self.netlink)?,
            pod_routes: route::in_table(&mut self.netlink, POD_TABLE, None)?,
            forwarding: self.sysctl.forwarding()?,
            links: links.clone(),
            ..Observed::default()
        };
        for (device_index, link) in links.iter().filter(|(index, _)| **index != state.primary.device_index) {
            let table = layout::eni_table(*device_index);
            observed.eni_routes.extend(route::in_table(&mut self.netlink, table, None)?);
            observed.addresses.extend(address::of_link(&mut self.netlink, link.index)?);
            observed.stray_routes.extend(route::in_table(&mut self.netlink, route::MAIN, Some(link.index))?);
        }
        // Tables of ENIs that have gone: their rules still name them.
        let present = |table: u32| links.keys().any(|index| layout::eni_table(*index) == table);
        let orphaned: Vec<u32> = observed
            .rules
            .iter()
            .filter(|rule| desired::is_our_rule(rule) && rule.table != POD_TABLE && !present(rule.table))
            .map(|rule| rule.table)
            .collect();
        for table in orphaned.into_iter().filter(|table| is_our_table(*table)) {
            observed.eni_routes.extend(route::in_table(&mut self.netlink, table, None)?);
        }
        observed.eni_routes.sort();
        observed.eni_routes.dedup();
        Ok(observed)
    }

    fn remember(&mut self, observed: &Observed, primary: MacAddress) -> Result<(), DataplaneError> {
        let mut fresh = BTreeMap::new();
        for link in observed.links.values() {
            let Some(mac) = link.mac.filter(|mac| !self.found.knows(*mac)) else { continue };
            let primary = mac == primary;
            let mut found = FoundLink {
                primary,
                up: link.up,
                mtu: link.mtu,
                rp_filter: link.rp_filter,
                addresses: Vec::new(),
                routes: Vec::new(),
            };
            if !primary {
                found.addresses = address::as_found(&mut self.netlink, link.index)?;
                found.routes = route::as_found(&mut self.netlink, route::MAIN, link.index)?;
            }
            fresh.insert(mac, found);
        }
        self.found.remember(observed.forwarding, fresh)
    }

    /// Some(what was done), None if nothing was to do.
    fn apply_table(&mut self, desired: &Desired, check: TableCheck) -> Result<Option<&'static str>, DataplaneError> {
        let wanted = &desired.ruleset;
        let change = match (&self.applied, check) {
            (None, _) | (_, TableCheck::Replace) => Change::Replace,
            (Some((_, made)), TableCheck::Compare) if nft::fingerprint(&mut self.nftables)?.as_ref() != Some(made) => {
                Change::Replace
            }
            (Some((present, _)), _) => ruleset::change(present, wanted),
        };
        let how = match &change {
            Change::Nothing => return Ok(None),
            Change::Elements(_) => "addresses changed",
            Change::Replace => "made anew",
        };
        let applied = nft::apply(&mut self.nftables, &change, wanted);
        if applied.is_err() && matches!(change, Change::Elements(_)) {
            // Not the table that we thought it was.
            nft::apply(&mut self.nftables, &Change::Replace, wanted)?;
        } else {
            applied?;
        }
        let fingerprint = nft::fingerprint(&mut self.nftables)?;
        self.applied = fingerprint.map(|fingerprint| (wanted.clone(), fingerprint));
        Ok(Some(how))
    }

    /// Whether packets of pods get their marks.
    pub(super) fn is_table_applied(&self) -> bool {
        self.applied.is_some()
    }

    /// Forgets what we know of the table, so that the next pass makes it anew.
    pub(super) fn forget_table(&mut self) {
        self.applied = None;
    }

    /// Every change is tried; what fails is in the pass.
    fn carry_out(&mut self, ops: &[Op], pass: &mut Pass) -> Result<(), DataplaneError> {
        let mut batch = Batch::new();
        let mut sent = Vec::new();
        for op in ops {
            if *op == Op::SwitchForwardingOn {
                match self.sysctl.set_forwarding(true) {
                    Ok(()) => pass.done.push(*op),
                    Err(error) => pass.failed.push((*op, error)),
                }
            } else {
                push(&mut batch, op);
                sent.push(*op);
            }
        }
        let step = "set up the node";
        let refusals = self.netlink.exchange(step, batch, |_, _| {})?;
        for (index, op) in (0..).zip(sent) {
            match refusals.iter().find(|refusal: &&Refusal| refusal.index == index) {
                None => pass.done.push(op),
                Some(refusal) if is_done_already(&op, refusal.code) => {}
                Some(refusal) => pass.failed.push((op, refusal.clone().into_error(step))),
            }
        }
        Ok(())
    }
}

fn push(batch: &mut Batch, op: &Op) {
    match op {
        Op::SwitchForwardingOn => {}
        Op::SetUp(index) => link::push_up(batch, *index, true),
        Op::SetMtu(index, mtu) => link::push_mtu(batch, *index, *mtu),
        Op::SetLooseReversePath(index) => link::push_rp_filter(batch, *index, 2),
        Op::RemoveAddress(address) => address::push_delete(batch, *address),
        Op::AddAddress(address) => address::push_add(batch, *address),
        Op::RemoveRoute(route) => route::push_delete(batch, *route),
        Op::SetRoute(route) => route::push_replace(batch, *route),
        Op::AddRule(rule) => rule::push_add(batch, *rule),
        Op::RemoveRule(rule) => rule::push_delete(batch, *rule),
    }
}

/// What one change brings about for the next (an address that goes takes its routes along) is no failure.
fn is_done_already(op: &Op, code: i32) -> bool {
    match op {
        Op::AddRule(_) => code == libc::EEXIST,
        Op::RemoveRule(_) => code == libc::ENOENT,
        Op::RemoveRoute(_) => code == libc::ESRCH,
        Op::RemoveAddress(_) => code == libc::EADDRNOTAVAIL,
        _ => false,
    }
}
