//! `enipool-agent doctor`: what it says of a node that is well, of one that is not, and whether its advice helps.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ec2_sim::{Request, model::request::Unassign};
use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::Value;

use super::Stage;
use crate::{
    cluster::{Cluster, until},
    product,
    workload::{Pod, Web},
};

const ROLL_OUT: Duration = Duration::from_secs(120);
/// Whatever is under way when the doctor comes.
const SETTLED: Duration = Duration::from_secs(30);
const NODE: &str = "node-b";

pub(super) fn finds_what_ec2_took(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
        // It sends nothing of itself: not one packet shall come from an address that its node does not own.
        let patient = Web::new("patient", 1).on(NODE);
        let pods = patient.roll_out(kubectl, ROLL_OUT).await?;
        let treated = treat(stage, pods.first().context("no pod")?).await;
        patient.remove(kubectl, ROLL_OUT).await?;
        let told = treated?;
        stage.narrator.show(&told);
        healthy(cluster).await?;
        bundle_tells(cluster).await
    }
    .boxed_local()
}

/// A stranger takes a pod's address in EC2; the doctor finds it, and what it says to do helps.
async fn treat(stage: &Stage, pod: &Pod) -> Result<String> {
    let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
    healthy(cluster).await?;
    take_away(cluster, pod)?;
    // EC2's answers may show the past for some seconds.
    let told = until("the doctor's exit code 1", SETTLED, async || {
        let (well, told) = product::ask_agent(cluster, NODE, "doctor").await?;
        Ok((!well).then_some(told))
    });
    let told = told.await.with_context(|| format!("{} lost its address", pod.name))?;
    let finding = told.lines().find(|line| line.starts_with("StrayAddress")).context("no StrayAddress")?;
    for words in [pod.name.as_str(), &pod.address.to_string(), "Delete the pod"] {
        ensure!(finding.contains(words), "'{finding}' says nothing of {words}");
    }

    kubectl.run_within(ROLL_OUT, &["delete", "pod", &pod.name]).await?;
    let successor = Web::new("patient", 1).on(NODE).roll_out(kubectl, ROLL_OUT).await?;
    let successor = successor.first().context("no successor")?;
    ensure!(successor.address != pod.address, "the successor got {} again", pod.address);
    successor.ping(kubectl, stage.pods.first().context("no pod")?.address).await?;
    // A start compares with EC2; without one the agent would find out within two minutes.
    product::restart_agent(cluster, NODE).await?;
    healthy(cluster).await?;
    Ok(told)
}

async fn healthy(cluster: &Cluster) -> Result<()> {
    let mut last = String::new();
    let agrees = until("the doctor finding nothing", SETTLED, async || {
        let (well, told) = product::ask_agent(cluster, NODE, "doctor").await?;
        let agrees = well && told.contains("EC2, ledger and kernel agree");
        last = told;
        Ok(agrees.then_some(()))
    });
    agrees.await.with_context(|| format!("the doctor of {NODE} says: {last}"))
}

/// The script that people send their findings with, as it was installed on the node.
async fn bundle_tells(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(NODE)?;
    let archive = node.exec(&["/opt/cni/bin/aws-cni-support.sh"]).await.context("the support script")?;
    let read = async |name: &str| {
        let name = format!("enipool-support/{name}");
        node.exec(&["tar", "--extract", "--gzip", "--to-stdout", "--file", archive.trim(), &name]).await
    };
    let pool: Value =
        serde_json::from_str(&read("agent/v1-pool.json").await?).context("reading the page of the pool")?;
    ensure!(pool.as_object().is_some_and(|pool| !pool.is_empty()), "the page of the pool is {pool}");
    // `instance-type.json` comes when EC2 has been asked: not within the first ten minutes.
    for (file, words) in [
        ("kernel/nftables.txt", "table ip enipool"),
        ("kernel/rules.txt", "lookup 20000"),
        ("agent/found.json", "{"),
        ("agent/metrics.txt", "awscni_assigned_ip_addresses"),
    ] {
        let content = read(file).await?;
        ensure!(content.contains(words), "{file} of the bundle says nothing of '{words}': {content}");
    }
    Ok(())
}

fn take_away(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let enis = product::enis(cluster, &pod.node)?;
    let eni = product::eni_of(&enis, pod.address).with_context(|| format!("no ENI owns {}", pod.address))?;
    let request = Request::UnassignPrivateIpAddresses(Unassign {
        interface: eni.id.parse()?,
        addresses: vec![pod.address],
        prefixes: Vec::new(),
    });
    cluster.fabric().sim().model().with(|model| model.act(&request)).map(drop).context("taking the address away")
}
