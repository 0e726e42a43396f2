//! Getting more: what to assign where, when to make another interface, and why less than asked.
//!
//! In order of cost: assign into free slots, make slots free of the kind that is no longer wanted, attach what exists,
//! create. What is on its way already is waited for, never asked for twice.

use super::action::{Action, Hold, HoldReason, Planned, Purpose};
use super::memory::{Block, Call, Kind, PlannerMemory};
use super::need::Need;
use super::picture::{Picture, count};
use super::snapshot::{EniRole, EniView, Snapshot};
use crate::address::Prefix;
use crate::ec2::Supply;
use crate::id::SubnetId;
use crate::targets::Addressing;
use crate::time::Timestamp;

/// One round of growing.
#[derive(Debug)]
pub(super) struct Growth<'a, 's> {
    pub(super) picture: &'a mut Picture<'s>,
    pub(super) snapshot: &'s Snapshot,
    pub(super) memory: &'a PlannerMemory,
    pub(super) need: &'a Need,
    pub(super) now: Timestamp,
    pub(super) actions: Vec<Planned>,
    pub(super) holds: Vec<Hold>,
    /// Addresses that serve once everything so far is done.
    pub(super) covered: u32,
    /// Addresses up to the ceiling, whatever those below it are good for.
    pub(super) room: u32,
}

/// Why something could not be placed.
#[derive(Debug, Clone)]
struct Obstacle {
    reason: HoldReason,
    until: Option<Timestamp>,
    subnet: Option<SubnetId>,
}

impl Growth<'_, '_> {
    pub(super) fn run(&mut self) {
        self.reattach();
        match self.picture.addressing {
            Addressing::Secondary => {
                let missing = self.need.addresses.saturating_sub(self.picture.supply_soon());
                let hold = self.place(Kind::Single, missing);
                self.hold(hold);
            }
            Addressing::Prefix => self.prefixes(),
            Addressing::Mixed => self.mixed(),
        }
    }

    /// An interface that carries pods' addresses and lost its attachment comes back first.
    fn reattach(&mut self) {
        if self.memory.blocked(Call::Attach, self.now).is_some() {
            return;
        }
        while self.picture.free_devices > 0
            && let Some(at) = self.picture.detached.iter().position(|eni| eni.addresses().held() > 0)
        {
            let eni: &EniView = self.picture.detached.swap_remove(at);
            let action = if self.fits(eni) {
                Some(Action::Attach { eni: eni.id.clone(), device_index: self.take_device() })
            } else {
                self.surplus(eni)
            };
            self.actions.extend(action.map(|action| Planned { action, purpose: Purpose::Demand }));
        }
    }

    /// EC2 bounds what an interface holds by the instance's type only where it is attached. One that was given more while
    /// it was not could never be attached.
    fn fits(&self, eni: &EniView) -> bool {
        eni.slots_taken() <= self.snapshot.capacity.slots_per_eni
    }

    /// Gives back what keeps the interface from being attached, one call at a time; `None`: not now, or pods have it all.
    fn surplus(&self, eni: &EniView) -> Option<Action> {
        let leaving = eni.singles_leaving > 0 || eni.prefixes.iter().any(|prefix| prefix.leaving);
        if leaving || self.memory.blocked(Call::Unassign, self.now).is_some() {
            return None;
        }
        let surplus = eni.slots_taken().saturating_sub(self.snapshot.capacity.slots_per_eni);
        let singles = surplus.min(eni.singles.free);
        let empty = eni.prefixes.iter().filter(|prefix| prefix.counts.held() == 0).map(|prefix| prefix.prefix);
        let prefixes: Vec<Prefix> = empty.take((surplus - singles) as usize).collect();
        let any = singles > 0 || !prefixes.is_empty();
        any.then(|| Action::Unassign { eni: eni.id.clone(), singles, prefixes })
    }

