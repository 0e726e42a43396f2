//! Why an ADD got no address, in words that the person who looks at the waiting pod can use.

use std::fmt;
use std::time::Duration;

use enipool_pool::node::HoldReason;

/// What stands between the node and more addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shortage {
    /// The agent has not yet found out what the node holds.
    Starting,
    /// Every address rests after use; they free themselves.
    Cooling,
    /// EC2 gave addresses that the kernel refuses to be set up for.
    HostNotSetUp,
    /// The planner's reason, also the name of the ENIPool's condition.
    Hold(HoldReason),
}

impl Shortage {
    /// The reason as written in conditions, metrics and events: one of a closed set.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Cooling => "Cooling",
            Self::HostNotSetUp => "HostNotSetUp",
            Self::Hold(reason) => reason.name(),
        }
    }

    /// What the reason means, as a clause.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Starting => "the agent is still finding out what the node holds",
            Self::Cooling => "all addresses that are not in use rest after their last pod",
            Self::HostNotSetUp => "the node's kernel refuses to be set up for the addresses that EC2 gave",
            Self::Hold(reason) => explain(reason),
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Starting | Self::Cooling => WAIT,
            Self::HostNotSetUp => {
                "the agent tries again every half a minute; `enipool-agent doctor` in the agent's pod shows what differs"
            }
            Self::Hold(reason) => advise(reason),
        }
    }

    /// Whether it passes without anybody doing something.
    pub fn passes(self) -> bool {
        !matches!(
            self,
            Self::HostNotSetUp
                | Self::Hold(
                    HoldReason::InstanceLimit
                        | HoldReason::MaxPods
                        | HoldReason::AccessDenied
                        | HoldReason::Paused
                        | HoldReason::NoSubnet
                )
        )
    }
}

const WAIT: &str = "the runtime's next try will find one";

fn explain(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::SubnetExhausted => "the subnet has no free address (beyond its headroom)",
        HoldReason::NoContiguousPrefix => "the subnet has no free /28 prefix",
        HoldReason::Throttled => "EC2 throttles this account",
        HoldReason::CallLimit => "the agent has made as many EC2 calls as a node ever needs, and pauses by itself",
        HoldReason::InstanceLimit => "the instance holds as many addresses as its type (or maxENIs) allows",
        HoldReason::AccountLimit => "the account's quota of network interfaces is used up",
        HoldReason::MaxPods => "the node holds an address for each pod that the kubelet admits",
        HoldReason::Ceiling => "the node's ceiling is reached",
        HoldReason::AwaitingTurn => "it is not yet this node's turn at the EC2 API",
        HoldReason::AttachInFlight => "a network interface is on its way",
        HoldReason::AssignInFlight => "addresses are on their way from EC2",
        HoldReason::InstanceNotRunning => "the instance is not running",
        HoldReason::AccessDenied => "the node's IAM role may not make the EC2 call",
        HoldReason::Ec2Unavailable => "EC2 fails or does not answer",
        HoldReason::NoSubnet => "no subnet is known in which a network interface could be made",
        HoldReason::Paused => "EC2 calls are switched off for this node",
    }
}

fn advise(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::AttachInFlight | HoldReason::AssignInFlight | HoldReason::AwaitingTurn => WAIT,
        HoldReason::SubnetExhausted => {
            "free addresses in the subnet, lower the warm targets, or add a subnet to the ENIPoolClass"
        }
        HoldReason::NoContiguousPrefix => "set addressing to Mixed, or reserve a range for prefixes in the subnet",
        HoldReason::Throttled => "`kubectl enipool top --sort throttles` shows which nodes EC2 throttles",
        HoldReason::CallLimit => "the agent's log says which calls it repeats, and why they are in vain",
        HoldReason::InstanceLimit => "lower the kubelet's --max-pods, raise maxENIs, or use a larger instance type",
        HoldReason::AccountLimit => "ask AWS for a higher quota of network interfaces per region",
        HoldReason::MaxPods => "raise the kubelet's --max-pods",
        HoldReason::Ceiling => "the ENIPool's spec.allocation.decision says how it came about",
        HoldReason::InstanceNotRunning => "nothing to do: the node goes, and the pod will be made elsewhere",
        HoldReason::AccessDenied => "attach the IAM policy that enipool ships to the node's role",
        HoldReason::Ec2Unavailable => "check the network path and the status of EC2 in the region",
        HoldReason::NoSubnet => "check the subnet selector of the ENIPoolClass",
        HoldReason::Paused => "set operations to Normal in the ENIPool",
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Why [`Pool::acquire`](super::Pool::acquire) gave no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// The agent does not yet know what the node holds, or is going away.
    #[error("the pool of this node is not serving: {0}")]
    NotServing(String),
    /// No address came before the deadline.
    #[error(
        "no free address for {waited:.1?}: {}{}{}; {}",
        .shortage.explanation(),
        .detail.as_ref().map_or_else(String::new, |detail| format!(" ({detail})")),
        .eta.map_or_else(String::new, |eta| format!(", the next is expected in {eta:.1?}")),
        .shortage.advice()
    )]
    TimedOut {
        waited: Duration,
        shortage: Shortage,
        eta: Option<Duration>,
        /// What kernel or EC2 said, where that tells more than the reason.
        detail: Option<String>,
    },
    /// A DEL of the same attachment came while the ADD waited.
    #[error("the attachment was deleted while its ADD waited for an address")]
    Cancelled,
    /// As many ADDs wait as the agent lets wait.
    #[error("{0} pods of this node wait for an address already")]
    TooManyWaiting(usize),
    /// The lease could not be written down, so it was not given.
    #[error("cannot write the ledger's journal: {0}")]
    Journal(String),
}

impl AcquireError {
    /// The reason for conditions, events and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotServing(_) => "NotServing",
            Self::TimedOut { shortage, .. } => shortage.label(),
            Self::Cancelled => "Cancelled",
            Self::TooManyWaiting(_) => "TooManyWaiting",
            Self::Journal(_) => "Journal",
        }
    }

    /// Whether the same ADD a little later may succeed without anybody doing something.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotServing(_) | Self::Cancelled | Self::TooManyWaiting(_) => true,
            Self::TimedOut { shortage, .. } => shortage.passes(),
            Self::Journal(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_are_told_to_do_names_only_commands_that_exist() {
        let all = [Shortage::Starting, Shortage::Cooling, Shortage::HostNotSetUp]
            .into_iter()
            .chain(HoldReason::ALL.map(Shortage::Hold));
        for shortage in all {
            let text = format!("{}; {}", shortage.explanation(), shortage.advice());
            for command in text.split("kubectl ").skip(1) {
                let known = ["enipool top --sort throttles`", "enipool why "];
                assert!(known.iter().any(|known| command.starts_with(known)), "{shortage}: {text}");
            }
        }
    }
}
