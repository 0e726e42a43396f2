//! What pods ask of the machine: an address, and to take it back.

use std::net::Ipv4Addr;

use enipool_pool::Timestamp;
use enipool_pool::ledger::record::Record;
use enipool_pool::ledger::{Acquired, AttachmentKey, Lease, PodRef, Rest};

use super::{MAX_WAITING, Machine, Waiter, WaiterId};
use crate::engine::error::AcquireError;
use crate::engine::port::HostPod;

/// Network name of attachments that were found in the kernel and that no journal explains.
pub(super) const ADOPTED_NETWORK: &str = "";
/// Container id of such attachments; their interface name is the host's veth.
pub(super) const ADOPTED_CONTAINER: &str = "kernel";

/// The answer to a request for an address.
#[derive(Debug, PartialEq, Eq)]
pub enum Acquire {
    /// Take it. Its record is among [`Machine::take_records`].
    Granted(Lease),
    /// Not now; the grant comes in an [`Effects`](super::Effects).
    Waits(WaiterId),
    Refused(AcquireError),
}

impl Machine {
    /// Gives `key` an address if there is one, else lets it wait.
    pub fn acquire(&mut self, key: &AttachmentKey, pod: &PodRef, now: Timestamp) -> Acquire {
        // Its runtime knows of it: the lease ends with a DEL, like any other.
        self.unseen.remove(key);
        if !self.waiters.is_empty() {
            // Those who wait go first, should an address have become free in the meantime.
            self.serve(now);
        }
        if self.waiters.is_empty() || self.ledger.lookup(key).is_some() {
            match self.ledger.acquire(key, pod, now) {
                Acquired::New(lease) => {
                    self.record(assigned(key, pod, &lease));
                    return Acquire::Granted(lease);
                }
                Acquired::Again(lease) => return Acquire::Granted(lease),
                Acquired::Empty => {}
            }
        }
        if self.waiters.len() >= MAX_WAITING {
            return Acquire::Refused(AcquireError::TooManyWaiting(self.waiters.len()));
        }
        self.next_id = self.next_id.wrapping_add(1);
        let id = WaiterId(self.next_id);
        self.waiters.push_back(Waiter { id, key: key.clone(), pod: pod.clone(), since: now });
        Acquire::Waits(id)
    }

    /// Takes back a lease that could not be written down: nobody has heard of it, so it need not rest.
    pub fn undo(&mut self, key: &AttachmentKey) {
        self.ledger.undo(key);
    }

    /// The waiting ADD has given up.
    pub fn stop_waiting(&mut self, id: WaiterId) {
        self.waiters.retain(|waiter| waiter.id != id);
    }

    /// Takes the address from `key`, and ends its waiting ADDs. `None`: it holds nothing.
    pub fn release(&mut self, key: &AttachmentKey, now: Timestamp) -> Option<Lease> {
        let cancelled = self.waiters.iter().filter(|waiter| waiter.key == *key);
        self.out.grants.extend(cancelled.map(|waiter| (waiter.id, Err(AcquireError::Cancelled))));
        self.waiters.retain(|waiter| waiter.key != *key);
        self.unseen.remove(key);
        let (lease, Rest { until, period }) = self.ledger.release(key, now)?;
        self.record(Record::Released { key: key.clone(), until, period });
        Some(lease)
    }

    /// Takes back an address that was adopted from the kernel. `None`: it is not such a one.
    pub fn release_adopted(&mut self, address: Ipv4Addr, now: Timestamp) -> Option<Lease> {
        let key = self.ledger.holder(address).map(|(key, _)| key.clone()).filter(is_adopted)?;
        self.release(&key, now)
    }

    /// Pods whose leases were adopted from the kernel.
    pub fn adopted(&self) -> Vec<HostPod> {
        let leases = self.ledger.leases().filter(|(key, _, _)| is_adopted(key));
        leases.map(|(key, _, lease)| HostPod { address: lease.address, host_ifname: key.ifname.to_string() }).collect()
    }

    /// Leases of the journal whose pods the kernel did not show at the start, and that nobody has claimed since.
    pub fn leases_unseen(&self) -> Vec<(AttachmentKey, PodRef, Ipv4Addr)> {
        let leases = self.ledger.leases().filter(|(key, _, _)| self.unseen.contains(*key));
        leases.map(|(key, pod, lease)| (key.clone(), pod.clone(), lease.address)).collect()
    }

    /// The kernel was asked for adopted and unseen pods, and has nothing of these any more. Of those that were gone at the
    /// last look too, the addresses rest from now on; answers how many.
    pub fn kernel_lacks(&mut self, gone: &[HostPod], now: Timestamp) -> usize {
        let before = std::mem::replace(&mut self.gone_once, gone.iter().map(|pod| pod.address).collect());
        let mut ended = 0;
        for HostPod { address, host_ifname } in gone.iter().filter(|pod| before.contains(&pod.address)) {
            let holder = self.ledger.holder(*address).map(|(key, pod)| (key.clone(), pod.clone()));
            let Some((key, pod)) = holder.filter(|(key, _)| is_adopted(key) || self.unseen.contains(key)) else {
                continue;
            };
            let (kind, text) = if is_adopted(&key) {
                let text = format!("the pod on {host_ifname}, of which only the kernel knew, is gone; {address} rests");
                ("ForgottenLeaseEnded", text)
            } else {
                let PodRef { namespace, name, .. } = &pod;
                let text =
                    format!("pod {namespace}/{name} ({}) is not there any more; {address} rests", key.container_id);
                ("LeaseWithoutPodEnded", text)
            };
            self.release(&key, now);
            self.notice(now, kind, text);
            ended += 1;
        }
        // What something is left of runs, or has a DEL to come.
        let ledger = &self.ledger;
        self.unseen
            .retain(|key| ledger.lookup(key).is_some_and(|lease| gone.iter().any(|pod| pod.address == lease.address)));
        ended
    }

    /// Records that a call outside [`Self::step`] produced. To be written before its answer is given.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.out.records)
    }

    /// Grants (here: cancellations) that a call outside [`Self::step`] produced.
    pub fn take_grants(&mut self) -> Vec<(WaiterId, Result<Lease, AcquireError>)> {
        std::mem::take(&mut self.out.grants)
    }

    /// Gives addresses to those who wait, first come first served.
    pub(super) fn serve(&mut self, now: Timestamp) {
        while let Some(waiter) = self.waiters.front() {
            let (key, pod, id) = (waiter.key.clone(), waiter.pod.clone(), waiter.id);
            let lease = match self.ledger.acquire(&key, &pod, now) {
                Acquired::New(lease) => {
                    self.record(assigned(&key, &pod, &lease));
                    lease
                }
                Acquired::Again(lease) => lease,
                Acquired::Empty => break,
            };
            self.out.grants.push((id, Ok(lease)));
            self.waiters.pop_front();
        }
    }
}

fn is_adopted(key: &AttachmentKey) -> bool {
    key.container_id.as_ref() == ADOPTED_CONTAINER && key.network.as_ref() == ADOPTED_NETWORK
}

fn assigned(key: &AttachmentKey, pod: &PodRef, lease: &Lease) -> Record {
    Record::Assigned {
        key: key.clone(),
        pod: pod.clone(),
        address: lease.address,
        eni: lease.eni.clone(),
        at: lease.since,
    }
}
