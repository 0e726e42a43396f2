//! What enipool costs a node as it is deployed: memory, processor time, the time of an ADD, and the files that it logs to.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::Stage;
use crate::{
    cluster::{Node, until},
    product, workload,
};

/// Resident memory of an agent with its pods, in MB (10^6 bytes).
const AGENT_MB: f64 = 24.0;
/// How long memory may take to come down to that: a daemon gives back what only its start needed 20 s after that.
const SLIM: Duration = Duration::from_secs(60);
/// How long daemons are watched at a time, with nothing to do but to answer the kubelet's probes.
const WATCHED: Duration = Duration::from_secs(10);
/// How long they may have something to do before they have nothing.
const QUIET: Duration = Duration::from_secs(60);
/// Share of a processor that they may take when idle. Alone they take a tenth of it; a busy machine makes everything dearer.
const IDLE_PERCENT: f64 = 1.0;
/// The kernel keeps 15 bytes of a program's name.
const OPERATOR: &str = "enipool-operato";
const AGENT: &str = "enipool-agent";

pub(super) fn small(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let (cluster, narrator) = (&stage.cluster, &stage.narrator);
        let by_node = workload::by_node(&stage.pods);
        let agents = by_node.into_iter().map(async |(node, pods)| {
            let agent = Daemon::find(cluster.node(node)?, AGENT).await?;
            let (memory, percent) = (agent.slim().await?, agent.idle().await?);
            let page = "http://127.0.0.1:61678/metrics";
            let metrics = agent.node.exec(&["curl", "--silent", "--fail", "--max-time", "5", page]).await?;
            let add = median_of_adds(&metrics).with_context(|| format!("the agent of {node} has counted no ADD"))?;
            let pods = pods.len();
            narrator.say(&format!(
                "the agent of {node}, {pods} pods: {memory:.1} MB, {percent:.2} % of a core; ADD p50 {add:.1} ms"
            ));
            anyhow::Ok(())
        });
        let operator = async {
            let operator = Daemon::find(cluster.node(&product::operators_node(cluster).await?)?, OPERATOR).await?;
            let (percent, memory) = (operator.idle().await?, operator.rss_mb().await?);
            narrator.say(&format!("the operator: {memory:.1} MB, {percent:.2} % of a core"));
            Ok(())
        };
        futures::try_join!(futures::future::try_join_all(agents), operator).map(drop)
    }
    .boxed_local()
}

/// A process of ours on a node.
struct Daemon<'a> {
    node: &'a Node,
    pid: String,
}

impl<'a> Daemon<'a> {
    async fn find(node: &'a Node, name: &str) -> Result<Self> {
        let pid =
            node.exec(&["pgrep", "--exact", name]).await.with_context(|| format!("no {name} on {}", node.name()))?;
        Ok(Self { node, pid: pid.trim().to_owned() })
    }

