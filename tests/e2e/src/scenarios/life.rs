//! A pool's daily life: its numbers, its targets, an agent that restarts, pods that come and go.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::Stage;
use crate::{
    product,
    story::{self, INSTANCE_TYPE},
    workload::{self, Pod, Web},
};

const ROLL_OUT: Duration = Duration::from_secs(180);

pub(super) fn numbers_are_true(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        story::pools(&stage.cluster, &stage.narrator, &stage.pods).await?;
        for node in ["node-a", "node-b"] {
            let pool = product::enipool(&stage.cluster, node).await?;
            let owned: usize = product::enis(&stage.cluster, node)?.iter().map(|eni| eni.secondaries.len()).sum();
            ensure!(
                pool["status"]["addresses"]["total"] == owned,
                "{node} says {}, EC2 {owned}",
                pool["status"]["addresses"]
            );
            ensure!(pool["status"]["instance"]["type"] == INSTANCE_TYPE, "{}", pool["status"]["instance"]);
        }
        Ok(())
    }
    .boxed_local()
}

pub(super) fn patch_brings_an_eni(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    story::more_warm(&stage.cluster, &stage.narrator, "node-a").boxed_local()
}

pub(super) fn agent_restart(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
        // The operator calls EC2 with its node's credentials: the other node's are its agent's alone.
        let busy = product::operators_node(cluster).await?;
        let (mut one, mut other) = workload::two_nodes_pods(&stage.pods)?;
        if one.node == busy {
            (one, other) = (other, one);
        }
        let before = assigned(stage, &one.node).await?;
        let call = product::latest_call(cluster);

        // Twenty pings a second, all the while.
        let target = other.address.to_string();
        let mut pings =
            kubectl.command(&["exec", &one.name, "--", "ping", "-i", "0.05", "-c", "400", "-W", "2", &target]);
        let pings = pings.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
        let (pings, restarted) = futures::join!(pings, product::restart_agent(cluster, &one.node));
        restarted?;
        let pings = String::from_utf8_lossy(&pings.context("running ping")?.stdout).into_owned();
        ensure!(pings.contains("400 packets received"), "pings were lost while the agent restarted: {}", pings.trim());

        let after = assigned(stage, &one.node).await?;
        ensure!(before == after, "{before} addresses were assigned before the restart, {after} after");
        let calls = product::calls_since(cluster, &one.node, call)?;
        stage.narrator.say(&format!("EC2 calls of the agent over its restart: {calls:?}"));
        ensure!(calls.len() <= 1, "a restart should cost one EC2 call, not {calls:?}");
        // The new agent serves, and gives out no address that is in use.
        let more = Web::new("after-restart", 2);
        let fresh = more.roll_out(kubectl, ROLL_OUT).await?;
        ensure_no_shared_address(stage.pods.iter().chain(&fresh))?;
        for pod in &fresh {
            pod.ping(kubectl, other.address).await?;
        }
        more.remove(kubectl, ROLL_OUT).await
    }
    .boxed_local()
}

pub(super) fn pod_churn(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let kubectl = stage.cluster.kubectl();
        let mut churn = Web::new("churn", 8);
        churn.roll_out(kubectl, ROLL_OUT).await?;
        for replicas in [2, 10, 0] {
            let pods = churn.scale(kubectl, replicas, ROLL_OUT).await?;
            ensure_no_shared_address(stage.pods.iter().chain(&pods))?;
            if let Some(pod) = pods.first() {
                pod.ping(kubectl, stage.pods.first().context("no pod")?.address).await?;
            }
        }
        churn.remove(kubectl, ROLL_OUT).await?;
        for (node, pods) in workload::by_node(&stage.pods) {
            let limit = Duration::from_secs(30);
            product::enipool_shows(&stage.cluster, node, ".status.addresses.assigned", pods.len(), limit).await?;
        }
        Ok(())
    }
    .boxed_local()
}

async fn assigned(stage: &Stage, node: &str) -> Result<u64> {
    let pool = product::enipool(&stage.cluster, node).await?;
    pool["status"]["addresses"]["assigned"]
        .as_u64()
        .with_context(|| format!("{node}'s status has no addresses.assigned"))
}

pub(super) fn ensure_no_shared_address<'a>(pods: impl Iterator<Item = &'a Pod>) -> Result<()> {
    let mut seen: BTreeSet<Ipv4Addr> = BTreeSet::new();
    for pod in pods {
        ensure!(seen.insert(pod.address), "{} has {}, which another pod has too", pod.name, pod.address);
    }
    Ok(())
}
