//! Who holds which address of the node: free, assigned or cooling, grouped by the interface and prefix it belongs to.
//!
//! Pure bookkeeping: no file, no clock, no EC2. What must survive a crash is in [`record`]; the engine writes it.

mod book;
pub mod record;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Prefix;
use crate::id::EniId;
use crate::targets::Addressing;
use crate::time::Timestamp;
pub use book::Counts;
use book::{Block, BlockId, Book, Mark};

/// How long an address rests after its pod is gone, before another pod may have it, unless configured otherwise. Peers
/// may still send to the old pod for that long (the AWS plugin's `IP_COOLDOWN_PERIOD` has the same default).
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(30);
/// The longest rest that anybody may ask for: what `cooldownSeconds` of an ENIPoolClass and `IP_COOLDOWN_PERIOD` allow.
pub const LONGEST_COOLDOWN: Duration = Duration::from_hours(1);

/// One attachment of a container to a network: the key under which a runtime adds and deletes.
///
/// A new sandbox of the same pod has another container id, hence another key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// `name` of the CNI network configuration.
    pub network: Box<str>,
    /// `CNI_CONTAINERID`.
    pub container_id: Box<str>,
    /// `CNI_IFNAME`.
    pub ifname: Box<str>,
}

impl AttachmentKey {
    pub fn new(network: impl Into<Box<str>>, container_id: impl Into<Box<str>>, ifname: impl Into<Box<str>>) -> Self {
        Self { network: network.into(), container_id: container_id.into(), ifname: ifname.into() }
    }
}

/// The pod behind an attachment. Empty fields: the runtime did not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: Box<str>,
    pub name: Box<str>,
    #[serde(default)]
    pub uid: Box<str>,
}

/// An address in the hands of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    /// The interface that owns the address: the pod's traffic has to leave through it.
    pub eni: EniId,
    /// EC2's device index of that interface; 0 is the primary.
    pub device_index: u32,
    pub since: Timestamp,
}

/// What [`Ledger::acquire`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// A new lease: has to be journaled before anybody hears of it.
    New(Lease),
    /// The same ADD again: the answer of the first time.
    Again(Lease),
    /// No address can be given now.
    Empty,
}

/// State of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressState {
    Free,
    /// Being taken back from the interface: nobody's.
    Withdrawn,
    Assigned {
        key: AttachmentKey,
        pod: PodRef,
        since: Timestamp,
    },
    Cooling {
        until: Timestamp,
    },
}

impl AddressState {
    /// Assigned or cooling: cannot be given back now.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Assigned { .. } | Self::Cooling { .. })
    }
}

/// An address, where it belongs and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressView {
    pub address: Ipv4Addr,
    pub prefix: Option<Prefix>,
    pub state: AddressState,
}

/// A lease of an address that no interface of this node holds any more, as far as we know. The pod runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    pub address: Ipv4Addr,
    pub key: AttachmentKey,
    pub pod: PodRef,
    pub since: Timestamp,
    /// The interface that held the address when it was assigned.
    pub eni: EniId,
}

/// Why the ledger refuses a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error("{address} is held by {holder:?}")]
    Held { address: Ipv4Addr, holder: AttachmentKey },
    #[error("{0} is cooling")]
    Cooling(Ipv4Addr),
    #[error("{0} is not an address of this node")]
    Unknown(Ipv4Addr),
    #[error("{0} already belongs to another interface")]
    Elsewhere(Ipv4Addr),
}

/// The rest of an address: when it ends, and how long it was when it began. The period goes with it, because the one in
/// force may be another by the time that a journal is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    pub until: Timestamp,
    pub period: Duration,
}

#[derive(Debug, Clone)]
struct Entry {
    home: Option<BlockId>,
    holding: Holding,
}

impl Entry {
    fn is_of(&self, eni: &EniId) -> bool {
        self.home.as_ref().is_some_and(|home| home.eni == *eni)
    }
}

#[derive(Debug, Clone)]
enum Holding {
    Free,
    Withdrawn,
    Assigned { key: AttachmentKey, pod: PodRef, since: Timestamp, eni: EniId },
    Cooling(Rest),
}

