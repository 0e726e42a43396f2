//! What to print when something failed: what the API server knows, and the ends of the logs that matter. It never fails.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Cluster, process::tail};

/// Longest time for each question to a cluster that may be half dead.
const QUESTION: Duration = Duration::from_secs(8);

pub(super) async fn write(cluster: &mut Cluster) -> String {
    let mut out = String::new();
    if let Err(error) = cluster.ensure_running() {
        let _ = writeln!(out, "{error:#}");
    }
    let questions: [&[&str]; 4] = [
        &["get", "nodes", "-o", "wide"],
        &["get", "pods", "--all-namespaces", "-o", "wide"],
        &["get", "enipools", "-o", "wide"],
        &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
    ];
    for question in questions {
        let answer = match cluster.kubectl.run_within(QUESTION, question).await {
            Ok(text) => last_lines(&text, 30),
            Err(error) => format!("{error:#}"),
        };
        let _ = writeln!(out, "--- kubectl {}\n{answer}", question.join(" "));
    }
    for log in telling_logs(cluster.nodes.iter().map(|node| node.file("/var/log/pods"))) {
        let _ = writeln!(out, "--- {}\n{}", log.display(), tail(&log));
    }
    let _ = writeln!(out, "all logs: {}", cluster.run.logs().display());
    out
}

/// The newest logs of containers that crashed, and of our own, in this order; at most a dozen. Takes each node's
/// `/var/log/pods`.
fn telling_logs(nodes: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    for pod in nodes.into_iter().flat_map(|node| folders(&node)) {
        let ours = pod.to_string_lossy().contains("enipool");
        for container in folders(&pod) {
            let newest = folders(&container).into_iter().filter_map(|log| Some((restarts(&log)?, log))).max();
            if let Some((restarts, log)) = newest
                && (ours || restarts > 0)
            {
                logs.push((restarts == 0, log));
            }
        }
    }
    logs.sort();
    logs.into_iter().map(|(_, log)| log).take(12).collect()
}

/// How often a container had been restarted when it wrote this log: the file's number.
fn restarts(log: &Path) -> Option<u32> {
    log.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= count {
        return text.trim_end().to_owned();
    }
    // The heading, and the newest.
    let mut kept = vec![lines[0]];
    kept.extend(&lines[lines.len() - count..]);
    kept.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    /// `/var/log/pods` of a node with these logs.
    fn node(logs: &[&str]) -> tempfile::TempDir {
        let node = tempfile::tempdir().unwrap();
        for log in logs {
            let log = node.path().join(log);
            fs::create_dir_all(log.parent().unwrap()).unwrap();
            fs::write(log, "").unwrap();
        }
        node
    }

    fn told(nodes: &[&tempfile::TempDir]) -> Vec<String> {
        let name = |log: PathBuf| {
            let node = nodes.iter().find_map(|node| log.strip_prefix(node.path()).ok()).unwrap();
            node.to_str().unwrap().to_owned()
        };
        telling_logs(nodes.iter().map(|node| node.path().to_owned())).into_iter().map(name).collect()
    }

    #[test]
    fn what_crashed_is_told_before_our_own_and_what_runs_quietly_not_at_all() {
        let one = node(&["enipool-system_agent_1/agent/0.log", "default_web_2/web/0.log"]);
        let other = node(&["default_job_3/job/0.log", "default_job_3/job/1.log", "default_job_3/side/0.log"]);
        assert_eq!(told(&[&one, &other]), ["default_job_3/job/1.log", "enipool-system_agent_1/agent/0.log"]);
    }

    #[test]
    fn the_newest_log_is_the_one_with_the_highest_number() {
        let crashing = node(&["default_job_1/job/9.log", "default_job_1/job/10.log"]);
        assert_eq!(told(&[&crashing]), ["default_job_1/job/10.log"]);
        let rotated = node(&["default_web_1/web/0.log", "default_web_1/web/0.log.20261123-100000"]);
        assert_eq!(told(&[&rotated]), [""; 0], "rotated is not restarted");
    }

    #[test]
    fn many_nodes_do_not_drown_the_rest_of_the_report() {
        let names: Vec<String> = (0..40).map(|number| format!("enipool-system_agent-{number}/agent/0.log")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(told(&[&node(&names)]).len(), 12);
    }

    #[test]
    fn of_long_output_the_heading_and_the_newest_lines_are_kept() {
        let long: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        assert_eq!(last_lines(&long.join("\n"), 2), "line 0\nline 98\nline 99");
        assert_eq!(last_lines("heading\n", 2), "heading");
    }
}
