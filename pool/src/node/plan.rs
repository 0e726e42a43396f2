//! The planner itself: need, consolidation, growth or return, and the odd jobs, in that order.

use std::fmt::Write as _;
use std::time::Duration;

use super::action::{Action, Hold, HoldReason, Plan, Planned, Purpose};
use super::grow::Growth;
use super::keep;
use super::memory::{Call, Level, PlannerMemory};
use super::need::{Need, need};
use super::picture::{Picture, Place};
use super::shrink;
use super::snapshot::{AllocationView, Snapshot};
use crate::address::Prefix;
use crate::targets::{Addressing, Operations};
use crate::time::Timestamp;

/// How long a small shortfall of warm addresses alone waits for company: pods come in groups, and one call can serve
/// many of them.
const SETTLE: Duration = Duration::from_secs(1);
/// Delete-on-termination is set off the critical path, but no later than this after the attach.
const DELETE_ON_TERMINATION_WITHIN: Duration = Duration::from_secs(10);

/// Plans one node: everything that should be asked of EC2 now so that the node comes to hold what it should.
///
/// Pure but for `memory`, which carries what was needed and refused lately from one call to the next. Call it again when
/// anything in the snapshot changed, and at [`Plan::wake_at`]. A plan never asks for more than the instance, max pods and
/// the ceiling allow, never touches assigned or cooling addresses, and at rest it is empty.
pub fn plan(snapshot: &Snapshot, memory: &mut PlannerMemory, now: Timestamp) -> Plan {
    let mut picture = Picture::new(snapshot);
    let local = need(snapshot.capacity, &snapshot.policy, &picture.holdings, snapshot.max_pods, snapshot.ceiling);
    let need = match &snapshot.allocation {
        Some(allocation) => allotted(local, allocation, snapshot, &picture),
        None => local,
    };
    let target = Level { addresses: need.addresses, prefixes: need.prefixes };
    let holding = Level { addresses: picture.held() + picture.free_now(), prefixes: picture.prefixes() };
    let lately = memory.peak(&snapshot.policy, target, holding, now);
    let level = if snapshot.allocation.is_some() {
        // The operator has waited before it lowered this.
        target
    } else {
        let most = snapshot.ceiling.unwrap_or(u32::MAX);
        target.max(Level { addresses: lately.addresses.min(most), prefixes: lately.prefixes.min(most / Prefix::SIZE) })
    };
    if snapshot.policy.operations == Operations::Normal {
        keep::choose(&mut picture, level, memory, now);
    }

    let mut plan = Plan { target: need.addresses, decision: need.decision.clone(), ..Plan::default() };
    for place in picture.places.iter().filter(|place| !place.keep) {
        let set = if place.for_pods { &mut plan.draining } else { &mut plan.closed };
        set.push(place.eni.id.clone());
    }
    if let Some((reason, addresses)) = need.refused {
        plan.holds.push(Hold { reason, purpose: Purpose::Demand, addresses, subnet: None, until: None });
    }
    if snapshot.policy.operations == Operations::NoCloud {
        paused(&mut plan, &picture, &need);
        return plan;
    }

    let was_growing = picture.growing();
    let settles_until = settles_until(snapshot, &picture, &need, memory, now);
    if let Some(at) = settles_until {
        plan.wake(at);
    } else {
        grow(&mut plan, snapshot, &mut picture, &need, memory, now);
        if plan.actions.iter().any(|planned| planned.purpose != Purpose::Demand) {
            memory.fetched_warm(now);
        }
    }
    in_flight(&mut plan, &picture, was_growing);
    // One round at a time: what follows from an Unassign under way is known when it is done.
    let settled = !was_growing && !picture.places.iter().any(Place::is_leaving);
    if plan.actions.is_empty() && settled {
        give_back(&mut plan, snapshot, &picture, &need, level, memory, now);
    }
    delete_on_termination(&mut plan, &picture, memory, now);
    if settles_until.is_none() && snapshot.policy.operations == Operations::Normal {
        delete_leftovers(&mut plan, &picture, memory, now);
    }
    if !plan.holds.is_empty()
        && let Some(at) = memory.next_retry(now)
    {
        plan.wake(at);
    }
    plan.actions.sort_by_key(|planned| planned.purpose);
    plan.holds.sort_by_key(|hold| (hold.purpose, is_under_way(hold.reason)));
    plan
}

/// The operator's word instead of our own reckoning.
fn allotted(mut need: Need, allocation: &AllocationView, snapshot: &Snapshot, picture: &Picture) -> Need {
    let ceiling = snapshot.ceiling.unwrap_or(u32::MAX);
    let addresses = allocation.addresses.min(ceiling);
    let short = need.demand.saturating_sub(addresses);
    if need.refused.is_none() && short > 0 {
        let reason = if snapshot.policy.operations == Operations::NoCloud {
            // Where nothing may be asked of EC2, no turn would help.
            HoldReason::Paused
        } else if allocation.withheld > 0 {
            HoldReason::SubnetExhausted
        } else {
            HoldReason::AwaitingTurn
        };
        need.refused = Some((reason, short));
    }
    need.addresses = addresses;
    need.prefixes = match picture.addressing {
        Addressing::Prefix => allocation.prefixes.min(ceiling / Prefix::SIZE),
        Addressing::Secondary | Addressing::Mixed => 0,
    };
    need.demand = need.demand.min(addresses);
    need.minimum = need.minimum.min(addresses);
    need.decision = format!("{addresses} by the operator");
    if short > 0 {
        let _ = write!(need.decision, ", {short} short of the demand");
        if allocation.withheld > 0 {
            need.decision.push_str(" for want of addresses in the subnet beyond its headroom");
        }
    }
    need
}

