//! Reading the ledger: who holds what, counts by interface and slot.

use std::net::Ipv4Addr;

use super::book::Book;
use super::{AddressState, AddressView, AttachmentKey, Counts, Holding, Lease, Ledger, PodRef, Rest, Stray};
use crate::address::Prefix;
use crate::id::EniId;

impl Ledger {
    pub fn lookup(&self, key: &AttachmentKey) -> Option<Lease> {
        let address = *self.keys.get(key)?;
        let entry = self.entries.get(&address)?;
        let Holding::Assigned { since, eni, .. } = &entry.holding else { return None };
        let device_index = self.books.get(eni).map_or(0, |book| book.device_index);
        Some(Lease { address, eni: eni.clone(), device_index, since: *since })
    }

    /// Who holds `address`.
    pub fn holder(&self, address: Ipv4Addr) -> Option<(&AttachmentKey, &PodRef)> {
        match &self.entries.get(&address)?.holding {
            Holding::Assigned { key, pod, .. } => Some((key, pod)),
            _ => None,
        }
    }

    /// Whether `eni` is the interface that holds `address`, as far as we know.
    pub fn is_of(&self, address: Ipv4Addr, eni: &EniId) -> bool {
        self.entries.get(&address).is_some_and(|entry| entry.is_of(eni))
    }

    pub fn state(&self, address: Ipv4Addr) -> Option<AddressState> {
        self.entries.get(&address).map(|entry| entry.holding.view())
    }

    /// All leases, in no particular order.
    pub fn leases(&self) -> impl Iterator<Item = (&AttachmentKey, &PodRef, Lease)> {
        self.entries.iter().filter_map(|(address, entry)| match &entry.holding {
            Holding::Assigned { key, pod, since, eni } => {
                let device_index = self.books.get(eni).map_or(0, |book| book.device_index);
                Some((key, pod, Lease { address: *address, eni: eni.clone(), device_index, since: *since }))
            }
            _ => None,
        })
    }

    pub fn cooling(&self) -> impl Iterator<Item = (Ipv4Addr, Rest)> + '_ {
        self.cooling.iter().filter_map(|(_, address)| match &self.entries.get(address)?.holding {
            Holding::Cooling(rest) => Some((*address, *rest)),
            _ => None,
        })
    }

    /// Leases whose address no interface of ours holds.
    pub fn strays(&self) -> impl Iterator<Item = Stray> + '_ {
        // Nearly always none: then the addresses need not be gone through.
        let assigned = usize::try_from(self.totals().assigned).unwrap_or(usize::MAX);
        let at_most = self.keys.len().saturating_sub(assigned);
        let homeless = self.entries.iter().filter(|(_, entry)| entry.home.is_none()).take(if at_most == 0 {
            0
        } else {
            usize::MAX
        });
        homeless.filter_map(|(address, entry)| match &entry.holding {
            Holding::Assigned { key, pod, since, eni } => {
                Some(Stray { address: *address, key: key.clone(), pod: pod.clone(), since: *since, eni: eni.clone() })
            }
            _ => None,
        })
    }

    pub fn enis(&self) -> impl Iterator<Item = &EniId> {
        self.books.keys()
    }

    /// The addresses of `eni`, singles first, each kind in order.
    pub fn addresses(&self, eni: &EniId) -> Vec<AddressView> {
        let Some(book) = self.books.get(eni) else { return Vec::new() };
        book.blocks()
            .flat_map(|(prefix, block)| block.members().map(move |address| (prefix, address)))
            .filter_map(|(prefix, address)| self.state(address).map(|state| AddressView { address, prefix, state }))
            .collect()
    }

    pub fn counts(&self, eni: &EniId) -> Option<Counts> {
        self.books.get(eni).map(Book::counts)
    }

    /// Counts of each slot of `eni`: its single addresses together (`None`), and each prefix.
    pub fn slots(&self, eni: &EniId) -> impl Iterator<Item = (Option<Prefix>, Counts)> + '_ {
        self.books.get(eni).into_iter().flat_map(|book| book.blocks().map(|(prefix, block)| (prefix, block.counts())))
    }

    /// Single addresses of `eni` that are free, the ones that have rested least first: those that pods will get last.
    pub fn free_singles(&self, eni: &EniId) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.books.get(eni).into_iter().flat_map(Book::free_singles)
    }

    /// All interfaces together. Strays are not counted.
    pub fn totals(&self) -> Counts {
        self.books.values().map(Book::counts).fold(Counts::default(), Counts::plus)
    }

    /// Leases, strays included.
    pub fn lease_count(&self) -> usize {
        self.keys.len()
    }
}
