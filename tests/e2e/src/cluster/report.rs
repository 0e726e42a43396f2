//! What to print when something failed: what the API server knows, and the ends of the logs that matter. It never fails.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

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
    for log in container_logs(cluster) {
        let _ = writeln!(out, "--- {}\n{}", log.display(), tail(&log));
    }
    let _ = writeln!(out, "all logs: {}", cluster.run.logs().display());
    out
}

/// Our own containers' logs on every node, and those of pods that crashed; at most a dozen.
fn container_logs(cluster: &Cluster) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    for node in &cluster.nodes {
        for pod in folders(&node.file("/var/log/pods")) {
            let ours = pod.to_string_lossy().contains("enipool");
            for container in folders(&pod) {
                let mut files = folders(&container);
                files.sort();
                // The file's number is the restart's.
                let restarted = files.last().is_some_and(|file| !file.ends_with("0.log"));
                if ours || restarted {
                    logs.extend(files.pop());
                }
            }
        }
    }
    logs.truncate(12);
    logs
}

fn folders(dir: &std::path::Path) -> Vec<PathBuf> {
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
