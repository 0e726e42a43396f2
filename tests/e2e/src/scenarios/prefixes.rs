//! /28 prefixes: a node goes over to them and back under its running pods, and does without them where the subnet has none.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{
    FutureExt as _,
    future::{LocalBoxFuture, try_join_all},
};
use serde_json::{Value, json};

use super::{
    Stage,
    inside::{self, Pings},
    life::ensure_no_shared_address,
};
use crate::{
    cluster::{Cluster, until},
    product, story,
    workload::{self, Pod, Web},
};

const ROLL_OUT: Duration = Duration::from_secs(120);
const SUPPLY: Duration = Duration::from_secs(60);
/// An agent gives back in rounds, half a minute apart, and an ENI of less than a minute not at all.
const RETURN: Duration = Duration::from_secs(150);
/// The node that goes over.
const NODE: &str = "node-b";
/// The node that would, if its subnet had a /28 left. Not the same one: a refusal is remembered for two minutes.
const FRAGMENTED: &str = "node-a";

pub(super) fn over_and_back(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let cluster = &stage.cluster;
        let (one, other) = workload::two_nodes_pods(&stage.pods)?;
        let old = if one.node == NODE { one } else { other };
        let far = if one.node == NODE { other } else { one };
        let pings = Pings::begin(cluster.node(NODE)?, old, far.address).await?;
        let went = go_over(stage, far).await;
        let back = come_back(stage, went).await;
        let kubectl = cluster.kubectl();
        let crowd = [in_prefix(), mixed(), at_last()];
        try_join_all(crowd.iter().map(|web| web.remove(kubectl, ROLL_OUT))).await?;
        stage.narrator.say(&pings.end().await?);
        back
    }
    .boxed_local()
}

/// Back to single addresses: pods keep their part of a prefix, and new ones are served.
async fn come_back(stage: &Stage, went: Result<Vec<Pod>>) -> Result<()> {
    let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
    product::edit(cluster, NODE, &addressing(&Value::Null)).await?;
    let in_prefix = went?;
    let fresh = at_last().roll_out(kubectl, ROLL_OUT).await?;
    ensure_no_shared_address(stage.pods.iter().chain(&in_prefix).chain(&fresh))?;
    for pod in &in_prefix {
        inside::ping(cluster.node(NODE)?, pod.address, fresh.first().context("no pod")?.address).await?;
    }
    Ok(())
}

fn at_last() -> Web {
    Web::new("at-last", 2).on(NODE)
}

async fn holds_no_prefix(cluster: &Cluster, node: &str) -> Result<()> {
    until(&format!("{node} holding no prefix"), RETURN, async || {
        let enis = product::enis(cluster, node)?;
        Ok(enis.iter().all(|eni| eni.prefixes.is_empty()).then_some(()))
    })
    .await
}

