//! When the host is set up, and what opens to pods with it: no address is given out before the kernel knows it.

use std::net::Ipv4Addr;
use std::time::Duration;

use enipool_pool::eni::Holdings;
use enipool_pool::{EniId, Prefix, Timestamp};

use super::complete::SOON;
use super::entry::{Entry, Slots, Stage};
use super::{LINK_TIMEOUT, Machine, Op, Running};
use crate::engine::port::{HostPicture, KernelError};

impl Machine {
    /// Has the host set up for the interfaces, if it is not.
    pub(super) fn set_up_host(&mut self, now: Timestamp) {
        let applying = self.running.values().any(|running| matches!(running.op, Op::Apply(_)));
        if applying || self.host.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.host.retry_at = None;
        let picture = self.host_picture();
        let primary_known = picture.enis.iter().any(|eni| eni.device_index == 0);
        if primary_known && (self.host.stale || self.host.applied.as_ref() != Some(&picture)) {
            self.host.stale = false;
            self.start(Op::Apply(picture), now);
        }
    }

    pub(super) fn await_link(&mut self, eni: &EniId, now: Timestamp) {
        if let Some(entry) = self.enis.get_mut(eni)
            && !entry.link
        {
            entry.link_at = None;
            let mac = entry.holdings.mac;
            self.start(Op::AwaitLink { eni: eni.clone(), mac, timeout: LINK_TIMEOUT }, now);
        }
    }

    /// The wait for the link ended without a word: it begins anew.
    pub(super) fn await_link_soon(&mut self, eni: &EniId, now: Timestamp) {
        if let Some(entry) = self.enis.get_mut(eni) {
            entry.link_at = Some(now.plus(SOON));
        }
    }

    /// Begins the waits for links that are due.
    pub(super) fn await_links(&mut self, now: Timestamp) {
        let due = |entry: &Entry| entry.link_at.is_some_and(|at| at <= now);
        let due: Vec<EniId> = self.enis.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| id.clone()).collect();
        for eni in due {
            if let Some(entry) = self.enis.get_mut(&eni) {
                entry.link_at = None;
                if entry.stage == Stage::Attached {
                    self.await_link(&eni, now);
                }
            }
        }
    }

    pub(super) fn link(&mut self, eni: &EniId, result: Result<(), KernelError>, now: Timestamp) {
        let waits = |running: &Running| matches!(&running.op, Op::AwaitLink { eni: awaited, .. } if awaited == eni);
        let waits = self.running.values().any(waits);
        let Some(entry) = self.enis.get_mut(eni) else { return };
        if !entry.stage.is_attached() {
            // Taken off in the meantime; should it come back, it is waited for anew.
            return;
        }
        match result {
            Ok(()) => entry.link = true,
            Err(error) if !entry.stage.is_leaving() && !entry.link && !waits => {
                let text = format!("the kernel never showed the link of {eni}: {error}");
                let idle = self.ledger.is_idle(eni) && !self.ledger.strays().any(|stray| stray.eni == *eni);
                match entry.hands_off {
                    None if idle => {
                        self.notice(now, "AttachStuck", format!("{text}; it is given back"));
                        self.release_eni(eni, now);
                        return;
                    }
                    None => self.notice(now, "AttachStuck", format!("{text}; pods have its addresses, so it stays")),
                    Some(because) => self.notice(now, "AttachStuck", format!("{text}; it stays: {because}")),
                }
                self.await_link_soon(eni, now);
            }
            Err(_) => {}
        }
    }

    pub(super) fn applied(&mut self, picture: HostPicture, result: Result<(), KernelError>, now: Timestamp) {
        if let Err(error) = result {
            let pause = self.pause(self.host.failures, Duration::from_millis(200), Duration::from_secs(30));
            self.host.failures = self.host.failures.saturating_add(1);
            self.host.stale = true;
            self.host.retry_at = Some(now.plus(pause));
            self.host.refused = Some(error.to_string());
            self.notice(now, "HostSetUp", format!("cannot set the host up: {error}"));
            return;
        }
        self.host.failures = 0;
        self.host.refused = None;
        for host in &picture.enis {
            let Some(entry) = self.enis.get_mut(&host.id) else { continue };
            if entry.stage == Stage::Attached {
                let Holdings { addresses, prefixes, .. } = &entry.holdings;
                let covered = addresses.iter().all(|address| host.addresses.contains(address))
                    && prefixes.iter().all(|prefix| host.prefixes.contains(prefix));
                if !covered {
                    // It got more while the host was being set up: it opens with the next round, which is due.
                    continue;
                }
                entry.stage = Stage::Ready;
            }
            let open = entry.stage == Stage::Ready && entry.hands_off.is_none();
            let known: Vec<_> =
                host.addresses.iter().copied().filter(|a| entry.holdings.addresses.contains(a)).collect();
            let prefixes: Vec<_> =
                host.prefixes.iter().copied().filter(|p| entry.holdings.prefixes.contains(p)).collect();
            self.enter(&host.id.clone(), &known, &prefixes, now);
            self.ledger.set_open(&host.id, open);
        }
        self.host.applied = Some(picture);
    }

    /// Enters into the ledger what the interface holds. What may have been taken from it is nobody's.
    fn enter(&mut self, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Prefix], now: Timestamp) {
        for entered in [self.ledger.add_addresses(eni, addresses), self.ledger.add_prefixes(eni, prefixes)] {
            if let Err(error) = entered {
                self.notice(now, "AddressTwice", format!("{eni}: {error}"));
                self.look_at(now.plus(SOON));
            }
        }
        let Slots { addresses, prefixes } = self.held(eni, &self.leaving(eni));
        for address in addresses.into_iter().chain(prefixes.iter().flat_map(|prefix| prefix.addresses())) {
            self.ledger.set_aside(eni, address);
        }
    }

    /// The interface holds more than before. One that serves gives it out only after the host has been set up anew, also
    /// where the picture stays the same: the address of a stray is in it already.
    pub(super) fn enter_gained(&mut self, eni: &EniId) {
        if self.enis.get(eni).is_some_and(|entry| entry.stage == Stage::Ready) {
            self.host.stale = true;
        } else {
            self.enter_all(eni);
        }
    }

    /// An address has lost its place: an interface that holds it too, and could not have it entered, has it now. EC2 gives
    /// to another what somebody took by hand, before we know of that.
    pub(super) fn enter_missing(&mut self) {
        let missing = |(id, entry): &(&EniId, &Entry)| {
            let Holdings { addresses, prefixes, .. } = &entry.holdings;
            let mut members = addresses.iter().copied().chain(prefixes.iter().flat_map(|prefix| prefix.addresses()));
            !entry.stage.is_leaving() && members.any(|address| !self.ledger.is_of(address, id))
        };
        let missing: Vec<EniId> = self.enis.iter().filter(missing).map(|(id, _)| id.clone()).collect();
        for eni in missing {
            self.enter_gained(&eni);
        }
    }

    /// Enters all that the interface holds. Its addresses are given out only once it is open.
    pub(super) fn enter_all(&mut self, eni: &EniId) {
        let Some(entry) = self.enis.get(eni) else { return };
        let addresses: Vec<_> = entry.holdings.addresses.iter().copied().collect();
        let prefixes: Vec<_> = entry.holdings.prefixes.iter().copied().collect();
        let at = entry.changed_at;
        self.enter(eni, &addresses, &prefixes, at);
    }
}
