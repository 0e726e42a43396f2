//! What the demo shows, step by step; the scenarios run the same steps. Each step checks what it tells.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    cluster::{Cluster, ClusterConfig, Narrator, Network},
    fabric::NodeSpec,
    figures, product,
    workload::{self, Pod, Web},
};

/// Four ENIs of fifteen addresses each: room to show a fourth ENI after the pods have filled the first.
pub const INSTANCE_TYPE: &str = "m5.xlarge";
/// Addresses for pods of one such ENI: its own address is the fifteenth.
pub const PER_ENI: usize = 14;
/// "Seconds later": how long the ENI may take that a patched target asks for.
const SECONDS_LATER: Duration = Duration::from_secs(30);
/// How long ENIs may take that the targets ask for, EC2's own delays included.
const SUPPLY: Duration = Duration::from_secs(90);
/// One more pod per node than the first ENI has addresses for.
pub const REPLICAS: u32 = 30;

/// Two nodes that wait for a network.
pub fn config(purpose: &'static str) -> ClusterConfig {
    let nodes = ["node-a", "node-b"].map(|name| NodeSpec::new(name, INSTANCE_TYPE)).into();
    ClusterConfig { purpose, nodes, network: Network::None }
}

/// The deployment of the demo.
pub fn web() -> Web {
    Web::new("web", REPLICAS).with_service(30080)
}

/// `helm install`, then nodes get ready.
pub async fn install(cluster: &Cluster, narrator: &Narrator) -> Result<()> {
    narrator.chapter("Install enipool: helm install enipool deploy/helm/enipool");
    narrator.during("Installing CRDs, operator and agents", product::install(cluster)).await?;
    narrator
        .during("Waiting for agents to adopt their instances' ENIs, and nodes to get ready", product::ready(cluster))
        .await?;
    narrator
        .show(&cluster.kubectl().run(&["get", "nodes", "--label-columns", "node.kubernetes.io/instance-type"]).await?);
    Ok(())
}

/// A deployment over both nodes, on the addresses of several ENIs.
pub async fn deploy(cluster: &Cluster, narrator: &Narrator) -> Result<Vec<Pod>> {
    narrator.chapter(&format!("Run {REPLICAS} pods over both nodes: more than one ENI holds"));
    let web = web();
    let pods = narrator
        .during(
            &format!("Rolling out deployment {} with {REPLICAS} replicas", web.name),
            web.roll_out(cluster.kubectl(), Duration::from_secs(180)),
        )
        .await?;
    for (node, pods) in workload::by_node(&pods) {
        let what = format!("Waiting until {node} has a spare ENI again, as its target says");
        narrator.during(&what, settled(cluster, node, pods.len(), 1)).await?;
    }
    let mut table = String::from("NODE     ENI                     DEVICE  PODS  EXAMPLE\n");
    for (node, pods) in workload::by_node(&pods) {
        let enis = product::enis(cluster, node)?;
        for eni in &enis {
            let on_eni: Vec<Ipv4Addr> =
                pods.iter().map(|pod| pod.address).filter(|ip| eni.secondaries.contains(ip)).collect();
            let example = on_eni.first().map_or_else(|| "(warm)".to_owned(), ToString::to_string);
            let _ = writeln!(table, "{node:<8} {:<23} {:<7} {:<5} {example}", eni.id, eni.device_index, on_eni.len());
        }
        for pod in &pods {
            ensure!(
                product::eni_of(&enis, pod.address).is_some(),
                "{} has {}, which no ENI of {node} owns",
                pod.name,
                pod.address
            );
        }
        let used = enis.iter().filter(|eni| pods.iter().any(|pod| eni.secondaries.contains(&pod.address))).count();
        ensure!(used > 1, "all pods of {node} are on one ENI");
    }
    narrator.say("Every pod has an address of the VPC, as EC2 itself tells:");
    narrator.show(&table);
    Ok(pods)
}

/// Pods on different nodes talk to each other, and to the outside as their node.
pub async fn talk(cluster: &Cluster, narrator: &Narrator, pods: &[Pod]) -> Result<()> {
    let kubectl = cluster.kubectl();
    let (one, other) = workload::two_nodes_pods(pods)?;
    narrator.chapter("Pods talk to each other over their own VPC addresses, and to the outside");
    narrator.say(&format!("{} on {} pings {} on {}:", one.address, one.node, other.address, other.node));
    narrator.show(&one.ping(kubectl, other.address).await?);
    let internet = cluster.fabric().internet_address();
    narrator.say(&format!("{} pings {internet}, a host outside the VPC:", one.address));
    narrator.show(&one.ping(kubectl, internet).await?);
    let seen = one.fetch(kubectl, &format!("http://{internet}/")).await?;
    let node = cluster.node(&one.node)?.site().address;
    ensure!(seen == node.to_string(), "the outside saw {seen}, not the node's {node}");
    narrator.say(&format!("That host saw the request come from {seen}: the node's primary address (source NAT)."));
    Ok(())
}

