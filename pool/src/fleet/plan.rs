//! The fleet planner itself: wants, shares, turns.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::share::evenly;
use super::types::{
    FleetEni, FleetMemory, FleetPlan, Given, NodeAllocation, NodeView, Remembered, SubnetPlan, SubnetStock,
};
use crate::address::Prefix;
use crate::budget::Budget;
use crate::ec2::Action;
use crate::id::SubnetId;
use crate::node::{Holdings, Level, Need, Peaks, enis_for, need};
use crate::targets::{Addressing, Operations};
use crate::time::Timestamp;

/// A node in the making of its allocation.
struct Draft<'a> {
    node: &'a NodeView,
    need: Need,
    given: Given,
    /// What it would get if there were enough of everything.
    wish: Level,
    /// What it may be lowered to.
    floor: Level,
    enis: u32,
    /// Where what is added comes from; an index into the stocks.
    source: Option<usize>,
    next_subnet: Option<SubnetId>,
    /// Addresses granted beyond those given.
    granted: u32,
    /// Addresses that the subnet refused.
    withheld: u32,
    waits_for: Option<Action>,
}

/// Plans the fleet. `budget` is the account's EC2 budget: what the raised allocations will cost is taken from it.
///
/// Level-triggered: allocations that stand are repeated at no cost, so a restarted operator repeats no turn.
pub fn plan(
    nodes: &[NodeView],
    stocks: &[SubnetStock],
    memory: &mut FleetMemory,
    budget: &mut Budget,
    now: Timestamp,
) -> FleetPlan {
    let mut stock = Stocks::new(stocks);
    let mut drafts: Vec<_> = nodes.iter().map(|node| draft(node, memory, now)).collect();
    memory.nodes.retain(|_, remembered| remembered.round == now);

    for draft in &drafts {
        stock.promise(draft);
    }
    for draft in &mut drafts {
        stock.choose_source(draft);
    }
    share_out(&mut drafts, &mut stock);

    let mut plan = FleetPlan { subnets: stock.report(&drafts), ..FleetPlan::default() };
    let mut retry = turns(&mut drafts, budget, now);
    for remembered in memory.nodes.values() {
        retry = earlier(retry, remembered.peaks.next_decline().filter(|at| *at > now));
    }
    plan.wake_at = retry;
    plan.allocations = drafts.into_iter().map(|draft| draft.allocation(stocks)).collect();
    plan
}

fn draft<'a>(node: &'a NodeView, memory: &mut FleetMemory, now: Timestamp) -> Draft<'a> {
    let need = need(node.capacity, &node.policy, &holdings(node), node.max_pods, None);
    let target = Level { addresses: need.addresses, prefixes: need.prefixes };
    let held = Level { addresses: node.addresses.total(), prefixes: node.enis.iter().map(|eni| eni.prefixes).sum() };
    let enis_held = u32::try_from(node.enis.len()).unwrap_or(u32::MAX);
    // A node that was never allotted anything keeps what its agent made of it.
    let mut given = node.given.clone().unwrap_or(Given {
        addresses: held.addresses,
        prefixes: held.prefixes,
        enis: enis_held,
        subnet: None,
    });
    given.enis = given.enis.max(1);
    let standing = Level { addresses: given.addresses, prefixes: given.prefixes };
    let remembered = memory.nodes.entry(node.name.clone()).or_insert_with(|| {
        let mut peaks = Peaks::default();
        peaks.note(standing, now);
        Remembered { policy: node.policy, peaks, round: now }
    });
    remembered.round = now;
    if remembered.policy != node.policy {
        // People who lower a target mean it.
        remembered.policy = node.policy;
        remembered.peaks = Peaks::default();
    }
    remembered.peaks.note(target, now);
    let mut floor = remembered.peaks.highest();
    if node.policy.operations != Operations::Normal {
        floor = floor.max(standing);
    }
    let wish = if node.policy.operations == Operations::NoCloud {
        standing
    } else {
        Level {
            addresses: standing.addresses.clamp(target.addresses, floor.addresses),
            prefixes: standing.prefixes.clamp(target.prefixes, floor.prefixes),
        }
    };
    let enis = given.enis;
    Draft {
        node,
        need,
        given,
        wish,
        floor,
        enis,
        source: None,
        next_subnet: None,
        granted: 0,
        withheld: 0,
        waits_for: None,
    }
}

