//! Nodes that are left to themselves: without the operator, and without an API server.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::json;

use super::{
    Stage,
    inside::{self, Pings},
    life::ensure_no_shared_address,
    nodes::{self, GUEST},
};
use crate::{
    cluster::{Cluster, Node, until},
    product,
    workload::{self, Pod, Web},
};

/// How long pods of a node may take that is on its own: it waits up to 15 s for a word of the operator before it plans by
/// itself, and then for EC2.
const ON_ITS_OWN: Duration = Duration::from_secs(60);
const ROLL_OUT: Duration = Duration::from_secs(120);
/// How long agents and kubelets may take to notice that the API server is back: their pauses between attempts grow to 30 s.
const REUNION: Duration = Duration::from_secs(90);
const OPERATOR: &str = "deployment/enipool-operator";

pub(super) fn operator_away(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        nodes::guest(stage).await?;
        let cluster = &stage.cluster;
        let (one, other) = workload::two_nodes_pods(&stage.pods)?;
        let pings = Pings::begin(cluster.node(&one.node)?, one, other.address).await?;
        let alone = async {
            waits_and_says_why(stage).await?;
            send_operator_away(cluster).await?;
            without_operator(stage).await
        };
        let alone = alone.await;
        bring_operator_back(cluster).await?;
        let web = Web::new("alone", 0).on(GUEST);
        let enipool = format!("enipool/{GUEST}");
        let back = cluster.kubectl().wait(REUNION, "condition=OperatorPresent=true", &[&enipool]).await;
        web.remove(cluster.kubectl(), ROLL_OUT).await?;
        stage.narrator.say(&pings.end().await?);
        product::edit(cluster, GUEST, &json!({"operations": null})).await?;
        alone?;
        back?;
        product::enipool_shows(cluster, GUEST, ".status.addresses.assigned", 0, ROLL_OUT).await
    }
    .boxed_local()
}

/// A pod more than addresses on a node that may not ask EC2: people see why it waits.
async fn waits_and_says_why(stage: &Stage) -> Result<()> {
    let cluster = &stage.cluster;
    product::edit(cluster, GUEST, &json!({"operations": "NoCloud"})).await?;
    cluster.kubectl().apply(&one_too_many(cluster)?.manifest().to_string()).await?;
    let said = product::told(cluster, "reason=Paused,involvedObject.kind=Pod", ON_ITS_OWN).await?;
    stage.narrator.say(&said);
    ensure!(said.starts_with("Has waited") && said.contains("operations"), "the event does not help: {said}");
    Ok(())
}

/// A deployment of one pod more than the guest has addresses.
pub(super) fn one_too_many(cluster: &Cluster) -> Result<Web> {
    let addresses: usize = product::enis(cluster, GUEST)?.iter().map(|eni| eni.secondaries.len()).sum();
    Ok(Web::new("alone", u32::try_from(addresses)? + 1).on(GUEST))
}

/// More pods than the guest has addresses, then fewer, then more again, and nobody who plans for it.
async fn without_operator(stage: &Stage) -> Result<()> {
    let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
    let before = product::enis(cluster, GUEST)?;
    let call = product::latest_call(cluster);
    let mut web = one_too_many(cluster)?;
    product::edit(cluster, GUEST, &json!({"operations": null})).await?;
    let pods = web.roll_out(kubectl, ON_ITS_OWN).await.context("one pod more than addresses")?;
    kubectl.wait(ON_ITS_OWN, "condition=OperatorPresent=false", &[&format!("enipool/{GUEST}")]).await?;

    ensure_no_shared_address(stage.pods.iter().chain(&pods))?;
    let enis = product::enis(cluster, GUEST)?;
    for pod in &pods {
        ensure!(product::eni_of(&enis, pod.address).is_some(), "no ENI of {GUEST} owns {}", pod.address);
        pod.ping(kubectl, stage.pods.first().context("no pod")?.address).await?;
    }
    // One pod was short, and the target asks for no spare ENI.
    ensure!(enis.len() == before.len() + 1, "{GUEST} had {} ENIs and has {}", before.len(), enis.len());
    let calls = product::calls_since(cluster, GUEST, call)?;
    let created = calls.iter().filter(|action| **action == "CreateNetworkInterface").count();
    stage.narrator.say(&format!("{} pods without the operator; EC2 calls: {calls:?}", pods.len()));
    ensure!(created == 1, "one ENI was short, {created} were created");

    let left = web.scale(kubectl, 1, ROLL_OUT).await?;
    product::enipool_shows(cluster, GUEST, ".status.addresses.assigned", 1, ROLL_OUT).await?;
    let again = web.scale(kubectl, 2, ROLL_OUT).await?;
    ensure!(left.iter().all(|pod| again.contains(pod)), "a pod that was to stay was replaced: {left:?}, {again:?}");
    Ok(())
}