/// The addresses of one node. See the module for what it promises.
#[derive(Debug, Clone)]
pub struct Ledger {
    cooldown: Duration,
    addressing: Addressing,
    books: BTreeMap<EniId, Book>,
    entries: HashMap<Ipv4Addr, Entry>,
    keys: HashMap<AttachmentKey, Ipv4Addr>,
    cooling: BTreeSet<(Timestamp, Ipv4Addr)>,
}

impl Ledger {
    pub fn new(cooldown: Duration) -> Self {
        Self {
            cooldown,
            addressing: Addressing::default(),
            books: BTreeMap::new(),
            entries: HashMap::new(),
            keys: HashMap::new(),
            cooling: BTreeSet::new(),
        }
    }

    /// Rest of addresses released from now on.
    pub fn set_cooldown(&mut self, cooldown: Duration) {
        self.cooldown = cooldown;
    }

    /// Which kind of slot to fill first; the other kind still serves when nothing else is left.
    pub fn set_addressing(&mut self, addressing: Addressing) {
        self.addressing = addressing;
    }

    // ---- interfaces ------------------------------------------------------------------------------------------------

    /// Enters an interface, closed: its addresses can be entered, none is given out before [`Self::open`].
    pub fn add_eni(&mut self, eni: &EniId, device_index: u32) {
        self.books.entry(eni.clone()).or_insert_with(|| Book::new(device_index)).device_index = device_index;
    }

    /// Lets pods have addresses of `eni` (or stops that). Leases are untouched.
    pub fn set_open(&mut self, eni: &EniId, open: bool) {
        if let Some(book) = self.books.get_mut(eni) {
            book.open = open;
        }
    }

    /// The interfaces whose addresses pods get only when no other has one: they are to run empty.
    pub fn set_draining(&mut self, enis: &[EniId]) {
        for (eni, book) in &mut self.books {
            book.draining = enis.contains(eni);
        }
    }

    /// The interfaces whose addresses no pod gets, although they are open otherwise.
    pub fn set_closed(&mut self, enis: &[EniId]) {
        for (eni, book) in &mut self.books {
            book.closed = enis.contains(eni);
        }
    }

    /// Whether pods can get addresses of `eni`.
    pub fn gives(&self, eni: &EniId) -> bool {
        self.books.get(eni).is_some_and(|book| book.open && !book.closed)
    }

    /// Whether nothing of `eni` is held by a pod or cooling.
    pub fn is_idle(&self, eni: &EniId) -> bool {
        self.counts(eni).is_none_or(|counts| counts.assigned == 0 && counts.cooling == 0)
    }

    /// Forgets an interface and its addresses. Leases on them become [strays](Self::strays).
    pub fn remove_eni(&mut self, eni: &EniId) {
        let Some(book) = self.books.remove(eni) else { return };
        for address in book.addresses() {
            self.orphan(address);
        }
    }

    /// Enters secondary addresses that `eni` holds. A stray lease of such an address has a home again.
    ///
    /// One that cannot be entered keeps none of the others out; the error names the first such.
    pub fn add_addresses(&mut self, eni: &EniId, addresses: &[Ipv4Addr]) -> Result<(), LedgerError> {
        self.enter_all(&BlockId { eni: eni.clone(), prefix: None }, addresses.iter().copied())
    }

    /// Enters /28 prefixes that `eni` holds, as [`Self::add_addresses`] does.
    pub fn add_prefixes(&mut self, eni: &EniId, prefixes: &[Prefix]) -> Result<(), LedgerError> {
        let mut entered = Ok(());
        for prefix in prefixes {
            let of_this = self.enter_all(&BlockId { eni: eni.clone(), prefix: Some(*prefix) }, prefix.addresses());
            entered = entered.and(of_this);
        }
        entered
    }

    fn enter_all(&mut self, home: &BlockId, addresses: impl Iterator<Item = Ipv4Addr>) -> Result<(), LedgerError> {
        let mut entered = Ok(());
        for address in addresses {
            let this = self.enter(home, address);
            entered = entered.and(this);
        }
        entered
    }

    /// Sets addresses aside that are about to be taken from the interface: all of them, or none when one is in use.
    pub fn withdraw(&mut self, addresses: &[Ipv4Addr], now: Timestamp) -> Result<(), LedgerError> {
        self.expire(now);
        for address in addresses {
            match self.entries.get(address).map(|entry| &entry.holding) {
                None => return Err(LedgerError::Unknown(*address)),
                Some(Holding::Assigned { key, .. }) => {
                    return Err(LedgerError::Held { address: *address, holder: key.clone() });
                }
                Some(Holding::Cooling(_)) => return Err(LedgerError::Cooling(*address)),
                Some(Holding::Free | Holding::Withdrawn) => {}
            }
        }
        for address in addresses {
            self.change(*address, Holding::Withdrawn);
        }
        Ok(())
    }

