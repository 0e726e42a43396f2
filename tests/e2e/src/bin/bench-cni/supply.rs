//! How the pool itself does: EC2 calls to fill a node and to restart, starts, and 27 pods at once on a fresh node, with an EC2 that answers at once and with one that takes as long as the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ec2_sim::model::Event;
use ec2_sim::model::calls::CallRecord;
use ec2_sim::server::Handle;
use enipool_pool::{EniId, Timestamp};

use enipool_e2e::bare::agent::{Agent, AgentSpec};

use crate::figures::{Goal, Report};
use crate::latency::{Contender, Pod};
use crate::rtt;

/// Pods that an m5.large takes: 3 interfaces of 10 addresses, less the primary ones.
const M5_LARGE: usize = 27;
/// How long EC2 has to be left alone before the pool counts as steady. Longer than any of the agent's periods that could
/// still call EC2 after a change.
const QUIET: Duration = Duration::from_secs(5);

pub(crate) fn calls(sim: &Handle) -> u64 {
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
pub(crate) fn until_quiet(sim: &Handle) {
    let mut last = (calls(sim), Instant::now());
    while last.1.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(50));
        let now = calls(sim);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

/// Fills an m5.large pod by pod, then restarts its agent: once full, and once with room for one pod more.
pub(crate) fn fill(sim: &Handle, spec: AgentSpec, report: &mut Report) -> Result<()> {
    let before = calls(sim);
    let agent = spec.start()?;
    until_quiet(sim);
    let contender = Contender::of(&agent, "enp-cni-fill");
    let mut pods = contender.bring_up(M5_LARGE)?;
    until_quiet(sim);
    report.figure("ec2_calls_fill_m5_large", count(calls(sim) - before), Goal::AtMost(8.0));
    println!("  filling an m5.large: {}", words(sim, before));
    let before = calls(sim);
    let (agent, took) = agent.restart()?;
    until_quiet(sim);
    println!("  restart with 27 pods: serving after {took:.0?}; {}", words(sim, before));
    report.figure("ec2_calls_restart", count(calls(sim) - before), Goal::AtMost(1.0));
    report.figure("restart_to_serving_s", took.as_secs_f64(), Goal::AtMost(1.0));
    let leaving = pods.pop().context("no pod")?;
    Contender::of(&agent, "enp-cni-fill").take_down(vec![leaving])?;
    let agent = first_add_after_restart(agent, &mut pods, report)?;
    Contender::of(&agent, "enp-cni-fill").take_down(pods)?;
    agent.stop()
}

/// Restarts the agent of a node that has one address left, once it has cooled, and gives that to a pod: the time from the
/// start of the agent's process until the pod's ADD has been answered.
fn first_add_after_restart(mut agent: Agent, pods: &mut Vec<Pod>, report: &mut Report) -> Result<Agent> {
    agent.wait_for_free(1)?;
    let (agent, serving) = agent.restart()?;
    let begun = Instant::now();
    pods.extend(Contender::of(&agent, "enp-cni-fill").bring_up(1)?);
    let took = serving + begun.elapsed();
    println!("  restart with {} pods: the next has its address after {took:.0?}", pods.len() - 1);
    report.figure("restart_to_first_add_s", took.as_secs_f64(), Goal::AtMost(1.0));
    Ok(agent)
}

/// The first start of an agent, without a journal, on an instance whose launch template gave it interfaces and addresses:
/// the time from the start of its process until a pod has one of those.
pub(crate) fn first_add_of_a_launched_node(sim: &Handle, spec: AgentSpec, report: &mut Report) -> Result<()> {
    let assigned = |sim: &Handle| -> BTreeSet<Ipv4Addr> {
        sim.truth().enis.into_iter().flat_map(|eni| eni.secondary_ips).collect()
    };
    let (given, before) = (assigned(sim), calls(sim));
    let begun = Instant::now();
    let agent = spec.start()?;
    let contender = Contender::of(&agent, "enp-cni-templated");
    let pods = contender.bring_up(1)?;
    let took = begun.elapsed();
    let [pod] = pods.as_slice() else { anyhow::bail!("one pod was wanted") };
    let address = rtt::address(pod)?;
    anyhow::ensure!(given.contains(&address), "{address} was not there when the agent started: it adopted nothing");
    println!(
        "  first start on a launched node: the first pod has its address after {took:.0?}; {}",
        words(sim, before)
    );
    report.figure("first_start_to_first_add_s", took.as_secs_f64(), Goal::AtMost(1.0));
    contender.take_down(pods)?;
    agent.stop()
}

/// 27 pods at once on a node whose agent has just settled.
pub(crate) fn burst(sim: &Handle, spec: AgentSpec, report: &mut Report) -> Result<()> {
    let agent: Agent = spec.start()?;
    until_quiet(sim);
    let contender = Contender::of(&agent, "enp-cni-burst");
    let mut pods = contender.pods(M5_LARGE)?;
    let before = calls(sim);
    let (seconds, failures) = contender.at_once(&mut pods);
    println!("  27 at once: {seconds:.3} s, {} failed; {}", failures.len(), words(sim, before));
    if let Some(failure) = failures.first() {
        println!("  the first failure: {failure}");
    }
    report.figure("burst_27_s", seconds, Goal::AtMost(1.0));
    report.figure("burst_27_failed", count(failures.len() as u64), Goal::AtMost(0.0));
    contender.take_down(pods)?;
    agent.stop()
}

/// 27 pods at once on fresh nodes whose EC2 takes as long as the real one, against the longest chain of calls that any of
/// their interfaces needed: a creation, an attachment (a refused one too, while EC2 does not know the interface yet), and
/// the way of the interface into the instance. The worst node counts.
pub(crate) fn slow_bursts(sim: &Handle, specs: Vec<AgentSpec>, report: &mut Report) -> Result<()> {
    let mut worst = f64::NAN;
    for spec in specs {
        let agent: Agent = spec.start()?;
        until_quiet(sim);
        let contender = Contender::of(&agent, "enp-cni-slow");
        let mut pods = contender.pods(M5_LARGE)?;
        let before = calls(sim);
        let arrivals = Arrivals::watch(sim);
        let (seconds, failures) = contender.at_once(&mut pods);
        let chain = longest_chain(sim, before, &arrivals.end()).context("the burst needed no interface")?.as_secs_f64();
        let made = words(sim, before);
        println!("  27 at once, real latencies: {seconds:.3} s, longest chain {chain:.3} s; {made}");
        if let Some(failure) = failures.first() {
            anyhow::bail!("{} of {M5_LARGE} ADDs failed, the first with: {failure}", failures.len());
        }
        worst = worst.max(seconds / chain);
        contender.take_down(pods)?;
        agent.stop()?;
    }
    report.figure("burst_27_real_latencies_vs_chain", worst, Goal::AtMost(1.2));
    Ok(())
}

/// When interfaces came into their instances, by the simulator's clock.
struct Arrivals {
    seen: Arc<Mutex<BTreeMap<EniId, Timestamp>>>,
    watcher: tokio::task::JoinHandle<()>,
}

impl Arrivals {
    fn watch(sim: &Handle) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let (mut events, model, log) = (sim.events(), sim.model().clone(), Arc::clone(&seen));
        let watcher = tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                if let Event::EniAttached { eni, .. } = event {
                    let now = model.with(|model| model.now());
                    log.lock().unwrap_or_else(PoisonError::into_inner).insert(eni, now);
                }
            }
        });
        Self { seen, watcher }
    }

    fn end(self) -> BTreeMap<EniId, Timestamp> {
        self.watcher.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// EC2's error for an interface that it made a moment ago and does not know everywhere yet.
const NOT_KNOWN_YET: &str = "InvalidNetworkInterfaceID.NotFound";

/// The longest time that EC2 itself took for one of the interfaces made after call number `since`.
fn longest_chain(sim: &Handle, since: u64, arrivals: &BTreeMap<EniId, Timestamp>) -> Option<Duration> {
    let calls: Vec<_> = sim.model().with(|model| model.calls().since(since).cloned().collect());
    let took = |call: &CallRecord| Duration::from_millis(call.latency_ms);
    let chain = |(eni, arrived): (&EniId, &Timestamp)| {
        let about: Vec<_> = calls.iter().filter(|call| call.resources.iter().any(|id| id == eni.as_str())).collect();
        let of = |action| about.iter().copied().filter(move |call| call.action == action);
        let created = of("CreateNetworkInterface").next()?;
        let unknown = of("AttachNetworkInterface").filter(|call| call.error.as_deref() == Some(NOT_KNOWN_YET));
        let attached = of("AttachNetworkInterface").find(|call| call.error.is_none())?;
        let way = arrived.since(attached.at).max(took(attached));
        // Only EC2's own time: what the agent waits in between is what this is to judge.
        Some(took(created) + unknown.map(took).sum::<Duration>() + way)
    };
    arrivals.iter().filter_map(chain).max()
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn count(calls: u64) -> f64 {
    calls as f64
}
