//! The pods that should have a route now. Shared by those who add, delete and repair; no I/O.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layout::HostIfname;

/// A pod's host end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodEntry {
    pub(super) host_ifname: HostIfname,
    pub(super) ifindex: u32,
}

/// By address. Held for a few instructions at a time.
#[derive(Debug, Default)]
pub(super) struct Pods(Mutex<BTreeMap<Ipv4Addr, PodEntry>>);

impl Pods {
    pub(super) fn insert(&self, address: Ipv4Addr, entry: PodEntry) {
        self.lock().insert(address, entry);
    }

    pub(super) fn remove(&self, address: Ipv4Addr) -> Option<PodEntry> {
        self.lock().remove(&address)
    }

    /// Forgets the pod if its host end is still that interface: a repeated ADD may have made it another.
    pub(super) fn remove_with(&self, address: Ipv4Addr, ifindex: u32) -> Option<PodEntry> {
        let mut pods = self.lock();
        if pods.get(&address)?.ifindex == ifindex { pods.remove(&address) } else { None }
    }

    /// Forgets the pod whose host end is that interface.
    pub(super) fn remove_link(&self, ifindex: u32) {
        self.lock().retain(|_, entry| entry.ifindex != ifindex);
    }

    /// The pod whose host end has that index.
    pub(super) fn by_ifindex(&self, ifindex: u32) -> Option<(Ipv4Addr, PodEntry)> {
        self.lock().iter().find(|(_, entry)| entry.ifindex == ifindex).map(|(address, entry)| (*address, entry.clone()))
    }

    pub(super) fn all(&self) -> BTreeMap<Ipv4Addr, PodEntry> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, PodEntry>> {
        // Every change is one call on the map: a panic elsewhere cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_old_interface_does_not_touch_the_pods_new_one() {
        let pods = Pods::default();
        let address = "10.0.1.11".parse().unwrap();
        let entry = |ifindex| PodEntry { host_ifname: HostIfname::new("enia").unwrap(), ifindex };
        pods.insert(address, entry(7));
        pods.insert(address, entry(8));
        assert_eq!(pods.remove_with(address, 7), None);
        pods.remove_link(7);
        assert_eq!(pods.by_ifindex(8), Some((address, entry(8))));
        assert_eq!(pods.remove_with(address, 8), Some(entry(8)));
        assert_eq!(pods.remove_with(address, 8), None);
    }
}
