//! Consolidation: which interfaces stay, so that the others run empty and can be given back.

use super::memory::{Kind, Level, PlannerMemory};
use super::picture::{Picture, Place};
use crate::address::Prefix;
use crate::targets::Addressing;
use crate::time::Timestamp;

/// Keeps as many interfaces as `level` takes, in the picture's order (the primary, then the fullest), and lets the rest
/// drain. What an interface is worth counts by what it could hold: moving its free addresses' worth to one that stays
/// is one Assign, keeping it is an interface and a device slot for good.
pub(super) fn choose(picture: &mut Picture, level: Level, memory: &PlannerMemory, now: Timestamp) {
    let addressing = picture.addressing;
    let wanted = match addressing {
        Addressing::Prefix => level.prefixes,
        Addressing::Secondary | Addressing::Mixed => level.addresses,
    };
    let mut room = 0;
    for place in picture.places.iter_mut().filter(|place| place.for_pods) {
        place.keep = room < wanted || place.eni.primary;
        if place.keep {
            room += worth(place, addressing, memory, now);
        }
    }
}

fn worth(place: &Place, addressing: Addressing, memory: &PlannerMemory, now: Timestamp) -> u32 {
    let open = |kind| memory.subnet_blocked(&place.eni.subnet, kind, now).is_none();
    let slots = |kind| if open(kind) { place.free_slots } else { 0 };
    let singles = place.eni.singles;
    let prefixes = place.live_prefixes() + place.coming_prefixes;
    match addressing {
        Addressing::Secondary => {
            let in_prefixes = place.counts.held() - singles.held();
            singles.total() + place.coming_singles + in_prefixes + slots(Kind::Single)
        }
        Addressing::Prefix => prefixes + if open(Kind::Prefix) { place.free_slots + singles.free } else { 0 },
        Addressing::Mixed => {
            let there = singles.total() + place.coming_singles + prefixes * Prefix::SIZE;
            there + (slots(Kind::Prefix) * Prefix::SIZE).max(slots(Kind::Single))
        }
    }
}
