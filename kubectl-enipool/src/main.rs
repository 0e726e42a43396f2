//! Entry point: the clock, standard output and the exit code live here.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use k8s_openapi::jiff::Timestamp;
use kubectl_enipool::args::Args;
use kubectl_enipool::command;
use kubectl_enipool::failure::Failure;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}\n{}", failure.next_step());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(command::run(args, Timestamp::now()));
    // A credentials plugin that hangs must not keep the command from ending.
    runtime.shutdown_background();
    match std::io::stdout().write_all(answer?.as_bytes()) {
        // The reader (`head`, a pager) has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
