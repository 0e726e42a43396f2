//! The cluster as the watches last saw it: nodes, pods by node, pools, classes. Plain data behind one lock; no client.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enipool_crds::{ENIPool, ENIPoolClass};
use enipool_pool::{InstanceId, InstanceType, Zone};
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;
use tokio::sync::watch;

/// A node, as far as the pool cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// From `spec.providerID`; `None`: no EC2 instance, so no pool.
    pub instance: Option<InstanceId>,
    pub instance_type: Option<InstanceType>,
    pub zone: Option<Zone>,
    /// `status.allocatable.pods`, host-network pods included.
    pub max_pods: Option<u32>,
}

/// Pods of one node that are not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodCount {
    /// Need an address.
    pub addressed: u32,
    /// On the host's network.
    pub host_network: u32,
}

#[derive(Debug)]
struct BoundPod {
    node: Arc<str>,
    host_network: bool,
}

/// An agent's pod.
#[derive(Debug)]
struct AgentPod {
    node: Arc<str>,
    ready: bool,
}

/// The labels of agents' pods, as the chart sets them.
const AGENT_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "enipool"), ("app.kubernetes.io/component", "agent")];

/// Everything, under the lock.
#[derive(Debug, Default)]
pub struct State {
    pub nodes: HashMap<Arc<str>, Arc<Node>>,
    pub pools: HashMap<Arc<str>, Arc<ENIPool>>,
    pub classes: BTreeMap<Arc<str>, Arc<ENIPoolClass>>,
    pods: HashMap<Arc<str>, BoundPod>,
    /// Pods of agents by `namespace/name`.
    agents: HashMap<Arc<str>, AgentPod>,
    pod_counts: HashMap<Arc<str>, PodCount>,
    synced: HashSet<&'static str>,
}

/// Cheap to clone; one for the process.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl World {
    /// Every change is one insert or removal, so a panic elsewhere leaves nothing half-done.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and tells all who follow it.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let outcome = change(&mut self.state());
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
        outcome
    }

    /// Marks every change, however many at once.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

/// Kinds whose first list must have come before anything is decided: a half-known cluster looks like a shrunken one.
pub const KINDS: [&str; 4] = ["nodes", "pods", "pools", "classes"];

impl State {
    pub fn is_complete(&self) -> bool {
        KINDS.iter().all(|kind| self.synced.contains(kind))
    }

    pub fn mark_synced(&mut self, kind: &'static str) {
        self.synced.insert(kind);
    }

    pub fn pods_on(&self, node: &str) -> PodCount {
        self.pod_counts.get(node).copied().unwrap_or_default()
    }

    /// Nodes whose agent, a pod of this namespace, is ready. Kubernetes turns the readiness of all pods of a node off when
    /// the node does not answer.
    pub fn nodes_with_ready_agent(&self, namespace: &str) -> HashSet<Arc<str>> {
        let ours = |key: &str| key.split_once('/').is_some_and(|(found, _)| found == namespace);
        let ready = self.agents.iter().filter(|(key, agent)| agent.ready && ours(key));
        ready.map(|(_, agent)| agent.node.clone()).collect()
    }

    /// Takes a pool as the API server has it; an older version than the one we know is late news from the watch.
    pub fn put_pool(&mut self, pool: ENIPool) {
        let name: Arc<str> = pool.name_any().into();
        let version = |pool: &ENIPool| pool.resource_version().and_then(|text| text.parse::<u64>().ok());
        if let Some(known) = self.pools.get(&name) {
            let same_object = known.uid() == pool.uid();
            if same_object && version(known).zip(version(&pool)).is_some_and(|(known, new)| new < known) {
                return;
            }
        }
        self.pools.insert(name, Arc::new(pool));
    }
}

/// An object that a watch brings into the world.
pub trait Watched: Sized {
    /// One of [`KINDS`]; also the name in logs and metrics.
    const KIND: &'static str;
    fn apply(self, key: Arc<str>, state: &mut State);
    fn remove(key: &str, state: &mut State);
    fn keys(state: &State) -> Vec<Arc<str>>;
}

impl Watched for core::Node {
    const KIND: &'static str = "nodes";

