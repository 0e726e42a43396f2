//! The snapshot as the planner looks at it: which interfaces serve, which shall run empty, what is coming.

use super::need::Holdings;
use super::snapshot::{Counts, Creating, EniPhase, EniRole, EniView, Snapshot};
use crate::address::Prefix;
use crate::ec2::Supply;
use crate::id::SubnetId;
use crate::targets::Addressing;

/// One interface of ours, digested.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) eni: &'a EniView,
    /// For pods by its role and the policy (it may still be attaching or draining).
    pub(super) for_pods: bool,
    /// Chosen to stay. Addresses that are free elsewhere do not count as supply.
    pub(super) keep: bool,
    /// Addresses that this round asks an Unassign of. From then on they are leaving: nothing else may count on them.
    pub(super) giving: u32,
    /// Slots that are free when an Unassign is done, be it under way or asked by this round, and not spoken for.
    pub(super) leaving_slots: u32,
    /// Slots in which nothing is and nothing is coming.
    pub(super) free_slots: u32,
    pub(super) coming_singles: u32,
    pub(super) coming_prefixes: u32,
    /// All addresses by state, those of prefixes included.
    pub(super) counts: Counts,
}

impl Place<'_> {
    pub(super) fn ready(&self) -> bool {
        self.eni.phase == EniPhase::Ready
    }

    /// Prefixes that nobody uses.
    pub(super) fn empty_prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.eni.prefixes.iter().filter(|p| !p.leaving && p.counts.held() == 0).map(|p| p.prefix)
    }

    pub(super) fn prefixes_in_use(&self) -> u32 {
        count(self.eni.prefixes.iter().filter(|p| p.counts.held() > 0))
    }

    pub(super) fn live_prefixes(&self) -> u32 {
        count(self.eni.prefixes.iter().filter(|p| !p.leaving))
    }

    /// Free addresses of prefixes.
    pub(super) fn free_in_prefixes(&self) -> u32 {
        self.counts.free - self.eni.singles.free
    }
}

/// An interface that will be a place.
#[derive(Debug)]
pub(super) struct Arriving<'a> {
    pub(super) subnet: &'a SubnetId,
    pub(super) free_slots: u32,
}

/// The node, digested.
#[derive(Debug)]
pub(super) struct Picture<'a> {
    /// Interfaces of the pool that are attached or on their way, best kept first: the primary, then the fullest.
    pub(super) places: Vec<Place<'a>>,
    /// Interfaces of the pool that exist without being attached.
    pub(super) detached: Vec<&'a EniView>,
    /// Free device slots of the instance, the limits of policy and allocation included.
    pub(super) free_devices: u32,
    /// Of those, withheld because the operator has not given them yet.
    pub(super) devices_awaiting_turn: u32,
    /// Device indexes in use on card 0.
    pub(super) used_indexes: Vec<u32>,
    pub(super) holdings: Holdings,
    pub(super) addressing: Addressing,
    pub(super) creating_singles: u32,
    pub(super) creating_prefixes: u32,
    /// Addresses that EC2 has assigned or is about to, whatever they are good for.
    pub(super) physical: u32,
    /// Interfaces that are on their way and no places yet: under creation, or created or attached by this round. What is
    /// placed next need not make an interface of its own.
    pub(super) arriving: Vec<Arriving<'a>>,
}

