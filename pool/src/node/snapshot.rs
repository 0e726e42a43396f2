//! What the planner is told of a node: counts, never addresses.

use crate::address::Prefix;
use crate::capacity::Capacity;
use crate::ec2::Supply;
use crate::id::{EniId, SubnetId};
use crate::targets::Policy;
use crate::time::Timestamp;

/// One node as its agent sees it at one instant. Build it under the ledger's lock, so that its counts agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub capacity: Capacity,
    /// The kubelet's limit of pods, if known; else [`Capacity`] decides.
    pub max_pods: Option<u32>,
    pub policy: Policy,
    pub usage: Usage,
    /// The operator's word. `None`: it is away, the agent plans for itself under `ceiling`.
    pub allocation: Option<AllocationView>,
    /// The most addresses the node may ever hold: the operator's last word on it, also while it is away.
    pub ceiling: Option<u32>,
    /// Every interface of the instance and every one of ours made for it, in whatever phase.
    pub enis: Vec<EniView>,
    /// Creations under way whose interface has no id yet.
    pub creating: Vec<Creating>,
    /// Subnets for the next ENI, best first. The allocation's subnet goes before these.
    pub subnets: Vec<SubnetView>,
}

impl Snapshot {
    /// Subnets for the next ENI: the operator's choice, then the candidates.
    pub(super) fn subnets_in_order(&self) -> impl Iterator<Item = &SubnetId> {
        let chosen = self.allocation.as_ref().and_then(|allocation| allocation.subnet.as_ref());
        chosen.into_iter().chain(self.subnets.iter().map(|subnet| &subnet.id).filter(move |id| Some(*id) != chosen))
    }
}

/// Who needs addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// ADDs that wait for an address now.
    pub waiting: u32,
    /// Pods bound to the node that need an address (not hostNetwork, not finished). `None`: the agent does not know.
    pub bound: Option<u32>,
}

/// The operator's allocation, as far as the node planner follows it. Raising it is the leave to act ("turn").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocationView {
    /// Addresses to hold in all, those of prefixes included, primaries excluded.
    pub addresses: u32,
    /// Interfaces of the pool that the node may have, the primary included.
    pub enis: u32,
    /// How many of the addresses come as prefixes by the operator's reckoning; the agent falls back by itself.
    pub prefixes: u32,
    /// Where the next ENI goes.
    pub subnet: Option<SubnetId>,
    /// Addresses that pods need beyond `addresses` because no subnet has them to spare: a turn would not bring them.
    pub withheld: u32,
}

/// Addresses by state. Their sum is what EC2 has assigned (and not taken back).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// In use by a pod.
    pub assigned: u32,
    /// Lately freed; may serve again later. Not free.
    pub cooling: u32,
    /// Ready to be handed out.
    pub free: u32,
}

impl Counts {
    pub fn total(self) -> u32 {
        self.assigned + self.cooling + self.free
    }

    /// Assigned or cooling: cannot be given back now.
    pub fn held(self) -> u32 {
        self.assigned + self.cooling
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            assigned: self.assigned + other.assigned,
            cooling: self.cooling + other.cooling,
            free: self.free + other.free,
        }
    }
}

/// A /28 of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixView {
    pub prefix: Prefix,
    pub counts: Counts,
    /// An Unassign of it is under way: its addresses are no longer handed out (`free` is 0).
    pub leaving: bool,
}

/// What an interface is to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EniRole {
    /// Ours, for pods (the primary included, whatever `use_primary_eni` says: the planner looks at that itself).
    Pods,
    /// Ours, but not for new pods: its subnet or its tags say so. Given back when its last pod is gone.
    Retiring,
    /// Not ours (`no_manage`, another owner, trunk, EFA): takes a device slot if on network card 0, is never touched.
    Foreign,
}

/// Where an interface of ours is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EniPhase {
    /// Exists, not attached, nothing under way: a crash or a failed attach left it so.
    Detached,
    /// An attach, or the set-up after it, is under way. Its addresses are coming, not usable yet.
    Attaching,
    /// Attached and set up.
    Ready,
    /// Detach or deletion is under way. It keeps its device slot until it is gone.
    Releasing,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniView {
    pub id: EniId,
    pub role: EniRole,
    pub phase: EniPhase,
    /// Device index 0.
    pub primary: bool,
    /// Device index on its card, once it has one (or one was chosen for it).
    pub device_index: Option<u32>,
    /// EC2's network card; the pool lives on card 0.
    pub network_card: u32,
    pub subnet: SubnetId,
    /// When it was attached (or created, while it is not attached).
    pub since: Timestamp,
    /// Also while the call that sets it is under way.
    pub delete_on_termination: bool,
    /// Secondary addresses outside prefixes, the primary excluded. Those whose Unassign is under way are not in it.
    pub singles: Counts,
    /// Single addresses whose Unassign is under way: they still take their slots.
    pub singles_leaving: u32,
    pub prefixes: Vec<PrefixView>,
    /// Assign calls under way.
    pub incoming: Vec<Supply>,
}

impl EniView {
    /// All its addresses by state, those of prefixes included.
    pub fn addresses(&self) -> Counts {
        self.prefixes.iter().fold(self.singles, |sum, prefix| sum.plus(prefix.counts))
    }

    /// Slots that EC2 counts as taken: a prefix is one, and what is being taken back is there until it has gone.
    pub fn slots_taken(&self) -> u32 {
        let prefixes = u32::try_from(self.prefixes.len()).unwrap_or(u32::MAX);
        self.singles.total().saturating_add(self.singles_leaving).saturating_add(prefixes)
    }
}

/// A creation under way (intent written, no id known yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creating {
    pub subnet: SubnetId,
    pub device_index: u32,
    pub supply: Supply,
}

/// A subnet in which ENIs of this node may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetView {
    pub id: SubnetId,
    /// Free addresses by the last look, if there was one. A hint: the planner trusts EC2's refusal more.
    pub available: Option<u32>,
}