async fn send_operator_away(cluster: &Cluster) -> Result<()> {
    scale_operator(cluster, 0).await?;
    let gone = ["-n", product::NAMESPACE, "pods", "--selector", "app.kubernetes.io/component=operator"];
    cluster.kubectl().wait(Duration::from_secs(60), "delete", &gone).await
}

async fn bring_operator_back(cluster: &Cluster) -> Result<()> {
    // Not onto the guest, with which it would go.
    cluster.kubectl().run(&["cordon", GUEST]).await?;
    let back = async {
        scale_operator(cluster, 1).await?;
        product::ready(cluster).await
    };
    let back = back.await;
    cluster.kubectl().run(&["uncordon", GUEST]).await?;
    back
}

async fn scale_operator(cluster: &Cluster, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl().run(&["-n", product::NAMESPACE, "scale", OPERATOR, &replicas]).await.map(drop)
}

pub(super) fn api_server_away(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        nodes::guest(stage).await?;
        let (one, other) = workload::two_nodes_pods(&stage.pods)?;
        let pings = Pings::begin(stage.cluster.node(&one.node)?, one, other.address).await?;
        stage.cluster.stop_api_server().await;
        let narrator = stage.narrator.clone();
        let islands = narrator.during("Running pods without an API server", without_api_server(stage)).await;
        narrator.during("Bringing the API server back", stage.cluster.start_api_server()).await?;
        let cluster = &stage.cluster;
        let reunion = async { reunited(cluster, islands?).await };
        let reunited = narrator.during("Waiting until the pools' status is true again", reunion).await;
        for node in cluster.nodes() {
            for index in 0..=LAST_ISLAND {
                remove_static(node, index)?;
            }
        }
        reunited?;
        stage.narrator.say(&pings.end().await?);
        narrator
            .during(
                "Waiting for the end of the pods of that time",
                workload::gone(cluster.kubectl(), "island", ROLL_OUT),
            )
            .await?;
        product::enipool_shows(cluster, GUEST, ".status.addresses.assigned", 0, ROLL_OUT).await?;
        let ready = async {
            product::ready(cluster).await?;
            cluster.kubectl().wait(ROLL_OUT, "condition=Ready", &["pods", "--selector", "app=web"]).await
        };
        narrator.during("Waiting until all pods are ready again", ready).await
    }
    .boxed_local()
}

/// More than the guest can run.
const LAST_ISLAND: usize = 11;

/// Pods start and end, an agent is killed, and a pool grows while no API server is there. Returns how many pods the guest
/// has in the end.
async fn without_api_server(stage: &Stage) -> Result<usize> {
    let cluster = &stage.cluster;
    let (guest, home) = (cluster.node(GUEST)?, cluster.node("node-b")?);
    ensure!(!cluster.kubectl().ready().await, "the API server is still there");
    let before = product::enis(cluster, GUEST)?;
    let had: usize = before.iter().map(|eni| eni.secondaries.len()).sum();
    let target = stage.pods.iter().find(|pod| pod.node == "node-a").context("no pod on node-a")?;

    keeps_its_aims(stage, guest).await?;
    // One pod more than the guest has addresses: it has to ask EC2 for them, on its own. By the flags that its agent has
    // just started with it would fetch an ENI too many.
    let pods = had + 1;
    for index in 0..pods {
        add_static(guest, index)?;
    }
    // Meanwhile another node's agent dies and comes back, to an API server that is not there. It serves as before.
    agent_dies(home).await?;
    add_static(home, 0)?;
    let mine = island(0, home.name());
    let ledger =
        inside::ledger_shows(home, "an ADD after the agent's restart", ON_ITS_OWN, |l| l.contains_key(&mine)).await?;
    let lost = |pod: &&Pod| pod.node == home.name() && ledger.get(&pod.name) != Some(&pod.address);
    let lost: Vec<_> = stage.pods.iter().filter(lost).collect();
    ensure!(lost.is_empty(), "the agent that came back does not know {lost:?}");
    inside::ping(home, ledger[&mine], target.address).await?;
    remove_static(home, 0)?;
    inside::ledger_shows(home, "a DEL", ON_ITS_OWN, |ledger| !ledger.contains_key(&mine)).await?;

    let all = |ledger: &BTreeMap<String, Ipv4Addr>| (0..pods).all(|index| ledger.contains_key(&island(index, GUEST)));
    let ledger = inside::ledger_shows(guest, "an address from EC2 for each pod", ON_ITS_OWN, all).await?;
    for address in ledger.values() {
        inside::ping(guest, *address, target.address).await?;
    }
    let enis = product::enis(cluster, GUEST)?;
    stage.narrator.say(&format!(
        "{GUEST}: {pods} pods without an API server; it went from {} ENIs to {}",
        before.len(),
        enis.len()
    ));
    ensure!(enis.len() == before.len() + 1, "{GUEST} had {} ENIs and has {}", before.len(), enis.len());
    ensure!(!cluster.kubectl().ready().await, "the API server came back by itself");
    Ok(pods)
}