impl<'a> Picture<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let policy = &snapshot.policy;
        let addressing = snapshot.capacity.addressing(policy.addressing);
        let slots = snapshot.capacity.slots_per_eni;
        let on_card = || snapshot.enis.iter().filter(|eni| eni.network_card == 0);
        let ours = || on_card().filter(|eni| eni.role != EniRole::Foreign);
        let for_pods = |eni: &EniView| eni.role == EniRole::Pods && (policy.use_primary_eni || !eni.primary);

        let mut places: Vec<_> = ours()
            .filter(|eni| matches!(eni.phase, EniPhase::Ready | EniPhase::Attaching))
            .map(|eni| Place::new(eni, slots, for_pods(eni)))
            .collect();
        places.sort_by_key(|place| {
            let eni = place.eni;
            (!place.for_pods, !eni.primary, std::cmp::Reverse(place.counts.held()), !place.ready(), eni.device_index)
        });

        let attached = count(on_card().filter(|eni| eni.phase != EniPhase::Detached));
        let creating = count(snapshot.creating.iter());
        let limit = snapshot.capacity.max_enis.min(policy.targets.max_enis.unwrap_or(u32::MAX).max(1));
        let room = limit.saturating_sub(attached + creating);
        let ours_now = count(ours().filter(|eni| eni.phase != EniPhase::Detached)) + creating;
        let granted = snapshot.allocation.as_ref().map_or(room, |a| a.enis.saturating_sub(ours_now).min(room));
        let for_others = count(on_card().filter(|eni| eni.phase != EniPhase::Detached && !for_pods(eni)));

        let (creating_singles, creating_prefixes) = sums(snapshot.creating.iter().map(|creating| &creating.supply));
        Self {
            detached: ours().filter(|eni| eni.phase == EniPhase::Detached).collect(),
            free_devices: granted,
            devices_awaiting_turn: room - granted,
            used_indexes: on_card()
                .filter(|eni| eni.phase != EniPhase::Detached)
                .filter_map(|eni| eni.device_index)
                .chain(snapshot.creating.iter().map(|creating| creating.device_index))
                .collect(),
            holdings: holdings(snapshot, limit.saturating_sub(for_others), for_pods),
            addressing,
            physical: ours().map(physical).sum::<u32>() + creating_singles + creating_prefixes * Prefix::SIZE,
            creating_singles,
            creating_prefixes,
            arriving: snapshot.creating.iter().map(|creating| Arriving::new(creating, slots)).collect(),
            places,
        }
    }

    /// The lowest free device index, taken.
    pub(super) fn take_index(&mut self) -> u32 {
        let index = (1..u32::MAX).find(|index| !self.used_indexes.contains(index)).unwrap_or(u32::MAX);
        self.used_indexes.push(index);
        index
    }

    /// Whether addresses or interfaces are on their way.
    pub(super) fn growing(&self) -> bool {
        self.creating_singles + self.creating_prefixes > 0
            || self.places.iter().any(|p| !p.ready() || p.coming_singles + p.coming_prefixes > 0)
    }

    /// Pods of the node that have no address yet.
    pub(super) fn coming_pods(&self) -> u32 {
        self.holdings.used.saturating_sub(self.holdings.assigned)
    }

    /// Assigned and cooling addresses outside the places that stay.
    pub(super) fn held(&self) -> u32 {
        self.holdings.assigned + self.holdings.cooling
    }

    /// Prefixes that count: in use wherever they are, and empty ones where they stay.
    pub(super) fn prefixes(&self) -> u32 {
        self.holdings.prefixes_in_use + self.sum(|p| if p.keep { count(p.empty_prefixes()) } else { 0 })
    }

    /// Prefixes on their way.
    pub(super) fn coming_prefixes(&self) -> u32 {
        self.creating_prefixes + self.sum(|p| p.coming_prefixes)
    }

    /// Single addresses on their way.
    pub(super) fn coming_singles(&self) -> u32 {
        self.creating_singles + self.sum(|p| p.coming_singles)
    }

    /// Addresses that count towards the need: those in use anywhere, and free ones of the kind that the addressing
    /// wants, where they stay and are usable now.
    pub(super) fn supply(&self) -> u32 {
        self.held() + self.sum(|p| if p.keep && p.ready() { self.wanted_free(p) } else { 0 })
    }

    /// The same with what is on its way.
    pub(super) fn supply_soon(&self) -> u32 {
        let prefixes = self.coming_prefixes() * Prefix::SIZE;
        // What was asked for before the addressing changed serves all the same, but singles are no prefixes.
        let singles = if self.addressing == Addressing::Prefix { 0 } else { self.coming_singles() };
        self.held() + self.sum(|p| if p.keep { self.wanted_free(p) } else { 0 }) + prefixes + singles
    }

    /// Every address that serves a pod now or soon, of whatever kind, where it stays.
    pub(super) fn anything_soon(&self) -> u32 {
        self.held()
            + self.sum(|p| if p.keep { p.counts.free } else { 0 })
            + self.coming_singles()
            + self.coming_prefixes() * Prefix::SIZE
    }

    /// Addresses that could be handed out this moment, on whatever interface pods may use.
    pub(super) fn free_now(&self) -> u32 {
        self.sum(|p| if p.ready() && p.for_pods { p.counts.free - p.giving } else { 0 })
    }

    /// Of those, what may make room for others: pods that are coming need the rest.
    pub(super) fn spare(&self) -> u32 {
        self.free_now().saturating_sub(self.coming_pods())
    }

    fn wanted_free(&self, place: &Place) -> u32 {
        match self.addressing {
            Addressing::Secondary => place.eni.singles.free,
            Addressing::Prefix => place.free_in_prefixes(),
            Addressing::Mixed => place.counts.free,
        }
    }

    fn sum(&self, of: impl Fn(&Place) -> u32) -> u32 {
        self.places.iter().map(of).sum()
    }
}

