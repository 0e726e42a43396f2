//! Where a pod stands on its way to an address: one of a closed set, judged in the order in which a pod goes.

use enipool_crds::condition::ConditionType;
use k8s_openapi::api::core::v1::Event;

use super::facts::{Answer, Facts, event_time, full_name};
use crate::words::{count, one_line, since};

/// What keeps the pod from its address, if anything does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has run to its end.
    Finished,
    /// It is being deleted.
    Leaving,
    /// It uses the node's own network.
    HostNetwork,
    /// It has its address.
    HasAddress,
    /// Its scheduling gates are closed.
    Gated,
    /// No node has been found for it.
    Unscheduled,
    /// The cluster has no ENIPools.
    NotInstalled,
    /// Its node has no ENIPool.
    NoPool,
    /// The ENIPool could not be read.
    PoolUnread,
    /// The node's agent does not serve pods, or has never reported.
    AgentNotReady,
    /// The kubelet does not start pods.
    NodeNotReady,
    /// The node has no free address, or more pods wait than it has.
    NoFreeAddress,
    /// The node has free addresses, but the runtime fails to make the pod's sandbox.
    SandboxFails,
    /// The node has free addresses and nobody waits: something else holds the pod.
    NotTheAddress,
}

impl Verdict {
    pub fn judge(facts: &Facts) -> Self {
        if matches!(facts.phase(), "Succeeded" | "Failed") {
            return Self::Finished;
        }
        if facts.pod.metadata.deletion_timestamp.is_some() {
            return Self::Leaving;
        }
        if facts.on_host_network() {
            return Self::HostNetwork;
        }
        if facts.address().is_some() {
            return Self::HasAddress;
        }
        if facts.node_name().is_none() {
            let gates = facts.pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
            return if gates.is_some_and(|gates| !gates.is_empty()) { Self::Gated } else { Self::Unscheduled };
        }
        match &facts.pool {
            Answer::Found(_) => Self::on_its_node(facts),
            Answer::Missing => Self::NoPool,
            Answer::UnknownKind => Self::NotInstalled,
            Answer::Unread(_) | Answer::NotAsked => Self::PoolUnread,
        }
    }

    fn on_its_node(facts: &Facts) -> Self {
        let serves = facts.condition(ConditionType::Ready).is_some_and(|ready| ready.status == "True");
        let (true, Some(free)) = (serves, facts.free()) else { return Self::AgentNotReady };
        if facts.ailing_agent().is_some() {
            return Self::AgentNotReady;
        }
        if facts.node_ready().is_some_and(|ready| ready.status != "True") {
            return Self::NodeNotReady;
        }
        let waiting = facts.status().map_or(0, |status| status.waiting);
        if free <= 0 || waiting > 0 {
            Self::NoFreeAddress
        } else if failed_sandbox(facts).is_some() {
            Self::SandboxFails
        } else {
            Self::NotTheAddress
        }
    }

