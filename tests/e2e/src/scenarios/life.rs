//! A pool's daily life: its numbers, its targets, an agent that restarts, pods that come and go.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use enipool_pool::{
    InstanceType,
    capacity::{self, Capacity},
};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::{Stage, inside::Pings, table};
use crate::{
    product,
    story::{self, INSTANCE_TYPE},
    workload::{self, Pod, Web},
};

const ROLL_OUT: Duration = Duration::from_secs(180);

pub(super) fn numbers_are_true(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        story::pools(&stage.cluster, &stage.narrator, &stage.pods).await?;
        // The operator calls EC2 with its node's credentials: only the other node's calls are its agent's alone.
        let busy = product::operators_node(&stage.cluster).await?;
        let short = stage.cluster.kubectl().run(&["get", "enipools"]).await?;
        let wide = stage.cluster.kubectl().run(&["get", "enipools", "-o", "wide"]).await?;
        for node in ["node-a", "node-b"] {
            let (mut more, usual) = (truth_when_wide(stage, node)?, truth(stage, node)?);
            more.retain(|(column, _)| *column != "THROTTLES" || node != busy);
            ensure_printed(&short, node, &usual)?;
            ensure_printed(&wide, node, &[usual, more].concat())?;
        }
        Ok(())
    }
    .boxed_local()
}

/// Each column of a table, with what should stand in it.
type Columns = Vec<(&'static str, String)>;

/// What `kubectl get enipools` should print of a node that is at rest, out of EC2's own books.
fn truth(stage: &Stage, node: &str) -> Result<Columns> {
    let enis = product::enis(&stage.cluster, node)?;
    let owned: usize = enis.iter().map(|eni| eni.secondaries.len()).sum();
    let pods = stage.pods.iter().filter(|pod| pod.node == node).count();
    let limits = limits(stage, node)?;
    Ok(vec![
        ("TYPE", INSTANCE_TYPE.to_owned()),
        ("ENIS", enis.len().to_string()),
        ("MAX", limits.max_enis.to_string()),
        ("IPS", owned.to_string()),
        ("ASSIGNED", pods.to_string()),
        ("FREE", owned.checked_sub(pods).context("more pods than addresses")?.to_string()),
        ("WARM", "1 ENI".to_owned()),
        ("READY", "True".to_owned()),
        ("REASON", "AsPlanned".to_owned()),
    ])
}

/// What it should print beyond that with `-o wide`.
fn truth_when_wide(stage: &Stage, node: &str) -> Result<Columns> {
    let enis = product::enis(&stage.cluster, node)?;
    Ok(vec![
        ("SUBNET", enis.first().context("a node has no ENI")?.subnet.to_string()),
        ("CEILING", limits(stage, node)?.slots().to_string()),
        // All pods have their addresses.
        ("DEMAND", "0".to_owned()),
        ("THROTTLES", product::throttled(&stage.cluster, node)?.to_string()),
    ])
}

fn limits(stage: &Stage, node: &str) -> Result<Capacity> {
    let instance_type = InstanceType::new(stage.cluster.node(node)?.site().instance_type.as_str());
    let limits = capacity::bundled(&instance_type).with_context(|| format!("no limits of {instance_type}"))?;
    Ok(Capacity::new(&limits))
}

fn ensure_printed(printed: &str, node: &str, wanted: &Columns) -> Result<()> {
    let rows = table::rows(printed);
    let row = rows.iter().find(|row| row.get("NAME") == Some(&node));
    let row = row.with_context(|| format!("{node} has no line in\n{printed}"))?;
    for (column, value) in wanted {
        ensure!(row.get(column) == Some(&value.as_str()), "{node}'s {column} should be {value} in\n{printed}");
    }
    ensure!(row.get("AGE").is_some_and(|age| !age.is_empty()), "{node} has no AGE in\n{printed}");
    Ok(())
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
        let call = product::at_rest(cluster, &one.node).await?;

        let pings = Pings::begin(cluster.node(&one.node)?, one, other.address).await?;
        product::restart_agent(cluster, &one.node).await?;
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
        stage.narrator.say(&pings.end().await?);
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
