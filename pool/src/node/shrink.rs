//! Giving back: interfaces that ran empty, prefixes and single addresses that nobody will need soon.
//!
//! Called only when nothing is on its way. While the need is not met, only what no pod may use goes. Assigned and cooling addresses are never touched.

use std::time::Duration;

use super::action::{Action, Planned, Purpose};
use super::memory::{Call, Level, PlannerMemory, RETURN_GAP};
use super::need::Need;
use super::picture::{Picture, Place, count};
use crate::address::Prefix;
use crate::id::EniId;
use crate::targets::Addressing;
use crate::time::Timestamp;

/// An interface younger than this is not given back: EC2 and IMDS take their time to agree about it.
pub const MIN_ENI_LIFETIME: Duration = Duration::from_mins(1);

/// What can be given back now, and when more can.
#[derive(Debug, Default)]
pub(super) struct Returns {
    pub(super) actions: Vec<Planned>,
    /// Addresses that these give back.
    pub(super) addresses: u32,
    pub(super) wake_at: Option<Timestamp>,
}

/// What goes from one interface.
#[derive(Default)]
struct Surplus {
    singles: u32,
    prefixes: Vec<Prefix>,
}

/// Whether the need is met by addresses that are usable now.
fn satisfied(picture: &Picture, need: &Need) -> bool {
    match picture.addressing {
        Addressing::Prefix => picture.prefixes() >= need.prefixes && picture.held() + picture.free_now() >= need.demand,
        Addressing::Secondary | Addressing::Mixed => picture.supply() >= need.addresses,
    }
}

/// `level`: what was needed lately.
pub(super) fn returns(picture: &Picture, need: &Need, level: Level, memory: &PlannerMemory, now: Timestamp) -> Returns {
    let mut surplus = match picture.addressing {
        Addressing::Prefix => picture.prefixes().saturating_sub(level.prefixes),
        Addressing::Secondary | Addressing::Mixed => picture.supply().saturating_sub(level.addresses),
    };
    let enough = match picture.addressing {
        Addressing::Prefix => picture.prefixes() >= level.prefixes,
        Addressing::Secondary | Addressing::Mixed => picture.supply() >= level.addresses,
    };
    // Single addresses that stand in where the limits leave no room for a whole /28.
    let mut legacy = need.singles().saturating_sub(picture.holdings.single_held);

    let mut returns = Returns::default();
    let due = memory.last_return.map(|last| last.plus(RETURN_GAP)).filter(|due| *due > now);
    let satisfied = satisfied(picture, need);
    // Pods that are coming need the rest, of whatever kind it is.
    let mut spare = picture.spare();
    // The emptiest interface first.
    for place in picture.places.iter().rev() {
        if !place.ready() || place.is_leaving() || (place.for_pods && !satisfied) {
            continue;
        }
        let idle = !place.keep && !place.eni.primary && place.counts.held() == 0;
        // What no pod may use is not spared for pods.
        let here = if place.for_pods { spare } else { u32::MAX };
        if idle && (enough || !place.for_pods) && place.counts.free <= here {
            returns.release(place, due, memory, now);
            spare -= if place.for_pods { place.counts.free } else { 0 };
            continue;
        }
        let goes = match picture.addressing {
            _ if !place.keep && place.for_pods && !enough => Surplus::default(),
            _ if !place.keep => Surplus::everything(place),
            Addressing::Secondary => {
                Surplus { singles: take(&mut surplus, place.eni.singles.free), ..Surplus::all_prefixes(place) }
            }
            Addressing::Prefix => {
                let kept = take(&mut legacy, place.eni.singles.free);
                let prefixes: Vec<_> = place.empty_prefixes().take(surplus as usize).collect();
                surplus -= count(prefixes.iter());
                Surplus { singles: place.eni.singles.free - kept, prefixes }
            }
            Addressing::Mixed => {
                let prefixes: Vec<_> = place.empty_prefixes().take((surplus / Prefix::SIZE) as usize).collect();
                surplus -= count(prefixes.iter()) * Prefix::SIZE;
                Surplus { singles: 0, prefixes }
            }
        };
        let goes = goes.at_most(here);
        spare -= if place.for_pods { goes.addresses() } else { 0 };
        returns.unassign(&place.eni.id, goes, due, memory, now);
    }
    if picture.addressing == Addressing::Mixed && satisfied && returns.actions.is_empty() {
        // Prefixes go before single addresses: each gives back sixteen for one call.
        for place in picture.places.iter().rev().filter(|place| place.keep && place.ready() && !place.is_leaving()) {
            let goes = Surplus { singles: take(&mut surplus, place.eni.singles.free), prefixes: Vec::new() };
            let goes = goes.at_most(spare);
            spare -= goes.addresses();
            returns.unassign(&place.eni.id, goes, due, memory, now);
        }
    }
    returns
}

impl Returns {
    fn release(&mut self, place: &Place, due: Option<Timestamp>, memory: &PlannerMemory, now: Timestamp) {
        let grown_up = place.eni.since.plus(MIN_ENI_LIFETIME);
        let later = [due, Some(grown_up).filter(|at| *at > now), memory.blocked(Call::Release, now).map(|b| b.until)];
        if let Some(at) = later.into_iter().flatten().max() {
            self.wake(at);
            return;
        }
        self.addresses += place.counts.free;
        self.push(Action::Release { eni: place.eni.id.clone() });
    }

    fn unassign(&mut self, eni: &EniId, goes: Surplus, due: Option<Timestamp>, memory: &PlannerMemory, now: Timestamp) {
        let addresses = goes.addresses();
        let Surplus { singles, prefixes } = goes;
        if singles == 0 && prefixes.is_empty() {
            return;
        }
        let later = [due, memory.blocked(Call::Unassign, now).map(|block| block.until)];
        if let Some(at) = later.into_iter().flatten().max() {
            self.wake(at);
            return;
        }
        self.addresses += addresses;
        self.push(Action::Unassign { eni: eni.clone(), singles, prefixes });
    }

    fn push(&mut self, action: Action) {
        self.actions.push(Planned { action, purpose: Purpose::Return });
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

impl Surplus {
    fn everything(place: &Place) -> Self {
        Self { singles: place.eni.singles.free, prefixes: place.empty_prefixes().collect() }
    }

    fn addresses(&self) -> u32 {
        self.singles + count(self.prefixes.iter()) * Prefix::SIZE
    }

    /// No more than `addresses` of it.
    fn at_most(mut self, addresses: u32) -> Self {
        self.singles = self.singles.min(addresses);
        self.prefixes.truncate(((addresses - self.singles) / Prefix::SIZE) as usize);
        self
    }

    fn all_prefixes(place: &Place) -> Self {
        Self { singles: 0, prefixes: place.empty_prefixes().collect() }
    }
}

fn take(from: &mut u32, most: u32) -> u32 {
    let taken = (*from).min(most);
    *from -= taken;
    taken
}
