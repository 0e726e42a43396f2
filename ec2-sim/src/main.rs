//! `ec2-sim`: the simulator as a program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ec2_sim::{SimConfig, Timing, server};

/// A simulated AWS region: the EC2 Query API, CloudWatch's custom metrics, instance metadata (IMDSv2), and a control API
/// for faults and time.
///
/// Point any AWS SDK at it with AWS_ENDPOINT_URL_EC2 and AWS_ENDPOINT_URL_CLOUDWATCH; any credentials will do.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a region until interrupted. The first line on standard output is the endpoint.
    Serve(Serve),
    /// Print the default configuration as JSON: a start for a file of your own.
    Config,
}

#[derive(Debug, Args)]
struct Serve {
    /// Address to listen on; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8100")]
    listen: SocketAddr,
    /// JSON file with the region's VPC, subnets, limits and delays (see `ec2-sim config`).
    #[arg(long)]
    config: Option<PathBuf>,
    /// Seed of ids, addresses and delays; overrides the file's.
    #[arg(long)]
    seed: Option<u64>,
    /// How long EC2 takes; overrides the file's.
    #[arg(long, value_enum)]
    timing: Option<Pace>,
    /// Never answer RequestLimitExceeded.
    #[arg(long)]
    no_throttle: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pace {
    /// Everything at once.
    None,
    /// A tenth of the realistic delays.
    Fast,
    /// Calls in fractions of a second, attaches in seconds, metadata up to a minute late.
    Realistic,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    match Cli::parse().command {
        Command::Config => println!("{}", serde_json::to_string_pretty(&SimConfig::default())?),
        Command::Serve(serve) => run(serve).await?,
    }
    Ok(())
}

async fn run(serve: Serve) -> anyhow::Result<()> {
    let mut config = serve.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
    if let Some(seed) = serve.seed {
        config.seed = seed;
    }
    match serve.timing {
        Some(Pace::None) => config.timing = Timing::none(),
        Some(Pace::Fast) => config.timing = Timing::realistic().scaled(10),
        Some(Pace::Realistic) => config.timing = Timing::realistic(),
        None => {}
    }
    config.throttle.off |= serve.no_throttle;
    let handle = server::start(config, serve.listen).await?;
    println!("{}", handle.endpoint());
    wait_for_end().await?;
    Ok(())
}

fn read_config(path: &Path) -> anyhow::Result<SimConfig> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read --config {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("--config {} is not a configuration", path.display()))
}

async fn wait_for_end() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
