//! The VPC fabric by itself: brings one up with some nodes and keeps it until it is interrupted; lists and removes runs.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use ec2_sim::SimConfig;
use enipool_e2e::cluster::Interrupt;
use enipool_e2e::fabric::{self, Fabric, FabricConfig, NodeSpec, RunId};

/// A VPC on this machine, made of network namespaces, with a simulated EC2.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a VPC with nodes, say how to use it, and keep it until Ctrl-C.
    Up {
        /// Nodes to launch, named node-1, node-2, …, spread over the subnets.
        #[arg(long, default_value_t = 2)]
        nodes: u32,
        /// Their EC2 instance type.
        #[arg(long, default_value = "m5.large")]
        instance_type: String,
        /// Id of the run: up to 10 lower-case letters and digits. Random if absent.
        #[arg(long)]
        run: Option<RunId>,
        /// Let EC2 answer at once, without its usual delays and throttling.
        #[arg(long)]
        instant: bool,
    },
    /// List the runs on this machine.
    List,
    /// Remove what a run left, processes in its namespaces included.
    Cleanup {
        /// The run to remove, whether its owner lives or not.
        #[arg(long, required_unless_present = "stale", conflicts_with = "stale")]
        run: Option<RunId>,
        /// Remove all runs whose owner is gone.
        #[arg(long)]
        stale: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut out = std::io::stdout();
    match Args::parse().command {
        Command::Up { nodes, instance_type, run, instant } => {
            let sim = if instant { SimConfig::instant() } else { SimConfig::default() };
            up(FabricConfig { run, sim, ..FabricConfig::default() }, nodes, &instance_type).await
        }
        Command::List => {
            writeln!(out, "{:<12} {:<10} CONTROL", "RUN", "OWNER")?;
            for info in fabric::list() {
                let owner = info.owner.map_or_else(|| "gone".to_owned(), |pid| pid.to_string());
                let control = info.control.map_or_else(|| "-".to_owned(), |address| address.to_string());
                writeln!(out, "{:<12} {owner:<10} {control}", info.run.as_str())?;
            }
            Ok(())
        }
        Command::Cleanup { run: Some(run), .. } => fabric::cleanup(&run).await.context("cleanup"),
        Command::Cleanup { run: None, .. } => {
            for run in fabric::sweep_stale().await? {
                writeln!(out, "removed run {run}")?;
            }
            Ok(())
        }
    }
}

async fn up(config: FabricConfig, nodes: u32, instance_type: &str) -> anyhow::Result<()> {
    let mut stop = Interrupt::listen()?;
    let mut fabric = Fabric::start(config).await?;
    let result = tokio::select! {
        // It ends only if it fails.
        result = launch_and_wait(&fabric, nodes, instance_type) => result,
        () = stop.wait() => Ok(()),
    };
    // Whatever happened: nothing stays behind.
    fabric.stop().await.context("cleanup")?;
    result
}

async fn launch_and_wait(fabric: &Fabric, nodes: u32, instance_type: &str) -> anyhow::Result<()> {
    let zones: Vec<_> = fabric.zones();
    if zones.is_empty() {
        bail!("the VPC has no subnet");
    }
    let mut out = std::io::stdout();
    writeln!(out, "run {}: EC2 at {}, region {}", fabric.run_id(), fabric.ec2_endpoint(), fabric.region())?;
    let specs = (1..=nodes)
        .zip(zones.iter().cycle())
        .map(|(number, zone)| NodeSpec::new(format!("node-{number}"), instance_type).in_zone(zone.clone()));
    for node in futures::future::try_join_all(specs.map(|spec| fabric.launch_node(spec))).await? {
        let path = node.netns.path().display();
        writeln!(out, "{}: {} {} nsenter --net={path}", node.name, node.instance_id, node.primary_ip)?;
    }
    writeln!(
        out,
        "control plane: {} nsenter --net={}",
        fabric.control().address,
        fabric.control().netns.path().display()
    )?;
    writeln!(out, "internet: http://{}/ says which address it saw", fabric.internet_address())?;
    writeln!(out, "Ctrl-C ends it; after a crash: vpc-fabric cleanup --run {}", fabric.run_id())?;
    out.flush()?;
    std::future::pending().await
}