impl<'a> Place<'a> {
    fn new(eni: &'a EniView, slots: u32, for_pods: bool) -> Self {
        let (coming_singles, coming_prefixes) = sums(eni.incoming.iter());
        let taken = eni.slots_taken();
        Self {
            eni,
            for_pods,
            keep: for_pods,
            giving: 0,
            leaving_slots: eni.singles_leaving + count(eni.prefixes.iter().filter(|prefix| prefix.leaving)),
            free_slots: slots.saturating_sub(taken + coming_singles + coming_prefixes),
            coming_singles,
            coming_prefixes,
            counts: eni.addresses(),
        }
    }
}

impl<'a> Arriving<'a> {
    fn new(creating: &'a Creating, slots: u32) -> Self {
        let (Supply::Addresses(count) | Supply::Prefixes(count)) = creating.supply;
        Self { subnet: &creating.subnet, free_slots: slots.saturating_sub(count) }
    }
}

/// Single addresses and prefixes asked for.
fn sums<'a>(supplies: impl Iterator<Item = &'a Supply>) -> (u32, u32) {
    supplies.fold((0, 0), |(singles, prefixes), supply| match supply {
        Supply::Addresses(n) => (singles + n, prefixes),
        Supply::Prefixes(n) => (singles, prefixes + n),
    })
}

fn physical(eni: &EniView) -> u32 {
    let (singles, prefixes) = sums(eni.incoming.iter());
    let prefixes = prefixes + count(eni.prefixes.iter());
    eni.singles.total() + eni.singles_leaving + singles + prefixes * Prefix::SIZE
}

fn holdings(snapshot: &Snapshot, enis_for_pods: u32, for_pods: impl Fn(&EniView) -> bool) -> Holdings {
    let mut holdings = Holdings { enis_for_pods, ..Holdings::default() };
    for eni in snapshot.enis.iter().filter(|eni| eni.role != EniRole::Foreign) {
        holdings.assigned += eni.singles.assigned;
        holdings.cooling += eni.singles.cooling;
        holdings.single_held += eni.singles.held();
        if !for_pods(eni) {
            let prefixes = eni.prefixes.iter().filter(|prefix| prefix.counts.held() > 0);
            holdings.slots_elsewhere += eni.singles.held() + count(prefixes);
        }
        for prefix in &eni.prefixes {
            holdings.assigned += prefix.counts.assigned;
            holdings.cooling += prefix.counts.cooling;
            if prefix.counts.held() > 0 {
                holdings.prefixes_in_use += 1;
                holdings.free_in_used_prefixes += prefix.counts.free;
                holdings.lost += if for_pods(eni) { 0 } else { prefix.counts.free };
            }
        }
    }
    holdings.used = snapshot.usage.bound.unwrap_or(0).max(holdings.assigned + snapshot.usage.waiting);
    holdings
}

/// A count as the planner's number type; a node's counts are far below its range.
pub(super) fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
