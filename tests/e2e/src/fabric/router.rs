//! Keeps the router true to what is plugged in: one task that reads the truth after every change and applies the difference.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use enipool_pool::{EniId, InstanceId, MacAddress};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use super::error::FabricError;
use super::names::{IMDS, Place, RunId, router_link};
use super::netns::{ListenOptions, Netns, host_ip};
use super::plan::{Changes, Plug, changes};
use super::registry::{self, Ending};
use super::world::{Machine, World};

/// What the router needs of EC2.
pub(super) trait Cloud: Send + Sync + 'static {
    /// What is effective now; not eventually consistent.
    fn world(&self) -> World;
    /// Serves an instance's metadata until what it returns is dropped.
    fn serve_imds(&self, listener: TcpListener, instance: InstanceId) -> ServedImds;
}

/// A metadata service that is being served.
pub(super) type ServedImds = Box<dyn std::any::Any + Send>;

/// A node as the router made it. Ready once it has its primary interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) machine: Machine,
    pub(super) netns: Netns,
    pub(super) primary: Option<(Ipv4Addr, MacAddress)>,
}

pub(super) type Nodes = BTreeMap<InstanceId, Built>;

/// How many callers may wait for the router to settle at once; more wait for their turn.
const SETTLE_QUEUE: usize = 64;

type Settled = Result<(), String>;

/// The router's handle. Its task ends with it.
#[derive(Debug)]
pub(super) struct Router {
    changed: Arc<Notify>,
    settle: mpsc::Sender<oneshot::Sender<Settled>>,
    nodes: watch::Receiver<Nodes>,
    task: AbortOnDropHandle<()>,
}

impl Router {
    pub(super) fn start(run: RunId, netns: Netns, imds_ttl: u8, cloud: Arc<dyn Cloud>) -> Self {
        let changed = Arc::new(Notify::new());
        let (settle, requests) = mpsc::channel(SETTLE_QUEUE);
        let (publish, nodes) = watch::channel(Nodes::new());
        let worker =
            Worker { run, netns, imds_ttl, cloud, applied: World::default(), imds: BTreeMap::new(), nodes: publish };
        let task = tokio::spawn(worker.work(Arc::clone(&changed), requests));
        Self { changed, settle, nodes, task: AbortOnDropHandle::new(task) }
    }

    /// To be notified whenever the truth changed; notifications may be merged.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    pub(super) fn nodes(&self) -> watch::Receiver<Nodes> {
        self.nodes.clone()
    }

    /// Returns when all that was true at the time of the call is in the namespaces.
    pub(super) async fn settled(&self) -> Settled {
        let ended = |()| "the router has stopped".to_owned();
        let (answer, answered) = oneshot::channel();
        self.settle.send(answer).await.map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?
    }

    /// Ends the task, and returns when it has touched the namespaces for the last time.
    pub(super) async fn stop(self) {
        let Self { task, .. } = self;
        task.abort();
        // Cancelled is what it is meant to be.
        let _ = task.await;
    }
}

struct Worker {
    run: RunId,
    netns: Netns,
    imds_ttl: u8,
    cloud: Arc<dyn Cloud>,
    /// What is in the namespaces.
    applied: World,
    imds: BTreeMap<InstanceId, ServedImds>,
    nodes: watch::Sender<Nodes>,
}

impl Worker {
    async fn work(mut self, changed: Arc<Notify>, mut requests: mpsc::Receiver<oneshot::Sender<Settled>>) {
        loop {
            let request = tokio::select! {
                () = changed.notified() => None,
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
            };
            let result = self.reconcile().await.map_err(|error| error.to_string());
            if let Err(error) = &result {
                error!(%error, "the fabric does not follow EC2");
            }
            if let Some(request) = request {
                // The caller may have given up waiting.
                let _ = request.send(result);
            }
        }
    }

