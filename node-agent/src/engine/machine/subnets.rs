//! The ranges of the subnets in which the node has interfaces: no interface serves before its is known.
//!
//! IMDS tells them for every interface of the instance, and costs no call. EC2 is asked for what IMDS does not know (yet).

use std::time::Duration;

use enipool_pool::budget::Blown;
use enipool_pool::ec2::{Action, Ec2Error, Ec2ErrorKind, Subnet};
use enipool_pool::node::HoldReason;
use enipool_pool::{SubnetId, Timestamp};

use super::entry::Entry;
use super::{Machine, Op};

/// First pause after EC2 did not tell, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// What became of asking for ranges that are not known.
#[derive(Debug, Default)]
pub(super) struct SubnetLookup {
    pub(super) retry_at: Option<Timestamp>,
    failures: u32,
    /// Why the last question brought nothing, for a waiting pod and in words.
    pub(super) refused: Option<(HoldReason, String)>,
}

impl Machine {
    /// Asks for the ranges that are missing, IMDS first.
    pub(super) fn learn_subnets(&mut self, now: Timestamp) {
        if self.unknown_subnets().is_empty() {
            self.subnet_lookup = SubnetLookup::default();
            return;
        }
        let asking =
            self.running.values().any(|running| matches!(running.op, Op::DescribeSubnets(_) | Op::Surroundings));
        if asking || self.subnet_lookup.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.subnet_lookup.retry_at = None;
        self.start(Op::Surroundings, now);
    }

    /// IMDS has been read: EC2 is asked for what it did not know.
    pub(super) fn describe_subnets(&mut self, now: Timestamp) {
        let unknown = self.unknown_subnets();
        let asking = self.running.values().any(|running| matches!(running.op, Op::DescribeSubnets(_)));
        if unknown.is_empty() || asking || self.subnet_lookup.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.subnet_lookup.retry_at = self.fuse.permit(Action::DescribeSubnets, now).err().map(Blown::until);
        if self.subnet_lookup.retry_at.is_none() {
            self.start(Op::DescribeSubnets(unknown), now);
        }
    }

    pub(super) fn subnets_described(
        &mut self,
        asked: &[SubnetId],
        result: Result<Vec<Subnet>, Ec2Error>,
        now: Timestamp,
    ) {
        let refused = match result {
            Ok(subnets) => {
                self.subnets.extend(subnets.into_iter().map(|subnet| (subnet.id, subnet.cidr)));
                let missing = asked.iter().find(|id| !self.subnets.contains_key(*id));
                missing.map(|id| (HoldReason::Ec2Unavailable, format!("EC2 does not know {id}")))
            }
            Err(error) => {
                let reason = match error.kind {
                    Ec2ErrorKind::AccessDenied => HoldReason::AccessDenied,
                    Ec2ErrorKind::Throttled => HoldReason::Throttled,
                    _ => HoldReason::Ec2Unavailable,
                };
                let ids: Vec<_> = asked.iter().map(SubnetId::as_str).collect();
                Some((reason, format!("the range of {} cannot be read: {error}", ids.join(", "))))
            }
        };
        self.subnet_lookup.refused = refused;
        if self.subnet_lookup.refused.is_some() {
            let pause = self.pause(self.subnet_lookup.failures, AGAIN.0, AGAIN.1);
            self.subnet_lookup.failures = self.subnet_lookup.failures.saturating_add(1);
            self.subnet_lookup.retry_at = Some(now.plus(pause));
        }
    }

    pub(super) fn lacks_subnet(&self, entry: &Entry) -> bool {
        entry.stage.is_attached() && !self.subnets.contains_key(&entry.holdings.subnet)
    }

    fn unknown_subnets(&self) -> Vec<SubnetId> {
        let lacking = self.enis.values().filter(|entry| self.lacks_subnet(entry));
        let mut unknown: Vec<SubnetId> = lacking.map(|entry| entry.holdings.subnet.clone()).collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }
}
