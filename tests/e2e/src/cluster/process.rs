//! One supervised program of the cluster: its log file, its early death, its end. It knows nothing of Kubernetes.
//!
//! Every program is started through `setpriv --pdeathsig KILL`, so that none outlives the harness, however that ends.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

/// How much of a log a failure shows.
const TAIL_LINES: usize = 25;

/// A running program; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments` in the network namespace at `netns`; its output goes to `logs/NAME.log`.
    pub(super) fn start_in(
        netns: &Path,
        name: &str,
        logs: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let mut command = dying_with_us("nsenter");
        command.arg(format!("--net={}", netns.display())).arg("--").arg(program).args(arguments);
        Self::start(name, logs, command)
    }

    /// Starts `command`, whose output goes to `logs/NAME.log`.
    pub(super) fn start(name: &str, logs: &Path, mut command: Command) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let err = out.try_clone().context("duplicating a log's descriptor")?;
        let child = command
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            // A group of its own: Ctrl-C reaches the harness alone, which then ends the programs in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id, as long as it has not ended.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The pipe into the program, if it was asked for.
    pub(super) fn take_stdin(&mut self) -> Option<tokio::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Fails, with the end of its log, when the program has ended though nobody asked it to.
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().with_context(|| format!("asking for {}", self.name))? {
            bail!("{} ended on its own ({status}); {}", self.name, end_of(&self.log));
        }
        Ok(())
    }

    /// Sends SIGTERM, and SIGKILL when that has not worked within `grace`.
    pub(super) async fn stop(mut self, grace: Duration) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may just have ended by itself: nothing to do then.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM);
        }
        if timeout(grace, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Returns what `all_run` fails with once a program has died.
pub(super) async fn death(mut all_run: impl FnMut() -> Result<()>) -> anyhow::Error {
    // Each is a child that can be waited for, but many of them at once only with a task for each: looking is simpler.
    let mut look = tokio::time::interval(Duration::from_millis(250));
    loop {
        look.tick().await;
        if let Err(error) = all_run() {
            return error;
        }
    }
}

/// A command that the kernel kills when the harness dies.
///
/// The signal comes when the *thread* that forked ends, so this must not be called from `spawn_blocking`, whose threads
/// come and go.
pub(super) fn dying_with_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    command
}

/// A log's name and last lines, for a failure's message.
pub(super) fn end_of(log: &Path) -> String {
    format!("the end of {}:\n{}", log.display(), tail(log))
}

/// The last lines of a log, indented, for a failure's message.
pub(super) fn tail(log: &Path) -> String {
    let Ok(text) = std::fs::read(log) else {
        return "    (there is no such file)\n".to_owned();
    };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        let short: String = line.chars().take(400).collect();
        let _ = writeln!(out, "    {short}");
    }
    if out.is_empty() { "    (empty)\n".to_owned() } else { out }
}

/// Runs a command to its end within `limit` and returns its standard output; the error carries standard error.
pub async fn run(mut command: Command, limit: Duration) -> Result<String> {
    let shown = shown(&command);
    command.kill_on_drop(true).stdin(Stdio::null());
    let output = timeout(limit, command.output())
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {} s: {shown}", limit.as_secs()))?
        .with_context(|| format!("running {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed ({}):\n{}{}", output.status, stdout.trim_end(), stderr.trim_end());
    }
    Ok(stdout)
}

/// A command as a person would type it, for errors.
fn shown(command: &Command) -> String {
    let program = Path::new(command.as_std().get_program());
    let mut text = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.as_std().get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Asks `probe` again and again until it has an answer. For what gives no notice of its own (a port that opens); where
/// the API server can tell, watch it instead.
pub async fn until<T, F>(what: &str, limit: Duration, mut probe: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let end = Instant::now() + limit;
    let mut pause = tokio::time::interval(Duration::from_millis(100));
    loop {
        pause.tick().await;
        if let Some(answer) = probe().await? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
    }
}
