//! What must hold at every step, and at the end.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ec2_sim::model::request::Describe;
use ec2_sim::{Request, Response};
use enipool_agent::engine::machine::Op;
use enipool_agent::engine::{Lease, Phase};
use enipool_pool::EniId;

use crate::world::{Pod, World, adopted};

impl World {
    /// A pod's ADD is answered: the address is the node's, rested, nobody else's, and the host is set up for it.
    pub(crate) fn runs(&mut self, id: u32, lease: Lease) {
        self.tell(|| format!("pod {id} gets {}", lease.address));
        let again =
            self.pods.get(&id).is_some_and(|pod| pod.lease.as_ref().is_some_and(|l| l.address == lease.address));
        for (other, pod) in self.pods.iter().filter(|(other, _)| **other != id) {
            assert!(
                pod.lease.as_ref().is_none_or(|held| held.address != lease.address),
                "pods {other} and {id} both have {}",
                lease.address
            );
        }
        // A person took it a moment ago, and nobody can know.
        let by_hand = self.by_hand.contains(&lease.address) || self.enis_by_hand.contains(&lease.eni);
        if !again {
            if let Some(at) = self.released.get(&lease.address) {
                let rested = self.now.since(*at);
                assert!(rested >= self.config.cooldown, "{} rested only {rested:?}", lease.address);
            }
            assert!(
                by_hand || self.owner(lease.address).is_some(),
                "{} is given to pod {id} but is not the node's",
                lease.address
            );
            let marked = self.host.enis.iter().any(|eni| {
                eni.id == lease.eni
                    && (eni.addresses.contains(&lease.address)
                        || eni.prefixes.iter().any(|p| p.contains(lease.address)))
            });
            assert!(by_hand || marked, "the host is not set up for {} of pod {id}", lease.address);
        }
        if let Some(pod) = self.pods.get_mut(&id) {
            pod.lease = Some(lease);
            pod.waiter = None;
        }
    }

    /// Nothing is taken from under a pod, nor before an address has rested.
    pub(crate) fn check_harmless(&self, op: &Op) {
        let taken: Vec<Ipv4Addr> = match op {
            Op::Unassign { addresses, prefixes, .. } => {
                addresses.iter().copied().chain(prefixes.iter().flat_map(|prefix| prefix.addresses())).collect()
            }
            Op::Detach { eni, .. } | Op::Delete { eni } => self.shared.with(|model| {
                model.interface(eni).map_or_else(Vec::new, |eni| {
                    let prefixes = eni.prefixes.iter().flat_map(|prefix| prefix.addresses());
                    eni.secondary_ips.iter().copied().chain(prefixes).collect()
                })
            }),
            _ => return,
        };
        for address in taken {
            for (id, pod) in &self.pods {
                // Of one that a person took, another interface may have it by now, and the pod is a stray.
                let moved = |lease: &Lease| self.by_hand.contains(&address) && op.eni() != Some(&lease.eni);
                assert!(
                    pod.lease.as_ref().is_none_or(|lease| lease.address != address || moved(lease)),
                    "{} takes {address} from running pod {id}",
                    op.text()
                );
            }
            // Nor does one that a person took rest: EC2 gives it to whoever comes, to another interface of ours too.
            if let Some(at) = self.released.get(&address).filter(|_| !self.by_hand.contains(&address)) {
                let rested = self.now.since(*at);
                assert!(rested >= self.config.cooldown, "{} takes {address}, which rested {rested:?}", op.text());
            }
        }
    }

    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<EniId> {
        self.shared.with(|model| {
            model
                .interfaces()
                .filter(|eni| eni.attachment.as_ref().is_some_and(|a| a.instance == self.instance))
                .find(|eni| {
                    eni.secondary_ips.contains(&address) || eni.prefixes.iter().any(|prefix| prefix.contains(address))
                })
                .map(|eni| eni.id.clone())
        })
    }

    /// After all troubles: what EC2 has, what the ledger knows and what the pods use is one and the same.
    pub(crate) fn check_settled(&mut self) {
        assert!(self.machine.is_some(), "the process runs");
        let clock = self.clock();
        let snapshot = self.machine.as_mut().unwrap().snapshot(Phase::Serving, clock);
        assert!(snapshot.intents.is_empty(), "open intents: {:?}", snapshot.intents);
        assert!(snapshot.strays.is_empty(), "strays: {:?}", snapshot.strays);
        let Response::Interfaces(page) = self
            .shared
            .with(|model| model.call("judge", &Request::DescribeNetworkInterfaces(Describe::default())))
            .result
            .unwrap()
        else {
            panic!("no interfaces")
        };
        let ours = |eni: &&ec2_sim::model::resource::Interface| {
            eni.tags.contains_key(enipool_pool::eni::TAG_INTENT)
                || eni.attachment.as_ref().is_some_and(|attachment| attachment.device_index == 0)
        };
        for eni in page.items.iter().filter(ours) {
            if self.hands_off.contains(&eni.id) {
                continue;
            }
            let here = eni.attachment.as_ref().is_some_and(|attachment| attachment.instance == self.instance);
            assert!(here, "{} leaked: nobody has it (tags {:?})", eni.id, eni.tags);
            let view = snapshot.enis.iter().find(|view| view.id == eni.id);
            let view = view.unwrap_or_else(|| panic!("{} is attached and unknown to the machine", eni.id));
            let known: BTreeSet<Ipv4Addr> = view.addresses.iter().map(|address| address.address).collect();
            let prefixes = eni.prefixes.iter().flat_map(|prefix| prefix.addresses());
            let real: BTreeSet<Ipv4Addr> = eni.secondary_ips.iter().copied().chain(prefixes).collect();
            assert_eq!(known, real, "the ledger and EC2 disagree about {}", eni.id);
            assert_eq!(view.counts.withdrawn, 0, "addresses of {} are set aside for ever", eni.id);
            let dies = eni.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination);
            assert!(dies, "{} would survive its instance", eni.id);
        }
        let here = |eni: &&ec2_sim::model::resource::Interface| eni.attachment.is_some();
        assert_eq!(snapshot.enis.len(), page.items.iter().filter(here).count(), "{:?}", snapshot.enis);
        let leases: BTreeSet<_> = self
            .machine
            .as_ref()
            .unwrap()
            .ledger()
            .leases()
            .map(|(key, _, lease)| (key.clone(), lease.address))
            .collect();
        let key = |id: &u32, pod: &Pod| {
            let is_adopted = leases.iter().any(|(key, _)| *key == adopted(*id));
            if is_adopted { adopted(*id) } else { pod.key.clone() }
        };
        let running: BTreeSet<_> =
            self.pods.iter().filter_map(|(id, pod)| Some((key(id, pod), pod.lease.as_ref()?.address))).collect();
        assert_eq!(leases, running, "leases and pods differ");
    }
}