    async fn reconcile(&mut self) -> Result<(), FabricError> {
        let want = self.cloud.world();
        let changes = changes(&self.applied, &want);
        if changes.is_empty() {
            return Ok(());
        }
        let Changes { switched_off, switched_on, unplug, filter, plug, routes } = changes;
        for id in &switched_off {
            self.imds.remove(id);
        }
        for (eni, old) in &self.applied.plugged {
            if old.device_index == 0 && !want.plugged.contains_key(eni) {
                self.imds.remove(&old.instance);
            }
        }
        self.netns.ip_forgiving(&unplug).await?;
        for id in &switched_off {
            self.switch_off(id).await?;
        }
        for (id, machine) in switched_on {
            self.switch_on(id, machine).await?;
        }
        self.netns.ip(&routes).await?;
        // All before this can be repeated, so a failure is made good by the next round; this is done once. After it, what
        // failed is missing from `applied` and tried again.
        self.netns.nft(filter).await?;
        let failed = self.plug_all(&plug).await;
        self.applied = want;
        let mut first = Ok(());
        for (eni, error) in failed {
            self.applied.plugged.remove(&eni);
            warn!(%eni, %error, "cannot plug in an interface");
            first = first.and(Err(error));
        }
        first
    }

    async fn plug_all(&mut self, plugs: &[Plug]) -> Vec<(EniId, FabricError)> {
        let mut failed = Vec::new();
        for plug in plugs {
            if let Err(error) = self.plug(plug).await {
                let undo = [format!("link del {}", router_link(&plug.eni))];
                if let Err(error) = self.netns.ip_forgiving(&undo).await {
                    debug!(%error, "nothing to undo");
                }
                failed.push((plug.eni.clone(), error));
            }
        }
        failed
    }

    async fn plug(&mut self, plug: &Plug) -> Result<(), FabricError> {
        let instance = &plug.interface.instance;
        let Some(node) = self.nodes.borrow().get(instance).map(|built| built.netns.clone()) else {
            return Err(FabricError::UnknownNode(instance.to_string()));
        };
        self.netns.ip(&plug.router_lines(&node.path().display().to_string())).await?;
        node.ip(&plug.node_lines()).await?;
        info!(eni = %plug.eni, %instance, device = plug.interface.device(), mac = %plug.interface.mac, "interface plugged in");
        if plug.interface.device_index == 0 {
            self.netns.ip(&[plug.await_line()]).await?;
            self.serve_imds(plug).await?;
            let primary = (plug.interface.primary_ip, plug.interface.mac);
            self.nodes.send_modify(|nodes| {
                if let Some(built) = nodes.get_mut(instance) {
                    built.primary = Some(primary);
                }
            });
        }
        Ok(())
    }

    /// Behind the primary interface, as on EC2; each instance has a listener of its own on the same address.
    async fn serve_imds(&mut self, plug: &Plug) -> Result<(), FabricError> {
        let options = ListenOptions { device: Some(router_link(&plug.eni)), ttl: Some(self.imds_ttl) };
        let listener = self.netns.tcp_listener(SocketAddrV4::new(IMDS, 80), options).await?;
        let instance = plug.interface.instance.clone();
        self.imds.insert(instance.clone(), self.cloud.serve_imds(listener, instance));
        Ok(())
    }

    async fn switch_on(&mut self, id: InstanceId, mut machine: Machine) -> Result<(), FabricError> {
        if self.nodes.borrow().contains_key(&id) {
            return Ok(());
        }
        if self.nodes.borrow().values().any(|other| other.machine.name == machine.name) {
            warn!(instance = %id, name = machine.name, "another machine has that name: this one goes by its id");
            machine.name = id.to_string();
        }
        let place = Place::Node(&machine.name);
        let (name, path) = (place.netns_name(&self.run), place.path(&self.run));
        if path.exists() {
            // Left by an attempt that failed half way: no machine that is on has that name.
            let name = name.clone();
            registry::blocking(move || registry::remove_namespaces(&[name], Ending::PowerOff)).await?;
        }
        host_ip(&[format!("netns add {name}")]).await?;
        let netns = Netns::new(path);
        netns.ip(&["link set lo up".into()]).await?;
        // What systemd sets on Amazon Linux 2023.
        netns.sysctl(&["net/ipv4/conf/default/rp_filter=2"]).await?;
        info!(instance = %id, node = machine.name, "machine switched on");
        self.nodes.send_modify(|nodes| {
            nodes.insert(id, Built { machine, netns, primary: None });
        });
        Ok(())
    }

    async fn switch_off(&mut self, id: &InstanceId) -> Result<(), FabricError> {
        let Some(built) = self.nodes.borrow().get(id).cloned() else { return Ok(()) };
        let name = Place::Node(&built.machine.name).netns_name(&self.run);
        registry::blocking(move || registry::remove_namespaces(&[name], Ending::PowerOff)).await?;
        info!(instance = %id, node = built.machine.name, "machine switched off");
        self.nodes.send_modify(|nodes| drop(nodes.remove(id)));
        Ok(())
    }
}
