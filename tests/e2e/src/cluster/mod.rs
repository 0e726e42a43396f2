//! A real cluster on one machine: a control plane, and nodes that are machines of their own as far as their programs can
//! tell, in the simulated VPC. Starting, watching and ending it; what is then done with it is the story's business.

mod api_server;
mod cgroup;
mod control_plane;
mod interrupt;
mod kubectl;
mod narrator;
mod node;
mod node_config;
mod pki;
mod process;
pub(crate) mod programs;
mod report;
pub mod run;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use enipool_pool::{
    InstanceType,
    capacity::{self, Capacity},
    targets::Addressing,
};
use futures::future::try_join_all;

pub use self::{
    api_server::ApiServer,
    control_plane::{API_PORT, SERVICE_CIDR},
    interrupt::Interrupt,
    kubectl::Kubectl,
    narrator::Narrator,
    node::{Node, NodeSite},
    process::{run as run_command, until},
    programs::{Programs, in_path},
    run::Run,
};
use self::{
    control_plane::{ControlPlane, ControlSite},
    pki::Pki,
    process::{death, end_of},
};
use crate::{
    fabric::{Fabric, FabricConfig, NodeSpec},
    images::{self, Binaries},
};

/// What kind of cluster is wanted.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Its purpose, in a word: tells runs apart for a person.
    pub purpose: &'static str,
    pub nodes: Vec<NodeSpec>,
    pub network: Network,
}

/// How pods are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Not at all until somebody installs a network, as on a new EKS node.
    None,
    /// By the reference plugins: shows what the cluster does without the product.
    Ptp,
}

/// A running cluster. Call [`Cluster::stop`]; what is merely dropped is killed, and swept by the next run.
#[derive(Debug)]
pub struct Cluster {
    run: Run,
    programs: Programs,
    fabric: Fabric,
    pki: Pki,
    control: ControlPlane,
    kubectl: Kubectl,
    nodes: Vec<Node>,
    archives: Vec<PathBuf>,
}

impl Cluster {
    /// Brings the cluster up until its nodes have registered; with a [`Network`], until they are ready.
    pub async fn start(config: ClusterConfig, binaries: &Binaries, narrator: &Narrator) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a cluster needs root: namespaces, mounts and cgroups are made");
        }
        let programs = Programs::find()?;
        let run = Run::begin(config.purpose).await?;
        let set = if config.network == Network::None { images::Set::WithProduct } else { images::Set::Plain };
        let out = run.dir().join("images");
        let archives = narrator.during("Building the images", async { images::build(binaries, set, &out) }).await?;
        raise_inotify_limits();
        let fabric_config = FabricConfig { run: Some(run.id().parse()?), ..FabricConfig::default() };
        let fabric = narrator
            .during(
                "Making a VPC: two subnets, a router, the EC2 API and the instance metadata service",
                Fabric::start(fabric_config),
            )
            .await?;
        match Self::start_in(config, &archives, narrator, &run, &programs, &fabric).await {
            Ok((pki, control, kubectl, nodes)) => {
                Ok(Self { run, programs, fabric, pki, control, kubectl, nodes, archives })
            }
            Err(error) => {
                let logs = run.logs();
                stop_fabric(fabric).await;
                run::clear(run.id(), run.dir()).await;
                Err(error.context(format!("the cluster did not come up; all logs: {}", logs.display())))
            }
        }
    }

    async fn start_in(
        config: ClusterConfig,
        archives: &[PathBuf],
        narrator: &Narrator,
        run: &Run,
        programs: &Programs,
        fabric: &Fabric,
    ) -> Result<(Pki, ControlPlane, Kubectl, Vec<Node>)> {
        let pki = Pki::create(&run.dir().join("pki"))?;
        let control = fabric.control();
        let site = ControlSite::in_namespace(control.netns.path().to_owned(), control.address);

        let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
        let what = format!("Starting etcd and the API server, and the machines {}", names.join(" and "));
        let boot = async {
            let launched = try_join_all(config.nodes.iter().map(|spec| fabric.launch_node(spec.clone()))).await?;
            try_join_all(launched.iter().map(|node| Node::boot(run, programs, site_of(node), archives))).await
        };
        let ((mut control, kubectl), mut nodes) = narrator
            .during(&what, async { tokio::try_join!(ControlPlane::start(run, programs, &pki, &site), boot) })
            .await?;
        std::fs::copy(kubectl.kubeconfig(), run.kubeconfig()).context("writing the kubeconfig")?;
        for node in &mut nodes {
            if config.network == Network::Ptp {
                let last = node.site().address.octets()[3];
                node.use_ptp(&format!("10.200.{last}.0/24"))?;
            }
            node.join(run, programs, &pki, control.server())?;
            node.start_kube_proxy(programs, &pki, control.server())?;
        }
        let kubectl = Kubectl::new(programs.path("kubectl"), run.kubeconfig());
        let joined = joined(&kubectl, &mut control, &mut nodes, config.network);
        narrator.during("Waiting for the kubelets to join", joined).await?;
        Ok((pki, control, kubectl, nodes))
    }

    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The API server's URL.
    pub fn server(&self) -> &str {
        self.control.server()
    }

    /// Takes the API server away without a word, until [`Cluster::start_api_server`].
    pub async fn stop_api_server(&mut self) {
        self.control.take_api_server().await;
    }

    /// Brings the API server back; returns when it is ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        self.control.bring_api_server().await
    }

    /// Launches one more instance and lets it join. It has no kube-proxy until [`Cluster::start_kube_proxy`].
    pub async fn add_node(&mut self, spec: NodeSpec) -> Result<()> {
        let launched = self.fabric.launch_node(spec).await?;
        let mut node = Node::boot(&self.run, &self.programs, site_of(&launched), &self.archives).await?;
        node.join(&self.run, &self.programs, &self.pki, self.control.server())?;
        joined(&self.kubectl, &mut self.control, std::slice::from_mut(&mut node), Network::None).await?;
        self.nodes.push(node);
        Ok(())
    }

    /// Starts the kube-proxy of a node that was added.
    pub fn start_kube_proxy(&mut self, name: &str) -> Result<()> {
        let node = self.nodes.iter_mut().find(|node| node.name() == name).with_context(|| format!("no node {name}"))?;
        node.start_kube_proxy(&self.programs, &self.pki, self.control.server())
    }

    /// Pulls a node's plug; its instance and its Node object stay.
    pub async fn unplug(&mut self, name: &str) -> Result<()> {
        let index =
            self.nodes.iter().position(|node| node.name() == name).with_context(|| format!("no node {name}"))?;
        self.nodes.swap_remove(index).stop().await;
        Ok(())
    }

    /// Fails, with the end of the log, when a program of the cluster has died.
    pub fn ensure_running(&mut self) -> Result<()> {
        all_run(&mut self.control, &mut self.nodes)
    }

    /// Returns when a program of the cluster has died, with the end of its log.
    pub async fn death(&mut self) -> anyhow::Error {
        death(|| all_run(&mut self.control, &mut self.nodes)).await
    }

    /// What a person wants to see when something failed: the cluster's own words, and the ends of the logs that matter.
    pub async fn report(&mut self) -> String {
        report::write(self).await
    }

    /// Ends everything and removes it; the logs stay.
    pub async fn stop(self) {
        let Self { run, fabric, control, nodes, .. } = self;
        futures::future::join_all(nodes.into_iter().map(Node::stop)).await;
        control.stop().await;
        stop_fabric(fabric).await;
        run::clear(run.id(), run.dir()).await;
    }
}