/// What the other scenarios here leave to time: with the pods in it, a prefix goes.
pub(super) fn drained(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        for (node, pods) in workload::by_node(&stage.pods) {
            let what = format!("{node} holding single addresses alone, and an ENI's worth to spare");
            until(&what, Duration::from_secs(120), async || {
                let enis = product::enis(&stage.cluster, node)?;
                let prefixes: usize = enis.iter().map(|eni| eni.prefixes.len()).sum();
                let singles: usize = enis.iter().map(|eni| eni.secondaries.len()).sum();
                Ok((prefixes == 0 && singles >= pods.len() + story::PER_ENI).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
    .boxed_local()
}

fn in_prefix() -> Web {
    Web::new("in-prefix", 3).on(NODE)
}

fn mixed() -> Web {
    Web::new("mixed", 2).on(NODE)
}

/// From single addresses to both kinds and to prefixes, while pods run. Returns those in a prefix.
async fn go_over(stage: &Stage, far: &Pod) -> Result<Vec<Pod>> {
    let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
    // Both kinds: thirty more are a prefix at least, once there is room for them below max pods.
    slim_down(stage, NODE).await?;
    product::edit(cluster, NODE, &json!({"addressing": "Mixed", "warmIPTarget": 40})).await?;
    holds_prefixes(cluster, 1).await?;
    for pod in mixed().roll_out(kubectl, ROLL_OUT).await? {
        pod.ping(kubectl, far.address).await?;
    }

    product::edit(cluster, NODE, &addressing(&json!("Prefix"))).await?;
    holds_prefixes(cluster, 1).await?;
    let fresh = in_prefix().roll_out(kubectl, ROLL_OUT).await?;
    ensure_no_shared_address(stage.pods.iter().chain(&fresh))?;
    let enis = product::enis(cluster, NODE)?;
    for pod in &fresh {
        ensure!(enis.iter().any(|eni| product::in_prefix(eni, pod.address)), "{} is of no prefix", pod.address);
        pod.ping(kubectl, far.address).await?;
        pod.ping(kubectl, cluster.fabric().internet_address()).await?;
    }
    let table: Vec<String> = fresh.iter().map(|pod| format!("{}  {}", pod.name, pod.address)).collect();
    stage.narrator.show(&table.join("\n"));
    // Those who were there keep what they have.
    let old: Vec<&Pod> = stage.pods.iter().filter(|pod| pod.node == NODE).collect();
    for pod in &old {
        ensure!(
            enis.iter().any(|eni| eni.secondaries.contains(&pod.address)),
            "{} was taken from its pod",
            pod.address
        );
        inside::ping(cluster.node(NODE)?, pod.address, fresh[0].address).await?;
    }
    Ok(fresh)
}

/// Lets a node give back what its pods do not need, so that it has to ask for more afterwards.
async fn slim_down(stage: &Stage, node: &str) -> Result<()> {
    // An earlier scenario may have set the one, which the API server refuses beside the other.
    let spec = json!({"addressing": "Secondary", "warmENITarget": null, "warmIPTarget": 4});
    product::edit(&stage.cluster, node, &spec).await?;
    let few = stage.pods.iter().filter(|pod| pod.node == node).count() + 10;
    until(&format!("{node} giving back all but {few} addresses"), RETURN, async || {
        let held: usize = product::enis(&stage.cluster, node)?.iter().map(|eni| eni.secondaries.len()).sum();
        Ok((held <= few).then_some(()))
    })
    .await
}

async fn holds_prefixes(cluster: &Cluster, least: usize) -> Result<()> {
    until(&format!("{NODE} holding {least} prefixes"), SUPPLY, async || {
        let pool = product::enipool(cluster, NODE).await?;
        let shown: u64 =
            pool["status"]["enis"].as_array().into_iter().flatten().filter_map(|eni| eni["prefixes"].as_u64()).sum();
        let held: usize = product::enis(cluster, NODE)?.iter().map(|eni| eni.prefixes.len()).sum();
        Ok((held >= least && shown >= u64::try_from(least)?).then_some(()))
    })
    .await
}

pub(super) fn without_a_prefix(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let cluster = &stage.cluster;
        // What comes free later may be a whole /28: addresses that the node does not need, and other nodes' prefixes.
        slim_down(stage, FRAGMENTED).await?;
        for node in workload::by_node(&stage.pods).into_keys() {
            holds_no_prefix(cluster, node).await?;
        }
        let model = cluster.fabric().sim().model().clone();
        let subnets: Vec<_> = model.with(|model| model.subnets().map(|subnet| subnet.info.id.clone()).collect());
        // A stranger has addresses in every /28: up to four, as some of them are ours.
        for subnet in &subnets {
            model.with(|model| model.occupy(subnet, u32::MAX, 4))?;
        }
        let served = on_singles(stage).await;
        for subnet in &subnets {
            model.with(|model| model.vacate(subnet))?;
        }
        product::edit(cluster, FRAGMENTED, &addressing(&Value::Null)).await?;
        crowd().remove(cluster.kubectl(), ROLL_OUT).await?;
        served
    }
    .boxed_local()
}

fn crowd() -> Web {
    Web::new("crowd", 3).on(FRAGMENTED)
}

async fn on_singles(stage: &Stage) -> Result<()> {
    let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
    product::edit(cluster, FRAGMENTED, &json!({"addressing": "Prefix", "warmIPTarget": 24})).await?;
    let reason = ".status.conditions[?(@.type==\"AddressesAvailable\")].reason";
    product::enipool_shows(cluster, FRAGMENTED, reason, "NoContiguousPrefix", SUPPLY).await?;
    let pods = crowd().roll_out(kubectl, ROLL_OUT).await?;
    let enis = product::enis(cluster, FRAGMENTED)?;
    let far = stage.pods.iter().find(|pod| pod.node != FRAGMENTED).context("no pod on another node")?;
    for pod in &pods {
        ensure!(enis.iter().any(|eni| eni.secondaries.contains(&pod.address)), "{} is no single address", pod.address);
        pod.ping(kubectl, far.address).await?;
    }
    ensure!(enis.iter().all(|eni| eni.prefixes.is_empty()), "there was no /28 to be had: {enis:?}");
    Ok(())
}

fn addressing(value: &Value) -> Value {
    json!({"addressing": value, "warmIPTarget": null})
}
