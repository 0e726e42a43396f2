//! The operator's process: arguments, logs, AWS, and then [`enipool_operator::run`].

use anyhow::Context as _;
use enipool_cloud::Options;
use enipool_daemon::{LogOptions, Shutdown, arguments, logging};
use enipool_operator::{Args, Aws, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = arguments::parse::<Args>();
    // The client logs each failed call before we do, without saying which; ours are told once, with their reason.
    let filter = format!("{},kube_client::client::builder=off", args.log_level);
    let _log = logging::init(&LogOptions { format: args.log_format, filter, files: Vec::new() })?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("signals")?;
    let mut config = kube::Config::infer().await.context("no way to the API server")?;
    // Each call has a deadline of its own, and the next round tries again: hidden retries would only delay it.
    config.default_retry = false;
    let client = kube::Client::try_from(config).context("API server")?;
    let aws = enipool_cloud::connect(Options::new("enipool-operator")).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), region = %aws.region, "operator starts");
    // On the heap: a hundred kilobytes would be the main thread's stack.
    let aws = Aws { ec2: aws.ec2, cloudwatch: aws.cloudwatch };
    Box::pin(run(args, client, aws, shutdown)).await
}