    fn prefixes(&mut self) {
        let missing = self.need.prefixes.saturating_sub(self.picture.prefixes() + self.picture.coming_prefixes());
        let slots: u32 = self.picture.places.iter().filter(|p| p.keep).map(|p| p.free_slots).sum();
        let no_prefix = self.place(Kind::Prefix, missing);
        // No /28 left, or only a part of one allowed: single addresses for the pods, and a few ahead of them. They take
        // slots that prefixes will want back, hence at most every second one.
        let warm = self.need.addresses.saturating_sub(self.need.demand).min(slots / 2);
        let wanted = self.need.demand + if refused_by_subnet(no_prefix.as_ref()) { warm } else { 0 };
        let hold = self.place(Kind::Single, wanted.saturating_sub(self.covered));
        self.hold(no_prefix);
        self.hold(hold);
    }

    fn mixed(&mut self) {
        let missing = self.need.addresses.saturating_sub(self.picture.supply_soon());
        if missing == 0 {
            return;
        }
        let slots_per_eni = self.snapshot.capacity.slots_per_eni;
        let attached: u32 = self.picture.places.iter().filter(|p| p.keep).map(|p| p.free_slots).sum();
        let attached = attached + self.picture.arriving_free_slots;
        let possible = attached + self.picture.free_devices * slots_per_eni;
        let (mut prefixes, mut singles) = (missing / Prefix::SIZE, missing % Prefix::SIZE);
        let slots_left = possible.saturating_sub(prefixes + singles);
        let pods_left = self.need.max_pods.saturating_sub(self.need.addresses);
        let fits = prefixes + singles <= attached;
        let leaves_room = slots_left.saturating_mul(Prefix::SIZE) >= pods_left;
        let allowed = self.picture.supply_soon() + (prefixes + 1) * Prefix::SIZE <= self.need.most;
        if singles > 0 && !(fits && leaves_room) && allowed {
            // Another /28 instead of another interface, or instead of the slots that later prefixes will need.
            prefixes += 1;
            singles = 0;
        }
        let no_prefix = self.place(Kind::Prefix, prefixes);
        if refused_by_subnet(no_prefix.as_ref()) {
            singles = self.need.addresses.saturating_sub(self.covered);
        }
        let hold = self.place(Kind::Single, singles);
        self.hold(no_prefix);
        self.hold(hold);
    }

    /// Finds places for `wanted` more of `kind`; answers what keeps some from finding one.
    fn place(&mut self, kind: Kind, wanted: u32) -> Option<Hold> {
        if wanted == 0 {
            return None;
        }
        let mut left = wanted;
        let mut obstacle = None;
        self.assign(kind, &mut left, &mut obstacle);
        self.wait_for_attaching(kind, &mut left, &mut obstacle);
        if left > 0 {
            self.convert(kind, &mut left);
        }
        if left > 0 {
            self.attach(kind, &mut left);
        }
        while left > 0 && self.create(kind, &mut left, &mut obstacle) {}
        if left > 0 && self.room < unit(kind) {
            self.make_room(kind, &mut left);
            obstacle = Some(Obstacle { reason: HoldReason::Ceiling, until: None, subnet: None });
        }
        let Obstacle { reason, until, subnet } = obstacle.filter(|_| left > 0)?;
        Some(Hold { reason, purpose: self.purpose(), addresses: left * unit(kind), subnet, until })
    }

    /// Notes a hold, by what it means now that all else is planned.
    fn hold(&mut self, hold: Option<Hold>) {
        let purpose = self.purpose();
        self.holds.extend(hold.map(|hold| Hold { purpose, ..hold }));
    }