/// What the node planner would see.
fn holdings(node: &NodeView) -> Holdings {
    let unused_primary = u32::from(!node.policy.use_primary_eni);
    let elsewhere = || node.enis.iter().filter(|eni| eni.retiring || (eni.primary && unused_primary > 0));
    let single_held = node.enis.iter().map(|eni| eni.singles_held).sum();
    let prefixes_in_use: u32 = node.enis.iter().map(|eni| eni.prefixes_in_use).sum();
    let held_in_prefixes = node.addresses.held().saturating_sub(single_held);
    Holdings {
        assigned: node.addresses.assigned,
        cooling: node.addresses.cooling,
        single_held,
        prefixes_in_use,
        free_in_used_prefixes: (prefixes_in_use * Prefix::SIZE).saturating_sub(held_in_prefixes),
        lost: elsewhere().map(FleetEni::free_in_used_prefixes).sum(),
        enis_for_pods: most_enis(node).saturating_sub(unused_primary + retiring(node)),
        slots_elsewhere: elsewhere().map(FleetEni::slots_held).sum(),
        used: node.pods.max(node.addresses.assigned + node.waiting),
    }
}

/// Interfaces of the pool that take no new pods.
fn retiring(node: &NodeView) -> u32 {
    u32::try_from(node.enis.iter().filter(|eni| eni.retiring).count()).unwrap_or(u32::MAX)
}

/// Interfaces of the pool that the node may have.
fn most_enis(node: &NodeView) -> u32 {
    let limit = node.capacity.max_enis.min(node.policy.targets.max_enis.unwrap_or(u32::MAX).max(1));
    limit.saturating_sub(node.foreign_enis)
}

/// What the subnets have left while the plan is made.
struct Stocks<'a> {
    all: &'a [SubnetStock],
    index: BTreeMap<&'a SubnetId, usize>,
    left: Vec<u32>,
    in_flight: Vec<u32>,
    withheld: Vec<u32>,
}

impl<'a> Stocks<'a> {
    fn new(stocks: &'a [SubnetStock]) -> Self {
        Self {
            all: stocks,
            index: stocks.iter().enumerate().map(|(index, stock)| (&stock.id, index)).collect(),
            left: stocks.iter().map(|stock| stock.available.saturating_sub(stock.headroom)).collect(),
            in_flight: vec![0; stocks.len()],
            withheld: vec![0; stocks.len()],
        }
    }

    /// What stands but has not been taken yet is spoken for.
    fn promise(&mut self, draft: &Draft) {
        let open = draft.given.addresses.saturating_sub(draft.node.addresses.total());
        let subnet = draft.given.subnet.as_ref().or_else(|| draft.node.enis.first().map(|eni| &eni.subnet));
        if let Some(&index) = subnet.and_then(|subnet| self.index.get(subnet)) {
            self.in_flight[index] += open;
            self.left[index] = self.left[index].saturating_sub(open);
        }
    }

    /// Slots that are free on an interface are filled first; else the next interface goes where most is left, and stays
    /// where it was to go while there is room.
    fn choose_source(&self, draft: &mut Draft) {
        let node = draft.node;
        let wanted = draft.wish.addresses.saturating_sub(draft.given.addresses);
        let enough = |index: &usize| self.left[*index] > wanted;
        let before = draft.given.subnet.as_ref().filter(|subnet| node.subnets.contains(subnet));
        let before = before.and_then(|subnet| self.index.get(subnet)).copied().filter(enough);
        let candidates = || node.subnets.iter().filter_map(|subnet| self.index.get(subnet).copied());
        let next = before.or_else(|| candidates().max_by_key(|&index| (self.left[index], std::cmp::Reverse(index))));
        draft.next_subnet = next.map(|index| self.all[index].id.clone());
        let has_slots = draft.enis_for(draft.wish.addresses) <= draft.given.enis;
        let attached = node.enis.iter().filter(|eni| !eni.retiring && (node.policy.use_primary_eni || !eni.primary));
        let attached = attached.filter_map(|eni| self.index.get(&eni.subnet).copied()).max_by_key(|&i| self.left[i]);
        draft.source = if has_slots { attached.or(next) } else { next };
    }

