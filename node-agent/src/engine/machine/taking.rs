//! What is being taken from interfaces, or may have been: which of it is nobody's, and what settles the doubt.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use enipool_pool::eni::SETTLING;
use enipool_pool::ledger::record::Record;
use enipool_pool::{EniId, Prefix, Timestamp};

use super::Machine;
use super::entry::Slots;

impl Machine {
    /// What we have taken from the interface, or are about to.
    pub(super) fn leaving(&self, eni: &EniId) -> Slots {
        let mut leaving = Slots::default();
        for taken in self.taken.iter().filter(|taken| taken.eni == *eni) {
            leaving.addresses.extend(&taken.addresses);
            leaving.prefixes.extend(&taken.prefixes);
        }
        leaving
    }

    /// Which of these the interface holds. A prefix that it holds no more says nothing of its members: EC2 may have given
    /// one of them as a single address since.
    pub(super) fn held(&self, eni: &EniId, slots: &Slots) -> Slots {
        let Some(holdings) = self.enis.get(eni).map(|entry| &entry.holdings) else { return Slots::default() };
        Slots {
            addresses: slots.addresses.intersection(&holdings.addresses).copied().collect(),
            prefixes: slots.prefixes.intersection(&holdings.prefixes).copied().collect(),
        }
    }

    /// What became of these is known: they are not leaving any more.
    pub(super) fn resolve(&mut self, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Prefix]) {
        for taken in self.taken.iter_mut().filter(|taken| taken.eni == *eni) {
            taken.addresses.retain(|address| !addresses.contains(address));
            taken.prefixes.retain(|prefix| !prefixes.contains(prefix));
        }
        let (addresses, prefixes) = (addresses.to_vec(), prefixes.to_vec());
        self.record(Record::Resolved { eni: eni.clone(), addresses, prefixes });
    }

    /// What EC2 gives to an interface after we took it (and did not hear that we did) is no longer leaving.
    pub(super) fn given_again(&mut self, eni: &EniId, given: &Slots) {
        let leaving = self.leaving(eni);
        let addresses: Vec<_> = given.addresses.intersection(&leaving.addresses).copied().collect();
        let prefixes: Vec<_> = given.prefixes.intersection(&leaving.prefixes).copied().collect();
        if !addresses.is_empty() || !prefixes.is_empty() {
            self.resolve(eni, &addresses, &prefixes);
        }
    }

    /// EC2 gives no address twice: what `eni` has got now has left the place from which it was being taken. That place may
    /// be another interface, or a prefix of the same one.
    ///
    /// It stays among what was taken there: a stale answer may still show it.
    pub(super) fn have_left_for(&mut self, eni: &EniId, gained: &Slots) {
        let mut left: Vec<(EniId, Slots)> = Vec::new();
        for taken in &self.taken {
            let Some(entry) = self.enis.get(&taken.eni) else { continue };
            let elsewhere = taken.eni != *eni;
            let single = |address: &&Ipv4Addr| {
                gained.prefixes.contains(&Prefix::containing(**address))
                    || (elsewhere && gained.addresses.contains(*address))
            };
            let prefix = |prefix: &&Prefix| {
                gained.addresses.iter().any(|address| prefix.contains(*address))
                    || (elsewhere && gained.prefixes.contains(*prefix))
            };
            let addresses: BTreeSet<_> =
                taken.addresses.intersection(&entry.holdings.addresses).filter(single).copied().collect();
            let prefixes: BTreeSet<_> =
                taken.prefixes.intersection(&entry.holdings.prefixes).filter(prefix).copied().collect();
            if !addresses.is_empty() || !prefixes.is_empty() {
                left.push((taken.eni.clone(), Slots { addresses, prefixes }));
            }
        }
        for (from, Slots { addresses, prefixes }) in left {
            self.lose(&from, addresses, prefixes);
            self.record_holdings(&from);
        }
    }

    /// The taking ended now: that is the moment from which stale answers are to be mistrusted.
    pub(super) fn touch_taken(&mut self, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Prefix], now: Timestamp) {
        for taken in self.taken.iter_mut().filter(|taken| taken.eni == *eni) {
            let ours = addresses.iter().any(|address| taken.addresses.contains(address))
                || prefixes.iter().any(|prefix| taken.prefixes.contains(prefix));
            if ours {
                taken.at = now;
            }
        }
    }

    /// The interface holds these no more.
    pub(super) fn lose(&mut self, eni: &EniId, addresses: BTreeSet<Ipv4Addr>, prefixes: BTreeSet<Prefix>) {
        let Slots { addresses, prefixes } = self.held(eni, &Slots { addresses, prefixes });
        let Some(entry) = self.enis.get_mut(eni) else { return };
        entry.holdings.addresses.retain(|address| !addresses.contains(address));
        entry.holdings.prefixes.retain(|prefix| !prefixes.contains(prefix));
        let all: Vec<_> =
            addresses.iter().copied().chain(prefixes.iter().flat_map(|prefix| prefix.addresses())).collect();
        self.ledger.lose(eni, &all);
    }

    /// After a restart: a taking was begun and its end is not known, or an answer may still show what was taken. What was
    /// taken comes back into use, or is forgotten, with the first answer that proves something.
    pub(super) fn doubt_taken(&mut self, eni: &EniId, asked_at: Timestamp) {
        let Some(last) = self.taken.iter().filter(|taken| taken.eni == *eni).map(|taken| taken.at).max() else {
            return;
        };
        let Some(entry) = self.enis.get_mut(eni) else { return };
        entry.doubtful = true;
        entry.changed_at = entry.changed_at.max(last);
        let settled = entry.changed_at.plus(SETTLING);
        if asked_at < settled {
            self.look_at(settled);
        }
    }
}