/// An agent that starts without an API server goes on by what the ENIPool and its class asked for, which its flags do not.
async fn keeps_its_aims(stage: &Stage, node: &Node) -> Result<()> {
    let before = inside::config(node).await?;
    let targets = &before["targets"];
    ensure!(
        targets["minimumIPTarget"].is_number() && before["ceiling"].is_number(),
        "{} should have targets unlike the flags', and a ceiling: {before}",
        node.name()
    );
    let call = product::at_rest(&stage.cluster, node.name()).await?;
    agent_dies(node).await?;
    let after = until("the agent that came back answering", ON_ITS_OWN, async || Ok(inside::config(node).await.ok()));
    let after = after.await?;
    for aim in ["targets", "ceiling", "addressing", "operations", "usePrimaryENI", "cooldownSeconds", "subnets"] {
        ensure!(after[aim] == before[aim], "after a restart {aim} is {} and was {}", after[aim], before[aim]);
    }
    let calls = product::calls_since(&stage.cluster, node.name(), call)?;
    ensure!(calls.iter().all(|action| action.starts_with("Describe")), "a restart changed something in EC2: {calls:?}");
    stage.narrator.say(&format!(
        "{}'s agent came back without an API server, to targets {targets} under a ceiling of {}",
        node.name(),
        before["ceiling"]
    ));
    Ok(())
}

/// The status tells the truth again.
async fn reunited(cluster: &Cluster, pods: usize) -> Result<()> {
    product::enipool_shows(cluster, GUEST, ".status.addresses.assigned", pods, REUNION).await?;
    let enis = product::enis(cluster, GUEST)?;
    let owned: usize = enis.iter().map(|eni| eni.secondaries.len()).sum();
    product::enipool_shows(cluster, GUEST, ".status.attachedENIs", enis.len(), REUNION).await?;
    product::enipool_shows(cluster, GUEST, ".status.addresses.total", owned, REUNION).await?;
    let present = ["node-a", "node-b", GUEST].map(|node| format!("enipool/{node}"));
    let present: Vec<&str> = present.iter().map(String::as_str).collect();
    cluster.kubectl().wait(REUNION, "condition=OperatorPresent=true", &present).await
}

/// Kills the agent's process and waits for another one to answer.
async fn agent_dies(node: &Node) -> Result<()> {
    let pid = async || node.exec(&["pgrep", "--exact", "enipool-agent"]).await.map(|pid| pid.trim().to_owned());
    let old = pid().await?;
    node.exec(&["kill", "-KILL", &old]).await?;
    until("the kubelet starting the agent again", ON_ITS_OWN, async || {
        Ok(pid().await.is_ok_and(|new| new != old).then_some(()))
    })
    .await
}

/// The pod that the kubelet of `node` makes of a manifest: it adds its own name.
fn island(index: usize, node: &str) -> String {
    format!("island-{index}-{node}")
}

fn add_static(node: &Node, index: usize) -> Result<()> {
    let name = format!("island-{index}");
    let manifest = node.static_pod(&name);
    // The kubelet looks at once, but not at names that begin with a dot.
    let draft = manifest.with_file_name(format!(".{name}"));
    let written = fs::write(&draft, workload::static_pod(&name, "island").to_string());
    written.and_then(|()| fs::rename(&draft, manifest)).with_context(|| format!("writing the manifest of {name}"))
}

fn remove_static(node: &Node, index: usize) -> Result<()> {
    match fs::remove_file(node.static_pod(&format!("island-{index}"))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("removing a manifest"),
        _ => Ok(()),
    }
}