    /// Resident memory in MB (10^6 bytes).
    async fn rss_mb(&self) -> Result<f64> {
        let status = self.node.exec(&["cat", &format!("/proc/{}/status", self.pid)]).await?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("reading VmRSS")?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Its memory, once that has come down to [`AGENT_MB`].
    async fn slim(&self) -> Result<f64> {
        let mut last = f64::NAN;
        let slim = until("a slim agent", SLIM, async || {
            last = self.rss_mb().await?;
            Ok((last <= AGENT_MB).then_some(last))
        });
        slim.await.with_context(|| format!("the agent of {} takes {last:.1} MB of {AGENT_MB}", self.node.name()))
    }

    /// The share of a processor that it takes, once that is as little as becomes an idle daemon.
    async fn idle(&self) -> Result<f64> {
        let mut last = f64::NAN;
        let idle = until("an idle daemon", QUIET, async || {
            last = self.cpu_percent().await?;
            Ok((last < IDLE_PERCENT).then_some(last))
        });
        idle.await.with_context(|| {
            format!("process {} of {} takes {last:.2} % of a core, not {IDLE_PERCENT}", self.pid, self.node.name())
        })
    }

    /// Share of a processor, over the time for which it is [`WATCHED`].
    async fn cpu_percent(&self) -> Result<f64> {
        let before = self.cpu_time().await?;
        let begun = tokio::time::Instant::now();
        tokio::time::sleep(WATCHED).await;
        let used = self.cpu_time().await?.saturating_sub(before);
        Ok(100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    /// Time on a processor of all threads that live now.
    async fn cpu_time(&self) -> Result<Duration> {
        let look = format!("cat /proc/{}/task/*/schedstat", self.pid);
        let threads = self.node.exec(&["sh", "-c", &look]).await?;
        let nanoseconds = threads.lines().map(|line| {
            let first = line.split_whitespace().next().context("schedstat is empty")?;
            first.parse::<u64>().context("reading schedstat")
        });
        Ok(Duration::from_nanos(nanoseconds.sum::<Result<u64>>()?))
    }
}

/// The time that half of all successful ADDs did not exceed, in milliseconds, as `histogram_quantile` would estimate it: by
/// a straight line within the bucket. None: there was no ADD.
fn median_of_adds(metrics: &str) -> Option<f64> {
    let buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter(|line| line.starts_with("enipool_cni_add_seconds_bucket{") && line.contains("outcome=\"success\""))
        .filter_map(|line| {
            let (labels, count) = line.rsplit_once(' ')?;
            let bound = labels.split_once("le=\"")?.1.split_once('"')?.0;
            // The last bound is "+Inf", which parses.
            Some((bound.parse().ok()?, count.parse().ok()?))
        })
        .collect();
    let half = buckets.last().filter(|(_, all)| *all > 0.0)?.1 / 2.0;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= half {
            let share = (half - below.1) / (count - below.1);
            return Some(if bound.is_finite() { 1e3 * (below.0 + share * (bound - below.0)) } else { 1e3 * below.0 });
        }
        below = (bound, count);
    }
    None
}

/// Who collects the AWS plugin's logs finds ours: same folder, same names.
pub(super) fn hourly_logs(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        for node in stage.cluster.nodes() {
            let folder = node.file("/var/log/aws-routed-eni");
            let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
            for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
                let entry = entry.context("reading an entry")?;
                sizes.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
            }
            for kind in ["ipamd.log.", "plugin.log."] {
                let written = |(name, size): (&String, &u64)| {
                    *size > 0 && name.strip_prefix(kind).is_some_and(|hour| shape(hour) == "0000-00-00-00")
                };
                ensure!(
                    sizes.iter().any(written),
                    "{} has logged to {sizes:?}, not to {kind}YYYY-MM-DD-HH",
                    node.name()
                );
            }
        }
        Ok(())
    }
    .boxed_local()
}

/// The text with every digit a zero.
fn shape(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: [u32; 4]) -> String {
        let [first, second, third, all] = counts;
        format!(
            "enipool_cni_add_seconds_bucket{{le=\"0.001\",outcome=\"NoAddress\"}} 70\n\
             enipool_cni_add_seconds_sum{{outcome=\"success\"}} 0.5\n\
             enipool_cni_add_seconds_bucket{{le=\"0.001\",outcome=\"success\"}} {first}\n\
             enipool_cni_add_seconds_bucket{{le=\"0.002\",outcome=\"success\"}} {second}\n\
             enipool_cni_add_seconds_bucket{{le=\"0.004\",outcome=\"success\"}} {third}\n\
             enipool_cni_add_seconds_bucket{{le=\"+Inf\",outcome=\"success\"}} {all}\n"
        )
    }

    fn about(found: Option<f64>, wanted: f64) -> bool {
        found.is_some_and(|found| (found - wanted).abs() < 1e-9)
    }

    #[test]
    fn the_median_of_a_histogram_lies_in_the_bucket_of_the_middle_one() {
        assert!(about(median_of_adds(&histogram([2, 10, 12, 12])), 1.5));
        assert!(about(median_of_adds(&histogram([10, 10, 10, 10])), 0.5));
        // Beyond the last bound nothing is known but that.
        assert!(about(median_of_adds(&histogram([0, 0, 0, 8])), 4.0));
    }

    #[test]
    fn what_never_ran_has_no_median() {
        assert_eq!(median_of_adds(&histogram([0; 4])), None);
        assert_eq!(median_of_adds(""), None);
    }

    #[test]
    fn an_hour_has_the_shape_of_an_hour() {
        assert_eq!(shape("2026-11-23-07"), "0000-00-00-00");
        assert_ne!(shape("2026-11-23-07.1"), "0000-00-00-00");
    }
}