    fn report(&self, drafts: &[Draft]) -> Vec<SubnetPlan> {
        let mut nodes = vec![0; self.all.len()];
        for draft in drafts {
            if let Some(&index) = draft.next_subnet.as_ref().and_then(|subnet| self.index.get(subnet)) {
                nodes[index] += 1;
            }
        }
        let plans = self.all.iter().enumerate().map(|(index, stock)| SubnetPlan {
            id: stock.id.clone(),
            in_flight: self.in_flight[index],
            left: self.left[index],
            withheld: self.withheld[index],
            nodes: nodes[index],
        });
        plans.collect()
    }
}

/// Demand first, then minimums, then warm addresses; evenly where there is too little.
fn share_out(drafts: &mut [Draft], stock: &mut Stocks) {
    let mut by_source: Vec<Vec<usize>> = vec![Vec::new(); stock.left.len()];
    for (index, draft) in drafts.iter_mut().enumerate() {
        match draft.source {
            Some(source) if draft.wish.addresses > draft.given.addresses => {
                by_source[source].push(index);
                // Each new interface takes an address for itself.
                let primaries = draft.enis_for(draft.wish.addresses).saturating_sub(draft.given.enis);
                stock.left[source] = stock.left[source].saturating_sub(primaries);
            }
            Some(_) => {}
            // Nothing is known of its subnets: EC2 will tell.
            None => draft.granted = draft.wish.addresses.saturating_sub(draft.given.addresses),
        }
    }
    let tiers: [fn(&Draft) -> u32; 3] =
        [|draft| draft.need.demand, |draft| draft.need.minimum, |draft| draft.wish.addresses];
    for (source, members) in by_source.iter().enumerate() {
        for tier in tiers {
            let lacks = |draft: &Draft| tier(draft).min(draft.wish.addresses).saturating_sub(draft.has());
            let asked: Vec<u32> = members.iter().map(|&member| lacks(&drafts[member])).collect();
            let shares = evenly(stock.left[source], &asked);
            for (&member, share) in members.iter().zip(shares) {
                drafts[member].granted += share;
                stock.left[source] -= share;
                stock.in_flight[source] += share;
            }
        }
        for &member in members {
            let draft = &mut drafts[member];
            draft.withheld = draft.wish.addresses.saturating_sub(draft.has());
            stock.withheld[source] += draft.withheld;
        }
    }
}

/// Who may call EC2 now: nodes whose pods wait first, then demand, then the rest. Answers when to try again.
fn turns(drafts: &mut [Draft], budget: &mut Budget, now: Timestamp) -> Option<Timestamp> {
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|&index| {
        let draft = &drafts[index];
        let short = draft.need.demand.saturating_sub(draft.given.addresses);
        (draft.node.waiting == 0, short == 0, std::cmp::Reverse(short))
    });
    let mut retry = None;
    for index in order {
        let draft = &mut drafts[index];
        retry = earlier(retry, draft.take_turn(budget, now));
    }
    retry
}

