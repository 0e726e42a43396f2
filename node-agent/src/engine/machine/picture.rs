//! What the machine shows to the planner and to the host.

use std::collections::BTreeSet;

use enipool_pool::ec2::Supply;
use enipool_pool::eni::Holdings;
use enipool_pool::ledger;
use enipool_pool::node::{
    self as planner, AllocationView, Creating, EniPhase, EniRole, PrefixView, Snapshot, SubnetView, Usage,
};
use enipool_pool::{EniId, Prefix, SubnetId, Timestamp};

use super::entry::{Entry, Stage};
use super::{Machine, Op, RETIRE_AFTER};
use crate::engine::port::{HostEni, HostPicture};

impl Machine {
    pub(super) fn planner_snapshot(&self, now: Timestamp) -> Snapshot {
        let mut enis: Vec<planner::EniView> =
            self.enis.iter().map(|(id, entry)| self.planner_eni(id, entry, now)).collect();
        for (id, foreign) in &self.foreign {
            enis.push(planner::EniView {
                id: id.clone(),
                role: EniRole::Foreign,
                phase: EniPhase::Ready,
                primary: false,
                device_index: foreign.holdings.device_index,
                network_card: foreign.network_card,
                subnet: foreign.holdings.subnet.clone(),
                since: foreign.since,
                delete_on_termination: true,
                singles: planner::Counts::default(),
                singles_leaving: 0,
                prefixes: Vec::new(),
                incoming: Vec::new(),
            });
        }
        enis.extend(self.unseen());
        Snapshot {
            capacity: self.me.capacity,
            max_pods: self.config.max_pods,
            policy: match self.awaits_word(now) {
                Some(_) => self.config.policy.for_demand_alone(),
                None => self.config.policy,
            },
            usage: Usage { waiting: u32::try_from(self.waiters.len()).unwrap_or(u32::MAX), bound: self.config.demand },
            allocation: self.config.allocation.clone().map(|allocation| AllocationView {
                // The operator's word may be older than the class.
                subnet: allocation.subnet.filter(|subnet| self.config.admits(subnet)),
                ..allocation
            }),
            ceiling: self.config.ceiling,
            enis,
            creating: self
                .creations
                .values()
                .map(|creation| Creating {
                    subnet: creation.intent.request.subnet.clone(),
                    device_index: creation.intent.device_index,
                    supply: creation.intent.request.supply,
                })
                .collect(),
            subnets: self.subnet_views(),
        }
    }

