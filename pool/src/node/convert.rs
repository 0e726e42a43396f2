//! Making room: what nobody uses gives way to what is needed, where slots or the ceiling leave no room for both.

use super::action::{Action, HoldReason};
use super::grow::{Growth, unit};
use super::memory::{Call, Kind};
use super::picture::{Place, count};
use crate::address::Prefix;
use crate::targets::{Addressing, Operations};

impl Growth<'_, '_> {
    /// All slots are taken, some by what the addressing no longer wants and nobody uses: free those.
    pub(super) fn convert(&mut self, kind: Kind, left: &mut u32) {
        if self.snapshot.policy.operations != Operations::Normal {
            return;
        }
        let blocked = self.memory.blocked(Call::Unassign, self.now).is_some();
        for index in 0..self.picture.places.len() {
            let place = &self.picture.places[index];
            let (eni, subnet) = (place.eni, &place.eni.subnet);
            if *left == 0
                || !place.keep
                || !place.ready()
                || self.memory.subnet_blocked(subnet, kind, self.now).is_some()
            {
                continue;
            }
            let leaving = eni.singles_leaving + count(eni.prefixes.iter().filter(|prefix| prefix.leaving));
            let waits = (*left).min(leaving);
            let mut slots = 0;
            if !place.is_leaving() && !blocked {
                let spare = self.picture.spare();
                let careful = if self.memory.doubtful(subnet, kind) { 1 } else { u32::MAX };
                let (singles, prefixes) = match kind {
                    Kind::Prefix => (eni.singles.free.min(*left).min(careful).min(spare), Vec::new()),
                    Kind::Single => {
                        let most = (*left).min(careful).min(spare / Prefix::SIZE);
                        (0, place.empty_prefixes().take(most as usize).collect::<Vec<_>>())
                    }
                };
                slots = singles + count(prefixes.iter());
                if slots > 0 {
                    self.act(Action::Unassign { eni: eni.id.clone(), singles, prefixes }, 0);
                }
            }
            if slots + waits > 0 {
                *left -= slots + waits;
                self.wait(HoldReason::AssignInFlight, kind, slots + waits, None);
            }
        }
    }

    /// The ceiling is reached, partly by free addresses that do not count: of the other kind, or where interfaces are to
    /// run empty. They go first; as many as pods may ask for meanwhile stay.
    pub(super) fn make_room(&mut self, kind: Kind, left: &mut u32) {
        if self.snapshot.policy.operations != Operations::Normal
            || self.memory.blocked(Call::Unassign, self.now).is_some()
        {
            return;
        }
        let mut spare = self.picture.spare();
        // What is leaving already makes room as well.
        let leaving: u32 = self.picture.places.iter().map(Place::leaving).sum();
        let mut wanted = (*left * unit(kind)).saturating_sub(leaving);
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
        let freed = *left - (*left).min(wanted.div_ceil(unit(kind)));
        if freed > 0 {
            for action in actions {
                self.act(action, 0);
            }
            *left -= freed;
            self.wait(HoldReason::AssignInFlight, kind, freed, None);
        }
    }
}

impl Place<'_> {
    /// An Unassign of some of it is under way, or planned in this round.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving() > 0
    }

    /// Addresses whose Unassign is under way or planned.
    fn leaving(&self) -> u32 {
        let prefixes = count(self.eni.prefixes.iter().filter(|prefix| prefix.leaving));
        self.giving + self.eni.singles_leaving + prefixes * Prefix::SIZE
    }
}
