//! Conditions and reasons of an ENIPool: closed sets, so that people and alerts can rely on them.

use enipool_pool::node::HoldReason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// What a condition of an ENIPool speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The agent serves pods: ledger, kernel and EC2 agree.
    Ready,
    /// A pod that comes now gets an address at once, or there is none waiting.
    AddressesAvailable,
    /// EC2 refuses calls of this node for their rate.
    Throttled,
    /// The operator plans for this node. `False` with reason `OperatorAway`: the agent plans for itself.
    OperatorPresent,
}

impl ConditionType {
    pub const ALL: [Self; 4] = [Self::Ready, Self::AddressesAvailable, Self::Throttled, Self::OperatorPresent];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::AddressesAvailable => "AddressesAvailable",
            Self::Throttled => "Throttled",
            Self::OperatorPresent => "OperatorPresent",
        }
    }
}

/// Why a condition is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Nothing is wrong.
    AsPlanned,
    /// The agent has just started and compares journal, kernel and EC2.
    Starting,
    /// The subnet has no free address.
    SubnetExhausted,
    /// The subnet has free addresses, but no aligned /28.
    NoContiguousPrefix,
    /// EC2 refuses calls for their rate.
    Throttled,
    /// The agent's own limit of EC2 calls is used up for a while.
    CallLimit,
    /// The instance type (or `maxENIs`) has no more room.
    InstanceLimit,
    /// The account may have no more network interfaces in this region.
    AccountLimit,
    /// An ENI is on its way.
    AttachInFlight,
    /// The instance is stopping, stopped or terminated.
    InstanceNotRunning,
    /// The IAM role does not allow a call that the pool needs.
    AccessDenied,
    /// The EC2 API fails or does not answer.
    Ec2Unavailable,
    /// No operator leads, or the API server cannot be reached.
    OperatorAway,
    /// No ENIPoolClass matches the node.
    ClassNotFound,
    /// `spec.operations` holds the pool back.
    Paused,
    /// The node runs as many pods as the kubelet allows.
    MaxPods,
    /// The operator's ceiling is reached.
    Ceiling,
    /// The operator has not raised the allocation yet.
    AwaitingTurn,
    /// Addresses are on their way.
    AssignInFlight,
    /// Addresses that were in use a moment ago rest before another pod gets them.
    Cooling,
    /// No subnet is known in which an ENI could be made.
    NoSubnet,
    /// The host's routes or rules could not be set up.
    DataplaneFailed,
}

impl Reason {
    pub const ALL: [Self; 22] = [
        Self::AsPlanned,
        Self::Starting,
        Self::SubnetExhausted,
        Self::NoContiguousPrefix,
        Self::Throttled,
        Self::CallLimit,
        Self::InstanceLimit,
        Self::AccountLimit,
        Self::AttachInFlight,
        Self::InstanceNotRunning,
        Self::AccessDenied,
        Self::Ec2Unavailable,
        Self::OperatorAway,
        Self::ClassNotFound,
        Self::Paused,
        Self::MaxPods,
        Self::Ceiling,
        Self::AwaitingTurn,
        Self::AssignInFlight,
        Self::Cooling,
        Self::NoSubnet,
        Self::DataplaneFailed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsPlanned => "AsPlanned",
            Self::Starting => "Starting",
            Self::SubnetExhausted => "SubnetExhausted",
            Self::NoContiguousPrefix => "NoContiguousPrefix",
            Self::Throttled => "Throttled",
            Self::CallLimit => "CallLimit",
            Self::InstanceLimit => "InstanceLimit",
            Self::AccountLimit => "AccountLimit",
            Self::AttachInFlight => "AttachInFlight",
            Self::InstanceNotRunning => "InstanceNotRunning",
            Self::AccessDenied => "AccessDenied",
            Self::Ec2Unavailable => "Ec2Unavailable",
            Self::OperatorAway => "OperatorAway",
            Self::ClassNotFound => "ClassNotFound",
            Self::Paused => "Paused",
            Self::MaxPods => "MaxPods",
            Self::Ceiling => "Ceiling",
            Self::AwaitingTurn => "AwaitingTurn",
            Self::AssignInFlight => "AssignInFlight",
            Self::Cooling => "Cooling",
            Self::NoSubnet => "NoSubnet",
            Self::DataplaneFailed => "DataplaneFailed",
        }
    }
}

/// Why the planner holds back, as a reason of a condition.
impl From<HoldReason> for Reason {
    fn from(hold: HoldReason) -> Self {
        match hold {
            HoldReason::SubnetExhausted => Self::SubnetExhausted,
            HoldReason::NoContiguousPrefix => Self::NoContiguousPrefix,
            HoldReason::Throttled => Self::Throttled,
            HoldReason::CallLimit => Self::CallLimit,
            HoldReason::InstanceLimit => Self::InstanceLimit,
            HoldReason::AccountLimit => Self::AccountLimit,
            HoldReason::MaxPods => Self::MaxPods,
            HoldReason::Ceiling => Self::Ceiling,
            HoldReason::AwaitingTurn => Self::AwaitingTurn,
            HoldReason::AttachInFlight => Self::AttachInFlight,
            HoldReason::AssignInFlight => Self::AssignInFlight,
            HoldReason::InstanceNotRunning => Self::InstanceNotRunning,
            HoldReason::AccessDenied => Self::AccessDenied,
            HoldReason::Ec2Unavailable => Self::Ec2Unavailable,
            HoldReason::NoSubnet => Self::NoSubnet,
            HoldReason::Paused => Self::Paused,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Puts a condition into its place. `lastTransitionTime` moves only when the status changes, as everywhere in Kubernetes.
/// Returns whether anything but the observed generation changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    holds: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let status = match holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let message = message.into();
    if let Some(existing) = conditions.iter_mut().find(|condition| condition.type_ == kind.as_str()) {
        let turned = existing.status != status;
        let changed = turned || existing.reason != reason.as_str() || existing.message != message;
        if turned {
            status.clone_into(&mut existing.status);
            existing.last_transition_time = Time(now);
        }
        reason.as_str().clone_into(&mut existing.reason);
        existing.message = message;
        existing.observed_generation = observed_generation;
        return changed;
    }
    conditions.push(Condition {
        type_: kind.as_str().into(),
        status: status.into(),
        reason: reason.as_str().into(),
        message,
        observed_generation,
        last_transition_time: Time(now),
    });
    true
}

/// The condition of this type, if it has been set.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_turns() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, ConditionType::Ready, Some(false), Reason::Starting, "", Some(1), at(10)));
        assert!(set(&mut conditions, ConditionType::Ready, Some(false), Reason::AccessDenied, "", Some(1), at(20)));
        assert_eq!(find(&conditions, ConditionType::Ready).unwrap().last_transition_time.0, at(10));
        assert!(set(&mut conditions, ConditionType::Ready, Some(true), Reason::AsPlanned, "", Some(1), at(30)));
        assert_eq!(find(&conditions, ConditionType::Ready).unwrap().last_transition_time.0, at(30));
        assert!(!set(&mut conditions, ConditionType::Ready, Some(true), Reason::AsPlanned, "", Some(2), at(40)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn every_reason_has_the_form_that_kubernetes_asks_of_reasons() {
        for reason in Reason::ALL {
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()), "{reason}");
            assert!(reason.as_str().starts_with(|c: char| c.is_ascii_uppercase()), "{reason}");
        }
    }
}
