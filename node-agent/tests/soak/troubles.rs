//! What people and the host do to a node: a journal lost or full, interfaces and addresses taken by hand.

use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_sim::SimEc2;
use ec2_sim::model::resource::Interface;
use enipool_pool::ec2::Ec2;
use enipool_pool::eni::TAG_NO_MANAGE;
use futures::executor::block_on;

use crate::world::World;

impl World {
    /// The process dies and somebody deletes its journal. What was sent is seen through first, and the process stays away
    /// until EC2's answers show it: of an Unassign whose record is lost nobody could know.
    pub(crate) fn the_journal_is_lost(&mut self) {
        if !self.is_up() {
            return;
        }
        self.let_calls_arrive();
        self.kill_for(Duration::from_secs(60));
        self.tell(|| "the journal is lost".into());
        self.lose_journal();
        // With it what rests after its last pod.
        self.released.clear();
    }

    /// The journal has no room, or has some again.
    pub(crate) fn the_journal_is_full(&mut self, full: bool) {
        self.full = full;
        if !full {
            self.deliver_deletions();
            self.wake();
        }
    }

    /// One of the node's own interfaces, never the primary, of those that nobody has marked.
    fn one_of_ours(&mut self) -> Option<Interface> {
        let ours: Vec<Interface> = self.shared.with(|model| {
            let here = model.interfaces().filter(|eni| {
                let attachment = eni.attachment.as_ref();
                attachment.is_some_and(|a| a.instance == self.instance && a.device_index > 0 && a.plugged)
            });
            here.filter(|eni| !self.strangers.contains(&eni.id) && !self.hands_off.contains(&eni.id)).cloned().collect()
        });
        let which = self.dice.below(u32::try_from(ours.len()).unwrap().max(1)) as usize;
        ours.into_iter().nth(which)
    }

    fn person(&self) -> SimEc2 {
        SimEc2::new(self.shared.clone(), "person")
    }

    /// A person takes an interface off the instance, and may delete it.
    pub(crate) fn an_interface_is_taken(&mut self, delete: bool) {
        let Some(eni) = self.one_of_ours() else { return };
        let Some(attachment) = &eni.attachment else { return };
        self.tell(|| format!("a person detaches {}", eni.id));
        // Whatever the answer: it may be lost, and EC2 have done it.
        self.by_hand.extend(members(&eni));
        self.enis_by_hand.insert(eni.id.clone());
        let detached = block_on(self.person().detach_network_interface(&attachment.id, true));
        if delete && detached.is_ok() {
            self.pass(Duration::from_secs(10));
            let _ = block_on(self.person().delete_network_interface(&eni.id));
            self.tell(|| format!("a person deletes {}", eni.id));
        }
    }

    /// A person takes a single address from an interface.
    pub(crate) fn an_address_is_taken(&mut self) {
        let Some(eni) = self.one_of_ours() else { return };
        if eni.secondary_ips.is_empty() {
            return;
        }
        let address = self.dice.one_of(&eni.secondary_ips);
        self.tell(|| format!("a person takes {address} from {}", eni.id));
        self.by_hand.insert(address);
        let _ = block_on(self.person().unassign(&eni.id, &[address], &[]));
    }

    /// A person says of an interface: hands off.
    pub(crate) fn an_interface_is_marked(&mut self) {
        let Some(eni) = self.one_of_ours() else { return };
        let tags = [(TAG_NO_MANAGE.to_owned(), "true".to_owned())].into();
        self.tell(|| format!("a person marks {} no_manage", eni.id));
        if block_on(self.person().create_tags(&eni.id, &tags)).is_ok() {
            self.hands_off.insert(eni.id);
        }
    }

    /// Pods whose addresses no interface holds any more.
    pub(crate) fn stranded_pods(&self) -> Vec<u32> {
        let held = |address: Ipv4Addr| self.owner(address).is_some();
        let stranded = self.pods.iter().filter(|(_, pod)| pod.lease.as_ref().is_some_and(|lease| !held(lease.address)));
        stranded.map(|(id, _)| *id).collect()
    }

    /// Whether a pod is known by its own key, and not adopted from the kernel.
    pub(crate) fn is_known(&self, id: u32) -> bool {
        self.machine
            .as_ref()
            .zip(self.pods.get(&id))
            .is_none_or(|(machine, pod)| pod.lease.is_none() || machine.ledger().lookup(&pod.key).is_some())
    }
}

/// Its secondary addresses, and those of its prefixes.
fn members(eni: &Interface) -> Vec<Ipv4Addr> {
    let prefixes = eni.prefixes.iter().flat_map(|prefix| prefix.addresses());
    eni.secondary_ips.iter().copied().chain(prefixes).collect()
}