    fn assign(&mut self, kind: Kind, left: &mut u32, obstacle: &mut Option<Obstacle>) {
        let blocked = self.memory.blocked(Call::Assign, self.now);
        for index in 0..self.picture.places.len() {
            let place = &self.picture.places[index];
            if *left == 0 || !place.keep || !place.ready() || place.free_slots == 0 {
                continue;
            }
            let subnet = &place.eni.subnet;
            if let Some(block) = self.memory.subnet_blocked(subnet, kind, self.now) {
                *obstacle = Some(Obstacle::of(block, Some(subnet)));
                continue;
            }
            if let Some(block) = blocked {
                *obstacle = Some(Obstacle::of(block, None));
                // Soon these slots can be filled: no reason for another interface, unless it is never.
                if block.reason != HoldReason::AccessDenied {
                    let waits = (*left).min(place.free_slots);
                    *left -= waits;
                    self.picture.places[index].free_slots -= waits;
                    self.wait(block.reason, kind, waits, Some(block.until));
                }
                continue;
            }
            let coming = if kind == Kind::Single { place.coming_singles } else { place.coming_prefixes };
            let most = if coming > 0 { 0 } else { self.memory.at_most(subnet, kind) };
            let count = (*left).min(place.free_slots).min(most).min(self.room / unit(kind));
            let waits = if self.room / unit(kind) == count { 0 } else { (*left - count).min(place.free_slots - count) };
            let eni = place.eni.id.clone();
            // A slot that waits for one kind is not filled with the other.
            self.picture.places[index].free_slots -= count + waits;
            if count > 0 {
                self.act(Action::Assign { eni, supply: supply(kind, count) }, count * unit(kind));
                let place = &mut self.picture.places[index];
                match kind {
                    Kind::Single => place.coming_singles += count,
                    Kind::Prefix => place.coming_prefixes += count,
                }
            }
            if waits > 0 {
                self.wait(HoldReason::AssignInFlight, kind, waits, None);
            }
            *left -= count + waits;
        }
    }

    /// Slots of interfaces that are on their way: an Assign into them is sooner done than another interface.
    fn wait_for_attaching(&mut self, kind: Kind, left: &mut u32, obstacle: &mut Option<Obstacle>) {
        let mut waits = take(left, &mut self.picture.arriving_free_slots);
        for place in self.picture.places.iter_mut().filter(|place| place.keep && !place.ready()) {
            match self.memory.subnet_blocked(&place.eni.subnet, kind, self.now) {
                Some(block) => *obstacle = Some(Obstacle::of(block, Some(&place.eni.subnet))),
                None => waits += take(left, &mut place.free_slots),
            }
        }
        if waits > 0 {
            self.wait(HoldReason::AttachInFlight, kind, waits, None);
        }
    }

    /// Interfaces of ours that exist without being attached.
    fn attach(&mut self, kind: Kind, left: &mut u32) {
        if self.memory.blocked(Call::Attach, self.now).is_some() {
            return;
        }
        let slots = self.snapshot.capacity.slots_per_eni;
        while let Some(at) = self.picture.detached.iter().position(|eni| eni.role == EniRole::Pods && self.fits(eni)) {
            if *left == 0 || self.picture.free_devices == 0 {
                return;
            }
            let eni: &EniView = self.picture.detached.swap_remove(at);
            let (device_index, addresses) = (self.take_device(), eni.addresses().free);
            self.act(Action::Attach { eni: eni.id.clone(), device_index }, addresses);
            let brings = match kind {
                Kind::Single => addresses,
                Kind::Prefix => count(eni.prefixes.iter()),
            };
            let room = slots.saturating_sub(eni.slots_taken());
            let waits = left.saturating_sub(brings).min(room);
            *left -= (*left).min(brings + room);
            self.picture.arriving_free_slots += room - waits;
            if waits > 0 {
                self.wait(HoldReason::AttachInFlight, kind, waits, None);
            }
        }
    }

