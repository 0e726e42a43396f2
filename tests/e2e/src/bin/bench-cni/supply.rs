//! How the pool itself does: EC2 calls to fill a node, to restart, and 27 pods at once on a fresh one.

use std::time::{Duration, Instant};

use anyhow::Result;
use ec2_sim::server::Handle;

use enipool_e2e::bare::agent::{Agent, AgentSpec};

use crate::figures::{Goal, Report};
use crate::latency::Contender;

/// Pods that an m5.large takes: 3 interfaces of 10 addresses, less the primary ones.
const M5_LARGE: usize = 27;
/// How long EC2 has to be left alone before the pool counts as steady. Longer than any of the agent's periods that could
/// still call EC2 after a change.
const QUIET: Duration = Duration::from_secs(5);

fn calls(sim: &Handle) -> u64 {
    sim.model().with(|model| model.calls().last_seq())
}

/// What was called after call number `since`, for people: `CreateNetworkInterface 2, …`.
fn words(sim: &Handle, since: u64) -> String {
    let mut counts = std::collections::BTreeMap::new();
    sim.model().with(|model| {
        for call in model.calls().since(since) {
            *counts.entry(call.action).or_insert(0_u32) += 1;
        }
    });
    counts.iter().map(|(action, count)| format!("{action} {count}")).collect::<Vec<_>>().join(", ")
}

/// Waits until nobody has called EC2 for [`QUIET`].
fn until_quiet(sim: &Handle) {
    let mut last = (calls(sim), Instant::now());
    while last.1.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(50));
        let now = calls(sim);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

/// Fills an m5.large pod by pod, then restarts its agent.
pub(crate) fn fill(sim: &Handle, spec: AgentSpec, report: &mut Report) -> Result<()> {
    let before = calls(sim);
    let agent = spec.start()?;
    until_quiet(sim);
    report.figure("agent_rss_idle_mb", agent.rss_mb()?, Goal::AtMost(20.0));
    let contender = Contender::of(&agent, "enp-cni-fill");
    let pods = contender.bring_up(M5_LARGE)?;
    until_quiet(sim);
    report.figure("ec2_calls_fill_m5_large", count(calls(sim) - before), Goal::AtMost(8.0));
    println!("  filling an m5.large: {}", words(sim, before));
    let before = calls(sim);
    let (agent, took) = agent.restart()?;
    until_quiet(sim);
    println!("  restart with 27 pods: serving after {took:.0?}; {}", words(sim, before));
    report.figure("ec2_calls_restart", count(calls(sim) - before), Goal::AtMost(1.0));
    report.figure("restart_to_serving_s", took.as_secs_f64(), Goal::AtMost(1.0));
    Contender::of(&agent, "enp-cni-fill").take_down(pods)?;
    agent.stop()
}

/// 27 pods at once on a node whose agent has just settled.
pub(crate) fn burst(sim: &Handle, spec: AgentSpec, report: &mut Report) -> Result<()> {
    let agent: Agent = spec.start()?;
    until_quiet(sim);
    let contender = Contender::of(&agent, "enp-cni-burst");
    let mut pods = contender.pods(M5_LARGE)?;
    let before = calls(sim);
    let (seconds, failures) = contender.at_once(&mut pods)?;
    println!("  27 at once: {seconds:.3} s, {} failed; {}", failures.len(), words(sim, before));
    if let Some(failure) = failures.first() {
        println!("  the first failure: {failure}");
    }
    report.figure("burst_27_s", seconds, Goal::AtMost(1.0));
    report.figure("burst_27_failed", count(failures.len() as u64), Goal::AtMost(0.0));
    contender.take_down(pods)?;
    agent.stop()
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(calls: u64) -> f64 {
    calls as f64
}
