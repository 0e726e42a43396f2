//! Making room: what nobody uses gives way to what is needed, where slots or the ceiling leave no room for both.

use super::action::{Action, HoldReason};
use super::grow::{Growth, Order, take, unit};
use super::memory::{Call, Kind};
use super::picture::{Place, count};
use crate::address::Prefix;
use crate::targets::{Addressing, Operations};

impl Growth<'_, '_> {
    /// All slots are taken, some by what the addressing no longer wants and nobody uses: free those.
    pub(super) fn convert(&mut self, order: &mut Order) {
        let kind = order.kind;
        if self.snapshot.policy.operations != Operations::Normal {
            return;
        }
        // An empty /28 serves more pods than the single address that could take its slot, wherever it counts at all.
        if kind == Kind::Single && self.picture.addressing != Addressing::Secondary {
            return;
        }
        let blocked = self.memory.blocked(Call::Unassign, self.now).is_some();
        for index in 0..self.picture.places.len() {
            let place = &self.picture.places[index];
            let (eni, subnet) = (place.eni, &place.eni.subnet);
            if order.left == 0 || !place.keep || !place.ready() || self.refuses(subnet, kind).is_some() {
                continue;
            }
            let under_way = place.is_leaving();
            let candidates = if under_way || blocked {
                place.leaving_slots.min(order.left)
            } else {
                let spare = self.picture.spare();
                let careful = if self.memory.doubtful(subnet, kind) { 1 } else { u32::MAX };
                let most = order.left.min(careful);
                match kind {
                    Kind::Prefix => eni.singles.free.min(most).min(spare),
                    Kind::Single => count(place.empty_prefixes()).min(most).min(spare / Prefix::SIZE),
                }
            };
            // What gives way makes room as well.
            let gives = if under_way { 0 } else { replaces(kind) };
            let slots = candidates.min(self.room_later(kind, gives));
            if slots > 0 {
                if !under_way {
                    let (singles, prefixes) = match kind {
                        Kind::Prefix => (slots, Vec::new()),
                        Kind::Single => (0, place.empty_prefixes().take(slots as usize).collect()),
                    };
                    self.act(Action::Unassign { eni: eni.id.clone(), singles, prefixes }, 0);
                }
                self.picture.places[index].leaving_slots -= slots;
                order.left -= slots;
                self.promise(kind, slots);
            }
            order.fall_short(candidates - slots);
        }
    }

    /// The ceiling is reached, partly by free addresses that do not count: of the other kind, or where interfaces are to
    /// run empty. They go first; as many as pods may ask for meanwhile stay.
    pub(super) fn make_room(&mut self, order: &mut Order) {
        if self.unassign_for(order) {
            self.claim(order);
            // Then those for which something gives way, and those that wait for another interface.
            order.left += std::mem::take(&mut order.short);
            self.convert(order);
            order.short += std::mem::take(&mut order.left);
            let to_come = self.picture.free_devices * self.snapshot.capacity.slots_per_eni;
            let slots = order.short.min(to_come).min(self.room_later(order.kind, 0));
            order.short -= slots;
            self.owed += slots;
            self.promise(order.kind, slots);
        }
    }

    /// What has found a slot takes the room that comes with what is leaving.
    pub(super) fn claim(&mut self, order: &mut Order) {
        let open: u32 = self.open_slots(order.kind).map(|slots| *slots).sum();
        let mut slots = order.short.min(open).min(self.room_later(order.kind, 0));
        order.short -= slots;
        self.promise(order.kind, slots);
        for free in self.open_slots(order.kind) {
            take(&mut slots, free);
        }
    }

    /// Whether something is given back, or has been, that makes room for one of those at least.
    fn unassign_for(&mut self, order: &Order) -> bool {
        let kind = order.kind;
        if self.snapshot.policy.operations != Operations::Normal
            || self.memory.blocked(Call::Unassign, self.now).is_some()
        {
            return false;
        }
        let mut spare = self.picture.spare();
        // What is leaving already makes room as well.
        let mut wanted = (order.short * unit(kind)).saturating_sub(self.room.saturating_add(self.leaving));
        let mut actions = Vec::new();
        for place in self.picture.places.iter().rev().filter(|place| place.ready() && !place.is_leaving()) {
            let (singles, prefixes) = match self.picture.addressing {
                _ if !place.keep => (true, true),
                Addressing::Secondary => (false, true),
                Addressing::Prefix => (kind == Kind::Prefix, false),
                Addressing::Mixed => (false, false),
            };
            // What no pod may use is not spared for pods.
            let mut here = if place.for_pods { spare } else { u32::MAX };
            let most = if singles { wanted.min(here) } else { 0 };
            let singles = place.eni.singles.free.min(most);
            (wanted, here) = (wanted - singles, here - singles);
            let most = if prefixes { wanted.div_ceil(Prefix::SIZE).min(here / Prefix::SIZE) } else { 0 };
            let prefixes: Vec<_> = place.empty_prefixes().take(most as usize).collect();
            let gone = count(prefixes.iter()) * Prefix::SIZE;
            wanted = wanted.saturating_sub(gone);
            if place.for_pods {
                spare = here - gone;
            }
            if singles > 0 || gone > 0 {
                actions.push(Action::Unassign { eni: place.eni.id.clone(), singles, prefixes });
            }
        }
        let frees_one = wanted.div_ceil(unit(kind)) < order.short;
        if frees_one {
            for action in actions {
                self.act(action, 0);
            }
        }
        frees_one
    }

    /// How many more of `kind` the ceiling allows once what is leaving has gone, if each of them takes the slot of
    /// `replaced` addresses.
    fn room_later(&self, kind: Kind, replaced: u32) -> u32 {
        let each = unit(kind).saturating_sub(replaced);
        self.room.saturating_add(self.leaving).checked_div(each).unwrap_or(u32::MAX)
    }

    /// Slots wait for what is leaving: room that comes with it, or exists, is spoken for.
    fn promise(&mut self, kind: Kind, slots: u32) {
        let mut addresses = slots * unit(kind);
        take(&mut addresses, &mut self.room);
        take(&mut addresses, &mut self.leaving);
        if slots > 0 {
            self.wait(HoldReason::AssignInFlight, kind, slots, None);
        }
    }
}

/// Addresses that give way in a slot which is to be filled with `kind`.
fn replaces(kind: Kind) -> u32 {
    match kind {
        Kind::Single => Prefix::SIZE,
        Kind::Prefix => 1,
    }
}

impl Place<'_> {
    /// An Unassign of some of it is under way, or planned in this round.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving() > 0
    }

    /// Addresses whose Unassign is under way or planned.
    pub(super) fn leaving(&self) -> u32 {
        let prefixes = count(self.eni.prefixes.iter().filter(|prefix| prefix.leaving));
        self.giving + self.eni.singles_leaving + prefixes * Prefix::SIZE
    }
}
