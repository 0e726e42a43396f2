//! One node: a machine of its own as far as programs on it can tell (network, mount, process and host name namespaces),
//! with containerd, kubelet and kube-proxy.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use enipool_pool::InstanceId;
use tokio::process::{ChildStdin, Command};

use super::{
    node_config,
    pki::Pki,
    process::{self, Process, dying_with_us, until},
    programs::Programs,
    run::Run,
};

/// The reference plugins that a node image brings along, whatever network is installed later.
const PLUGINS: [&str; 5] = ["loopback", "host-local", "portmap", "bandwidth", "ptp"];

/// Where a node is: what the VPC gave it.
#[derive(Debug, Clone)]
pub struct NodeSite {
    pub name: String,
    pub netns: PathBuf,
    pub address: Ipv4Addr,
    pub instance_id: InstanceId,
    pub instance_type: String,
    pub zone: String,
    /// What EKS would give the kubelet for this instance type.
    pub max_pods: u32,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    site: NodeSite,
    dir: PathBuf,
    logs: PathBuf,
    /// The node's first process: when it ends, the kernel ends all others on the node.
    init: Process,
    /// Open as long as the node is to live.
    _init_stdin: ChildStdin,
    /// `init` as seen from the machine: whose namespaces to enter.
    init_pid: u32,
    programs: Vec<Process>,
}

impl Node {
    /// Makes the machine and starts containerd. Needs no API server.
    pub async fn boot(run: &Run, programs: &Programs, site: NodeSite, images: &[PathBuf]) -> Result<Self> {
        let dir = run.dir().join("nodes").join(&site.name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let script = dir.join("node-init.sh");
        fs::write(&script, include_str!("node-init.sh")).context("writing node-init.sh")?;
        let mut command = dying_with_us("nsenter");
        command
            .arg(format!("--net={}", site.netns.display()))
            .args(["--", "unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child=KILL", "--mount-proc"])
            .args(["--propagation", "private", "--", "sh"])
            .arg(&script)
            .arg(&site.name)
            .arg(&dir)
            .stdin(std::process::Stdio::piped());
        let mut init = Process::start(&format!("{}-init", site.name), &run.logs(), command)?;
        let init_stdin = init.take_stdin().context("the node's first process has no standard input")?;
        until("a node's file system", Duration::from_secs(60), async || {
            init.ensure_running()?;
            Ok(dir.join("booted").exists().then_some(()))
        })
        .await?;
        let init_pid = only_child(init.id().context("the node's first process has ended")?)?;
        let mut node =
            Self { site, dir, logs: run.logs(), init, _init_stdin: init_stdin, init_pid, programs: Vec::new() };
        node.start_containerd(programs).await?;
        for image in images {
            node.import(programs, image).await?;
        }
        Ok(node)
    }

    /// Starts the kubelet, which joins the cluster behind `server`.
    pub(super) fn join(&mut self, run: &Run, programs: &Programs, pki: &Pki, server: &str) -> Result<()> {
        let name = self.site.name.clone();
        let client = pki.client(&format!("kubelet-{name}"), &format!("system:node:{name}"), Some("system:nodes"))?;
        let kubeconfig = pki.kubeconfig(&format!("kubelet-{name}"), server, &client)?;
        let serving = pki.server(&format!("kubelet-serving-{name}"), &[&name], &[self.site.address])?;
        let cgroup = run.cgroup().make_node(&name)?;
        fs::write(self.dir.join("resolv.conf"), "# this cluster has no name server\n")
            .context("writing resolv.conf")?;
        fs::create_dir_all(self.dir.join(node_config::STATIC_PODS)).context("creating the folder of static pods")?;
        let config = node_config::kubelet(&self.dir, &cgroup, &pki.authority(), &serving, self.site.max_pods);
        let config = self.write("kubelet.json", &config.to_string())?;
        let site = &self.site;
        let flags = [
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={name}"),
            format!("--node-ip={}", site.address),
            format!("--provider-id=aws:///{}/{}", site.zone, site.instance_id),
            format!(
                "--node-labels=node.kubernetes.io/instance-type={},topology.kubernetes.io/zone={}",
                site.instance_type, site.zone
            ),
        ];
        self.start(&format!("{name}-kubelet"), &programs.path("kubelet"), &flags)
    }

    /// Starts kube-proxy: from then on Services can be reached from here.
    pub(super) fn start_kube_proxy(&mut self, programs: &Programs, pki: &Pki, server: &str) -> Result<()> {
        let name = self.site.name.clone();
        let proxy = pki.client(&format!("kube-proxy-{name}"), "system:kube-proxy", None)?;
        let kubeconfig = pki.kubeconfig(&format!("kube-proxy-{name}"), server, &proxy)?;
        let config = node_config::kube_proxy(&name, self.site.address, &kubeconfig);
        let config = self.write("kube-proxy.json", &config.to_string())?;
        self.start(
            &format!("{name}-kube-proxy"),
            &programs.path("kube-proxy"),
            &[format!("--config={}", config.display())],
        )
    }

    /// Gives the node plain pod networking by the reference plugins.
    pub fn use_ptp(&self, subnet: &str) -> Result<()> {
        let config = self.dir.join("etc/cni/net.d/10-ptp.conflist");
        fs::write(&config, node_config::ptp(subnet).to_string())
            .with_context(|| format!("writing {}", config.display()))
    }

    pub fn site(&self) -> &NodeSite {
        &self.site
    }

    pub fn name(&self) -> &str {
        &self.site.name
    }

    /// A path of the node, as the machine sees it. Only for what lies on disk (`/var/log`, `/etc/cni`, …).
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// What the kubelet has to say.
    pub(super) fn kubelet_log(&self) -> PathBuf {
        self.logs.join(format!("{}-kubelet.log", self.site.name))
    }

    /// Where the manifest of a static pod goes: the kubelet runs what is in this folder, with or without an API server.
    pub fn static_pod(&self, name: &str) -> PathBuf {
        self.dir.join(node_config::STATIC_PODS).join(format!("{name}.json"))
    }

    /// A command that runs on the node.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = dying_with_us("nsenter");
        command
            .arg(format!("--target={}", self.init_pid))
            .args(["--mount", "--net", "--pid", "--uts", "--"])
            .arg(program.as_ref())
            // The runtime's shim is found by its name.
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a command on the node and returns what it printed.
    pub async fn exec(&self, arguments: &[&str]) -> Result<String> {
        let (program, rest) = arguments.split_first().context("a command is needed")?;
        let mut command = self.command(program);
        command.args(rest);
        process::run(command, Duration::from_secs(30)).await
    }

    /// Fails, with the end of its log, when one of the node's programs has died.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.init.ensure_running()?;
        self.programs.iter_mut().try_for_each(Process::ensure_running)
    }

