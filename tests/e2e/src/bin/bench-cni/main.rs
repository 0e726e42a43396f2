//! Measures the CNI plugin and its agent against the reference plugins `ptp` + `host-local`, all in one run on one machine.
//!
//! The real agent runs on nodes of the VPC fabric, with a simulated EC2 that answers at once. Each plugin is run as a
//! container runtime runs it: a new process, the configuration on standard input, a fresh network namespace, timed from exec
//! to exit; the plugins take turns in batches. Figures are ratios within this run: absolute times are the machine's.

mod deployed;
mod figures;
mod latency;
mod rtt;
mod supply;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use ec2_sim::SimConfig;
use enipool_e2e::bare::agent::{Agent, AgentSpec};
use enipool_e2e::bare::pods::PodNetns;
use enipool_e2e::bare::{self, plugin};
use enipool_e2e::fabric::{Fabric, FabricConfig, Node, NodeSpec};
use figures::{Goal, Report, median};
use latency::{Contender, Times, in_turns, rates};

/// Measures ADD and DEL of the plugin against `ptp` + `host-local`.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// File for the figures, flat JSON.
    #[arg(long, default_value = "target/bench/cni.json")]
    out: PathBuf,
    /// Rounds of 20 ADDs and 20 DELs for each plugin.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Only the plugins' own times, without the pool's figures and without the node with 250 pods; goals are only shown.
    #[arg(long)]
    quick: bool,
    /// Succeed whatever the figures are: only show which goals they miss.
    #[arg(long)]
    tolerate: bool,
}

const BATCH: usize = 20;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let tools = bare::tools()?;
    for file in [bare::agent_executable(), bare::plugin_executable(), tools.join("ptp"), tools.join("host-local")] {
        fs::metadata(&file).with_context(|| format!("{} is missing: `make build tools`", file.display()))?;
    }
    let mut fabric = Fabric::start(FabricConfig { sim: SimConfig::instant(), ..FabricConfig::default() }).await?;
    let outcome = measure(&args, &fabric).await;
    fabric.stop().await.context("take the fabric down")?;
    let mut report = outcome?;
    if !args.quick {
        let mut fabric = Fabric::start(FabricConfig::default()).await?;
        let outcome = slow(&fabric, &mut report).await;
        fabric.stop().await.context("take the slow fabric down")?;
        outcome?;
    }
    report.print();
    report.write(&args.out)?;
    let lacking = report.lacking();
    anyhow::ensure!(lacking.is_empty() || args.quick, "not measured: {}", lacking.join(", "));
    let missed = report.missed();
    anyhow::ensure!(
        missed.is_empty() || args.quick || args.tolerate,
        "figures miss their goals (--tolerate: only show them):\n  {}",
        missed.join("\n  ")
    );
    Ok(())
}

async fn measure(args: &Args, fabric: &Fabric) -> Result<Report> {
    let large = fabric.launch_node(NodeSpec::new("large", "m5.16xlarge")).await?;
    let quiet = fabric.launch_node(NodeSpec::new("quiet", "m5.16xlarge")).await?;
    let filled = fabric.launch_node(NodeSpec::new("filled", "m5.large")).await?;
    let fresh = fabric.launch_node(NodeSpec::new("fresh", "m5.large")).await?;
    let templated = fabric.launch_node(NodeSpec::new("templated", "m5.large").with_eni(0, 4).with_eni(1, 4)).await?;
    let bench = Bench::on(fabric);
    let sim = fabric.sim();
    let mut report = Report::default();
    if !args.quick {
        let [idle, crowded] = [
            fabric.launch_node(NodeSpec::new("idle", "m5.large")).await?,
            fabric.launch_node(NodeSpec::new("crowded", "m5.16xlarge")).await?,
        ];
        let specs = [bench.spec(&idle, &[]), bench.spec(&crowded, &[("WARM_IP_TARGET", "200")])];
        bench.end(deployed::measure(fabric, specs, &mut report).await)?;
    }
    // Everything below waits for processes and for the kernel: the simulator keeps the runtime's other threads.
    let outcome = tokio::task::block_in_place(|| {
        if !args.quick {
            println!("EC2 calls and bursts");
            supply::first_add_of_a_launched_node(
                sim,
                bench.spec(&templated, &[("MANAGE_UNTAGGED_ENI", "true")]),
                &mut report,
            )?;
            supply::fill(sim, bench.spec(&filled, &[]), &mut report)?;
            supply::burst(sim, bench.spec(&fresh, &[]), &mut report)?;
        }
        bench.plugins(&large, &quiet, args, &mut report)?;
        Ok(report)
    });
    bench.end(outcome)
}

/// What needs an EC2 as slow as the real one.
async fn slow(fabric: &Fabric, report: &mut Report) -> Result<()> {
    let bench = Bench::on(fabric);
    let mut specs = Vec::new();
    for name in ["slow-a", "slow-b", "slow-c"] {
        specs.push(bench.spec(&fabric.launch_node(NodeSpec::new(name, "m5.large")).await?, &[]));
    }
    let outcome = tokio::task::block_in_place(|| supply::slow_bursts(fabric.sim(), specs, report));
    bench.end(outcome)
}

/// Where agents of one fabric live.
struct Bench {
    root: PathBuf,
    endpoint: String,
    region: String,
    run: String,
}

impl Bench {
    fn on(fabric: &Fabric) -> Self {
        Self {
            root: PathBuf::from("/run").join(format!("enipool-bench-{}", fabric.run_id())),
            endpoint: fabric.ec2_endpoint(),
            region: fabric.region().to_owned(),
            run: fabric.run_id().to_string(),
        }
    }

