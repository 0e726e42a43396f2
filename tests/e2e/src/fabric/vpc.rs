//! The fabric as its users see it: a region with one VPC, in which nodes are launched, stopped and terminated.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ec2_sim::{Model, Request, SimConfig};
use enipool_pool::{InstanceId, Zone};
use ipnet::Ipv4Net;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::AbortOnDropHandle;

use super::drops::Drops;
use super::ec2::Simulator;
use super::error::FabricError;
use super::names::{EC2_PORT, INTERNET_HOST, RunId};
use super::netns::{ListenOptions, Netns};
use super::node::{Node, NodeSpec, is_node_name};
use super::plan::internet_access;
use super::registry;
use super::router::{Built, Router};
use super::underlay::Underlay;

/// How long an instance may take from RunInstances until its metadata answers. EC2's own delays are part of it.
const LAUNCH_TIMEOUT: Duration = Duration::from_mins(2);

/// How a fabric starts.
#[derive(Debug, Clone)]
pub struct FabricConfig {
    /// Random if absent. A dead run of the same id is removed first.
    pub run: Option<RunId>,
    /// The region: VPC, subnets, delays, throttling.
    pub sim: SimConfig,
    /// `HttpPutResponseHopLimit`: 1 keeps pods away from the instance's metadata, 2 (as on EKS) lets them in.
    pub imds_hop_limit: u8,
}

impl Default for FabricConfig {
    fn default() -> Self {
        Self { run: None, sim: SimConfig::default(), imds_hop_limit: 2 }
    }
}

/// How nodes reach the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternetAccess {
    /// Public subnets: only the primary address of an instance's primary interface has a public address, so only it
    /// gets out. The internet host sees it as it is.
    InternetGateway,
    /// Private subnets: every owned address gets out. The internet host sees primary addresses as they are, and the
    /// gateway, 203.0.113.1, in place of all others.
    NatGateway,
}

/// Where the control plane runs.
#[derive(Debug, Clone)]
pub struct Control {
    /// One address for all: the machine, the nodes and the pods reach it.
    pub address: Ipv4Addr,
    /// The machine's end of the link to it.
    pub host_address: Ipv4Addr,
    /// Processes in here listen on `address` and reach all of the VPC.
    pub netns: Netns,
}

/// A running fabric. Dropped without [`Fabric::stop`], it takes itself away on the spot.
#[derive(Debug)]
pub struct Fabric {
    // In the order in which they must end: nothing may follow EC2 any more when the namespaces go.
    _follower: AbortOnDropHandle<()>,
    router: Option<Router>,
    sim: Arc<Simulator>,
    underlay: Underlay,
    control: Control,
    config: SimConfig,
}

impl Fabric {
    /// Builds the namespaces and starts EC2 in them, with no instance yet. Runs whose process is gone are removed first.
    ///
    /// # Errors
    /// Without root or the tools it needs; when the run's id is taken; when the region is not one that AWS would accept.
    pub async fn start(config: FabricConfig) -> Result<Self, FabricError> {
        let FabricConfig { run, sim: region, imds_hop_limit } = config;
        let run = run.unwrap_or_else(RunId::random);
        // Before anything is built: it refuses what is no region.
        Model::new(region.clone()).map_err(|error| FabricError::Ec2(error.to_string()))?;
        let subnets: Vec<_> = region.subnets.iter().map(|subnet| subnet.cidr).collect();
        let underlay = Underlay::start(run.clone(), &region.vpc.cidrs, &subnets).await?;

        let netns = underlay.base.control.clone();
        let control = Control { address: underlay.slot.control(), host_address: underlay.slot.host(), netns };
        let endpoint = SocketAddrV4::new(control.address, EC2_PORT);
        let listener = control.netns.tcp_listener(endpoint, ListenOptions::default()).await?;
        let sim = Arc::new(Simulator::start(region.clone(), listener)?);

        let cloud: Arc<Simulator> = Arc::clone(&sim);
        let router = Router::start(run, underlay.base.router.clone(), imds_hop_limit, cloud);
        let changed = router.changed();
        let mut events = sim.events();
        let follower = tokio::spawn(async move {
            // What was missed is no loss: the router reads the whole truth each time.
            while !matches!(events.recv().await, Err(RecvError::Closed)) {
                changed.notify_one();
            }
        });
        let follower = AbortOnDropHandle::new(follower);
        Ok(Self { _follower: follower, router: Some(router), sim, underlay, control, config: region })
    }

    pub fn run_id(&self) -> &RunId {
        &self.underlay.run
    }

    /// A directory of the run, removed with it: its users may keep there what must be found after a crash.
    pub fn run_dir(&self) -> PathBuf {
        registry::run_dir(&self.underlay.run)
    }

    /// The EC2 endpoint: reached from the machine, from nodes and from pods.
    pub fn ec2_endpoint(&self) -> String {
        format!("http://{}:{EC2_PORT}", self.control.address)
    }

