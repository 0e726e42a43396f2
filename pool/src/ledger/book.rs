//! The addresses of one interface in blocks (its single addresses, and each prefix), counted and ranked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use crate::address::Prefix;
use crate::id::EniId;
use crate::node::{EniFit, Preference, SlotFit, preference};
use crate::targets::Addressing;

/// Where an address belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockId {
    pub(super) eni: EniId,
    pub(super) prefix: Option<Prefix>,
}

/// State of an address without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Free,
    Withdrawn,
    Assigned,
    Cooling,
}

/// How many addresses are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u32,
    pub assigned: u32,
    pub cooling: u32,
    /// Being taken back from the interface.
    pub withdrawn: u32,
}

impl Counts {
    /// Addresses that a pod can have now (if their interface is open).
    pub fn free(self) -> u32 {
        self.total.saturating_sub(self.assigned).saturating_sub(self.cooling).saturating_sub(self.withdrawn)
    }

    /// In use or resting: cannot be given back now.
    pub fn held(self) -> u32 {
        self.assigned.saturating_add(self.cooling)
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_add(other.total),
            assigned: self.assigned.saturating_add(other.assigned),
            cooling: self.cooling.saturating_add(other.cooling),
            withdrawn: self.withdrawn.saturating_add(other.withdrawn),
        }
    }

    fn counter(&mut self, mark: Mark) -> Option<&mut u32> {
        match mark {
            Mark::Free => None,
            Mark::Withdrawn => Some(&mut self.withdrawn),
            Mark::Assigned => Some(&mut self.assigned),
            Mark::Cooling => Some(&mut self.cooling),
        }
    }

    fn add(&mut self, mark: Mark) {
        if let Some(counter) = self.counter(mark) {
            *counter = counter.saturating_add(1);
        }
    }

    fn subtract(&mut self, mark: Mark) {
        if let Some(counter) = self.counter(mark) {
            *counter = counter.saturating_sub(1);
        }
    }
}

/// The single addresses of an interface, or one of its prefixes.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    /// In the order in which pods get them: what was released last comes last.
    free: VecDeque<Ipv4Addr>,
    members: BTreeSet<Ipv4Addr>,
    counts: Counts,
}

impl Block {
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.members.iter().copied()
    }

    pub(super) fn insert(&mut self, address: Ipv4Addr, mark: Mark) {
        if self.members.insert(address) {
            self.counts.total = self.counts.total.saturating_add(1);
            self.counts.add(mark);
            if mark == Mark::Free {
                self.free.push_back(address);
            }
        }
    }

    pub(super) fn change(&mut self, address: Ipv4Addr, from: Mark, to: Mark) {
        if from == to || !self.members.contains(&address) {
            return;
        }
        if from == Mark::Free {
            self.drop_free(address);
        }
        if to == Mark::Free {
            self.free.push_back(address);
        }
        self.counts.subtract(from);
        self.counts.add(to);
    }

    fn remove(&mut self, address: Ipv4Addr, mark: Mark) {
        if self.members.remove(&address) {
            self.counts.total = self.counts.total.saturating_sub(1);
            self.counts.subtract(mark);
            if mark == Mark::Free {
                self.drop_free(address);
            }
        }
    }

    fn drop_free(&mut self, address: Ipv4Addr) {
        // Nearly always the front: that is where addresses are taken from.
        if let Some(position) = self.free.iter().position(|free| *free == address) {
            self.free.remove(position);
        }
    }
}

/// The addresses of one interface.
#[derive(Debug, Clone)]
pub(super) struct Book {
    pub(super) device_index: u32,
    pub(super) open: bool,
    pub(super) draining: bool,
    pub(super) closed: bool,
    singles: Block,
    prefixes: BTreeMap<Prefix, Block>,
}

impl Book {
    pub(super) fn new(device_index: u32) -> Self {
        Self {
            device_index,
            open: false,
            draining: false,
            closed: false,
            singles: Block::default(),
            prefixes: BTreeMap::new(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.blocks().map(|(_, block)| block.counts).fold(Counts::default(), Counts::plus)
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = (Option<Prefix>, &Block)> {
        std::iter::once((None, &self.singles)).chain(self.prefixes.iter().map(|(prefix, block)| (Some(*prefix), block)))
    }

    pub(super) fn addresses(&self) -> Vec<Ipv4Addr> {
        self.blocks().flat_map(|(_, block)| block.members()).collect()
    }

    pub(super) fn free_singles(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.singles.free.iter().rev().copied()
    }

    pub(super) fn block(&mut self, prefix: Option<Prefix>) -> Option<&mut Block> {
        match prefix {
            None => Some(&mut self.singles),
            Some(prefix) => self.prefixes.get_mut(&prefix),
        }
    }

    pub(super) fn block_or_new(&mut self, prefix: Option<Prefix>) -> &mut Block {
        match prefix {
            None => &mut self.singles,
            Some(prefix) => self.prefixes.entry(prefix).or_default(),
        }
    }

    pub(super) fn remove(&mut self, prefix: Option<Prefix>, address: Ipv4Addr, mark: Mark) {
        if let Some(block) = self.block(prefix) {
            block.remove(address, mark);
            if let Some(prefix) = prefix
                && self.prefixes.get(&prefix).is_some_and(|block| block.members.is_empty())
            {
                self.prefixes.remove(&prefix);
            }
        }
    }

    /// The best block with a free address, and how good it is by the planner's rule.
    pub(super) fn best(&self, addressing: Addressing) -> Option<(Preference, Option<Prefix>)> {
        let eni = EniFit {
            primary: self.device_index == 0,
            draining: self.draining,
            device_index: self.device_index,
            held: self.counts().held(),
        };
        self.blocks()
            .filter(|(_, block)| !block.free.is_empty())
            .map(|(prefix, block)| {
                let slot = match prefix {
                    None => SlotFit::Single,
                    Some(_) => SlotFit::Prefix { held: block.counts.held() },
                };
                (preference(eni, slot, addressing), prefix)
            })
            .max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)))
    }

    /// The free address of a block that has rested longest.
    pub(super) fn next(&self, prefix: Option<Prefix>) -> Option<Ipv4Addr> {
        match prefix {
            None => self.singles.free.front().copied(),
            Some(prefix) => self.prefixes.get(&prefix)?.free.front().copied(),
        }
    }
}