/// Whether all that is missing is warm, and until when to wait: for more to be missing, or because nobody shares out
/// the EC2 budget.
fn settles_until(
    snapshot: &Snapshot,
    picture: &Picture,
    need: &Need,
    memory: &mut PlannerMemory,
    now: Timestamp,
) -> Option<Timestamp> {
    let soon = picture.supply_soon();
    let missing = need.addresses.saturating_sub(soon);
    let warm = need.addresses.saturating_sub(need.demand);
    if snapshot.allocation.is_some() || soon < need.demand || missing == 0 {
        memory.warm_short_since = None;
        return None;
    }
    let settled = if missing * 2 <= warm {
        let since = memory.warm_short_since.filter(|since| *since <= now).unwrap_or(now);
        memory.warm_short_since = Some(since);
        Some(since.plus(SETTLE)).filter(|until| *until > now)
    } else {
        None
    };
    settled.max(memory.cautious_until(now))
}

fn grow<'s>(
    plan: &mut Plan,
    snapshot: &'s Snapshot,
    picture: &mut Picture<'s>,
    need: &Need,
    memory: &PlannerMemory,
    now: Timestamp,
) {
    let covered = picture.anything_soon();
    let (actions, holds) = (Vec::new(), Vec::new());
    let room = snapshot.ceiling.unwrap_or(u32::MAX).saturating_sub(picture.physical);
    let leaving = picture.places.iter().map(Place::leaving).sum();
    let mut growth = Growth { picture, snapshot, memory, need, now, actions, holds, covered, room, leaving, owed: 0 };
    growth.run();
    plan.actions.append(&mut growth.actions);
    plan.holds.append(&mut growth.holds);
}

/// Pods that wait for what is on its way already.
fn in_flight(plan: &mut Plan, picture: &Picture, growing: bool) {
    let waiting = picture.coming_pods().saturating_sub(picture.free_now());
    let told: u32 = plan.holds.iter().filter(|h| h.purpose == Purpose::Demand).map(|h| h.addresses).sum();
    if growing && waiting > told {
        let attaching =
            picture.creating_singles + picture.creating_prefixes > 0 || picture.places.iter().any(|p| !p.ready());
        let reason = if attaching { HoldReason::AttachInFlight } else { HoldReason::AssignInFlight };
        let addresses = waiting - told;
        plan.holds.push(Hold { reason, purpose: Purpose::Demand, addresses, subnet: None, until: None });
    }
}

fn give_back(
    plan: &mut Plan,
    snapshot: &Snapshot,
    picture: &Picture,
    need: &Need,
    level: Level,
    memory: &mut PlannerMemory,
    now: Timestamp,
) {
    let returns = shrink::returns(picture, need, level, memory, now);
    if snapshot.policy.operations == Operations::Normal {
        memory.last_return = if returns.actions.is_empty() { memory.last_return } else { Some(now) };
        plan.actions.extend(returns.actions);
    } else if !returns.actions.is_empty() {
        let (reason, purpose) = (HoldReason::Paused, Purpose::Return);
        plan.holds.push(Hold { reason, purpose, addresses: returns.addresses, subnet: None, until: None });
    }
    for at in [returns.wake_at, memory.next_decline()].into_iter().flatten() {
        plan.wake(at);
    }
}

/// An interface must die with its instance; that may be asked for once the pods have their addresses.
fn delete_on_termination(plan: &mut Plan, picture: &Picture, memory: &PlannerMemory, now: Timestamp) {
    let urgent = plan.actions.iter().any(|planned| planned.purpose == Purpose::Demand)
        || plan.holds.iter().any(|hold| hold.purpose == Purpose::Demand);
    for place in &picture.places {
        let eni = place.eni;
        if eni.delete_on_termination || eni.primary || !place.ready() {
            continue;
        }
        let latest = eni.since.plus(DELETE_ON_TERMINATION_WITHIN);
        let blocked = memory.blocked(Call::SetDeleteOnTermination, now).map(|block| block.until);
        let later = if urgent && latest > now { Some(latest) } else { None };
        match blocked.or(later) {
            Some(at) => plan.wake(at),
            None => plan.push(Action::SetDeleteOnTermination { eni: eni.id.clone() }, Purpose::Housekeeping),
        }
    }
}

/// Interfaces that were made, are not attached and are not wanted.
fn delete_leftovers(plan: &mut Plan, picture: &Picture, memory: &PlannerMemory, now: Timestamp) {
    let blocked = memory.blocked(Call::Release, now).or_else(|| {
        // EC2 may accept the attach in a moment; at the instance's limit it will not.
        memory.blocked(Call::Attach, now).filter(|block| block.reason != HoldReason::InstanceLimit)
    });
    for eni in picture.detached.iter().filter(|eni| eni.addresses().held() == 0) {
        match blocked {
            Some(block) => plan.wake(block.until),
            None => plan.push(Action::Release { eni: eni.id.clone() }, Purpose::Housekeeping),
        }
    }
}

fn paused(plan: &mut Plan, picture: &Picture, need: &Need) {
    let missing = need.addresses.saturating_sub(picture.supply_soon());
    if missing > 0 {
        let purpose = if picture.anything_soon() < need.demand { Purpose::Demand } else { Purpose::Warm };
        plan.holds.push(Hold { reason: HoldReason::Paused, purpose, addresses: missing, subnet: None, until: None });
    }
}

fn is_under_way(reason: HoldReason) -> bool {
    matches!(reason, HoldReason::AttachInFlight | HoldReason::AssignInFlight)
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn push(&mut self, action: Action, purpose: Purpose) {
        self.actions.push(Planned { action, purpose });
    }
}
