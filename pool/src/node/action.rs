//! What the planner answers: actions, why it holds back, when to ask again, and the reason in words.

use crate::address::Prefix;
use crate::ec2::Supply;
use crate::id::{EniId, SubnetId};
use crate::time::Timestamp;

/// One thing to do. Actions of a plan are independent of each other: run them in parallel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `AssignPrivateIpAddresses` into free slots.
    Assign { eni: EniId, supply: Supply },
    /// `CreateNetworkInterface` with all its addresses, then `AttachNetworkInterface` at that index.
    Create { subnet: SubnetId, device_index: u32, supply: Supply },
    /// `AttachNetworkInterface` of one of ours that is [`Detached`](super::EniPhase::Detached).
    Attach { eni: EniId, device_index: u32 },
    /// `UnassignPrivateIpAddresses` of any `singles` free single addresses and of these prefixes, which nobody uses.
    /// The ledger takes them out of service first; what has been handed out since the snapshot stays.
    Unassign { eni: EniId, singles: u32, prefixes: Vec<Prefix> },
    /// Detach (if attached) and delete an interface that carries no assigned or cooling address. Take all its
    /// addresses out of service first; give up if one has been handed out since the snapshot.
    Release { eni: EniId },
    /// `ModifyNetworkInterfaceAttribute`: the interface dies with the instance.
    SetDeleteOnTermination { eni: EniId },
}

impl Action {
    /// The interface it works on; `None` for a creation.
    pub fn eni(&self) -> Option<&EniId> {
        match self {
            Self::Assign { eni, .. }
            | Self::Attach { eni, .. }
            | Self::Unassign { eni, .. }
            | Self::Release { eni }
            | Self::SetDeleteOnTermination { eni } => Some(eni),
            Self::Create { .. } => None,
        }
    }
}

/// What an action is for, most urgent first: the order in which a scarce EC2 budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Pods wait, or will in a moment.
    Demand,
    /// `minimumIPTarget`.
    Minimum,
    /// Free addresses for what comes next.
    Warm,
    /// What the pool owes others: delete-on-termination, unattached leftovers.
    Housekeeping,
    /// Giving back.
    Return,
}

/// An action and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub action: Action,
    pub purpose: Purpose,
}

/// Why the planner does less than the targets ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldReason {
    /// No candidate subnet has a free address.
    SubnetExhausted,
    /// No candidate subnet has a free /28.
    NoContiguousPrefix,
    /// EC2 refuses calls for their rate.
    Throttled,
    /// The agent's own fuse: the node has made as many calls as any node ever needs in that time.
    CallLimit,
    /// The instance type (or `maxENIs`) has no more room.
    InstanceLimit,
    /// The account's quota of network interfaces is used up.
    AccountLimit,
    /// Max pods is reached.
    MaxPods,
    /// The operator's ceiling is reached.
    Ceiling,
    /// The operator has not raised the allocation (yet).
    AwaitingTurn,
    /// An interface is on its way with what is missing.
    AttachInFlight,
    /// An Assign with what is missing is under way.
    AssignInFlight,
    /// The instance is stopping, stopped or terminated.
    InstanceNotRunning,
    /// The IAM role does not allow a call that is needed.
    AccessDenied,
    /// EC2 failed or did not answer; the next try is due at `until`.
    Ec2Unavailable,
    /// No subnet is known in which an ENI could be made.
    NoSubnet,
    /// `operations` is `NoCloud`, or `NoRelease` and something could be given back.
    Paused,
}

impl HoldReason {
    pub const ALL: [Self; 16] = [
        Self::SubnetExhausted,
        Self::NoContiguousPrefix,
        Self::Throttled,
        Self::CallLimit,
        Self::InstanceLimit,
        Self::AccountLimit,
        Self::MaxPods,
        Self::Ceiling,
        Self::AwaitingTurn,
        Self::AttachInFlight,
        Self::AssignInFlight,
        Self::InstanceNotRunning,
        Self::AccessDenied,
        Self::Ec2Unavailable,
        Self::NoSubnet,
        Self::Paused,
    ];

    /// A name for conditions, metrics and errors: one of a closed set.
    pub fn name(self) -> &'static str {
        match self {
            Self::SubnetExhausted => "SubnetExhausted",
            Self::NoContiguousPrefix => "NoContiguousPrefix",
            Self::Throttled => "Throttled",
            Self::CallLimit => "CallLimit",
            Self::InstanceLimit => "InstanceLimit",
            Self::AccountLimit => "AccountLimit",
            Self::MaxPods => "MaxPods",
            Self::Ceiling => "Ceiling",
            Self::AwaitingTurn => "AwaitingTurn",
            Self::AttachInFlight => "AttachInFlight",
            Self::AssignInFlight => "AssignInFlight",
            Self::InstanceNotRunning => "InstanceNotRunning",
            Self::AccessDenied => "AccessDenied",
            Self::Ec2Unavailable => "Ec2Unavailable",
            Self::NoSubnet => "NoSubnet",
            Self::Paused => "Paused",
        }
    }
}

/// Something that the targets ask for and the planner does not do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub reason: HoldReason,
    /// Whether pods go without for it, or only what is kept ready for them.
    pub purpose: Purpose,
    /// Addresses concerned.
    pub addresses: u32,
    pub subnet: Option<SubnetId>,
    /// When it may be over by itself, if that is known.
    pub until: Option<Timestamp>,
}

/// The planner's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Most urgent first; independent of each other.
    pub actions: Vec<Planned>,
    /// Why less is done than asked, the reason that matters most to a waiting pod first. Empty: all is as it should be
    /// or will be once the actions are done.
    pub holds: Vec<Hold>,
    /// Ask again at this time even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Interfaces whose free addresses go to pods only if no other has one: they are to run empty. Replaces the set of
    /// the plan before.
    pub draining: Vec<EniId>,
    /// Interfaces whose free addresses no pod may get: the primary where pods must not use it, and those that retire.
    /// Replaces the set of the plan before.
    pub closed: Vec<EniId>,
    /// Addresses that the node should hold.
    pub target: u32,
    /// The reckoning in one line, for people.
    pub decision: String,
}