impl Draft<'_> {
    /// Addresses given or granted.
    fn has(&self) -> u32 {
        self.given.addresses + self.granted
    }

    /// Interfaces that `addresses` take, those included that are not for pods.
    fn enis_for(&self, addresses: u32) -> u32 {
        let node = self.node;
        let prefixes = self.in_prefixes(addresses).div_ceil(Prefix::SIZE).min(self.wish.prefixes);
        let need = Need { addresses, prefixes, lost: self.need.lost, ..Need::default() };
        let singles = if node.no_prefixes { self.need.demand.div_ceil(node.capacity.slots_per_eni.max(1)) } else { 0 };
        (enis_for(node.capacity, &node.policy, &need).max(singles) + retiring(node)).min(most_enis(node)).max(1)
    }

    /// Of `addresses`, those in prefixes, with what is of no use there.
    fn in_prefixes(&self, addresses: u32) -> u32 {
        (addresses + self.need.lost).saturating_sub(self.need.singles())
    }

    /// Takes what the raise costs from the budget, as far as it goes. Answers when the rest may be tried.
    fn take_turn(&mut self, budget: &mut Budget, now: Timestamp) -> Option<Timestamp> {
        let enis = self.enis_for(self.has().min(self.wish.addresses));
        if self.wish.addresses < self.given.addresses {
            // Giving back is not urgent: it takes no turn.
            self.enis = enis.min(self.given.enis);
            return None;
        }
        let not_for_pods = retiring(self.node) + u32::from(!self.node.policy.use_primary_eni);
        let room = self.given.enis.saturating_sub(not_for_pods) * self.per_eni();
        let in_slots = self.granted.min(room.saturating_sub(self.given.addresses));
        let mut allowed = 0;
        let mut retry = None;
        if in_slots > 0 {
            match budget.take(Action::AssignPrivateIpAddresses, 1, now) {
                Ok(()) => allowed = in_slots,
                Err(at) => {
                    self.waits_for = Some(Action::AssignPrivateIpAddresses);
                    retry = Some(at);
                }
            }
        }
        self.enis = self.given.enis.min(enis);
        while self.enis < enis {
            if let Err((action, at)) = take_both(budget, now) {
                self.waits_for = Some(action);
                retry = earlier(retry, Some(at));
                break;
            }
            allowed += self.per_eni().min(self.granted - allowed);
            self.enis += 1;
        }
        // More slots than we know of may be free: no interface is missing then.
        if self.enis >= enis && self.waits_for.is_none() {
            allowed = self.granted;
        }
        self.granted = allowed;
        retry
    }

    fn per_eni(&self) -> u32 {
        match self.node.capacity.addressing(self.node.policy.addressing) {
            Addressing::Secondary => self.node.capacity.slots_per_eni,
            Addressing::Prefix | Addressing::Mixed => self.node.capacity.prefix_addresses_per_eni(),
        }
    }

    fn allocation(self, stocks: &[SubnetStock]) -> NodeAllocation {
        let raised = self.wish.addresses >= self.given.addresses;
        let addresses = if raised { self.has() } else { self.wish.addresses };
        let prefixes = if addresses >= self.wish.addresses {
            self.wish.prefixes
        } else {
            self.wish.prefixes.min(self.in_prefixes(addresses) / Prefix::SIZE)
        };
        let mut decision = self.need.decision.clone();
        if self.withheld > 0
            && let Some(stock) = self.source.and_then(|source| stocks.get(source))
        {
            let usable = stock.available.saturating_sub(stock.headroom);
            let _ = write!(decision, "; {} withheld: {} has {usable} left", self.withheld, stock.id);
        }
        if let Some(action) = self.waits_for {
            let _ = write!(decision, "; waits its turn for {}", action.name());
        }
        if self.floor.addresses > self.need.addresses && addresses > self.need.addresses {
            let _ = write!(decision, "; {addresses} kept, needed a minute ago");
        }
        if let Some((reason, count)) = self.need.refused {
            let _ = write!(decision, "; {count} refused: {}", reason.name());
        }
        let pods = self.node.pods;
        let single = self.node.capacity.addressing(self.node.policy.addressing) == Addressing::Secondary;
        let limit = self.need.max_pods.next_multiple_of(if single { 1 } else { Prefix::SIZE });
        NodeAllocation {
            name: self.node.name.clone(),
            addresses,
            prefixes,
            enis: self.enis,
            subnet: self.next_subnet,
            // The agent holds what EC2 counts against it, whether pods can use it or not.
            ceiling: (limit + self.need.lost).min(self.need.most).max(addresses + self.need.lost),
            pods,
            demand: pods.max(self.node.addresses.assigned + self.node.waiting) - self.node.addresses.assigned,
            withheld: self.withheld.saturating_sub(self.wish.addresses.saturating_sub(self.need.demand)),
            decision,
        }
    }
}

/// A creation and its attachment, both or neither.
fn take_both(budget: &mut Budget, now: Timestamp) -> Result<(), (Action, Timestamp)> {
    let create = Action::CreateNetworkInterface;
    let attach = Action::AttachNetworkInterface;
    if budget.left(create, now) == 0 {
        return budget.take(create, 1, now).map_err(|at| (create, at));
    }
    budget.take(attach, 1, now).map_err(|at| (attach, at))?;
    budget.take(create, 1, now).map_err(|at| (create, at))
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