    pub fn region(&self) -> &str {
        &self.config.region
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The host outside the VPC: HTTP on port 80 answers with the client's address; TCP and UDP on port 7 too, then echo.
    pub fn internet_address(&self) -> Ipv4Addr {
        INTERNET_HOST
    }

    pub fn internet_netns(&self) -> &Netns {
        &self.underlay.base.internet
    }

    /// The router's namespace: for looking, not for touching.
    pub fn router_netns(&self) -> &Netns {
        &self.underlay.base.router
    }

    pub fn vpc_cidrs(&self) -> &[Ipv4Net] {
        &self.config.vpc.cidrs
    }

    /// The zones that have a subnet, in the order of the configuration.
    pub fn zones(&self) -> Vec<Zone> {
        self.config.subnets.iter().map(|subnet| Zone::new(subnet.zone.as_str())).collect()
    }

    /// The simulated EC2: its delays, faults and ledger of calls.
    pub fn sim(&self) -> &ec2_sim::server::Handle {
        self.sim.handle()
    }

    /// Launches an instance and returns when it is up: primary interface configured, metadata answering.
    pub async fn launch_node(&self, spec: NodeSpec) -> Result<Node, FabricError> {
        if !is_node_name(&spec.name) {
            return Err(FabricError::NodeName(spec.name));
        }
        if self.sim.instance_named(&spec.name).is_some() {
            return Err(FabricError::NodeExists(spec.name));
        }
        let id = self.sim.run_instance(&spec).await?;
        self.up(&id).await
    }

    /// Stops an instance: its namespace, and all that runs in it, goes. Returns when that is so.
    pub async fn stop_node(&self, name: &str) -> Result<(), FabricError> {
        let id = self.id_of(name)?;
        self.sim.call(Request::StopInstances(vec![id.clone()])).await?;
        self.down(&id).await
    }

    /// Starts a stopped instance again; it comes up with the same interfaces and nothing else of what it was.
    pub async fn start_node(&self, name: &str) -> Result<Node, FabricError> {
        let id = self.id_of(name)?;
        self.sim.call(Request::StartInstances(vec![id.clone()])).await?;
        self.up(&id).await
    }

    /// Terminates an instance: its namespace, and all that runs in it, goes. Returns when that is so.
    pub async fn terminate_node(&self, name: &str) -> Result<(), FabricError> {
        let id = self.id_of(name)?;
        self.sim.call(Request::TerminateInstances(vec![id.clone()])).await?;
        self.down(&id).await
    }

    /// The nodes that are up, whoever launched them.
    pub fn nodes(&self) -> Vec<Node> {
        let nodes = self.router.as_ref().map(Router::nodes);
        nodes.iter().flat_map(|nodes| nodes.borrow().iter().filter_map(ready).collect::<Vec<_>>()).collect()
    }

    pub fn node(&self, name: &str) -> Option<Node> {
        self.nodes().into_iter().find(|node| node.name == name)
    }

    /// What the VPC refused to forward so far.
    pub async fn drops(&self) -> Result<Drops, FabricError> {
        Drops::read(&self.underlay.base.router, &self.sim.all_instances()).await
    }

    /// Changes how nodes reach the internet; connections under way may break. At the start: the internet gateway.
    pub async fn set_internet_access(&self, access: InternetAccess) -> Result<(), FabricError> {
        self.underlay.base.router.nft(internet_access(access == InternetAccess::NatGateway)).await
    }

    /// Returns when all that is effective in EC2 at the time of the call is in the namespaces.
    pub async fn settled(&self) -> Result<(), FabricError> {
        let Some(router) = &self.router else { return Ok(()) };
        router.settled().await.map_err(FabricError::Router)
    }

    /// Takes everything away, processes on the nodes included. A second call does nothing.
    pub async fn stop(&mut self) -> Result<(), FabricError> {
        if let Some(router) = self.router.take() {
            router.stop().await;
        }
        self.underlay.remove().await
    }

    fn id_of(&self, name: &str) -> Result<InstanceId, FabricError> {
        self.sim.instance_named(name).ok_or_else(|| FabricError::UnknownNode(name.to_owned()))
    }

    async fn up(&self, id: &InstanceId) -> Result<Node, FabricError> {
        self.wait(id, "launch", |built| built.and_then(|built| ready((id, built)))).await
    }

    async fn down(&self, id: &InstanceId) -> Result<(), FabricError> {
        self.wait(id, "shutdown", |built| built.is_none().then_some(())).await
    }

    async fn wait<T>(
        &self,
        id: &InstanceId,
        what: &str,
        reached: impl Fn(Option<&Built>) -> Option<T>,
    ) -> Result<T, FabricError> {
        let stopped = || FabricError::Router("the fabric is stopped".into());
        let mut nodes = self.router.as_ref().ok_or_else(stopped)?.nodes();
        let wait = async {
            loop {
                if let Some(result) = reached(nodes.borrow_and_update().get(id)) {
                    return Ok(result);
                }
                nodes.changed().await.map_err(|_| stopped())?;
            }
        };
        let late = |_| FabricError::Timeout { what: format!("{what} of {id}"), after: LAUNCH_TIMEOUT };
        tokio::time::timeout(LAUNCH_TIMEOUT, wait).await.map_err(late)?
    }
}

fn ready((id, built): (&InstanceId, &Built)) -> Option<Node> {
    let (primary_ip, primary_mac) = built.primary?;
    Some(Node {
        name: built.machine.name.clone(),
        instance_id: id.clone(),
        instance_type: built.machine.instance_type.clone(),
        zone: built.machine.zone.clone(),
        primary_ip,
        primary_mac,
        netns: built.netns.clone(),
    })
}
