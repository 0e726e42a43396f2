//! The cluster's metrics, in each of the places where the AWS VPC CNI's guide says that people look.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use ec2_sim::{FaultKind, FaultRule};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::Stage;
use crate::{
    cluster::{Cluster, until},
    figures::{self, Sent, Series},
    product,
};

/// How long figures may take to agree: a status that is written every 2 s, a sum every 5 s.
const AGREE: Duration = Duration::from_secs(60);
/// How long a failure may take to be logged, and its end.
const TOLD: Duration = Duration::from_secs(60);

/// The guide's sums and the series of each agent that they are made of.
const SUMS: [(&str, &str); 5] = [
    ("maxIPAddresses", "awscni_ip_max"),
    ("totalIPAddresses", "awscni_total_ip_addresses"),
    ("assignIPAddresses", "awscni_assigned_ip_addresses"),
    ("eniMaxAvailable", "awscni_eni_max"),
    ("eniAllocated", "awscni_eni_allocated"),
];

/// S4 and S5: the operator's figures are the sums of the agents' own, and EC2 agrees.
pub(super) fn sums(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let cluster = &stage.cluster;
        until("the operator's figures being the sums of the agents' own", AGREE, async || {
            let operator = figures::of_operator(cluster).await?;
            let mut agents: BTreeMap<&str, f64> = BTreeMap::new();
            for node in cluster.nodes() {
                let agent = figures::of_agent(cluster, node.name()).await?;
                for (sum, part) in SUMS {
                    *agents.entry(sum).or_default() += agent.get(part).copied().unwrap_or(f64::NAN);
                }
            }
            let agree = SUMS.iter().all(|(sum, _)| operator.get(*sum) == agents.get(sum));
            let quiet = operator.get("ipamdActionInProgress") == Some(&0.0);
            let all_heard = operator.get("enipool_cluster_silent_nodes") == Some(&0.0);
            Ok((agree && quiet && all_heard && operator.contains_key("ipamdErr")).then_some(()))
        })
        .await?;
        let operator = figures::of_operator(cluster).await?;
        let enis: usize =
            cluster.nodes().iter().map(|node| Ok(product::enis(cluster, node.name())?.len())).sum::<Result<usize>>()?;
        ensure!(is(&operator, "eniAllocated", enis), "EC2 has {enis} ENIs on the nodes: {operator:?}");
        ensure!(is(&operator, "assignIPAddresses", stage.pods.len()), "{} pods: {operator:?}", stage.pods.len());
        ensure!(operator.get("addReqCount").is_some_and(|adds| *adds >= 0.0), "no ADDs are counted: {operator:?}");
        Ok(())
    }
    .boxed_local()
}

fn is(series: &Series, name: &str, value: usize) -> bool {
    series.get(name).is_some_and(|found| (found - f64::from(u32::try_from(value).unwrap_or(u32::MAX))).abs() < 0.5)
}

/// S6: the lines that people search the log for.
pub(super) fn log_lines(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let cluster = &stage.cluster;
        let enis: usize =
            cluster.nodes().iter().map(|node| Ok(product::enis(cluster, node.name())?.len())).sum::<Result<usize>>()?;
        let wanted = [
            format!("Produce GAUGE metrics: eniAllocated, value: {enis}.000000"),
            format!("Produce GAUGE metrics: assignIPAddresses, value: {}.000000", stage.pods.len()),
            "Produce COUNTER metrics: ipamdErr, value: 0.000000".into(),
        ];
        until("a line for each metric in the operator's log", TOLD, async || {
            let log = log(cluster).await?;
            Ok(wanted.iter().all(|line| log.contains(line)).then_some(()))
        })
        .await?;
        for line in &wanted {
            stage.narrator.say(line);
        }
        Ok(())
    }
    .boxed_local()
}

async fn log(cluster: &Cluster) -> Result<String> {
    cluster.kubectl().run(&["-n", product::NAMESPACE, "logs", "deployment/enipool-operator", "--tail=2000"]).await
}

/// S7: CloudWatch has what Prometheus shows, under the names and dimensions of the metrics helper.
pub(super) fn cloudwatch(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let cluster = &stage.cluster;
        let sent = figures::next_round(cluster).await?;
        let operator = figures::of_operator(cluster).await?;
        for (name, _) in SUMS {
            let value = figures::value(&sent, name)?;
            ensure!(
                operator.get(name) == Some(&value),
                "{name} is {value} in CloudWatch, {:?} here",
                operator.get(name)
            );
        }
        let of_subnet = |metric: &&Sent| {
            metric.name == "subnetFreeAddresses" && metric.dimensions.iter().any(|(name, _)| name == "SUBNET_ID")
        };
        ensure!(sent.iter().find(of_subnet).is_some(), "no subnet has its free addresses there: {sent:?}");
        ensure!(sent.iter().all(|metric| metric.dimensions[0].0 == "CLUSTER_ID"), "{sent:?}");
        denied(cluster).await
    }
    .boxed_local()
}

/// A CloudWatch that denies is said once, with what to do, and no period is lost.
async fn denied(cluster: &Cluster) -> Result<()> {
    const DENIED: &str = "CloudWatch does not take the cluster's metrics";
    let sim = cluster.fabric().sim().model();
    let said = async || Ok::<_, anyhow::Error>(log(cluster).await?.matches(DENIED).count());
    let (said_before, taken_before) = (said().await?, taken(cluster));
    let calls = || sim.with(|model| model.cloudwatch_calls().last_seq());
    let fault = sim.with(|model| model.inject(FaultRule::always(FaultKind::Denied, "PutMetricData")));
    let first = calls();
    let refused =
        until("three periods that CloudWatch denies", TOLD, async || Ok((calls() >= first + 3).then_some(())));
    let refused = refused.await;
    let told = log(cluster).await;
    sim.with(|model| model.end_fault(fault));
    refused?;
    ensure!(told?.contains("cloudwatch:PutMetricData"), "the log does not say what to allow");
    figures::next_round(cluster).await?;
    let taken = taken(cluster) - taken_before;
    ensure!(taken >= 4, "of three periods that were denied and the next one, {taken} arrived");
    let said = said().await? - said_before;
    ensure!(said == 1, "the denial of three periods was said {said} times");
    Ok(())
}

/// Values of one metric that CloudWatch has taken.
fn taken(cluster: &Cluster) -> u64 {
    let metrics = |model: &mut ec2_sim::Model| {
        model.metrics().iter().filter(|(id, _)| id.name == "eniAllocated").map(|(_, metric)| metric.datapoints()).sum()
    };
    cluster.fabric().sim().model().with(metrics)
}
