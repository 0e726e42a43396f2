//! Best fit: which address goes out next, and thereby which interface runs empty.
//!
//! The ledger hands addresses out by this rule and the planner gives interfaces back by its reverse, so that the two
//! pull in one direction.

use crate::targets::Addressing;

/// What matters of an interface when one of its addresses may be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EniFit {
    pub primary: bool,
    /// Listed in [`Plan::draining`](super::Plan::draining).
    pub draining: bool,
    pub device_index: u32,
    /// Assigned and cooling addresses of the whole interface.
    pub held: u32,
}

/// What matters of the slot that the address lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotFit {
    Single,
    /// With its assigned and cooling addresses.
    Prefix {
        held: u32,
    },
}

/// The worth of handing out an address now: the greatest wins. Equal ones are alike; take the one that has been free
/// the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference {
    not_draining: bool,
    wanted_kind: bool,
    primary: bool,
    eni_held: u32,
    lower_index: std::cmp::Reverse<u32>,
    slot: u32,
}

/// Ranks a free address: not of a draining interface; of the kind that the addressing wants, so that a live switch
/// drains the other; on the primary, which can never be given back, then on the fullest interface; in the fullest
/// prefix, then a single address, an untouched prefix last.
pub fn preference(eni: EniFit, slot: SlotFit, addressing: Addressing) -> Preference {
    let wanted_kind = match addressing {
        Addressing::Secondary => slot == SlotFit::Single,
        Addressing::Prefix => slot != SlotFit::Single,
        Addressing::Mixed => true,
    };
    let slot = match slot {
        SlotFit::Prefix { held: 0 } => 0,
        SlotFit::Single => 1,
        SlotFit::Prefix { held } => held.saturating_add(1),
    };
    Preference {
        not_draining: !eni.draining,
        wanted_kind,
        primary: eni.primary,
        eni_held: eni.held,
        lower_index: std::cmp::Reverse(eni.device_index),
        slot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENI: EniFit = EniFit { primary: false, draining: false, device_index: 1, held: 3 };

    fn best(candidates: &[(EniFit, SlotFit)], addressing: Addressing) -> usize {
        (0..candidates.len()).max_by_key(|&i| preference(candidates[i].0, candidates[i].1, addressing)).unwrap()
    }

    #[test]
    fn the_primary_comes_first_because_it_can_never_be_given_back() {
        let primary = EniFit { primary: true, device_index: 0, held: 0, ..ENI };
        assert_eq!(best(&[(ENI, SlotFit::Single), (primary, SlotFit::Single)], Addressing::Secondary), 1);
    }

    #[test]
    fn the_fullest_interface_and_prefix_come_first_so_that_others_run_empty() {
        let fuller = EniFit { held: 9, device_index: 2, ..ENI };
        assert_eq!(best(&[(ENI, SlotFit::Single), (fuller, SlotFit::Single)], Addressing::Secondary), 1);
        let slots = [(ENI, SlotFit::Prefix { held: 0 }), (ENI, SlotFit::Prefix { held: 2 }), (ENI, SlotFit::Single)];
        assert_eq!(best(&slots, Addressing::Mixed), 1);
        assert_eq!(best(&[slots[0], slots[2]], Addressing::Mixed), 1, "an untouched prefix can still be given back");
    }

    #[test]
    fn a_draining_interface_serves_only_if_no_other_can() {
        let draining = EniFit { draining: true, held: 9, ..ENI };
        assert_eq!(best(&[(draining, SlotFit::Single), (ENI, SlotFit::Single)], Addressing::Secondary), 1);
    }

    #[test]
    fn after_a_switch_of_addressing_the_old_kind_is_left_to_drain() {
        let fuller = EniFit { primary: true, held: 9, ..ENI };
        let candidates = [(fuller, SlotFit::Single), (ENI, SlotFit::Prefix { held: 0 })];
        assert_eq!(best(&candidates, Addressing::Prefix), 1);
        assert_eq!(best(&candidates, Addressing::Secondary), 0);
    }
}