    /// One more interface; answers whether it is worth trying another.
    fn create(&mut self, kind: Kind, left: &mut u32, obstacle: &mut Option<Obstacle>) -> bool {
        if let Some(block) = self.memory.blocked(Call::Attach, self.now) {
            *obstacle = Some(Obstacle::of(block, None));
            return false;
        }
        if self.picture.free_devices == 0 {
            let turn = self.picture.devices_awaiting_turn > 0;
            let reason = if turn { HoldReason::AwaitingTurn } else { HoldReason::InstanceLimit };
            // A subnet's refusal says more than the limit behind it: with a /28 there, no interface would be missing.
            obstacle.get_or_insert(Obstacle { reason, until: None, subnet: None });
            return false;
        }
        let (memory, now) = (self.memory, self.now);
        let mut candidates = self.snapshot.subnets_in_order().peekable();
        if candidates.peek().is_none() {
            *obstacle = Some(Obstacle { reason: HoldReason::NoSubnet, until: None, subnet: None });
            return false;
        }
        let mut open = None;
        for subnet in candidates {
            match memory.subnet_blocked(subnet, kind, now) {
                None => {
                    open = Some(subnet);
                    break;
                }
                Some(block) => *obstacle = Some(Obstacle::of(block, Some(subnet))),
            }
        }
        let Some(subnet) = open.cloned() else { return false };
        let slots = self.snapshot.capacity.slots_per_eni;
        let count = (*left).min(slots).min(self.memory.at_most(&subnet, kind)).min(self.room / unit(kind));
        if count == 0 {
            return false;
        }
        let device_index = self.take_device();
        self.act(Action::Create { subnet, device_index, supply: supply(kind, count) }, count * unit(kind));
        // Asked for less than there is room for: the rest is tried when this has worked.
        let waits = if self.room < unit(kind) { 0 } else { (*left - count).min(slots - count) };
        if waits > 0 {
            self.wait(HoldReason::AttachInFlight, kind, waits, None);
        }
        *left -= count + waits;
        self.picture.arriving_free_slots += slots - count - waits;
        true
    }

    fn take_device(&mut self) -> u32 {
        self.picture.free_devices -= 1;
        self.picture.take_index()
    }

    /// Adds an action that brings `addresses`.
    pub(super) fn act(&mut self, action: Action, addresses: u32) {
        let purpose = self.purpose();
        if matches!(action, Action::Assign { .. } | Action::Create { .. }) {
            self.room -= addresses.min(self.room);
        }
        if let Action::Unassign { eni, singles, prefixes } = &action
            && let Some(place) = self.picture.places.iter_mut().find(|place| place.eni.id == *eni)
        {
            place.giving += singles + count(prefixes.iter()) * Prefix::SIZE;
        }
        self.covered += addresses;
        self.actions.push(Planned { action, purpose });
    }

    /// Slots that will be filled later count as covered: nothing else need be done for them.
    pub(super) fn wait(&mut self, reason: HoldReason, kind: Kind, slots: u32, until: Option<Timestamp>) {
        let purpose = self.purpose();
        self.covered += slots * unit(kind);
        self.holds.push(Hold { reason, purpose, addresses: slots * unit(kind), subnet: None, until });
    }

    fn purpose(&self) -> Purpose {
        if self.covered < self.need.demand {
            Purpose::Demand
        } else if self.covered < self.need.minimum {
            Purpose::Minimum
        } else {
            Purpose::Warm
        }
    }
}

impl Obstacle {
    fn of(block: Block, subnet: Option<&SubnetId>) -> Self {
        Self { reason: block.reason, until: Some(block.until), subnet: subnet.cloned() }
    }
}

/// As many slots as are wanted and free.
fn take(left: &mut u32, slots: &mut u32) -> u32 {
    let taken = (*left).min(*slots);
    *left -= taken;
    *slots -= taken;
    taken
}

fn refused_by_subnet(hold: Option<&Hold>) -> bool {
    hold.is_some_and(|hold| matches!(hold.reason, HoldReason::NoContiguousPrefix | HoldReason::SubnetExhausted))
}

pub(super) fn unit(kind: Kind) -> u32 {
    match kind {
        Kind::Single => 1,
        Kind::Prefix => Prefix::SIZE,
    }
}

fn supply(kind: Kind, count: u32) -> Supply {
    match kind {
        Kind::Single => Supply::Addresses(count),
        Kind::Prefix => Supply::Prefixes(count),
    }
}
