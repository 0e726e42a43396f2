//! Consolidation: which interfaces stay, so that the others run empty and can be given back.

use super::memory::{Kind, Level, PlannerMemory};
use super::need::singles_beside;
use super::picture::{Picture, Place, count};
use crate::address::Prefix;
use crate::targets::Addressing;
use crate::time::Timestamp;

/// Keeps as many interfaces as `level` takes, in the picture's order (the primary, then the fullest), and lets the rest
/// drain. What an interface is worth counts by what it could hold: moving its free addresses' worth to one that stays
/// is one Assign, keeping it is an interface and a device slot for good.
pub(super) fn choose(picture: &mut Picture, level: Level, memory: &PlannerMemory, now: Timestamp) {
    let addressing = picture.addressing;
    let for_pods = || picture.places.iter().filter(|place| place.for_pods);
    // What is in use on interfaces that pods get no more, a primary among them, is part of what is needed.
    let (wanted, elsewhere) = match addressing {
        Addressing::Prefix => {
            let here: u32 = for_pods().map(Place::prefixes_in_use).sum();
            // Single addresses that stand in where the limits leave no room for a whole /28 take slots as well.
            let singles = singles_beside(level.prefixes, level.addresses, picture.holdings.lost);
            let stand_ins = singles.saturating_sub(picture.holdings.single_held);
            (level.prefixes + stand_ins, picture.holdings.prefixes_in_use.saturating_sub(here))
        }
        Addressing::Secondary | Addressing::Mixed => {
            let here: u32 = for_pods().map(|place| place.counts.held()).sum();
            (level.addresses, picture.held().saturating_sub(here))
        }
    };
    let mut room = elsewhere;
    for place in picture.places.iter_mut().filter(|place| place.for_pods) {
        place.keep = room < wanted || place.eni.primary;
        if place.keep {
            room += worth(place, addressing, memory, now);
        }
    }
}

/// What an interface could hold of what the addressing wants. Filling a slot, or giving back what nobody uses in it,
/// must not change it: the choice would swing with every action that follows from it.
fn worth(place: &Place, addressing: Addressing, memory: &PlannerMemory, now: Timestamp) -> u32 {
    let open = |kind| memory.assign_refused(&place.eni.subnet, kind, now).is_none();
    let singles = place.eni.singles;
    let free_singles = singles.free + place.coming_singles;
    let prefixes = place.live_prefixes() + place.coming_prefixes;
    let leaving = place.eni.singles_leaving + count(place.eni.prefixes.iter().filter(|prefix| prefix.leaving));
    let free_slots = place.free_slots + leaving;
    match addressing {
        Addressing::Secondary => {
            let in_prefixes = place.counts.held() - singles.held();
            let slots = free_slots + count(place.empty_prefixes());
            singles.held() + free_singles + in_prefixes + if open(Kind::Single) { slots } else { 0 }
        }
        Addressing::Prefix => prefixes + if open(Kind::Prefix) { free_slots + free_singles } else { 0 },
        Addressing::Mixed if open(Kind::Prefix) => {
            singles.held() + (prefixes + free_slots + free_singles) * Prefix::SIZE
        }
        Addressing::Mixed => {
            let slots = if open(Kind::Single) { free_slots } else { 0 };
            singles.held() + free_singles + prefixes * Prefix::SIZE + slots
        }
    }
}
