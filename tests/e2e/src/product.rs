//! enipool in the cluster, as its users install and see it: `helm install`, ENIPools, and EC2's own view of the ENIs to
//! check their numbers against.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use ec2_sim::model::{calls::CallRecord, metadata::access_key};
use enipool_pool::{InstanceId, Prefix, SubnetId};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::{
    cluster::{API_PORT, Cluster, run_command, until},
    figures,
};

/// The namespace that the chart goes into.
pub const NAMESPACE: &str = "enipool-system";

/// Longest time for the agents to come up and the nodes to get ready.
const READY: Duration = Duration::from_secs(180);
/// Longest time for an agent to do what is not urgent (10 s after an attach), and for EC2 to show it (5 s).
const REST: Duration = Duration::from_secs(30);

/// An ENI as EC2 sees it.
#[derive(Debug, Clone)]
pub struct Eni {
    pub id: String,
    pub device_index: u32,
    pub subnet: SubnetId,
    pub primary: Ipv4Addr,
    pub secondaries: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
    /// In the instance, as opposed to on its way.
    pub effective: bool,
    pub delete_on_termination: bool,
    /// Describe calls show it as it is.
    pub shown: bool,
}

/// Installs the chart with a real `helm install`. Nothing tells the product that its EC2 is simulated but the SDK's own
/// variables for the endpoints.
pub async fn install(cluster: &Cluster) -> Result<()> {
    let endpoint = json!({"AWS_ENDPOINT_URL_EC2": cluster.fabric().ec2_endpoint()});
    let endpoints = json!({
        "AWS_ENDPOINT_URL_EC2": cluster.fabric().ec2_endpoint(),
        "AWS_ENDPOINT_URL_CLOUDWATCH": cluster.fabric().ec2_endpoint(),
    });
    let values = json!({
        "apiServer": {"host": cluster.fabric().control().address.to_string(), "port": API_PORT.to_string()},
        "clusterName": cluster.run().id(),
        "metrics": {"interval": figures::PERIOD_S},
        "cloudWatch": {"enabled": true},
        "operator": {"extraEnv": endpoints},
        // Each step of the pool, for whoever reads a failure's logs.
        "agent": {"logLevel": "info,enipool_agent::engine=debug", "extraEnv": endpoint, "chainedPlugins": {"portmap": true, "bandwidth": true}},
    });
    let file = cluster.run().dir().join("values.json");
    std::fs::write(&file, values.to_string()).context("writing the chart's values")?;
    let mut helm = Command::new(cluster.programs().path("helm"));
    helm.env("KUBECONFIG", cluster.kubectl().kubeconfig())
        .env("HELM_CACHE_HOME", cluster.run().dir().join("helm"))
        .env("HELM_CONFIG_HOME", cluster.run().dir().join("helm"))
        .env("HELM_DATA_HOME", cluster.run().dir().join("helm"))
        .args(["install", "enipool"])
        .arg(chart())
        .args(["--namespace", NAMESPACE, "--create-namespace", "--values"])
        .arg(&file);
    run_command(helm, Duration::from_secs(180)).await.map(drop)
}

/// Waits until the chart's workloads run and every node is ready.
pub async fn ready(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.wait(READY, "condition=Ready", &["node", "--all"]).await?;
    for workload in workloads(cluster).await? {
        let limit = format!("--timeout={}s", READY.as_secs());
        kubectl
            .run_within(READY + Duration::from_secs(10), &["-n", NAMESPACE, "rollout", "status", &workload, &limit])
            .await?;
    }
    Ok(())
}

