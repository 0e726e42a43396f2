//! One run of a CNI plugin as a container runtime makes it, timed from exec to exit.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A plugin and the configuration that it gets.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub name: &'static str,
    pub executable: PathBuf,
    /// `CNI_PATH`: where it finds the plugins that it delegates to.
    pub path: PathBuf,
    /// The network configuration, a JSON object.
    pub config: serde_json::Value,
}

/// One attachment to add or delete.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub container: String,
    pub netns: PathBuf,
    /// What ADD answered: DEL gets it back, as the runtime's cache does.
    pub result: Option<serde_json::Value>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// From before the process is made until it has been waited for.
    pub took: Duration,
    pub success: bool,
    pub stdout: String,
}

impl Plugin {
    /// Adds the attachment and keeps its result.
    ///
    /// # Errors
    /// When the plugin fails; the error holds what it printed.
    pub fn add(&self, attachment: &mut Attachment) -> Result<Duration> {
        let run = self.run("ADD", attachment)?;
        if !run.success {
            bail!("{} ADD {}: {}", self.name, attachment.container, run.stdout.trim());
        }
        attachment.result = Some(serde_json::from_str(&run.stdout).context("the result of ADD is not JSON")?);
        Ok(run.took)
    }

    /// Deletes the attachment.
    ///
    /// # Errors
    /// When the plugin fails; the error holds what it printed.
    pub fn del(&self, attachment: &Attachment) -> Result<Duration> {
        let run = self.run("DEL", attachment)?;
        if !run.success {
            bail!("{} DEL {}: {}", self.name, attachment.container, run.stdout.trim());
        }
        Ok(run.took)
    }

    /// Runs one verb in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the process cannot be made or spoken to.
    pub fn run(&self, verb: &str, attachment: &Attachment) -> Result<Run> {
        let mut config = self.config.clone();
        if let (Some(result), Some(config)) = (&attachment.result, config.as_object_mut()) {
            config.insert("prevResult".to_owned(), result.clone());
        }
        let config = config.to_string();
        let mut command = Command::new(&self.executable);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &attachment.container)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={0};K8S_POD_INFRA_CONTAINER_ID={0};K8S_POD_UID={0}",
                    attachment.container
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("run {}", self.executable.display()))?;
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(config.as_bytes()));
        let mut stdout = String::new();
        let read = child.stdout.take().map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut stdout));
        let status = child.wait()?;
        let took = begun.elapsed();
        read?;
        // A plugin that fails early may not have read its configuration.
        fed.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
        Ok(Run { took, success: status.success(), stdout })
    }
}

/// The reference: `ptp` with `host-local`, its leases on the same kind of file system as our journal.
pub fn reference(plugins: &Path, leases: &Path) -> Plugin {
    Plugin {
        name: "ptp",
        executable: plugins.join("ptp"),
        path: plugins.to_owned(),
        config: serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "bench-ptp",
            "type": "ptp",
            "mtu": 9001,
            "ipam": {
                "type": "host-local",
                "dataDir": leases,
                "ranges": [[{"subnet": "10.240.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }),
    }
}

/// Ours: the plugin and the socket of the agent that it speaks to.
pub fn ours(executable: &Path, state: &Path) -> Plugin {
    Plugin {
        name: "enipool",
        executable: executable.to_owned(),
        path: executable.parent().unwrap_or_else(|| Path::new("/")).to_owned(),
        config: serde_json::json!({
            "cniVersion": "1.1.0",
            "name": "enipool",
            "type": "enipool-cni",
            "socket": state.join("cni.sock"),
            "delQueue": state.join("del-queue"),
        }),
    }
}
