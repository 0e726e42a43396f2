//! What the fleet planner is told and what it answers.

use std::collections::BTreeMap;

use crate::address::Prefix;
use crate::capacity::Capacity;
use crate::id::SubnetId;
use crate::node::{Counts, Peaks};
use crate::targets::Policy;
use crate::time::Timestamp;

/// A node as its objects describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    pub name: Box<str>,
    pub capacity: Capacity,
    pub policy: Policy,
    /// Pods with an address of their own that the node may run, if its kubelet sets a limit.
    pub max_pods: Option<u32>,
    /// Pods bound to it that need an address: not hostNetwork, not finished.
    pub pods: u32,
    /// ADDs that wait there now.
    pub waiting: u32,
    /// Its addresses by state, as its agent reported them last. All zero if it has not reported yet.
    pub addresses: Counts,
    /// Its interfaces of the pool, the primary included. Empty if its agent has not reported yet.
    pub enis: Vec<FleetEni>,
    /// Interfaces on its default network card that are not the pool's.
    pub foreign_enis: u32,
    /// Its agent finds no /28 in its subnets.
    pub no_prefixes: bool,
    /// Where its next interface may be made; the order is of no matter.
    pub subnets: Vec<SubnetId>,
    /// What it was allotted last.
    pub given: Option<Given>,
}

/// One interface of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetEni {
    pub subnet: SubnetId,
    pub primary: bool,
    /// Not for new pods any more.
    pub retiring: bool,
    /// Addresses for pods, those of prefixes included.
    pub addresses: u32,
    /// Of those, in use by pods.
    pub assigned: u32,
    pub prefixes: u32,
    /// Assigned or cooling addresses outside prefixes.
    pub singles_held: u32,
    /// Prefixes with an assigned or cooling address.
    pub prefixes_in_use: u32,
}

impl FleetEni {
    /// Slots in which an address is assigned or cooling.
    pub(super) fn slots_held(&self) -> u32 {
        self.singles_held + self.prefixes_in_use
    }

    /// Free addresses in prefixes that pods use, and those of them that are cooling.
    pub(super) fn free_in_used_prefixes(&self) -> u32 {
        (self.prefixes_in_use * Prefix::SIZE).saturating_sub(self.assigned.saturating_sub(self.singles_held))
    }
}

/// An allocation that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    pub addresses: u32,
    pub prefixes: u32,
    pub enis: u32,
    pub subnet: Option<SubnetId>,
}

/// A subnet's stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetStock {
    pub id: SubnetId,
    /// Free addresses as EC2 counts them.
    pub available: u32,
    /// What the pool leaves untouched.
    pub headroom: u32,
}

/// What a node is allotted from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAllocation {
    pub name: Box<str>,
    /// Addresses to hold, those of prefixes included.
    pub addresses: u32,
    pub prefixes: u32,
    /// Interfaces of the pool, the primary included.
    pub enis: u32,
    pub subnet: Option<SubnetId>,
    /// The most addresses it may ever hold.
    pub ceiling: u32,
    /// Pods that need an address.
    pub pods: u32,
    /// Pods beyond the addresses assigned.
    pub demand: u32,
    /// Addresses that pods need now and the subnet cannot give without going below its headroom.
    pub withheld: u32,
    /// How this came about, in one line for people.
    pub decision: String,
}

/// How a subnet stands after the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetPlan {
    pub id: SubnetId,
    /// Addresses allotted to nodes that have not taken them yet.
    pub in_flight: u32,
    /// Addresses that could still be allotted.
    pub left: u32,
    /// Addresses asked for that the subnet cannot give.
    pub withheld: u32,
    /// Nodes whose next interface goes there.
    pub nodes: u32,
}

/// The fleet planner's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetPlan {
    /// One for each node, in the snapshot's order, whether or not it changed.
    pub allocations: Vec<NodeAllocation>,
    pub subnets: Vec<SubnetPlan>,
    /// Plan again at this time even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

/// What the planner remembers of each node from one plan to the next. Losing it is safe: nothing is lowered for a minute.
#[derive(Debug, Clone, Default)]
pub struct FleetMemory {
    pub(super) nodes: BTreeMap<Box<str>, Remembered>,
}

#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) policy: Policy,
    pub(super) peaks: Peaks,
    /// Last seen in this round; nodes that are gone are forgotten.
    pub(super) round: Timestamp,
}