    /// Sets aside an address of `eni` of which it is not sure that the interface still holds it, also one that rests. A
    /// pod's stays the pod's, another interface's the other's.
    pub fn set_aside(&mut self, eni: &EniId, address: Ipv4Addr) {
        if let Some(entry) = self.entries.get(&address)
            && entry.is_of(eni)
            && !matches!(entry.holding, Holding::Assigned { .. })
        {
            self.change(address, Holding::Withdrawn);
        }
    }

    /// Gives withdrawn addresses of `eni` back to the pool: they were not taken from it after all.
    pub fn restore(&mut self, eni: &EniId, addresses: &[Ipv4Addr]) {
        for address in addresses {
            if self
                .entries
                .get(address)
                .is_some_and(|entry| entry.is_of(eni) && entry.holding.mark() == Mark::Withdrawn)
            {
                self.change(*address, Holding::Free);
            }
        }
    }

    /// Forgets addresses that `eni` holds no more; what another interface holds stays. A pod that holds one keeps its
    /// lease, as a stray.
    pub fn lose(&mut self, eni: &EniId, addresses: &[Ipv4Addr]) {
        for address in addresses {
            if self.entries.get(address).is_some_and(|entry| entry.is_of(eni)) {
                self.orphan(*address);
            }
        }
    }

    // ---- pods ------------------------------------------------------------------------------------------------------

    /// Gives `key` an address: the one it has, or a free one of the fullest place, so that other places run empty and
    /// can be given back. Within a place the address that has rested longest.
    pub fn acquire(&mut self, key: &AttachmentKey, pod: &PodRef, now: Timestamp) -> Acquired {
        if let Some(lease) = self.lookup(key) {
            return Acquired::Again(lease);
        }
        self.expire(now);
        let best = self
            .books
            .iter()
            .filter(|(_, book)| book.open && !book.closed)
            .filter_map(|(eni, book)| book.best(self.addressing).map(|(rank, prefix)| (rank, eni, prefix)))
            .max_by(|a, b| a.0.cmp(&b.0));
        let Some((_, eni, prefix)) = best else { return Acquired::Empty };
        let eni = eni.clone();
        let Some(address) = self.books.get(&eni).and_then(|book| book.next(prefix)) else { return Acquired::Empty };
        self.change(address, Holding::Assigned { key: key.clone(), pod: pod.clone(), since: now, eni });
        self.keys.insert(key.clone(), address);
        self.lookup(key).map_or(Acquired::Empty, Acquired::New)
    }

    /// Enters a lease that exists already: from the journal, or from what the kernel shows.
    pub fn adopt(
        &mut self,
        key: AttachmentKey,
        pod: PodRef,
        address: Ipv4Addr,
        eni: EniId,
        since: Timestamp,
    ) -> Result<(), LedgerError> {
        if let Some(Entry { holding: Holding::Assigned { key: holder, .. }, .. }) = self.entries.get(&address) {
            if *holder == key {
                return Ok(());
            }
            return Err(LedgerError::Held { address, holder: holder.clone() });
        }
        if let Some(held) = self.keys.get(&key) {
            return Err(LedgerError::Held { address: *held, holder: key });
        }
        self.entries.entry(address).or_insert(Entry { home: None, holding: Holding::Free });
        self.keys.insert(key.clone(), address);
        self.change(address, Holding::Assigned { key, pod, since, eni });
        Ok(())
    }

    /// Takes the address from `key`; it rests as the answer says. `None`: `key` holds nothing, which is fine.
    pub fn release(&mut self, key: &AttachmentKey, now: Timestamp) -> Option<(Lease, Rest)> {
        let lease = self.lookup(key)?;
        let rest = Rest { until: now.plus(self.cooldown), period: self.cooldown };
        self.keys.remove(key);
        self.change(lease.address, Holding::Cooling(rest));
        Some((lease, rest))
    }