    /// Removes the agents' files, or says where their logs are.
    fn end<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_ok() {
            // Best effort: what stays is below /run and named after the run.
            let _ = fs::remove_dir_all(&self.root);
        } else {
            println!("the agents' logs are in {}", self.root.display());
        }
        outcome
    }

    fn spec(&self, node: &Node, env: &[(&'static str, &'static str)]) -> AgentSpec {
        AgentSpec {
            executable: bare::agent_executable(),
            plugin: bare::plugin_executable(),
            node: node.name.clone(),
            netns: node.netns.path().to_owned(),
            state: self.root.join(&node.name),
            ec2_endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            kubeconfig: None,
            env: env.to_vec(),
        }
    }

    /// Everything that is measured on large nodes with a full pool, beside a node of the reference.
    fn plugins(&self, node: &Node, quiet: &Node, args: &Args, report: &mut Report) -> Result<()> {
        let env = [("WARM_IP_TARGET", "700"), ("IP_COOLDOWN_PERIOD", "1")];
        let mut agent = self.spec(node, &env).start()?;
        agent.wait_for_free(700)?;
        let ours = Contender::of(&agent, &format!("enp-cni-{}", self.run));
        let reference_node = PodNetns::new(&format!("enp-cni-{}-ptp-node", self.run))?;
        let theirs = Contender {
            plugin: plugin::reference(&bare::tools()?, &self.root.join("host-local")),
            node: reference_node.path().to_owned(),
            prefix: format!("enp-cni-{}-ptp", self.run),
        };
        one_at_a_time(&ours, &theirs, args.rounds, report)?;
        twenty_at_once(&ours, &theirs, report)?;
        if !args.quick {
            let mut other = self.spec(quiet, &env).start()?;
            other.wait_for_free(700)?;
            crowd(&agent, &other, &self.run, report)?;
            other.stop()?;
        }
        agent.stop()
    }
}

fn one_at_a_time(ours: &Contender, theirs: &Contender, rounds: usize, report: &mut Report) -> Result<()> {
    println!("ADD and DEL, one at a time, {rounds} rounds of {BATCH} each in turn (ms)");
    in_turns(&[ours, theirs], 1, 5).context("warm up")?;
    let times = in_turns(&[ours, theirs], rounds, BATCH)?;
    let [own, reference] = times.as_slice() else { anyhow::bail!("two contenders have two times") };
    print_times("enipool", own);
    print_times("ptp", reference);
    let ratio = |percent: u32| own.add.percentile(percent) / reference.add.percentile(percent);
    report.figure("add_p50_vs_ptp", ratio(50), Goal::AtMost(0.25));
    report.figure("add_p99_vs_ptp", ratio(99), Goal::AtMost(0.4));
    report.figure("del_p50_vs_ptp", own.del.percentile(50) / reference.del.percentile(50), Goal::AtMost(0.12));
    Ok(())
}

fn print_times(name: &str, times: &Times) {
    for (verb, sample) in [("ADD", &times.add), ("DEL", &times.del)] {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| sample.percentile(percent));
        println!("  {name:<8} {verb}  p50 {p50:7.2}  p90 {p90:7.2}  p99 {p99:7.2}  ({} runs)", sample.len());
    }
}

fn twenty_at_once(ours: &Contender, theirs: &Contender, report: &mut Report) -> Result<()> {
    println!("{BATCH} ADDs at once");
    let [own, reference]: [Vec<f64>; 2] =
        rates(&[ours, theirs], 9, BATCH)?.try_into().map_err(|_| anyhow::anyhow!("two contenders have two rates"))?;
    let (own, reference) = (median(own), median(reference));
    println!("  enipool {own:.0} per second, ptp {reference:.0} per second (medians of 9)");
    report.figure("adds_per_s_20_parallel_vs_ptp", own / reference, Goal::AtLeast(4.5));
    Ok(())
}

/// What a pod pays for the others of its node: a node with 250 pods in turn with one that has few. In turn and not one
/// after the other on a single node: a shared machine changes its pace within seconds.
fn crowd(crowded: &Agent, quiet: &Agent, run: &str, report: &mut Report) -> Result<()> {
    println!("a crowded node and a quiet one, in turn");
    let many = Contender::of(crowded, &format!("enp-cni-{run}-many"));
    let few = Contender::of(quiet, &format!("enp-cni-{run}-few"));
    let many_pods = many.bring_up(250)?;
    let mut few_pods = few.bring_up(2)?;
    let (mut rtt_few, mut rtt_many) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        rtt_few.push(round_trip(&few_pods)?);
        rtt_many.push(round_trip(&many_pods)?);
    }
    few_pods.extend(few.bring_up(8)?);
    // Short turns: both see the same weather.
    let times = in_turns(&[&few, &many], 25, 8)?;
    few.take_down(few_pods)?;
    many.take_down(many_pods)?;

    let [few, many] = times.as_slice() else { anyhow::bail!("two nodes have two times") };
    let (few, many) = (few.add.percentile(50), many.add.percentile(50));
    println!("  ADD p50 with 10 pods {few:.2} ms, with 250 pods {many:.2} ms");
    report.figure("add_p50_250_pods_vs_10", many / few, Goal::AtMost(1.2));
    let (few, many) = (median(rtt_few), median(rtt_many));
    println!("  UDP round trip with 2 pods {few:.1} µs, with 250 pods {many:.1} µs");
    report.figure("udp_rtt_250_pods_vs_2", many / few, Goal::AtMost(1.05));
    Ok(())
}

/// Between the first pod and the last.
fn round_trip(pods: &[latency::Pod]) -> Result<f64> {
    let [client, .., server] = pods else { anyhow::bail!("two pods are needed") };
    rtt::median_us(client, server, 3000)
}