/// Waits until the API server knows these nodes, and with a network until they are ready; no longer than all programs run.
async fn joined(kubectl: &Kubectl, control: &mut ControlPlane, nodes: &mut [Node], network: Network) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(180);
    let names: Vec<String> = nodes.iter().map(|node| format!("node/{}", node.name())).collect();
    let logs: Vec<PathBuf> = nodes.iter().map(Node::kubelet_log).collect();
    let waiting = async {
        // One after the other, since `kubectl wait` waits for one creation only.
        for (name, log) in names.iter().zip(&logs) {
            let in_vain = |error| anyhow::anyhow!("{error:#}; {}", end_of(log));
            kubectl.wait(LIMIT, "create", &[name]).await.map_err(in_vain)?;
            if network != Network::None {
                kubectl.wait(LIMIT, "condition=Ready", &[name]).await.map_err(in_vain)?;
            }
        }
        Ok(())
    };
    tokio::select! {
        result = waiting => result,
        died = death(|| all_run(control, nodes)) => Err(died),
    }
}

fn all_run(control: &mut ControlPlane, nodes: &mut [Node]) -> Result<()> {
    control.ensure_running()?;
    nodes.iter_mut().try_for_each(Node::ensure_running)
}

async fn stop_fabric(mut fabric: Fabric) {
    if let Err(error) = fabric.stop().await {
        tracing::warn!(%error, "the VPC could not be removed");
    }
}

fn site_of(node: &crate::fabric::Node) -> NodeSite {
    NodeSite {
        name: node.name.clone(),
        netns: node.netns.path().to_owned(),
        address: node.primary_ip,
        instance_id: node.instance_id.clone(),
        instance_type: node.instance_type.to_string(),
        zone: node.zone.to_string(),
        max_pods: max_pods(&node.instance_type),
    }
}

/// What EKS gives the kubelet of an instance type; what is unknown there gets the kubelet's own default.
fn max_pods(instance_type: &InstanceType) -> u32 {
    // Two more than addresses: agent and kube-proxy live on the host's network there.
    capacity::bundled(instance_type).map_or(110, |limits| Capacity::new(&limits).max_pods(Addressing::Secondary) + 2)
}

/// Every kubelet and containerd holds several watches; the kernel's default is meant for one machine's.
fn raise_inotify_limits() {
    for (file, least) in [("max_user_instances", 1024), ("max_user_watches", 131_072)] {
        let path = format!("/proc/sys/fs/inotify/{file}");
        let now: u32 = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(least);
        if now < least
            && let Err(error) = std::fs::write(&path, least.to_string())
        {
            tracing::warn!(%path, %error, "the limit on file watches stays low: kubelets may fail");
        }
    }
}