    /// The verdict's name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "Finished",
            Self::Leaving => "Leaving",
            Self::HostNetwork => "HostNetwork",
            Self::HasAddress => "HasAddress",
            Self::Gated => "SchedulingGated",
            Self::Unscheduled => "Unscheduled",
            Self::NotInstalled => "NotInstalled",
            Self::NoPool => "NoPool",
            Self::PoolUnread => "PoolUnread",
            Self::AgentNotReady => "AgentNotReady",
            Self::NodeNotReady => "NodeNotReady",
            Self::NoFreeAddress => "NoFreeAddress",
            Self::SandboxFails => "SandboxFails",
            Self::NotTheAddress => "NotTheAddress",
        }
    }

    /// Whether the pool has a part in it, so that its figures belong to the story.
    pub fn concerns_pool(self) -> bool {
        !matches!(self, Self::Finished | Self::HostNetwork | Self::Gated | Self::Unscheduled)
    }

    /// The verdict in one sentence.
    pub fn summary(self, facts: &Facts) -> String {
        let pod = format!("Pod {}", facts.pod_name());
        let node = facts.node();
        match self {
            Self::Finished => format!("{pod} has finished ({}): it needs no address any more.", facts.phase()),
            Self::Leaving => match facts.address() {
                Some(address) => format!("{pod} is being deleted; until its sandbox is gone it keeps {address}."),
                None => format!("{pod} is being deleted and has no address."),
            },
            Self::HostNetwork => {
                format!("{pod} uses its node's own network (hostNetwork): it takes no address from the pool.")
            }
            Self::HasAddress => has_address(facts, &pod),
            Self::Gated => format!("{pod} is not scheduled yet: its scheduling gates are closed ({}).", gates(facts)),
            Self::Unscheduled => format!("{pod} has no node yet, so it has no address: {}.", scheduling(facts)),
            Self::NotInstalled => format!(
                "{pod} on node {node} has no address, and enipool has no part in it: this cluster knows no ENIPools."
            ),
            Self::NoPool => format!("{pod} has no address: its node {node} has no ENIPool."),
            Self::PoolUnread => format!(
                "{pod} on node {node} has no address; the node's ENIPool cannot be read: {}.",
                facts.pool.unread().unwrap_or("it was not asked for")
            ),
            Self::AgentNotReady => format!("{pod} waits for the agent of node {node}: {}.", agent(facts)),
            Self::NodeNotReady => format!("{pod} waits for its node: {node} is not ready."),
            Self::NoFreeAddress => no_free_address(facts, &pod),
            Self::SandboxFails => {
                let ago = failed_sandbox(facts).and_then(event_time).map(|at| since(at, facts.now));
                format!(
                    "{pod} waits for its sandbox: node {node} has {} now, but the runtime's last try failed{}.",
                    free(facts),
                    ago.map_or_else(String::new, |ago| format!(" {ago} ago"))
                )
            }
            Self::NotTheAddress => format!(
                "{pod} has no address yet, but none is missing: node {node} has {} and no pod waits for one.",
                free(facts)
            ),
        }
    }
}

/// The newest failure to make the pod's sandbox: the event with which the kubelet reports what the CNI plugin said.
pub fn failed_sandbox(facts: &Facts) -> Option<&Event> {
    facts.newest_events().into_iter().find(|event| event.reason.as_deref() == Some("FailedCreatePodSandBox"))
}

fn free(facts: &Facts) -> String {
    count(facts.free().unwrap_or(0), "free address", "free addresses")
}

fn has_address(facts: &Facts, pod: &str) -> String {
    let address = facts.address().unwrap_or_default();
    let idle = facts.idle_containers();
    let rest = if idle.is_empty() {
        String::new()
    } else {
        format!(" What it still waits for is not the network ({}).", idle.join(", "))
    };
    format!("{pod} has its address: {address} on node {}.{rest}", facts.node())
}

fn gates(facts: &Facts) -> String {
    let gates = facts.pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    gates.map(|gate| gate.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn scheduling(facts: &Facts) -> String {
    let message = facts.pod_condition("PodScheduled").and_then(|condition| condition.message.as_deref());
    message.map_or_else(
        || "the scheduler has not said why".to_owned(),
        |message| one_line(message).trim_end_matches('.').to_owned(),
    )
}

fn agent(facts: &Facts) -> String {
    match facts.condition(ConditionType::Ready) {
        Some(ready) if ready.status != "True" => {
            let message = one_line(&ready.message);
            format!("it does not serve pods ({}: {})", ready.reason, message.trim_end_matches('.'))
        }
        _ => match facts.ailing_agent() {
            Some(pod) => format!("its pod {} is not ready", full_name(pod)),
            None => "it has not reported yet".to_owned(),
        },
    }
}

fn no_free_address(facts: &Facts, pod: &str) -> String {
    let node = facts.node();
    let waiting = facts.status().map_or(0, |status| status.waiting);
    if facts.free().unwrap_or(0) > 0 {
        let pods = count(waiting, "pod waits", "pods wait");
        return format!(
            "{pod} waits for an address, or is just getting one: on node {node} {pods}, {} left.",
            free(facts)
        );
    }
    match (facts.reason(), facts.reason_text()) {
        (Some(reason), _) => {
            format!(
                "{pod} waits for an address: node {node} has none free ({reason}: {}).",
                super::advice::meaning(reason)
            )
        }
        (None, Some(reason)) => format!("{pod} waits for an address: node {node} has none free ({reason})."),
        (None, None) => format!("{pod} waits for an address: node {node} has none free."),
    }
}