    /// Takes back a lease of which nobody has heard: its address is free at once.
    pub fn undo(&mut self, key: &AttachmentKey) {
        if let Some(address) = self.keys.remove(key) {
            self.change(address, Holding::Free);
        }
    }

    /// Lets an address rest, as a journal said; it need not belong to an interface (yet). In use: nothing happens. An end
    /// further away than the rest's own period (the clock was set back) is cut to that, never to the period in force: that
    /// one may be shorter, or not yet known.
    pub fn cool(&mut self, address: Ipv4Addr, rest: Rest, now: Timestamp) {
        let rest = Rest { until: rest.until.min(now.plus(rest.period)), ..rest };
        if rest.until > now {
            let entry = self.entries.entry(address).or_insert(Entry { home: None, holding: Holding::Free });
            if matches!(entry.holding, Holding::Free) {
                self.change(address, Holding::Cooling(rest));
            }
        }
    }

    /// Frees every address whose rest is over. Returns how many.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let mut freed = 0;
        while let Some((until, address)) = self.cooling.first().copied().filter(|(until, _)| *until <= now) {
            self.cooling.remove(&(until, address));
            self.change(address, Holding::Free);
            if self.entries.get(&address).is_some_and(|entry| entry.home.is_none()) {
                self.entries.remove(&address);
            }
            freed += 1;
        }
        freed
    }

    /// When the next cooling address becomes free.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.cooling.first().map(|(until, _)| *until)
    }

    // ---- inside ----------------------------------------------------------------------------------------------------

    fn enter(&mut self, home: &BlockId, address: Ipv4Addr) -> Result<(), LedgerError> {
        if !self.books.contains_key(&home.eni) {
            return Err(LedgerError::Unknown(address));
        }
        let entry = self.entries.entry(address).or_insert(Entry { home: None, holding: Holding::Free });
        match &entry.home {
            Some(there) if there == home => return Ok(()),
            Some(_) => return Err(LedgerError::Elsewhere(address)),
            None => {}
        }
        if let Holding::Assigned { eni, .. } = &mut entry.holding {
            eni.clone_from(&home.eni);
        }
        let mark = entry.holding.mark();
        entry.home = Some(home.clone());
        self.block(home).insert(address, mark);
        Ok(())
    }

    /// Takes the address out of its block. A lease stays as a stray, and so does a rest: should the address come back
    /// soon, it is not fresh.
    fn orphan(&mut self, address: Ipv4Addr) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let mark = entry.holding.mark();
        let home = entry.home.take();
        if matches!(mark, Mark::Free | Mark::Withdrawn) {
            self.entries.remove(&address);
        }
        if let Some(home) = home
            && let Some(book) = self.books.get_mut(&home.eni)
        {
            book.remove(home.prefix, address, mark);
        }
    }

    /// The only place where an address changes its state: entry, block and cooling queue stay of one mind.
    fn change(&mut self, address: Ipv4Addr, to: Holding) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if let Holding::Cooling(Rest { until, .. }) = entry.holding {
            self.cooling.remove(&(until, address));
        }
        if let Holding::Cooling(Rest { until, .. }) = to {
            self.cooling.insert((until, address));
        }
        let (from, into) = (entry.holding.mark(), to.mark());
        entry.holding = to;
        if let Some(home) = entry.home.clone()
            && let Some(block) = self.books.get_mut(&home.eni).and_then(|book| book.block(home.prefix))
        {
            block.change(address, from, into);
        }
    }

    fn block(&mut self, home: &BlockId) -> &mut Block {
        self.books.entry(home.eni.clone()).or_insert_with(|| Book::new(0)).block_or_new(home.prefix)
    }
}

impl Holding {
    fn mark(&self) -> Mark {
        match self {
            Self::Free => Mark::Free,
            Self::Withdrawn => Mark::Withdrawn,
            Self::Assigned { .. } => Mark::Assigned,
            Self::Cooling(_) => Mark::Cooling,
        }
    }

    fn view(&self) -> AddressState {
        match self {
            Self::Free => AddressState::Free,
            Self::Withdrawn => AddressState::Withdrawn,
            Self::Assigned { key, pod, since, .. } => {
                AddressState::Assigned { key: key.clone(), pod: pod.clone(), since: *since }
            }
            Self::Cooling(rest) => AddressState::Cooling { until: rest.until },
        }
    }
}
