//! `make demo` and `make demo-down`. On a terminal the cluster outlives this program: a keeper process in the background
//! holds it, and this program shows what the keeper tells until the story is over.

use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal as _, Read as _, Write as _, stdout},
    os::fd::AsFd as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use enipool_e2e::{
    cluster::{Cluster, Interrupt, Narrator, run, until},
    images::Binaries,
    story,
};

/// A real Kubernetes cluster on simulated EC2, and what enipool does in it.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the cluster and tell the story
    Up {
        /// Tear everything down at the end of the story (always so without a terminal)
        #[arg(long)]
        once: bool,
    },
    /// End all demo clusters, and sweep what crashed runs left
    Down,
    /// Hold a cluster in the background (what `up` starts)
    #[command(hide = true)]
    Keep,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let result = match Arguments::parse().command {
        Action::Up { once } => match After::of(once, stdout().is_terminal()) {
            After::TearDown => tell(&Narrator::default(), After::TearDown).await,
            After::Keep => watch_keeper().await,
        },
        Action::Keep => tell(&Narrator::live(), After::Keep).await,
        Action::Down => down().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What becomes of the cluster after the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    TearDown,
    Keep,
}

impl After {
    /// A cluster stays for a person only, and only for one that wants it.
    fn of(once: bool, terminal: bool) -> Self {
        if once || !terminal { Self::TearDown } else { Self::Keep }
    }
}

/// Brings the cluster up and tells the story; a signal at any time tears all down.
async fn tell(narrator: &Narrator, after: After) -> Result<()> {
    let mut stop = Interrupt::listen()?;
    narrator.chapter("A real Kubernetes cluster on this machine, on simulated EC2");
    let binaries = Binaries::beside_this_program()?;
    let mut cluster = tokio::select! {
        cluster = Cluster::start(story::config("demo"), &binaries, narrator) => cluster?,
        () = stop.wait() => {
            // Dropped half-way, the run counts as dead: what it left is swept as after a crash.
            run::sweep_dead().await?;
            bail!("interrupted");
        }
    };
    let told = tokio::select! {
        told = tell_in(&cluster, narrator) => told,
        () = stop.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = told {
        let report = cluster.report().await;
        narrator.chapter("This went wrong; what the cluster says:");
        narrator.show(&report);
        narrator.during("Tearing the cluster down", cluster.stop()).await;
        return Err(error);
    }
    narrator.chapter(&format!("That was all of it, in {:.0} s.", narrator.elapsed().as_secs_f64()));
    if after == After::Keep {
        farewell(&cluster, narrator);
        part_from_terminal(&cluster)?;
        stop.wait().await;
    }
    narrator.during("Tearing the cluster down", cluster.stop()).await;
    Ok(())
}

async fn tell_in(cluster: &Cluster, narrator: &Narrator) -> Result<()> {
    story::install(cluster, narrator).await?;
    let pods = story::deploy(cluster, narrator).await?;
    story::talk(cluster, narrator, &pods).await?;
    story::pools(cluster, narrator, &pods).await?;
    story::more_warm(cluster, narrator, "node-a").await?;
    story::figures(cluster, narrator).await?;
    story::nothing_spoofed(cluster).await
}

fn farewell(cluster: &Cluster, narrator: &Narrator) {
    narrator.say("The cluster stays up. To use it:");
    let tools = cluster.programs().dir().display();
    narrator.show(&format!("export KUBECONFIG={} PATH={tools}:$PATH", cluster.run().kubeconfig().display()));
    narrator.say("Worth trying:");
    narrator.show(
        "kubectl get enipools -o wide\n\
         kubectl scale deployment web --replicas 60 && kubectl get enipools --watch\n\
         kubectl explain enipool.spec",
    );
    narrator.say("To end it:");
    narrator.show("make demo-down");
}

/// Lets go of the terminal: whoever watches sees the end of output and knows that the story is over.
fn part_from_terminal(cluster: &Cluster) -> Result<()> {
    let path = cluster.run().logs().join("keeper.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    nix::unistd::dup2_stderr(log.as_fd()).context("turning standard error to the log")?;
    nix::unistd::dup2_stdout(log.as_fd()).context("turning standard output to the log")?;
    Ok(())
}

/// Starts the keeper in a session of its own and shows what it tells, until it has nothing more to say.
async fn watch_keeper() -> Result<()> {
    let mut stop = Interrupt::listen()?;
    let program = std::env::current_exe().context("asking for this program's path")?;
    let mut command = Command::new("setsid");
    command.arg(program).arg("keep").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut keeper = command.spawn().context("starting the demo's keeper")?;
    let output = keeper.stdout.take().context("the keeper has no output")?;
    let shown = tokio::task::spawn_blocking(move || copy_to_terminal(File::from(std::os::fd::OwnedFd::from(output))));
    tokio::pin!(shown);
    tokio::select! {
        _ = &mut shown => {}
        () = stop.wait() => {
            // `setsid` has become the keeper: same process.
            terminate(keeper.id()).context("stopping the keeper")?;
            let _ = shown.await;
        }
    }
    // It says no more: either it holds the cluster now, or it is about to end.
    let ended =
        until("the keeper", Duration::from_secs(1), async || keeper.try_wait().context("asking for the keeper")).await;
    match ended {
        Ok(status) if !status.success() => bail!("the demo did not succeed; see above"),
        _ => Ok(()),
    }
}

/// Copies as it comes, for lines that count seconds.
fn copy_to_terminal(mut from: File) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        let mut out = stdout().lock();
        if out.write_all(&chunk[..count]).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

async fn down() -> Result<()> {
    let runs = run::living()?;
    let mut ended = 0;
    for (id, dir, record) in runs.into_iter().filter(|(_, _, record)| record.purpose == "demo") {
        println!("ending demo {id}");
        end(record.keeper, &dir).await.with_context(|| format!("ending demo {id}"))?;
        ended += 1;
    }
    let swept = run::sweep_dead().await?;
    for id in &swept {
        println!("swept what run {id} left");
    }
    if ended == 0 && swept.is_empty() {
        println!("no demo is up");
    }
    Ok(())
}

async fn end(keeper: u32, dir: &Path) -> Result<()> {
    terminate(keeper).context("asking its keeper to end")?;
    until("its end", Duration::from_secs(60), async || Ok((!run::lives(dir)).then_some(()))).await
}

fn terminate(process: u32) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(process).context("a process id")?);
    Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_stays_only_on_a_terminal_and_not_when_it_is_for_once() {
        assert_eq!(After::of(false, true), After::Keep);
        for (once, terminal) in [(true, true), (false, false), (true, false)] {
            assert_eq!(After::of(once, terminal), After::TearDown, "once: {once}, terminal: {terminal}");
        }
    }
}
