//! Packets: between pods, through Services, and never from where they must not come.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::Stage;
use crate::{story, workload};

/// Enough for both nodes to be asked: with fair odds, all on one node is less likely than one in a million.
const ATTEMPTS: usize = 24;

pub(super) fn pods_talk(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        story::talk(&stage.cluster, &stage.narrator, &stage.pods).await?;
        // And on one node, from ENI to ENI.
        let kubectl = stage.cluster.kubectl();
        for pods in workload::by_node(&stage.pods).into_values() {
            let (first, last) = (pods.first().context("no pod")?, pods.last().context("no pod")?);
            for (from, to) in [(first, last), (last, first)] {
                from.ping(kubectl, to.address).await?;
            }
        }
        Ok(())
    }
    .boxed_local()
}

pub(super) fn cluster_ip(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let service = stage.cluster.kubectl().json(&["get", "service", "web"]).await?;
        let address = service["spec"]["clusterIP"].as_str().context("the Service has no address")?.to_owned();
        answers_from_both_nodes(stage, &format!("http://{address}/")).await
    }
    .boxed_local()
}

pub(super) fn node_port(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        // From outside the VPC's nodes, as a load balancer would.
        let outside = stage.cluster.fabric().control().netns.clone();
        for node in stage.cluster.nodes() {
            let url = format!("http://{}:30080/", node.site().address);
            let mut answers = BTreeSet::new();
            for _ in 0..ATTEMPTS {
                let answer = outside.exec(&["timeout", "5", "busybox", "wget", "-q", "-O", "-", &url]).await;
                answers.insert(answer.with_context(|| format!("no answer from {url}"))?.trim().to_owned());
            }
            ensure_both_nodes(stage, &answers).with_context(|| url)?;
        }
        Ok(())
    }
    .boxed_local()
}

pub(super) fn nothing_spoofed(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    story::nothing_spoofed(&stage.cluster).boxed_local()
}

async fn answers_from_both_nodes(stage: &Stage, url: &str) -> Result<()> {
    let (one, other) = workload::two_nodes_pods(&stage.pods)?;
    for pod in [one, other] {
        let mut answers = BTreeSet::new();
        for _ in 0..ATTEMPTS {
            answers.insert(pod.fetch(stage.cluster.kubectl(), url).await?);
        }
        ensure_both_nodes(stage, &answers)?;
    }
    Ok(())
}

fn ensure_both_nodes(stage: &Stage, answers: &BTreeSet<String>) -> Result<()> {
    let nodes: BTreeSet<&str> =
        stage.pods.iter().filter(|pod| answers.contains(&pod.name)).map(|pod| pod.node.as_str()).collect();
    ensure!(nodes.len() == 2, "only pods of {nodes:?} answered: {answers:?}");
    Ok(())
}
