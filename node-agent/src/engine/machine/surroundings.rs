//! What IMDS tells of the node besides what is attached: ranges of VPC and subnets, the node's security groups. None of it
//! needs a call to EC2, and none of it lags behind calls of ours.

use std::collections::BTreeSet;

use enipool_pool::budget::Blown;
use enipool_pool::ec2::Action;
use enipool_pool::imds::{ImdsEni, ImdsError};
use enipool_pool::ledger::record::{Record, note_groups};
use enipool_pool::{EniId, SecurityGroupId, Timestamp};
use ipnet::Ipv4Net;

use super::entry::{Entry, Stage};
use super::{Machine, Op};

impl Machine {
    /// IMDS was read for the surroundings alone.
    pub(super) fn surrounded(&mut self, result: Result<Vec<ImdsEni>, ImdsError>, now: Timestamp) {
        if let Ok(hints) = result {
            self.absorb(&hints);
        }
        self.describe_subnets(now);
    }

    pub(super) fn absorb(&mut self, hints: &[ImdsEni]) {
        for hint in hints {
            // A subnet's range never changes.
            self.subnets.entry(hint.subnet.clone()).or_insert(hint.subnet_cidr);
        }
        let Some(primary) = hints.iter().find(|hint| hint.mac == self.me.primary_mac) else { return };
        let ranges = |cidrs: &[Ipv4Net]| cidrs.iter().copied().collect::<BTreeSet<_>>();
        if !primary.vpc_cidrs.is_empty() && ranges(&primary.vpc_cidrs) != ranges(&self.me.vpc_cidrs) {
            tracing::info!(before = ?self.me.vpc_cidrs, now = ?primary.vpc_cidrs, "the VPC's ranges have changed");
            // The host is set up for them with the next step.
            self.me.vpc_cidrs.clone_from(&primary.vpc_cidrs);
        }
        let groups: BTreeSet<_> = primary.security_groups.iter().cloned().collect();
        if !groups.is_empty() && self.primary_groups.last() != Some(&groups) {
            tracing::info!(before = ?self.me.security_groups, now = ?groups, "the node's security groups have changed");
            self.me.security_groups.clone_from(&primary.security_groups);
            note_groups(&mut self.primary_groups, groups.clone());
            self.record(Record::PrimaryGroups { groups });
        }
    }

    /// Gives our interfaces the security groups that they should have. Never the primary: its groups are the node's own.
    pub(super) fn set_security_groups(&mut self, now: Timestamp) {
        let ours = |entry: &Entry| entry.stage == Stage::Ready && !entry.is_primary() && entry.hands_off.is_none();
        let due = |entry: &Entry| entry.groups_retry_at.is_none_or(|at| at <= now);
        let differing: Vec<EniId> = self
            .enis
            .iter()
            .filter(|(_, entry)| ours(entry) && due(entry))
            .filter(|(_, entry)| entry.security_groups.as_ref().is_some_and(|groups| self.has_outlived(groups)))
            .map(|(id, _)| id.clone())
            .collect();
        for eni in differing {
            if self.is_busy(&eni) {
                continue;
            }
            let permit = self.fuse.permit(Action::ModifyNetworkInterfaceAttribute, now);
            if let Some(entry) = self.enis.get_mut(&eni) {
                entry.groups_retry_at = permit.err().map(Blown::until);
                if entry.groups_retry_at.is_some() {
                    continue;
                }
            }
            self.start(Op::SetSecurityGroups { eni, groups: self.wanted_groups().to_vec() }, now);
        }
    }

    /// Security groups of new interfaces.
    pub(super) fn wanted_groups(&self) -> &[SecurityGroupId] {
        if self.config.security_groups.is_empty() { &self.me.security_groups } else { &self.config.security_groups }
    }

    /// Whether an interface with these groups should have others. Where none are asked for, one follows the primary if it
    /// has what the primary had: nobody may have said yet what is asked for, and groups that somebody else gave it are his.
    fn has_outlived(&self, groups: &BTreeSet<SecurityGroupId>) -> bool {
        if self.config.security_groups.is_empty() {
            self.primary_groups.last() != Some(groups) && self.primary_groups.contains(groups)
        } else {
            *groups != self.config.security_groups.iter().cloned().collect::<BTreeSet<_>>()
        }
    }
}