    fn apply(self, key: Arc<str>, state: &mut State) {
        match read_node(self) {
            Some(node) => {
                state.nodes.insert(key, Arc::new(node));
            }
            None => {
                state.nodes.remove(&key);
            }
        }
    }

    fn remove(key: &str, state: &mut State) {
        state.nodes.remove(key);
    }

    fn keys(state: &State) -> Vec<Arc<str>> {
        state.nodes.keys().cloned().collect()
    }
}

impl Watched for core::Pod {
    const KIND: &'static str = "pods";

    fn apply(self, key: Arc<str>, state: &mut State) {
        Self::remove(&key, state);
        let Some(spec) = self.spec else { return };
        let Some(node) = spec.node_name.filter(|node| !node.is_empty()) else { return };
        let status = self.status.unwrap_or_default();
        let phase = status.phase;
        if matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
            return;
        }
        let node: Arc<str> = match state.pod_counts.get_key_value(node.as_str()) {
            Some((known, _)) => known.clone(),
            None => node.into(),
        };
        let host_network = spec.host_network.unwrap_or(false);
        let count = state.pod_counts.entry(node.clone()).or_default();
        if host_network {
            count.host_network += 1;
        } else {
            count.addressed += 1;
        }
        let labels = self.metadata.labels.unwrap_or_default();
        if AGENT_LABELS.iter().all(|(name, value)| labels.get(*name).is_some_and(|found| found == value)) {
            let is_ready = |condition: &core::PodCondition| condition.type_ == "Ready" && condition.status == "True";
            let ready = status.conditions.unwrap_or_default().iter().any(is_ready);
            state.agents.insert(key.clone(), AgentPod { node: node.clone(), ready });
        }
        state.pods.insert(key, BoundPod { node, host_network });
    }

    fn remove(key: &str, state: &mut State) {
        state.agents.remove(key);
        let Some(pod) = state.pods.remove(key) else { return };
        let Some(count) = state.pod_counts.get_mut(&pod.node) else { return };
        if pod.host_network {
            count.host_network = count.host_network.saturating_sub(1);
        } else {
            count.addressed = count.addressed.saturating_sub(1);
        }
        if *count == PodCount::default() {
            state.pod_counts.remove(&pod.node);
        }
    }

    fn keys(state: &State) -> Vec<Arc<str>> {
        state.pods.keys().cloned().collect()
    }
}

impl Watched for ENIPool {
    const KIND: &'static str = "pools";

    fn apply(self, _key: Arc<str>, state: &mut State) {
        state.put_pool(self);
    }

    fn remove(key: &str, state: &mut State) {
        state.pools.remove(key);
    }

    fn keys(state: &State) -> Vec<Arc<str>> {
        state.pools.keys().cloned().collect()
    }
}

impl Watched for ENIPoolClass {
    const KIND: &'static str = "classes";

    fn apply(self, key: Arc<str>, state: &mut State) {
        state.classes.insert(key, Arc::new(self));
    }

    fn remove(key: &str, state: &mut State) {
        state.classes.remove(key);
    }

    fn keys(state: &State) -> Vec<Arc<str>> {
        state.classes.keys().cloned().collect()
    }
}

