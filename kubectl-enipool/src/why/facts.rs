//! What was read about one pod, and plain questions to it.

use enipool_crds::condition::{self, ConditionType};
use enipool_crds::{Allocation, ENIPool, ENIPoolClass, ENIPoolStatus, Reason, SubnetStatus};
use k8s_openapi::api::core::v1::{Event, Node, NodeCondition, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::failure::Failure;
use crate::words::one_line;

/// Everything that the story of a pod is told from.
#[derive(Debug, Clone)]
pub struct Facts {
    pub pod: Pod,
    /// The node that the pod is bound to.
    pub node: Answer<Node>,
    /// That node's pool.
    pub pool: Answer<ENIPool>,
    /// That pool's class.
    pub class: Answer<ENIPoolClass>,
    /// The pod of that node's enipool-agent.
    pub agent: Answer<Pod>,
    /// The pod's events.
    pub events: Answer<Vec<Event>>,
    pub now: Timestamp,
}

/// What came of one question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<T> {
    Found(T),
    /// There is no such object.
    Missing,
    /// The cluster does not know this kind of object.
    UnknownKind,
    /// It could not be read, for instance for lack of permission.
    Unread(String),
    /// There was no reason to ask.
    NotAsked,
}

impl<T> Answer<T> {
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(object) => Some(object),
            _ => None,
        }
    }

    pub fn unread(&self) -> Option<&str> {
        match self {
            Self::Unread(why) => Some(why),
            _ => None,
        }
    }
}

impl<T> From<Result<T, Failure>> for Answer<T> {
    fn from(answer: Result<T, Failure>) -> Self {
        match answer {
            Ok(object) => Self::Found(object),
            Err(Failure::NotFound(_)) => Self::Missing,
            Err(Failure::NotInstalled { .. }) => Self::UnknownKind,
            Err(failure) => Self::Unread(failure.to_string()),
        }
    }
}

impl Facts {
    /// `namespace/name`.
    pub fn pod_name(&self) -> String {
        full_name(&self.pod)
    }

    /// The node that the pod is bound to.
    pub fn node_name(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The node's name where a sentence needs one.
    pub fn node(&self) -> &str {
        self.node_name().unwrap_or("(none)")
    }

    pub fn phase(&self) -> &str {
        self.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
    }

    pub fn address(&self) -> Option<&str> {
        self.pod.status.as_ref()?.pod_ip.as_deref().filter(|address| !address.is_empty())
    }

    pub fn on_host_network(&self) -> bool {
        self.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
    }

    pub fn pod_conditions(&self) -> &[PodCondition] {
        self.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
    }

    pub fn pod_condition(&self, kind: &str) -> Option<&PodCondition> {
        self.pod_conditions().iter().find(|condition| condition.type_ == kind)
    }

    /// Since when the pod has been bound to its node; since it was made, where that is not known.
    pub fn waits_since(&self) -> Option<Timestamp> {
        let bound = self.pod_condition("PodScheduled").filter(|condition| condition.status == "True");
        let bound = bound.and_then(|condition| condition.last_transition_time.as_ref());
        bound.map(|time| time.0).or_else(|| self.pod.creation_timestamp().map(|time| time.0))
    }

    pub fn node_ready(&self) -> Option<&NodeCondition> {
        let conditions = self.node.found()?.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "Ready")
    }

    pub fn status(&self) -> Option<&ENIPoolStatus> {
        self.pool.found()?.status.as_ref()
    }

    pub fn allocation(&self) -> Option<&Allocation> {
        self.pool.found()?.spec.allocation.as_ref()
    }

    /// A condition of the pool.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        condition::find(&self.status()?.conditions, kind)
    }

    /// Addresses that a pod gets at once.
    pub fn free(&self) -> Option<i32> {
        Some(self.status()?.addresses?.available)
    }

    /// Why the pool gives no address, as written in its status, which may be of a newer version than this plugin.
    pub fn reason_text(&self) -> Option<&str> {
        let shortage = self.condition(ConditionType::AddressesAvailable).filter(|condition| condition.status != "True");
        let reason = shortage.map(|condition| condition.reason.as_str());
        reason.or_else(|| self.status().map(|status| status.reason.as_str())).filter(|reason| !reason.is_empty())
    }

    /// The same as one of the reasons that this version knows.
    pub fn reason(&self) -> Option<Reason> {
        let text = self.reason_text()?;
        Reason::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// The subnet of the node's next ENI.
    pub fn subnet_id(&self) -> Option<&str> {
        let next = self.allocation().and_then(|allocation| allocation.subnet_id.as_deref());
        next.or_else(|| self.status()?.instance.as_ref()?.subnet_id.as_deref())
    }

    /// How that subnet fares, if the class reports it.
    pub fn subnet(&self) -> Option<&SubnetStatus> {
        let id = self.subnet_id()?;
        self.class.found()?.status.as_ref()?.subnets.iter().find(|subnet| subnet.id == id)
    }

    /// The agent's pod where it is there and not ready. Its ENIPool then shows what was, not what is.
    pub fn ailing_agent(&self) -> Option<&Pod> {
        let agent = self.agent.found()?;
        let conditions = agent.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
        (ready.status != "True").then_some(agent)
    }

    /// Containers that do not run, with the kubelet's reason: `web: ImagePullBackOff`.
    pub fn idle_containers(&self) -> Vec<String> {
        idle_containers(&self.pod)
    }

    /// The pod's events, the newest first.
    pub fn newest_events(&self) -> Vec<&Event> {
        let mut events: Vec<&Event> = self.events.found().into_iter().flatten().collect();
        events.sort_by_key(|event| std::cmp::Reverse(event_time(event)));
        events
    }
}

/// Containers of a pod that wait, with the kubelet's reason.
pub fn idle_containers(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let init = status.init_container_statuses.iter().flatten();
    let all = init.chain(status.container_statuses.iter().flatten());
    all.filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().map_or_else(|| "waiting".into(), one_line);
        Some(format!("{}: {reason}", container.name))
    })
    .collect()
}

/// `namespace/name`.
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// When an event last happened: old and new API write it into different fields.
pub fn event_time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let single = event.event_time.as_ref().map(|time| time.0);
    series.max(last).max(single).or_else(|| event.first_timestamp.as_ref().map(|time| time.0))
}
