//! Getting more: what to assign where, when to make another interface, and why less than asked.
//!
//! In order of cost: assign into free slots, make slots free of the kind that is no longer wanted, attach what exists,
//! create. What is on its way already is waited for, never asked for twice.

use super::action::{Action, Hold, HoldReason, Planned, Purpose};
use super::memory::{Block, Call, Kind, PlannerMemory};
use super::need::Need;
use super::picture::{Arriving, Picture, count};
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
    /// What makes more room below it when its Unassign is done, and is not promised to anything yet.
    pub(super) leaving: u32,
    /// Slots, on interfaces that are yet to come, for what waits for room below the ceiling.
    pub(super) owed: u32,
}

/// So many more of one kind, until they have found a place or what is in the way is known.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) kind: Kind,
    /// Without a slot so far.
    pub(super) left: u32,
    /// There are slots for these, but no room below the ceiling.
    pub(super) short: u32,
    /// What was met last on the way to a slot for those left.
    obstacle: Option<Obstacle>,
}

/// Why something could not be placed.
#[derive(Debug, Clone)]
pub(super) struct Obstacle {
    reason: HoldReason,
    until: Option<Timestamp>,
    subnet: Option<SubnetId>,
}

impl<'s> Growth<'_, 's> {
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
        let refused_by_subnet = no_prefix.iter().any(|hold| is_refused_by_subnet(hold.reason));
        let wanted = self.need.demand + if refused_by_subnet { warm } else { 0 };
        let no_single = self.place(Kind::Single, wanted.saturating_sub(self.covered));
        self.hold(no_prefix);
        self.hold(no_single);
    }

    fn mixed(&mut self) {
        let missing = self.need.addresses.saturating_sub(self.picture.supply_soon());
        if missing == 0 {
            return;
        }
        let slots_per_eni = self.snapshot.capacity.slots_per_eni;
        let kept = self.picture.places.iter().filter(|p| p.keep);
        let arriving = self.picture.arriving.iter().map(|arriving| arriving.free_slots);
        let attached: u32 = kept.map(|p| p.free_slots).chain(arriving).sum();
        let possible = attached + self.picture.free_devices * slots_per_eni;
        let (mut prefixes, mut singles) = (missing / Prefix::SIZE, missing % Prefix::SIZE);
        let slots_left = possible.saturating_sub(prefixes + singles);
        let pods_left = self.need.max_pods.saturating_sub(self.need.addresses);
        let fits = prefixes + singles <= attached;
        let leaves_room = slots_left.saturating_mul(Prefix::SIZE) >= pods_left;
        // Where no slot is free, each further /28 takes that of a single address that nobody uses, which makes room as well.
        let free_singles = self.picture.places.iter().filter(|p| p.keep).map(|p| p.eni.singles.free).sum::<u32>();
        let replaced = (prefixes + 1).saturating_sub(possible).min(free_singles);
        let allowed = (prefixes + 1) * Prefix::SIZE <= self.room + replaced;
        if singles > 0 && !(fits && leaves_room) && allowed {
            // Another /28 instead of another interface, or instead of the slots that later prefixes will need.
            prefixes += 1;
            singles = 0;
        }
        let no_prefix = self.place(Kind::Prefix, prefixes);
        let falls_back = |reason| is_refused_by_subnet(reason) || reason == HoldReason::Ceiling;
        if no_prefix.iter().any(|hold| falls_back(hold.reason)) {
            singles = self.need.addresses.saturating_sub(self.covered);
        }
        let no_single = self.place(Kind::Single, singles);
        self.hold(no_prefix);
        self.hold(no_single);
    }

    /// Finds places for `wanted` more of `kind`; answers what keeps some from finding one.
    fn place(&mut self, kind: Kind, wanted: u32) -> Vec<Hold> {
        let mut order = Order { kind, left: wanted, short: 0, obstacle: None };
        self.assign(&mut order);
        self.wait_for_attaching(&mut order);
        self.claim(&mut order);
        self.convert(&mut order);
        self.attach(&mut order);
        while order.left > 0 && self.create(&mut order) {}
        if order.short > 0 {
            self.make_room(&mut order);
        }
        let ceiling = Obstacle { reason: HoldReason::Ceiling, until: None, subnet: None };
        let without_place = [(order.short, Some(ceiling)), (order.left, order.obstacle)];
        let purpose = self.purpose();
        let hold = |(count, obstacle): (u32, Option<Obstacle>)| {
            let Obstacle { reason, until, subnet } = obstacle.filter(|_| count > 0)?;
            Some(Hold { reason, purpose, addresses: count * unit(kind), subnet, until })
        };
        without_place.into_iter().filter_map(hold).collect()
    }

    /// Notes holds, by what they mean now that all else is planned.
    fn hold(&mut self, holds: Vec<Hold>) {
        let purpose = self.purpose();
        self.holds.extend(holds.into_iter().map(|hold| Hold { purpose, ..hold }));
    }

    /// Why no slot of an interface in `subnet` can be filled with `kind`.
    pub(super) fn refuses(&self, subnet: &SubnetId, kind: Kind) -> Option<Obstacle> {
        let block = self.memory.assign_refused(subnet, kind, self.now)?;
        Some(Obstacle::of(block, Some(subnet).filter(|_| block.reason != HoldReason::AccessDenied)))
    }

    fn assign(&mut self, order: &mut Order) {
        let kind = order.kind;
        let blocked = self.memory.blocked(Call::Assign, self.now);
        for index in 0..self.picture.places.len() {
            let place = &self.picture.places[index];
            if order.left == 0 || !place.keep || !place.ready() || place.free_slots == 0 {
                continue;
            }
            let subnet = &place.eni.subnet;
            if let Some(refusal) = self.refuses(subnet, kind) {
                order.obstacle = Some(refusal);
                continue;
            }
            if let Some(block) = blocked {
                order.obstacle = Some(Obstacle::of(block, None));
                // Soon these slots can be filled: no reason for another interface.
                let waits = self.wait_for(order, place.free_slots, block.reason, Some(block.until));
                self.picture.places[index].free_slots -= waits;
                continue;
            }
            let coming = if kind == Kind::Single { place.coming_singles } else { place.coming_prefixes };
            let most = if coming > 0 { 0 } else { self.memory.at_most(subnet, kind) };
            let count = order.left.min(place.free_slots).min(most).min(self.room_for(kind));
            let (eni, free_slots) = (place.eni.id.clone(), place.free_slots - count);
            if count > 0 {
                order.left -= count;
                self.act(Action::Assign { eni, supply: supply(kind, count) }, count * unit(kind));
                let place = &mut self.picture.places[index];
                match kind {
                    Kind::Single => place.coming_singles += count,
                    Kind::Prefix => place.coming_prefixes += count,
                }
            }
            // A slot that waits for one kind is not filled with the other.
            let waits = self.wait_for(order, free_slots, HoldReason::AssignInFlight, None);
            self.picture.places[index].free_slots = free_slots - waits;
        }
    }

    /// Free slots that may be filled with `kind` now or soon, and are not spoken for.
    pub(super) fn open_slots(&mut self, kind: Kind) -> impl Iterator<Item = &mut u32> {
        let (memory, now) = (self.memory, self.now);
        let kept = self.picture.places.iter_mut().filter(|place| place.keep);
        let kept = kept.map(|place| (&place.eni.subnet, &mut place.free_slots));
        let arriving = self.picture.arriving.iter_mut().map(|arriving| (arriving.subnet, &mut arriving.free_slots));
        let open = move |subnet: &SubnetId| memory.assign_refused(subnet, kind, now).is_none();
        kept.chain(arriving).filter(move |(subnet, _)| open(subnet)).map(|(_, slots)| slots)
    }

    /// Slots of interfaces that are on their way: an Assign into them is sooner done than another interface.
    fn wait_for_attaching(&mut self, order: &mut Order) {
        for index in 0..self.picture.arriving.len() {
            let Arriving { subnet, free_slots } = self.picture.arriving[index];
            self.picture.arriving[index].free_slots -= self.wait_to_assign(order, subnet, free_slots);
        }
        for index in 0..self.picture.places.len() {
            let place = &self.picture.places[index];
            if place.keep && !place.ready() {
                let (subnet, free_slots) = (&place.eni.subnet, place.free_slots);
                self.picture.places[index].free_slots -= self.wait_to_assign(order, subnet, free_slots);
            }
        }
    }

    /// The same for slots of an interface on its way; answers how many wait.
    fn wait_to_assign(&mut self, order: &mut Order, subnet: &SubnetId, free_slots: u32) -> u32 {
        if let Some(refusal) = self.refuses(subnet, order.kind) {
            order.obstacle = Some(refusal);
            return 0;
        }
        self.wait_for(order, free_slots, HoldReason::AttachInFlight, None)
    }

    /// Interfaces of ours that exist without being attached.
    fn attach(&mut self, order: &mut Order) {
        if self.memory.blocked(Call::Attach, self.now).is_some() {
            return;
        }
        let slots = self.snapshot.capacity.slots_per_eni;
        while let Some(at) = self.picture.detached.iter().position(|eni| eni.role == EniRole::Pods && self.fits(eni)) {
            if order.left + order.short == 0 || self.picture.free_devices == 0 {
                return;
            }
            let eni: &'s EniView = self.picture.detached.swap_remove(at);
            let (device_index, addresses) = (self.take_device(), eni.addresses().free);
            self.act(Action::Attach { eni: eni.id.clone(), device_index }, addresses);
            // What it brings is below the ceiling already.
            let mut brings = match order.kind {
                Kind::Single => addresses,
                Kind::Prefix => count(eni.prefixes.iter()),
            };
            take(&mut order.short, &mut brings);
            take(&mut order.left, &mut brings);
            let mut free_slots = slots.saturating_sub(eni.slots_taken());
            take(&mut self.owed, &mut free_slots);
            let waits = self.wait_to_assign(order, &eni.subnet, free_slots);
            self.picture.arriving.push(Arriving { subnet: &eni.subnet, free_slots: free_slots - waits });
        }
    }

    /// One more interface; answers whether it is worth trying another.
    fn create(&mut self, order: &mut Order) -> bool {
        let kind = order.kind;
        if let Some(block) = self.memory.blocked(Call::Attach, self.now) {
            order.obstacle = Some(Obstacle::of(block, None));
            return false;
        }
        if self.picture.free_devices == 0 {
            let turn = self.picture.devices_awaiting_turn > 0;
            let reason = if turn { HoldReason::AwaitingTurn } else { HoldReason::InstanceLimit };
            // A subnet's refusal says more than the limit behind it: with a /28 there, no interface would be missing.
            order.obstacle.get_or_insert(Obstacle { reason, until: None, subnet: None });
            return false;
        }
        let (memory, now) = (self.memory, self.now);
        let snapshot: &'s Snapshot = self.snapshot;
        let mut candidates = snapshot.subnets_in_order().peekable();
        if candidates.peek().is_none() {
            order.obstacle = Some(Obstacle { reason: HoldReason::NoSubnet, until: None, subnet: None });
            return false;
        }
        let mut open = None;
        for subnet in candidates {
            match memory.subnet_blocked(subnet, kind, now) {
                None => {
                    open = Some(subnet);
                    break;
                }
                Some(block) => order.obstacle = Some(Obstacle::of(block, Some(subnet))),
            }
        }
        let Some(subnet) = open else { return false };
        let slots = self.snapshot.capacity.slots_per_eni;
        let count = order.left.min(slots).min(self.memory.at_most(subnet, kind)).min(self.room_for(kind));
        if count == 0 {
            order.fall_short(self.picture.free_devices * slots);
            return false;
        }
        let device_index = self.take_device();
        order.left -= count;
        self.act(
            Action::Create { subnet: subnet.clone(), device_index, supply: supply(kind, count) },
            count * unit(kind),
        );
        // Asked for less than there is room for: the rest is tried when this has worked.
        let mut free_slots = slots - count;
        take(&mut self.owed, &mut free_slots);
        let waits = self.wait_to_assign(order, subnet, free_slots);
        self.picture.arriving.push(Arriving { subnet, free_slots: free_slots - waits });
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
        if let Action::Unassign { eni, singles, prefixes } = &action {
            let gives = singles + count(prefixes.iter()) * Prefix::SIZE;
            self.leaving += gives;
            if let Some(place) = self.picture.places.iter_mut().find(|place| place.eni.id == *eni) {
                place.giving += gives;
                place.leaving_slots += singles + count(prefixes.iter());
            }
        }
        self.covered += addresses;
        self.actions.push(Planned { action, purpose });
    }

    /// How many more of `kind` the ceiling allows.
    fn room_for(&self, kind: Kind) -> u32 {
        self.room / unit(kind)
    }

    /// Leaves as many of `slots` as are wanted, and as the ceiling has room for, to a later round; answers how many.
    fn wait_for(&mut self, order: &mut Order, slots: u32, reason: HoldReason, until: Option<Timestamp>) -> u32 {
        let waits = order.left.min(slots).min(self.room_for(order.kind));
        if waits > 0 {
            order.left -= waits;
            self.room -= waits * unit(order.kind);
            self.wait(reason, order.kind, waits, until);
        }
        if self.room_for(order.kind) == 0 {
            order.fall_short(slots - waits);
        }
        waits
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

impl Order {
    /// Of those left, as many as there are `slots` for have a slot, and no room.
    pub(super) fn fall_short(&mut self, slots: u32) {
        let short = self.left.min(slots);
        self.left -= short;
        self.short += short;
    }
}

impl Obstacle {
    fn of(block: Block, subnet: Option<&SubnetId>) -> Self {
        Self { reason: block.reason, until: Some(block.until), subnet: subnet.cloned() }
    }
}

/// As many slots as are wanted and free.
pub(super) fn take(left: &mut u32, slots: &mut u32) -> u32 {
    let taken = (*left).min(*slots);
    *left -= taken;
    *slots -= taken;
    taken
}

fn is_refused_by_subnet(reason: HoldReason) -> bool {
    matches!(reason, HoldReason::NoContiguousPrefix | HoldReason::SubnetExhausted)
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