/// `None`: a node that gets no pool (virtual nodes such as Fargate's, nodes that another network serves, Windows).
fn read_node(node: core::Node) -> Option<Node> {
    let labels = node.metadata.labels.unwrap_or_default();
    let has = |key: &str, values: &[&str]| labels.get(key).is_some_and(|value| values.contains(&value.as_str()));
    let served_by_others =
        has("eks.amazonaws.com/compute-type", &["fargate", "hybrid", "auto"]) || has("kubernetes.io/os", &["windows"]);
    if served_by_others {
        return None;
    }
    let provider = node.spec.and_then(|spec| spec.provider_id);
    let instance = provider.as_deref().and_then(|id| id.strip_prefix("aws://")).and_then(|id| id.rsplit('/').next());
    let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
    Some(Node {
        uid: node.metadata.uid?,
        instance: instance.and_then(|id| id.parse().ok()),
        instance_type: labels.get("node.kubernetes.io/instance-type").map(|name| InstanceType::new(name.as_str())),
        zone: labels.get("topology.kubernetes.io/zone").map(|zone| Zone::new(zone.as_str())),
        max_pods: allocatable.get("pods").and_then(|quantity| quantity.0.parse().ok()),
        labels,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: Option<&str>, phase: &str, host_network: bool) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [], "nodeName": node, "hostNetwork": host_network},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn put(state: &mut State, key: &str, pod: core::Pod) {
        pod.apply(key.into(), state);
    }

    #[test]
    fn pods_are_counted_once_where_they_are_bound_until_they_finish() {
        let mut state = State::default();
        put(&mut state, "d/a", pod(None, "Pending", false));
        assert_eq!(state.pods_on("n"), PodCount::default(), "not bound yet");
        put(&mut state, "d/a", pod(Some("n"), "Pending", false));
        put(&mut state, "d/a", pod(Some("n"), "Running", false));
        put(&mut state, "d/b", pod(Some("n"), "Running", true));
        assert_eq!(state.pods_on("n"), PodCount { addressed: 1, host_network: 1 });
        put(&mut state, "d/a", pod(Some("n"), "Succeeded", false));
        core::Pod::remove("d/b", &mut state);
        core::Pod::remove("d/b", &mut state);
        assert_eq!(state.pods_on("n"), PodCount::default());
        assert!(state.pod_counts.is_empty(), "a node without pods leaves nothing behind");
    }

    #[test]
    fn an_agent_is_ready_while_its_pod_in_the_namespace_is() {
        let agent = |ready: &str| -> core::Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "agent", "labels": {
                    "app.kubernetes.io/name": "enipool", "app.kubernetes.io/component": "agent"}},
                "spec": {"containers": [], "nodeName": "n", "hostNetwork": true},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let mut state = State::default();
        put(&mut state, "kube-system/agent", agent("True"));
        assert!(state.nodes_with_ready_agent("kube-system").contains("n"));
        assert!(state.nodes_with_ready_agent("default").is_empty(), "anybody may copy labels elsewhere");
        put(&mut state, "kube-system/agent", agent("False"));
        assert!(state.nodes_with_ready_agent("kube-system").is_empty());
        put(&mut state, "kube-system/agent", agent("True"));
        core::Pod::remove("kube-system/agent", &mut state);
        assert!(state.nodes_with_ready_agent("kube-system").is_empty());
    }

    #[test]
    fn the_instance_is_read_from_the_provider_id() {
        let node = |provider: &str, labels: serde_json::Value| {
            let node = json!({"metadata": {"name": "n", "uid": "u", "labels": labels}, "spec": {"providerID": provider},
                "status": {"allocatable": {"pods": "29"}}});
            read_node(serde_json::from_value(node).unwrap())
        };
        let read = node("aws:///eu-west-1a/i-0abc", json!({"node.kubernetes.io/instance-type": "m5.large"})).unwrap();
        assert_eq!(read.instance.unwrap().as_str(), "i-0abc");
        assert_eq!(read.max_pods, Some(29));
        assert!(node("kind://docker/a/b", json!({})).unwrap().instance.is_none());
        assert!(node("aws:///a/fargate-1", json!({"eks.amazonaws.com/compute-type": "fargate"})).is_none());
    }

    #[test]
    fn late_news_of_a_pool_does_not_undo_what_we_wrote() {
        let pool = |version: &str, uid: &str| {
            let mut pool = enipool_crds::fixtures::new_pool("n");
            pool.metadata.resource_version = Some(version.into());
            pool.metadata.uid = Some(uid.into());
            pool
        };
        let mut state = State::default();
        state.put_pool(pool("10", "a"));
        state.put_pool(pool("9", "a"));
        assert_eq!(state.pools["n"].resource_version().as_deref(), Some("10"));
        state.put_pool(pool("8", "b"));
        assert_eq!(state.pools["n"].resource_version().as_deref(), Some("8"), "another object of the same name");
    }

    #[test]
    fn nothing_is_decided_before_every_kind_was_listed() {
        let mut state = State::default();
        for kind in KINDS {
            assert!(!state.is_complete());
            state.mark_synced(kind);
        }
        assert!(state.is_complete());
    }
}