/// The chart's Deployment and DaemonSet.
async fn workloads(cluster: &Cluster) -> Result<Vec<String>> {
    let names = cluster.kubectl().run(&["-n", NAMESPACE, "get", "deployment,daemonset", "-o", "name"]).await?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// The agent's pod on a node.
pub async fn agent_pod(cluster: &Cluster, node: &str) -> Result<String> {
    let on_node = format!("spec.nodeName={node}");
    let pods = cluster.kubectl().json(&["-n", NAMESPACE, "get", "pods", "--field-selector", &on_node]).await?;
    let owned_by_daemon_set = |pod: &&Value| {
        pod["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet" && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let pod = pods["items"].as_array().into_iter().flatten().find(owned_by_daemon_set);
    let name = pod.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).with_context(|| format!("no agent runs on {node}"))
}

/// A node's ENIPool.
pub async fn enipool(cluster: &Cluster, node: &str) -> Result<Value> {
    cluster.kubectl().json(&["get", "enipool", node]).await
}

/// Waits until an ENIPool shows a value, by watching it.
pub async fn enipool_shows(
    cluster: &Cluster,
    node: &str,
    path: &str,
    value: impl std::fmt::Display,
    limit: Duration,
) -> Result<()> {
    let condition = format!("jsonpath={{{path}}}={value}");
    cluster
        .kubectl()
        .wait(limit, &condition, &[&format!("enipool/{node}")])
        .await
        .with_context(|| format!("{node}'s ENIPool never showed {path} = {value}"))
}

/// Edits the `spec` of a node's ENIPool, as a person would, and waits until its agent has heard of it.
pub async fn edit(cluster: &Cluster, node: &str, spec: &Value) -> Result<()> {
    let patch = json!({"spec": spec}).to_string();
    let edited = cluster.kubectl().json(&["patch", "enipool", node, "--type", "merge", "-p", &patch]).await?;
    let generation = edited["metadata"]["generation"].as_i64().context("an ENIPool has no generation")?;
    until(&format!("{node}'s agent acting on {patch}"), Duration::from_secs(30), async || {
        // The operator's allocation counts up the generation too.
        let observed = enipool(cluster, node).await?["status"]["observedGeneration"].as_i64();
        Ok(observed.is_some_and(|observed| observed >= generation).then_some(()))
    })
    .await
}

/// What `enipool-agent` says when it is run with this argument in the agent's pod, and whether it ended with 0.
pub async fn ask_agent(cluster: &Cluster, node: &str, argument: &str) -> Result<(bool, String)> {
    let pod = agent_pod(cluster, node).await?;
    let arguments = ["-n", NAMESPACE, "exec", &pod, "--", "/enipool-agent", argument];
    let mut command = cluster.kubectl().command(&arguments);
    command.kill_on_drop(true).stdin(std::process::Stdio::null());
    let output = timeout(Duration::from_secs(60), command.output()).await.context("kubectl exec did not end")??;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Ends a node's agent as people do, and waits until its successor serves.
pub async fn restart_agent(cluster: &Cluster, node: &str) -> Result<()> {
    let agent = agent_pod(cluster, node).await?;
    cluster.kubectl().run_within(Duration::from_secs(60), &["-n", NAMESPACE, "delete", "pod", &agent]).await?;
    ready(cluster).await?;
    let successor = agent_pod(cluster, node).await?;
    ensure!(successor != agent, "the agent is still {agent}");
    Ok(())
}

/// Waits for an event that `selector` (as for `--field-selector`) picks; returns what it says.
pub async fn told(cluster: &Cluster, selector: &str, limit: Duration) -> Result<String> {
    until(&format!("an event with {selector}"), limit, async || {
        let events = ["get", "events", "--all-namespaces", "--field-selector", selector];
        let events = cluster.kubectl().json(&events).await?;
        Ok(events["items"][0]["message"].as_str().map(str::to_owned))
    })
    .await
}

/// A node's ENIs as EC2 sees them, by device index.
pub fn enis(cluster: &Cluster, node: &str) -> Result<Vec<Eni>> {
    let site = cluster.node(node)?.site();
    Ok(enis_of_instance(cluster, &site.instance_id))
}

/// An instance's ENIs as EC2 sees them, by device index.
pub fn enis_of_instance(cluster: &Cluster, instance: &InstanceId) -> Vec<Eni> {
    let mut enis: Vec<Eni> = truth(cluster)
        .enis
        .into_iter()
        .filter_map(|eni| {
            let attachment = eni.attachment.filter(|attachment| attachment.instance == *instance)?;
            Some(Eni {
                id: eni.id.to_string(),
                device_index: attachment.device_index,
                subnet: eni.subnet,
                primary: eni.primary_ip,
                secondaries: eni.secondary_ips,
                prefixes: eni.prefixes,
                effective: attachment.effective,
                delete_on_termination: attachment.delete_on_termination,
                shown: eni.shown,
            })
        })
        .collect();
    enis.sort_by_key(|eni| eni.device_index);
    enis
}

/// The ENI of a node that holds an address for pods.
pub fn eni_of(enis: &[Eni], address: Ipv4Addr) -> Option<&Eni> {
    enis.iter().find(|eni| eni.secondaries.contains(&address) || in_prefix(eni, address))
}

/// Whether an ENI holds an address as part of a prefix.
pub fn in_prefix(eni: &Eni, address: Ipv4Addr) -> bool {
    eni.prefixes.iter().any(|prefix| prefix.contains(address))
}

fn chart() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/enipool"))
}

/// Those of these ENIs that EC2 still has.
pub fn exist(cluster: &Cluster, enis: &[Eni]) -> Vec<String> {
    let existing = truth(cluster).enis;
    let ids = existing.into_iter().map(|eni| eni.id.to_string());
    ids.filter(|id| enis.iter().any(|eni| eni.id == *id)).collect()
}

/// Waits until nothing is left to be done to a node's ENIs and EC2 shows them as they are; returns the number of EC2's latest
/// call by then. An agent that starts earlier may be shown them as they were, and rightly does again what was done.
pub async fn at_rest(cluster: &Cluster, node: &str) -> Result<u64> {
    until(&format!("EC2 showing the ENIs of {node} as they are to stay"), REST, async || {
        let enis = enis(cluster, node)?;
        let rest = |eni: &Eni| eni.effective && eni.delete_on_termination && eni.shown;
        Ok((!enis.is_empty() && enis.iter().all(rest)).then(|| latest_call(cluster)))
    })
    .await
}

/// The number of EC2's latest call, for [`calls_since`].
pub fn latest_call(cluster: &Cluster) -> u64 {
    cluster.fabric().sim().model().with(|model| model.calls().last_seq())
}

/// What was asked of EC2 after a call with this number, with the credentials of a node's instance: its agent's calls, and
/// the operator's where that runs on the same node.
pub fn calls_since(cluster: &Cluster, node: &str, seq: u64) -> Result<Vec<&'static str>> {
    let caller = access_key(&cluster.node(node)?.site().instance_id);
    Ok(cluster
        .fabric()
        .sim()
        .model()
        .with(|model| model.calls().since(seq).filter(|call| call.caller == caller).map(|call| call.action).collect()))
}

/// How many calls EC2 has refused for their rate that came with the credentials of a node's instance.
pub fn throttled(cluster: &Cluster, node: &str) -> Result<usize> {
    let caller = access_key(&cluster.node(node)?.site().instance_id);
    let refused = |call: &&CallRecord| call.caller == caller && call.error.as_deref() == Some("RequestLimitExceeded");
    Ok(cluster.fabric().sim().model().with(|model| model.calls().since(0).filter(refused).count()))
}

/// The node that the operator leads from.
pub async fn operators_node(cluster: &Cluster) -> Result<String> {
    let selector = "app.kubernetes.io/component=operator";
    let pods = cluster.kubectl().json(&["-n", NAMESPACE, "get", "pods", "--selector", selector]).await?;
    let node = pods["items"][0]["spec"]["nodeName"].as_str();
    node.map(str::to_owned).context("the operator runs on no node")
}

/// What is so in EC2, whatever its describe calls show yet.
fn truth(cluster: &Cluster) -> ec2_sim::model::Truth {
    cluster.fabric().sim().model().with(|model| model.truth())
}
