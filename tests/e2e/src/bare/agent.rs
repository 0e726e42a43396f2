//! The real agent on a node of the fabric, without a kubelet, and mostly without an API server.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plugin::{self, Attachment, Plugin};
use super::pods;

/// From the start of the agent until it serves, and until its pool holds what it should.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at an agent that is not yet where it should be.
const PAUSE: Duration = Duration::from_millis(10);
const INTROSPECTION_PORT: u16 = 61678;

/// Where an agent runs and what it is told.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    pub executable: PathBuf,
    pub plugin: PathBuf,
    /// The node's name, and its network namespace.
    pub node: String,
    pub netns: PathBuf,
    /// Directory of this node's state: socket, journal, queue, configuration, log.
    pub state: PathBuf,
    pub ec2_endpoint: String,
    pub region: String,
    /// The way to an API server with an ENIPool of the node's name; none: standalone, and without log files.
    pub kubeconfig: Option<PathBuf>,
    /// The pool's targets, by the names of the AWS plugin.
    pub env: Vec<(&'static str, &'static str)>,
}

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    spec: AgentSpec,
    process: Child,
    pub plugin: Plugin,
}

impl AgentSpec {
    /// Starts the agent and waits until it serves.
    ///
    /// # Errors
    /// When it ends or does not serve in time; the error holds the end of its log.
    pub fn start(self) -> Result<Agent> {
        fs::create_dir_all(&self.state)?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.state.join("agent.log"))?;
        let mut command = Command::new(&self.executable);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("AWS_ENDPOINT_URL_EC2", &self.ec2_endpoint)
            .env("AWS_REGION", &self.region)
            .envs(self.env.iter().copied())
            .args(["run", "--node-name", &self.node, "--cluster-name", "bare"])
            .args(["--state-dir".as_ref(), self.state.as_os_str()])
            .args(["--socket".as_ref(), self.state.join("cni.sock").as_os_str()])
            .args(["--cni-conf-dir".as_ref(), self.state.as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        match &self.kubeconfig {
            None => command.args(["--standalone", "--log-dir", ""]),
            Some(file) => {
                command.env("KUBECONFIG", file).args(["--log-dir".as_ref(), self.state.join("logs").as_os_str()])
            }
        };
        // The process is made by a thread that stands in the node's namespace, so it runs there.
        let process = pods::inside(&self.netns, || {
            command.spawn().with_context(|| format!("start {}", self.executable.display()))
        })?;
        let plugin = plugin::ours(&self.plugin, &self.state);
        let mut agent = Agent { spec: self, process, plugin };
        agent.wait_until_it_serves()?;
        Ok(agent)
    }
}

impl Agent {
    /// The node's network namespace.
    pub fn netns(&self) -> &Path {
        &self.spec.netns
    }

    /// Resident memory in MB (10^6 bytes).
    pub fn rss_mb(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Time on a processor since its start, of all its threads.
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let nanoseconds = stat.split_whitespace().next().context("schedstat is empty")?.parse()?;
            total += Duration::from_nanos(nanoseconds);
        }
        Ok(total)
    }

    /// Lets it alone for so long, but for what a kubelet asks it by the chart's probes.
    pub fn probed_for(&self, time: Duration) -> Result<()> {
        const READINESS: Duration = Duration::from_secs(2);
        /// The liveness probe comes with every fifth.
        const LIVENESS: usize = 5;
        let begun = Instant::now();
        for nth in 0.. {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            self.fetch("/ready")?;
            if nth % LIVENESS == 0 {
                self.fetch("/live")?;
            }
            std::thread::sleep(READINESS.min(left));
        }
        Ok(())
    }

    /// Waits until at least `count` addresses can be given to pods at once: their interfaces are set up.
    pub fn wait_for_free(&mut self, count: u64) -> Result<()> {
        const METRIC: &str = "enipool_addresses_available ";
        self.wait(&format!("{count} free addresses"), |agent| {
            let metrics = agent.fetch("/metrics")?;
            let value = metrics.lines().find_map(|line| line.strip_prefix(METRIC));
            Ok(value.with_context(|| format!("no {METRIC}"))?.trim().parse::<u64>()? >= count)
        })
    }

    /// Waits until `count` addresses are in use by pods.
    pub fn wait_for_assigned(&mut self, count: u64) -> Result<()> {
        self.wait(&format!("{count} addresses in use"), |agent| Ok(agent.count("AssignedIPs")? == count))
    }

    fn count(&self, key: &str) -> Result<u64> {
        self.get("/v1/enis")?[key].as_u64().with_context(|| format!("/v1/enis has no {key}"))
    }

    /// Stops the agent as the kubelet does and starts it again. Returns the time from its start until it serves.
    pub fn restart(self) -> Result<(Self, Duration)> {
        let spec = self.spec.clone();
        self.stop()?;
        let begun = Instant::now();
        Ok((spec.start()?, begun.elapsed()))
    }

    /// Asks it to end and waits for it.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), Signal::SIGTERM)?;
        self.wait("the end of the agent", |agent| Ok(agent.process.try_wait()?.is_some()))
    }

    /// Ends it without giving it a chance to do anything. Returns what starts it again.
    pub fn kill(mut self) -> Result<AgentSpec> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(self.spec.clone())
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let nobody = Attachment { container: "status".into(), netns: PathBuf::new(), result: None };
        self.wait("it to serve", |agent| Ok(agent.plugin.run("STATUS", &nobody)?.success))
    }

    fn wait(&mut self, what: &str, reached: impl Fn(&mut Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < PATIENCE {
            match reached(self) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("the agent ended ({status}) while the bench waited for {what}\n{}", self.log_end());
            }
            std::thread::sleep(PAUSE);
        }
        let last = last.map_or_else(String::new, |error| format!(": {error:#}"));
        bail!("waited {PATIENCE:?} for {what} in vain{last}\n{}", self.log_end())
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.spec.state.join("agent.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    /// What introspection answers.
    pub fn get(&self, path: &str) -> Result<serde_json::Value> {
        let body = self.fetch(path)?;
        serde_json::from_str(&body).with_context(|| format!("{path} is not JSON: {body}"))
    }

    fn fetch(&self, path: &str) -> Result<String> {
        pods::inside(&self.spec.netns, || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, INTROSPECTION_PORT))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            let text = String::from_utf8(answer)?;
            let (_, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
            Ok(body.to_owned())
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Also after an error nothing may stay behind; one that has ended is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
