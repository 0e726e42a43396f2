//! The cluster's figures as its users get them: from the operator's `/metrics`, from CloudWatch, from its log.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use ec2_sim::model::cloudwatch::{Last, MetricId};
use enipool_pool::Timestamp;

use crate::{
    cluster::{Cluster, until},
    product,
};

/// The namespace of the AWS VPC CNI's metrics helper.
pub const NAMESPACE: &str = "Kubernetes";
/// Seconds between two rounds in test clusters, where nobody wants to wait for a minute.
pub const PERIOD_S: u64 = 10;
/// How long a round may take to come: two periods, and the start of an operator.
const ROUND: Duration = Duration::from_secs(60);

/// Series of a page of `/metrics`, by name with labels as it stands there.
pub type Series = BTreeMap<String, f64>;

/// The series of a page.
pub fn series(page: &str) -> Series {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.into(), value.parse().ok()?)))
        .collect()
}

/// What the operator that leads shows to Prometheus.
pub async fn of_operator(cluster: &Cluster) -> Result<Series> {
    scrape(cluster, &product::operators_node(cluster).await?, 61682).await
}

/// What a node's agent shows to Prometheus.
pub async fn of_agent(cluster: &Cluster, node: &str) -> Result<Series> {
    scrape(cluster, node, 61678).await
}

async fn scrape(cluster: &Cluster, node: &str, port: u16) -> Result<Series> {
    let page = format!("http://127.0.0.1:{port}/metrics");
    let arguments = ["curl", "--silent", "--show-error", "--fail", "--max-time", "5", &page];
    Ok(series(&cluster.node(node)?.exec(&arguments).await?))
}

/// One metric in CloudWatch.
#[derive(Debug, Clone)]
pub struct Sent {
    pub name: String,
    /// `CLUSTER_ID` is the first one.
    pub dimensions: Vec<(String, String)>,
    pub last: Last,
}

/// What CloudWatch has of this cluster, with the newest value of each metric.
pub fn in_cloudwatch(cluster: &Cluster) -> Vec<Sent> {
    let ours = |id: &MetricId| {
        let of_cluster = |(name, value): &(String, String)| name == "CLUSTER_ID" && value == cluster.run().id();
        id.namespace == NAMESPACE && id.dimensions.iter().any(of_cluster)
    };
    cluster.fabric().sim().model().with(|model| {
        let metrics = model.metrics().iter().filter(|(id, _)| ours(id));
        let sent = metrics.map(|(id, metric)| {
            let mut dimensions = id.dimensions.clone();
            dimensions.sort_by_key(|(name, _)| name != "CLUSTER_ID");
            Sent { name: id.name.clone(), dimensions, last: *metric.last() }
        });
        sent.collect()
    })
}

/// What CloudWatch is sent in a round that was measured after now.
pub async fn next_round(cluster: &Cluster) -> Result<Vec<Sent>> {
    let before = newest(&in_cloudwatch(cluster));
    until("the operator's next round of metrics in CloudWatch", ROUND, async || {
        let sent = in_cloudwatch(cluster);
        let newest = newest(&sent);
        let round = sent.into_iter().filter(|metric| Some(metric.last.at) == newest).collect();
        Ok((newest > before).then_some(round))
    })
    .await
}

fn newest(sent: &[Sent]) -> Option<Timestamp> {
    sent.iter().map(|metric| metric.last.at).max()
}

/// The value of a metric of the cluster as a whole.
pub fn value(sent: &[Sent], name: &str) -> Result<f64> {
    let metric = sent.iter().find(|metric| metric.name == name && metric.dimensions.len() == 1);
    metric.map(|metric| metric.last.value).with_context(|| format!("CloudWatch was not sent {name}: {sent:?}"))
}

/// A table for people, the cluster's own metrics first.
pub fn table(sent: &[Sent]) -> String {
    let mut rows: Vec<[String; 4]> = sent
        .iter()
        .map(|metric| {
            let by: Vec<String> =
                metric.dimensions.iter().skip(1).map(|(name, value)| format!("{name}={value}")).collect();
            [metric.name.clone(), by.join(" "), number(metric.last.value), metric.last.unit.as_str().to_owned()]
        })
        .collect();
    rows.sort_by_key(|[_, by, ..]| !by.is_empty());
    rows.insert(0, ["METRIC", "DIMENSION", "VALUE", "UNIT"].map(str::to_owned));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |[name, by, value, unit]: &[String; 4]| {
        let [names, bys, values] = widths;
        format!("{name:<names$}  {by:<bys$}  {value:>values$}  {unit}")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whole numbers without a fraction, others with one digit.
fn number(value: f64) -> String {
    if value.fract().abs() < f64::EPSILON { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_metrics_is_read_by_series() {
        let series = series("# HELP a b\n# TYPE a gauge\na 1.0\nb{x=\"y z\"} 2\n# EOF\n");
        assert_eq!(series, [("a".to_owned(), 1.0), ("b{x=\"y z\"}".to_owned(), 2.0)].into());
    }

    #[test]
    fn numbers_are_as_short_as_they_are_true() {
        assert_eq!((number(11_186.0).as_str(), number(0.25).as_str()), ("11186", "0.2"));
    }
}
