//! The cluster harness by itself, without enipool: a cluster to play with, or an API server for a command.

use std::{
    ffi::OsString,
    process::{ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use enipool_e2e::{
    cluster::{ApiServer, Cluster, ClusterConfig, Interrupt, Narrator, Network, run},
    fabric::NodeSpec,
    images::Binaries,
};
use tokio::process::Command;

/// A real Kubernetes on this machine, without enipool.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring up a cluster with plain pod networking and keep it until Ctrl-C (root)
    Up {
        /// Nodes, named node-1, node-2, …
        #[arg(long, default_value_t = 2)]
        nodes: u32,
        /// Their EC2 instance type
        #[arg(long, default_value = "m5.large")]
        instance_type: String,
    },
    /// Start etcd and an API server alone, run a command with KUBECONFIG set, and end them with it
    ApiServer {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let result = match Arguments::parse().command {
        Action::Up { nodes, instance_type } => up(nodes, &instance_type).await.map(|()| ExitCode::SUCCESS),
        Action::ApiServer { command } => with_api_server(&command).await.map(exit_code),
    };
    result.unwrap_or_else(|error| {
        eprintln!("\ncluster: {error:#}");
        ExitCode::FAILURE
    })
}

async fn up(nodes: u32, instance_type: &str) -> Result<()> {
    let mut stop = Interrupt::listen()?;
    let narrator = Narrator::default();
    let nodes = (1..=nodes).map(|number| NodeSpec::new(format!("node-{number}"), instance_type)).collect();
    let config = ClusterConfig { purpose: "cluster", nodes, network: Network::Ptp };
    let binaries = Binaries::beside_this_program()?;
    let mut cluster = tokio::select! {
        cluster = Cluster::start(config, &binaries, &narrator) => cluster?,
        () = stop.wait() => {
            // Dropped half-way, the run counts as dead: what it left is swept as after a crash.
            run::sweep_dead().await?;
            bail!("interrupted");
        }
    };
    let tools = cluster.programs().dir().display();
    narrator.say("The cluster is up. To use it:");
    narrator.show(&format!("export KUBECONFIG={} PATH={tools}:$PATH", cluster.run().kubeconfig().display()));
    narrator.say("Ctrl-C ends it");
    let died = tokio::select! {
        _ = cluster.death() => true,
        () = stop.wait() => false,
    };
    if died {
        // It begins with that program's end.
        let report = cluster.report().await;
        narrator.chapter("This went wrong; what the cluster says:");
        narrator.show(&report);
    }
    narrator.during("Tearing the cluster down", cluster.stop()).await;
    if died {
        bail!("a program of the cluster has died; see above");
    }
    Ok(())
}

async fn with_api_server(command: &[OsString]) -> Result<ExitStatus> {
    let (program, arguments) = command.split_first().context("a command is needed")?;
    let mut stop = Interrupt::listen()?;
    let mut server = tokio::select! {
        server = ApiServer::start("api-server") => server?,
        () = stop.wait() => {
            run::sweep_dead().await?;
            bail!("interrupted");
        }
    };
    let mut child = Command::new(program);
    child
        .args(arguments)
        .env("KUBECONFIG", server.kubeconfig())
        // Tests that change what they find ask for it by this name, so that they never meet a person's own cluster.
        .env("ENIPOOL_TEST_KUBECONFIG", server.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::select! {
        status = child.status() => status.with_context(|| format!("running {}", program.display())),
        error = server.death() => Err(error),
        () = stop.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    server.stop().await;
    ended
}

/// The command's own, so that this can stand in front of any.
fn exit_code(status: ExitStatus) -> ExitCode {
    // A shell's convention for a signal is 128 and more; here it is simply a failure.
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
