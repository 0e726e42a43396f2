//! The cluster as its users drive it: `kubectl`. What the API server can tell is watched (`kubectl wait`, `rollout
//! status`), never guessed at.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::process::run;

/// Longest time for a call that waits for nothing.
const CALL: Duration = Duration::from_secs(60);

/// `kubectl` with the admin's kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The command, for those who want to run it their own way.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self.cache()).args(arguments);
        command
    }

    /// Runs `kubectl ARGUMENTS` and returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        run(self.command(arguments), CALL).await
    }

    /// Runs `kubectl ARGUMENTS -o json`.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        let text = self.run(&arguments).await?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {} did not answer with JSON", arguments.join(" ")))
    }

    /// Runs what waits by itself (`wait`, `rollout status`, `exec`), for at most `limit`.
    pub async fn run_within(&self, limit: Duration, arguments: &[&str]) -> Result<String> {
        run(self.command(arguments), limit).await
    }

    /// Waits until all of `what` are `condition` (as in `kubectl wait --for`).
    pub async fn wait(&self, limit: Duration, condition: &str, what: &[&str]) -> Result<()> {
        let seconds = format!("--timeout={}s", limit.as_secs());
        let condition = format!("--for={condition}");
        let mut arguments = vec!["wait", &seconds, &condition];
        arguments.extend(what);
        self.run_within(limit + CALL, &arguments).await.map(drop)
    }

    /// Runs a command in a pod.
    pub async fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["exec", pod, "--"];
        arguments.extend(command);
        self.run(&arguments).await
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let (succeeded, stdout, stderr) = self.feed(&["apply", "-f", "-"], manifest).await?;
        if !succeeded {
            bail!("kubectl apply failed: {}{}", stdout.trim_end(), stderr.trim_end());
        }
        Ok(stdout)
    }

    /// Applies a manifest that the API server must refuse, and returns what it says.
    pub async fn refused(&self, manifest: &str) -> Result<String> {
        let (succeeded, stdout, stderr) = self.feed(&["apply", "-f", "-"], manifest).await?;
        if succeeded {
            bail!("the API server took what it should refuse: {stdout}");
        }
        Ok(stderr)
    }

    /// Whether the API server says that it is ready.
    pub async fn ready(&self) -> bool {
        let mut command = self.command(&["get", "--raw", "/readyz"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).kill_on_drop(true);
        matches!(timeout(Duration::from_secs(2), command.status()).await, Ok(Ok(status)) if status.success())
    }

    async fn feed(&self, arguments: &[&str], input: &str) -> Result<(bool, String, String)> {
        // A file, not a pipe: nothing to deadlock on.
        let mut file = tempfile::NamedTempFile::new().context("creating a file for the manifest")?;
        file.write_all(input.as_bytes()).context("writing the manifest")?;
        let stdin = file.reopen().context("opening the manifest")?;
        let mut command = self.command(arguments);
        command.stdin(Stdio::from(stdin)).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = timeout(CALL, command.output())
            .await
            .context("kubectl did not answer in time")?
            .context("running kubectl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }

    fn cache(&self) -> PathBuf {
        self.kubeconfig.with_extension("cache")
    }
}
