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
