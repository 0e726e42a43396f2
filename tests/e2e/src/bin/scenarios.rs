//! `make test-e2e`: runs the scenarios on one cluster, and tells of each as cargo's own tests do.
//!
//!     scenarios [PART OF A NAME]...    see --help

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use clap::Parser;
use enipool_e2e::{
    cluster::{Cluster, Interrupt, Narrator, run},
    images::Binaries,
    scenarios::{STAGE, Scenario, Stage, chosen},
    story,
};

/// End-to-end scenarios on a real cluster, which is started for them and ended after them (root).
#[derive(Debug, Parser)]
#[command(name = "scenarios")]
struct Arguments {
    /// Only scenarios whose name contains one of these words; none: all. The first ones set the stage and always run
    wanted: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let Arguments { wanted } = Arguments::parse();
    let chosen = match chosen(&wanted) {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("scenarios: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("\nrunning {} tests", chosen.len());
    match run_all(&chosen).await {
        Ok(failed) => summary(chosen.len(), &failed),
        Err(error) => {
            eprintln!("scenarios: {error:#}");
            println!(
                "\ntest result: FAILED. 0 passed; {} failed; 0 ignored; the cluster did not come up",
                chosen.len()
            );
            ExitCode::FAILURE
        }
    }
}

fn summary(count: usize, failed: &[&str]) -> ExitCode {
    if !failed.is_empty() {
        println!("\nfailures:");
        for name in failed {
            println!("    {name}");
        }
    }
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {} passed; {} failed; 0 ignored", count - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run_all(chosen: &[Scenario]) -> Result<Vec<&'static str>> {
    let mut stop = Interrupt::listen()?;
    tokio::select! {
        result = in_a_cluster(chosen) => result,
        () = stop.wait() => {
            // Dropped half-way, the run counts as dead: what it left is swept as after a crash.
            run::sweep_dead().await?;
            anyhow::bail!("interrupted")
        }
    }
}

async fn in_a_cluster(chosen: &[Scenario]) -> Result<Vec<&'static str>> {
    let narrator = Narrator::default();
    let binaries = Binaries::beside_this_program()?;
    let cluster = Cluster::start(story::config("scenarios"), &binaries, &narrator).await?;
    let mut stage = Stage { cluster, narrator, pods: Vec::new(), found: None };
    let mut failed = Vec::new();
    for (index, scenario) in chosen.iter().enumerate() {
        let began = Instant::now();
        let result = (scenario.run)(&mut stage).await;
        let took = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("test {} ... ok ({took:.1} s)", scenario.name),
            Err(error) => {
                println!(
                    "test {} ... FAILED ({took:.1} s)\n{error:#}\n{}",
                    scenario.name,
                    stage.cluster.report().await
                );
                failed.push(scenario.name);
                if index < STAGE {
                    // Nothing that follows could succeed, and a dozen follow-up failures hide the first.
                    failed.extend(chosen[index + 1..].iter().map(|scenario| scenario.name));
                    break;
                }
            }
        }
    }
    stage.cluster.stop().await;
    Ok(failed)
}
