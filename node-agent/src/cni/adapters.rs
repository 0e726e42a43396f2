//! The ports of the verbs over the real pool.

use std::net::Ipv4Addr;

use enipool_pool::ledger::{AttachmentKey, Lease, PodRef};
use tokio::time::Instant;

use super::ports::{Addresses, Availability};
use crate::engine::{AcquireError, Phase, Pool, Shortage};

impl Addresses for Pool {
    async fn acquire(&self, key: AttachmentKey, pod: PodRef, deadline: Instant) -> Result<Lease, AcquireError> {
        Pool::acquire(self, key, pod, deadline).await
    }

    fn release(&self, key: &AttachmentKey) -> Result<Option<Lease>, AcquireError> {
        Pool::release(self, key)
    }

    fn release_address(&self, address: Ipv4Addr) -> Result<Option<Lease>, AcquireError> {
        Pool::release_address(self, address)
    }

    fn lookup(&self, key: &AttachmentKey) -> Option<Lease> {
        Pool::lookup(self, key)
    }

    fn attachments(&self) -> Vec<(AttachmentKey, PodRef, Lease)> {
        Pool::attachments(self)
    }

    fn owns(&self, address: Ipv4Addr) -> bool {
        Pool::owns(self, address)
    }

    fn availability(&self) -> Availability {
        let snapshot = self.snapshot();
        let snapshot = snapshot.borrow();
        availability(&snapshot.phase, snapshot.counts.total, snapshot.shortage)
    }
}

/// Whether a pod can be served: always, once the agent serves, but for a node without a single address that cannot get one
/// without somebody's help.
///
/// A node whose addresses are all in use is available: a failing STATUS makes the node NotReady, and its pods would be
/// evicted for want of room for more.
fn availability(phase: &Phase, addresses: u32, shortage: Option<Shortage>) -> Availability {
    match phase {
        Phase::Starting(what) => Availability::Unavailable(format!("the agent is starting: {what}")),
        Phase::Stopping => Availability::Unavailable("the agent stops".to_owned()),
        Phase::Serving => match shortage {
            Some(shortage) if addresses == 0 && !shortage.passes() => {
                let (why, advice) = (shortage.explanation(), shortage.advice());
                Availability::Unavailable(format!("the node has no address for pods ({shortage}): {why}; {advice}"))
            }
            _ => Availability::Available,
        },
    }
}

#[cfg(test)]
mod unit {
    use enipool_pool::node::HoldReason;

    use super::*;

    const DENIED: Option<Shortage> = Some(Shortage::Hold(HoldReason::AccessDenied));

    #[test]
    fn an_agent_that_starts_or_stops_is_not_available() {
        let starting = Phase::Starting("waiting for EC2".into());
        assert!(
            matches!(availability(&starting, 9, None), Availability::Unavailable(why) if why.contains("waiting for EC2"))
        );
        assert_ne!(availability(&Phase::Stopping, 9, None), Availability::Available);
    }

    #[test]
    fn a_full_node_stays_available_so_that_its_pods_are_not_evicted() {
        let full = Some(Shortage::Hold(HoldReason::InstanceLimit));
        assert_eq!(availability(&Phase::Serving, 27, full), Availability::Available);
    }

    #[test]
    fn a_node_without_an_address_is_unavailable_only_if_somebody_has_to_help() {
        assert!(
            matches!(availability(&Phase::Serving, 0, DENIED), Availability::Unavailable(why) if why.contains("IAM"))
        );
        let soon = Some(Shortage::Hold(HoldReason::AttachInFlight));
        assert_eq!(availability(&Phase::Serving, 0, soon), Availability::Available, "an ADD waits for it");
    }
}