    /// Pulls the plug: everything on the node ends at once.
    pub async fn stop(self) {
        // `unshare` dies, the kernel kills the node's first process and with it all others.
        self.init.stop(Duration::ZERO).await;
        for program in self.programs {
            program.stop(Duration::from_secs(2)).await;
        }
    }

    async fn start_containerd(&mut self, programs: &Programs) -> Result<()> {
        for plugin in PLUGINS {
            // Files, as a node has them: what is mounted into a container from here leads nowhere as a link.
            let file = self.file("/opt/cni/bin").join(plugin);
            fs::copy(programs.path(plugin), &file).with_context(|| format!("copying {}", file.display()))?;
        }
        let config = self.write("containerd.toml", &node_config::containerd(&self.dir))?;
        let mut command = self.command(programs.path("containerd"));
        command.arg("--config").arg(&config).env("PATH", runtime_path(programs));
        let name = format!("{}-containerd", self.site.name);
        let mut containerd = Process::start(&name, &self.logs, command)?;
        let probe = programs.path("ctr");
        until("containerd getting ready", Duration::from_secs(120), async || {
            containerd.ensure_running()?;
            let mut version = self.command(&probe);
            version.args(["--connect-timeout", "1s", "version"]);
            Ok(process::run(version, Duration::from_secs(15)).await.is_ok().then_some(()))
        })
        .await?;
        self.programs.push(containerd);
        Ok(())
    }

    async fn import(&self, programs: &Programs, image: &Path) -> Result<()> {
        let mut command = self.command(programs.path("ctr"));
        command.args(["--namespace", "k8s.io", "images", "import", "--local", "--snapshotter", "native"]).arg(image);
        process::run(command, Duration::from_secs(60))
            .await
            .with_context(|| format!("importing {}", image.display()))
            .map(drop)
    }

    fn start(&mut self, name: &str, program: &Path, flags: &[String]) -> Result<()> {
        let mut command = self.command(program);
        command.args(flags);
        let process = Process::start(name, &self.logs, command)?;
        self.programs.push(process);
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// Where containerd finds its shim and runc.
fn runtime_path(programs: &Programs) -> String {
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", programs.dir().display())
}

/// The one child of a process.
fn only_child(pid: u32) -> Result<u32> {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).context("reading a process's children")?;
    children
        .split_whitespace()
        .next()
        .context("the node's first process has no child")?
        .parse()
        .context("reading a process id")
}