    /// Something at a device index that EC2 says is taken, and that no answer has shown yet.
    fn unseen(&self) -> impl Iterator<Item = planner::EniView> + '_ {
        let shown: BTreeSet<u32> = self
            .enis
            .values()
            .filter_map(|entry| entry.holdings.device_index)
            .chain(self.foreign.values().filter_map(|foreign| foreign.holdings.device_index))
            .collect();
        self.busy_indexes.iter().filter(move |(index, _)| !shown.contains(index)).filter_map(|(index, until)| {
            Some(planner::EniView {
                id: format!("eni-unseen{index}").parse().ok()?,
                role: EniRole::Foreign,
                phase: EniPhase::Ready,
                primary: false,
                device_index: Some(*index),
                network_card: 0,
                subnet: self.me.subnet.clone(),
                since: *until,
                delete_on_termination: true,
                singles: planner::Counts::default(),
                singles_leaving: 0,
                prefixes: Vec::new(),
                incoming: Vec::new(),
            })
        })
    }

    fn planner_eni(&self, id: &EniId, entry: &Entry, now: Timestamp) -> planner::EniView {
        let mut singles = planner::Counts::default();
        let mut singles_leaving = 0;
        let mut prefixes: Vec<PrefixView> = Vec::new();
        for (prefix, counts) in self.ledger.slots(id) {
            match prefix {
                None => {
                    singles = planner_counts(counts);
                    singles_leaving = counts.withdrawn;
                }
                Some(prefix) => {
                    let leaving = counts.withdrawn > 0;
                    prefixes.push(PrefixView { prefix, counts: planner_counts(counts), leaving });
                }
            }
        }
        // Given by EC2, the host not yet set up for it: as good as free in a moment.
        let entered: BTreeSet<Prefix> = prefixes.iter().map(|view| view.prefix).collect();
        let in_ledger = singles.total().saturating_add(singles_leaving);
        let held = u32::try_from(entry.holdings.addresses.len()).unwrap_or(u32::MAX);
        singles.free = singles.free.saturating_add(held.saturating_sub(in_ledger));
        prefixes.extend(entry.holdings.prefixes.difference(&entered).map(|prefix| PrefixView {
            prefix: *prefix,
            counts: planner::Counts { free: Prefix::SIZE, ..planner::Counts::default() },
            leaving: false,
        }));
        planner::EniView {
            id: id.clone(),
            role: match () {
                () if entry.hands_off.is_some() => EniRole::Foreign,
                () if self.is_retiring(entry, now) => EniRole::Retiring,
                () => EniRole::Pods,
            },
            phase: match entry.stage {
                Stage::Detached if entry.doubtful => EniPhase::Attaching,
                Stage::Detached => EniPhase::Detached,
                Stage::Attaching | Stage::Attached => EniPhase::Attaching,
                Stage::Ready => EniPhase::Ready,
                Stage::Detaching | Stage::Deleting => EniPhase::Releasing,
            },
            primary: entry.is_primary(),
            device_index: entry.holdings.device_index,
            network_card: 0,
            subnet: entry.holdings.subnet.clone(),
            since: entry.since,
            // A change of it under way counts as done: it is not asked for twice.
            delete_on_termination: entry.attachment.delete_on_termination
                || entry.is_primary()
                || self
                    .running
                    .values()
                    .any(|running| matches!(&running.op, Op::SetDeleteOnTermination { eni, .. } if eni == id)),
            singles,
            singles_leaving,
            prefixes,
            incoming: self.incoming(id),
        }
    }

    /// Whether new pods must not get its addresses, though it is ours.
    pub(super) fn is_retiring(&self, entry: &Entry, now: Timestamp) -> bool {
        entry.attachment.being_detached || self.is_outside_the_class(entry, now)
    }

    /// Whether its subnet is none of its class's, and has not been for a while. Not the primary: whether pods use that one
    /// is another question.
    fn is_outside_the_class(&self, entry: &Entry, now: Timestamp) -> bool {
        let (subnets, since) = &self.class_subnets;
        let outside = subnets.as_ref().is_some_and(|subnets| !subnets.contains(&entry.holdings.subnet));
        outside && !entry.is_primary() && now.since(*since) >= RETIRE_AFTER
    }

    fn incoming(&self, id: &EniId) -> Vec<Supply> {
        self.running
            .values()
            .filter_map(|running| match &running.op {
                Op::Assign { eni, supply } if eni == id => Some(*supply),
                _ => None,
            })
            .collect()
    }

    fn subnet_views(&self) -> Vec<SubnetView> {
        let own = std::slice::from_ref(&self.me.subnet);
        let ids: &[SubnetId] = if self.config.subnets.is_empty() { own } else { &self.config.subnets };
        let admitted = ids.iter().filter(|id| self.config.admits(id));
        admitted.map(|id| SubnetView { id: id.clone(), available: None }).collect()
    }

    /// The host as it should be: every interface whose link exists, with all its addresses, and with those that a pod
    /// has although EC2 does not show them (an answer may lag; the pod's packets must not).
    pub(super) fn host_picture(&self) -> HostPicture {
        let strays: Vec<_> = self.ledger.strays().collect();
        let mut enis: Vec<HostEni> = self
            .enis
            .iter()
            .filter(|(_, entry)| entry.link && matches!(entry.stage, Stage::Attached | Stage::Ready))
            .filter_map(|(id, entry)| {
                let Holdings { mac, primary_ip, device_index, addresses, prefixes, .. } = &entry.holdings;
                let mut addresses = addresses.clone();
                let strays = strays.iter().filter(|stray| stray.eni == *id).map(|stray| stray.address);
                addresses.extend(strays.filter(|address| !prefixes.contains(&Prefix::containing(*address))));
                Some(HostEni {
                    id: id.clone(),
                    mac: *mac,
                    device_index: (*device_index)?,
                    subnet: *self.subnets.get(&entry.holdings.subnet)?,
                    primary_ip: *primary_ip,
                    addresses: addresses.into_iter().collect(),
                    prefixes: prefixes.iter().copied().collect(),
                })
            })
            .collect();
        enis.sort_by_key(|eni| eni.device_index);
        HostPicture { enis, vpc_cidrs: self.me.vpc_cidrs.clone() }
    }
}

fn planner_counts(counts: ledger::Counts) -> planner::Counts {
    planner::Counts { assigned: counts.assigned, cooling: counts.cooling, free: counts.free() }
}
