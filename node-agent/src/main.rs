//! The agent's process: flags in, exit code out. The only place of this crate that names AWS.

use std::process::ExitCode;

use enipool_agent::app::{self, AppError};
use enipool_agent::args::{Args, Command};
use enipool_agent::chained::ChainedPlugins;
use enipool_agent::{cleanup, doctor, install};

fn main() -> ExitCode {
    match run(Args::of_process().command) {
        Ok(code) => code,
        Err(error) => {
            // `{:#}` names the causes too, on one line.
            eprintln!("enipool-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => runtime()?.block_on(async {
            let _logs = app::start_logs(&args)?;
            let aws = enipool_cloud::connect(enipool_cloud::Options::new("enipool-agent")).await?;
            app::run(*args, aws.ec2, aws.imds).await?;
            Ok::<_, anyhow::Error>(ExitCode::SUCCESS)
        }),
        Command::Install(args) => {
            for path in install::install(&args.plugin, &args.cni_bin_dir)? {
                println!("installed {}", path.display());
            }
            let chained = ChainedPlugins::ask(&args.cni_bin_dir);
            print!("{chained}");
            if let Err(error) = chained.write(&args.state_dir) {
                // The agent then takes them for current ones.
                eprintln!("enipool-agent: what they speak cannot be kept in {}: {error}", args.state_dir.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(args) => runtime()?.block_on(async {
            let aws = enipool_cloud::connect(enipool_cloud::Options::new("enipool-doctor")).await?;
            let findings = doctor::examine(&args, &aws.ec2, &aws.imds).await?;
            print!("{}", findings.render(&args.output));
            Ok::<_, anyhow::Error>(if findings.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }),
        Command::Cleanup(args) => runtime()?.block_on(async {
            print!("{}", cleanup::cleanup(&args).await?);
            Ok::<_, anyhow::Error>(ExitCode::SUCCESS)
        }),
    }
}

/// One thread: the agent waits for the kernel, EC2 and plugins most of its life, and a second thread's stack and arenas
/// cost more memory than it is worth. Netlink for pods has threads of its own.
fn runtime() -> Result<tokio::runtime::Runtime, AppError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)
}