/// `kubectl get enipools`, with numbers that are true.
pub async fn pools(cluster: &Cluster, narrator: &Narrator, pods: &[Pod]) -> Result<()> {
    narrator.chapter("What each node holds: kubectl get enipools");
    for (node, pods) in workload::by_node(pods) {
        settled(cluster, node, pods.len(), 1).await?;
    }
    narrator.show(&cluster.kubectl().run(&["get", "enipools"]).await?);
    Ok(())
}

/// One edit, and seconds later one more ENI.
pub async fn more_warm(cluster: &Cluster, narrator: &Narrator, node: &str) -> Result<()> {
    let patch = r#"{"spec":{"warmENITarget":2}}"#;
    narrator.chapter(&format!(
        "More spare addresses for one node, now: kubectl patch enipool {node} --type merge -p '{patch}'"
    ));
    let pods = workload::pods(cluster.kubectl(), "web").await?.iter().filter(|pod| pod.node == node).count();
    let before = product::enis(cluster, node)?.len();
    cluster.kubectl().run(&["patch", "enipool", node, "--type", "merge", "-p", patch]).await?;
    let patched = Instant::now();
    let what = format!("Waiting for an ENI more than the {before} that {node} has");
    narrator.during(&what, settled(cluster, node, pods, 2)).await?;
    let took = patched.elapsed();
    let after = product::enis(cluster, node)?.len();
    ensure!(after == before + 1, "{node} had {before} ENIs and has {after} now");
    narrator.say(&format!("One ENI more, with all its addresses, {:.1} s after the patch.", took.as_secs_f64()));
    ensure!(took < SECONDS_LATER, "it took {took:?} until the ENI was there that the patch asked for");
    narrator.show(&cluster.kubectl().run(&["get", "enipools"]).await?);
    Ok(())
}

/// The cluster's figures, as CloudWatch has them.
pub async fn figures(cluster: &Cluster, narrator: &Narrator) -> Result<()> {
    narrator.chapter("The whole cluster's figures, as the operator sends them to CloudWatch");
    narrator.say(&format!(
        "Namespace {}, dimension CLUSTER_ID={}, here every {} s (every 60 s by default, and off until it is asked for):",
        figures::NAMESPACE,
        cluster.run().id(),
        figures::PERIOD_S
    ));
    let round = narrator.during("Waiting for the next round", figures::next_round(cluster)).await?;
    let enis: usize =
        cluster.nodes().iter().map(|node| Ok(product::enis(cluster, node.name())?.len())).sum::<Result<usize>>()?;
    let told = figures::value(&round, "eniAllocated")?;
    ensure!(format!("{told}") == enis.to_string(), "CloudWatch was told of {told} ENIs, EC2 has {enis}");
    narrator.show(&figures::table(&round));
    Ok(())
}

/// Waits until a node with this many pods holds as many full ENIs more as its target says, and its ENIPool and EC2 agree
/// on that.
async fn settled(cluster: &Cluster, node: &str, pods: usize, warm_enis: usize) -> Result<()> {
    let enis = (pods + warm_enis * PER_ENI).div_ceil(PER_ENI);
    product::enipool_shows(cluster, node, ".status.addresses.assigned", pods, SUPPLY).await?;
    product::enipool_shows(cluster, node, ".status.attachedENIs", enis, SUPPLY).await?;
    product::enipool_shows(cluster, node, ".status.addresses.available", enis * PER_ENI - pods, SUPPLY).await?;
    let found = product::enis(cluster, node)?;
    let owned: usize = found.iter().map(|eni| eni.secondaries.len()).sum();
    ensure!(
        found.len() == enis && owned == enis * PER_ENI,
        "{node}'s ENIPool shows {enis} ENIs and {} addresses, EC2 {} and {owned}",
        enis * PER_ENI,
        found.len()
    );
    Ok(())
}

/// Nothing left a node through an ENI that does not own its address.
pub async fn nothing_spoofed(cluster: &Cluster) -> Result<()> {
    let drops = cluster.fabric().drops().await?;
    ensure!(
        drops.spoofed_total() == 0,
        "packets left through an ENI that does not own their source: {:?}",
        drops.offenders
    );
    Ok(())
}
