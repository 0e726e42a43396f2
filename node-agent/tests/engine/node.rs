//! One node: the simulated region, a kernel that shows what EC2 has plugged in, and the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ec2_sim::model::request::{Assign, CreateInterface, RunInstances, Wanted};
use ec2_sim::{Model, Request, Response, SharedModel, SimConfig, SimEc2};
use enipool_agent::engine::{
    self, AttachmentKey, Clock, EffectiveConfig, EngineConfig, EniView, HostEni, HostPicture, HostPod, HostView,
    Kernel, KernelError, Lease, Phase, PodRef, Pool, Table,
};
use enipool_pool::capacity;
use enipool_pool::ec2::{CreateEni, Ec2, InterfaceType, Supply};
use enipool_pool::eni::{TAG_INSTANCE, TAG_INTENT, TAG_NO_MANAGE};
use enipool_pool::imds::{Imds, ImdsEni, ImdsError, InstanceIdentity};
use enipool_pool::{ClientToken, EniId, InstanceId, InstanceType, MacAddress, SecurityGroupId, SubnetId};
use tokio_util::sync::CancellationToken;

use crate::sim;

/// How the links of pods begin that this agent made.
const OUR_LINKS: &str = "eni-";

pub(crate) fn key(n: u32) -> AttachmentKey {
    AttachmentKey::new("enipool", format!("container-{n}"), "eth0")
}

pub(crate) fn pod(n: u32) -> PodRef {
    PodRef { namespace: "default".into(), name: format!("pod-{n}").into(), uid: "".into() }
}

/// IMDS out of the model.
#[derive(Debug)]
struct SimImds {
    shared: SharedModel,
    instance: InstanceId,
}

impl SimImds {
    fn enis(&self) -> Result<Vec<ImdsEni>, ImdsError> {
        sim::imds_enis(&self.shared, &self.instance)
            .ok_or_else(|| ImdsError::Unavailable("the instance is down".into()))
    }
}

impl Imds for SimImds {
    async fn identity(&self) -> Result<InstanceIdentity, ImdsError> {
        let metadata = self.shared.with(|model| model.metadata(&self.instance));
        let metadata = metadata.ok_or_else(|| ImdsError::Unavailable("the instance is down".into()))?;
        let primary = metadata.primary().ok_or_else(|| ImdsError::NotFound("mac".into()))?;
        Ok(InstanceIdentity {
            instance: metadata.instance.clone(),
            instance_type: metadata.instance_type.clone(),
            zone: metadata.zone.clone(),
            region: metadata.region.clone(),
            primary_mac: primary.mac,
            primary_ip: primary.addresses[0],
        })
    }

    async fn macs(&self) -> Result<Vec<MacAddress>, ImdsError> {
        Ok(self.enis()?.iter().map(|eni| eni.mac).collect())
    }

    async fn eni(&self, mac: MacAddress) -> Result<ImdsEni, ImdsError> {
        self.enis()?.into_iter().find(|eni| eni.mac == mac).ok_or_else(|| ImdsError::NotFound(mac.to_string()))
    }
}

/// A kernel whose links are those that EC2 has plugged in.
#[derive(Debug, Clone)]
pub(crate) struct SimKernel {
    shared: SharedModel,
    instance: InstanceId,
    pods: Arc<Mutex<Vec<HostPod>>>,
    refuses: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    picture: Arc<Mutex<HostPicture>>,
}

impl SimKernel {
    pub(crate) fn show_pod(&self, address: Ipv4Addr, host_ifname: &str) {
        self.hide_pod(address);
        self.pods.lock().unwrap().push(HostPod { address, host_ifname: host_ifname.into() });
    }

    pub(crate) fn hide_pod(&self, address: Ipv4Addr) {
        self.pods.lock().unwrap().retain(|pod| pod.address != address);
    }

    /// Whether it refuses to be set up.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// The next set-up ends in a panic.
    pub(crate) fn panic_once(&self) {
        self.panics.store(true, Ordering::Relaxed);
    }

    /// Whether it is set up for the address on that interface.
    pub(crate) fn serves(&self, lease: &Lease) -> bool {
        let picture = self.picture.lock().unwrap();
        let held = |eni: &HostEni| {
            eni.addresses.contains(&lease.address) || eni.prefixes.iter().any(|p| p.contains(lease.address))
        };
        picture.enis.iter().any(|eni| eni.id == lease.eni && held(eni))
    }

    /// The VPC's ranges that it is set up for.
    pub(crate) fn vpc_cidrs(&self) -> Vec<String> {
        self.picture.lock().unwrap().vpc_cidrs.iter().map(ToString::to_string).collect()
    }

    fn links(&self) -> BTreeSet<MacAddress> {
        sim::links(&self.shared, &self.instance)
    }
}

impl Kernel for SimKernel {
    async fn apply(&self, picture: &HostPicture) -> Result<(), KernelError> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "it is told to panic");
        if self.refuses.load(Ordering::Relaxed) {
            return Err(KernelError("it is told to refuse".into()));
        }
        *self.picture.lock().unwrap() = picture.clone();
        Ok(())
    }

    async fn observe(&self) -> Result<HostView, KernelError> {
        Ok(HostView { pods: self.pods.lock().unwrap().clone(), links: self.links() })
    }

    fn host_ifname(&self, _: &AttachmentKey, pod: &PodRef) -> String {
        format!("{OUR_LINKS}{}", pod.name)
    }

    async fn gone(&self, pods: &[HostPod]) -> Result<Vec<HostPod>, KernelError> {
        let shown = self.pods.lock().unwrap();
        Ok(pods.iter().filter(|pod| !shown.contains(pod)).cloned().collect())
    }

    async fn wait_link(&self, mac: MacAddress, timeout: Duration) -> Result<(), KernelError> {
        let mut events = self.shared.subscribe();
        let seen = async {
            while !self.links().contains(&mac) {
                let _ = events.recv().await;
            }
        };
        tokio::time::timeout(timeout, seen).await.map_err(|_| KernelError("no such link".into()))
    }
}

/// See the module.
pub(crate) struct Node {
    pub(crate) shared: SharedModel,
    pub(crate) kernel: SimKernel,
    pub(crate) pool: Pool,
    pub(crate) shutdown: CancellationToken,
    pub(crate) journal: PathBuf,
    instance: InstanceId,
    table: Table,
    /// By how much the node's clock is wrong from the next start on.
    pub(crate) clock_ahead: Duration,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start(sim: SimConfig, instance_type: &str, config: EffectiveConfig) -> Self {
        Self::start_knowing(capacity::bundled, sim, instance_type, config).await
    }

    /// With a table of instance types that need not have this one.
    pub(crate) async fn start_knowing(
        table: Table,
        sim: SimConfig,
        instance_type: &str,
        config: EffectiveConfig,
    ) -> Self {
        let shared = SharedModel::running(Model::new(sim).unwrap());
        let driven = shared.clone();
        tokio::spawn(async move { driven.drive().await });
        let subnet = shared.with(|model| model.subnets().next().unwrap().info.id.clone());
        let run = Request::RunInstances(RunInstances::one(InstanceType::new(instance_type), subnet));
        let reply = shared.with(|model| model.call("person", &run)).result.unwrap();
        let Response::Reservation(instances) = reply else { panic!("{reply:?}") };
        let instance = instances[0].id.clone();
        shared.advance(Duration::from_secs(120));
        let kernel = SimKernel {
            shared: shared.clone(),
            instance: instance.clone(),
            pods: Arc::default(),
            refuses: Arc::default(),
            panics: Arc::default(),
            picture: Arc::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        let (pool, shutdown, task) = engine(&shared, &instance, &kernel, &journal, table, Duration::ZERO, config).await;
        Self { shared, kernel, pool, shutdown, journal, instance, table, clock_ahead: Duration::ZERO, task, _dir: dir }
    }

    /// The process dies as it stands. Its pods run on, and no other.
    pub(crate) fn kill(&mut self) {
        self.task.abort();
        self.kernel.pods.lock().unwrap().retain(|pod| !pod.host_ifname.starts_with(OUR_LINKS));
        for (key, pod, lease) in self.pool.attachments() {
            if !key.network.is_empty() {
                self.kernel.show_pod(lease.address, &self.kernel.host_ifname(&key, &pod));
            }
        }
    }

    pub(crate) async fn restart(&mut self, config: EffectiveConfig) {
        let (pool, shutdown, task) =
            engine(&self.shared, &self.instance, &self.kernel, &self.journal, self.table, self.clock_ahead, config)
                .await;
        (self.pool, self.shutdown, self.task) = (pool, shutdown, task);
    }

    /// The node's state folder.
    pub(crate) fn state_dir(&self) -> &std::path::Path {
        self.journal.parent().unwrap()
    }

    pub(crate) fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Calls to EC2 by this node.
    pub(crate) fn calls(&self) -> u64 {
        let count = |(action, count): (&&str, &ec2_sim::model::calls::ActionCount)| {
            if *action == "RunInstances" { 0 } else { count.calls }
        };
        self.shared.with(|model| model.calls().counts().iter().map(count).sum())
    }

    /// What was called in the region so far.
    pub(crate) fn actions(&self) -> Vec<&'static str> {
        self.shared.with(|model| model.calls().counts().keys().copied().collect())
    }

    /// Where the node keeps what EC2 said of its instance type.
    pub(crate) fn type_file(&self) -> PathBuf {
        self.journal.with_file_name("instance-type.json")
    }

    /// Calls of one action in the region so far.
    pub(crate) fn calls_of(&self, action: &str) -> u64 {
        self.shared.with(|model| model.calls().counts().get(action).map_or(0, |count| count.calls))
    }

    /// A person attaches an interface of the instance's subnet.
    pub(crate) async fn attach_by_hand(&self, device_index: u32, tags: &[(&str, &str)]) -> EniId {
        let person = SimEc2::new(self.shared.clone(), "person");
        let subnet = self.shared.with(|model| model.subnets().next().unwrap().info.id.clone());
        let request = CreateEni {
            subnet,
            security_groups: Vec::new(),
            supply: Supply::Addresses(2),
            description: "by hand".into(),
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            client_token: ClientToken::new("by-hand"),
        };
        let eni = person.create_network_interface(&request).await.unwrap();
        person.attach_network_interface(&eni.id, &self.instance, device_index).await.unwrap();
        eni.id
    }

    /// A person attaches an interface of some kind that carries the pool's own tag.
    pub(crate) async fn attach_of_kind(&self, kind: InterfaceType, device_index: u32) -> EniId {
        let subnet = self.shared.with(|model| model.subnets().next().unwrap().info.id.clone());
        let create = CreateInterface {
            subnet: Some(subnet),
            interface_type: Some(kind),
            tags: [(TAG_INSTANCE.to_owned(), self.instance.to_string())].into(),
            ..CreateInterface::default()
        };
        let reply = self.shared.with(|model| model.call("person", &Request::CreateNetworkInterface(create)));
        let Ok(Response::Interface(eni)) = reply.result else { panic!("no interface") };
        let person = SimEc2::new(self.shared.clone(), "person");
        person.attach_network_interface(&eni.id, &self.instance, device_index).await.unwrap();
        eni.id
    }

    /// An interface that an earlier life of the agent made and did not attach.
    pub(crate) async fn leave_over(&self) -> EniId {
        let person = SimEc2::new(self.shared.clone(), "person");
        let tags = [(TAG_INSTANCE, self.instance.as_str()), (TAG_INTENT, "intent-of-old")];
        let request = CreateEni {
            subnet: self.subnet(0),
            security_groups: Vec::new(),
            supply: Supply::Addresses(2),
            description: String::new(),
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            client_token: ClientToken::new("intent-of-old"),
        };
        person.create_network_interface(&request).await.unwrap().id
    }

    /// A person takes the interface off the instance.
    pub(crate) async fn detach_by_hand(&self, eni: &EniId) {
        let attachment = |model: &mut Model| model.interface(eni)?.attachment.as_ref().map(|a| a.id.clone());
        let attachment = self.shared.with(attachment).unwrap();
        SimEc2::new(self.shared.clone(), "person").detach_network_interface(&attachment, true).await.unwrap();
    }

    /// A person deletes it, whatever pods it has.
    pub(crate) async fn delete_by_hand(&self, eni: &EniId) {
        self.detach_by_hand(eni).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        SimEc2::new(self.shared.clone(), "person").delete_network_interface(eni).await.unwrap();
    }

    /// A person says: hands off.
    pub(crate) async fn mark_no_manage(&self, eni: &EniId) {
        let tags = [(TAG_NO_MANAGE.to_owned(), "true".to_owned())].into();
        SimEc2::new(self.shared.clone(), "person").create_tags(eni, &tags).await.unwrap();
    }

    /// Whether EC2 has it attached to the instance.
    pub(crate) fn is_attached(&self, eni: &EniId) -> bool {
        self.shared.with(|model| {
            let attachment = model.interface(eni).and_then(|eni| eni.attachment.as_ref());
            attachment.is_some_and(|attachment| attachment.instance == self.instance)
        })
    }

    /// The interface as the pool shows it.
    pub(crate) fn view(&self, eni: &EniId) -> Option<EniView> {
        self.pool.snapshot().borrow().enis.iter().find(|view| view.id == *eni).cloned()
    }

    /// The pods' leases on that interface, by pod.
    pub(crate) fn leases_on(&self, eni: &EniId) -> Vec<(AttachmentKey, Lease)> {
        let all = self.pool.attachments().into_iter();
        all.filter(|(_, _, lease)| lease.eni == *eni).map(|(key, _, lease)| (key, lease)).collect()
    }

    /// Whether a person has been told something of this kind.
    pub(crate) fn has_told(&self, kind: &str) -> bool {
        self.pool.snapshot().borrow().notices.iter().any(|notice| notice.kind == kind)
    }

    /// A person takes an address from its interface.
    pub(crate) async fn take_by_hand(&self, lease: &Lease) {
        SimEc2::new(self.shared.clone(), "person").unassign(&lease.eni, &[lease.address], &[]).await.unwrap();
    }

    /// A person puts it back.
    pub(crate) fn give_by_hand(&self, lease: &Lease) {
        let wanted = Wanted { addresses: vec![lease.address], ..Wanted::default() };
        let assign = Assign { interface: lease.eni.clone(), wanted, allow_reassignment: false };
        let reply = self.shared.with(|model| model.call("person", &Request::AssignPrivateIpAddresses(assign)));
        reply.result.unwrap();
    }

    /// A person gives an interface so many addresses more.
    pub(crate) async fn give_more_by_hand(&self, eni: &EniId, count: u32) {
        SimEc2::new(self.shared.clone(), "person").assign(eni, Supply::Addresses(count)).await.unwrap();
    }

    /// A person gives the VPC these ranges.
    pub(crate) fn set_vpc_cidrs(&self, cidrs: &[&str]) {
        let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        self.shared.with(|model| {
            let vpc = model.vpcs().next().unwrap().id.clone();
            model.set_vpc_cidrs(&vpc, cidrs).unwrap();
        });
    }

    /// A person gives an interface these security groups.
    pub(crate) async fn set_groups_by_hand(&self, eni: &EniId, groups: &[SecurityGroupId]) {
        SimEc2::new(self.shared.clone(), "person").set_security_groups(eni, groups).await.unwrap();
    }

    /// The security group of this name.
    pub(crate) fn group(&self, name: &str) -> SecurityGroupId {
        self.shared.with(|model| model.security_groups().find(|group| group.name == name).unwrap().id.clone())
    }

    /// The instance's interfaces but for the primary, with their security groups.
    pub(crate) fn groups(&self) -> BTreeMap<EniId, Vec<SecurityGroupId>> {
        let primary = self.primary();
        let others = |model: &mut Model| {
            let others = model.interfaces().filter(|eni| eni.id != primary);
            others.map(|eni| (eni.id.clone(), eni.security_groups.clone())).collect()
        };
        self.shared.with(others)
    }

    pub(crate) fn primary(&self) -> EniId {
        self.pool.snapshot().borrow().enis[0].id.clone()
    }

    /// The region's subnets, in the order of its configuration.
    pub(crate) fn subnet(&self, nth: usize) -> SubnetId {
        self.shared.with(|model| model.subnets().nth(nth).unwrap().info.id.clone())
    }

    /// Interfaces in the whole region.
    pub(crate) fn interfaces(&self) -> usize {
        self.shared.with(|model| model.interfaces().count())
    }

    /// Lets what is under way come to its end.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
}

async fn engine(
    shared: &SharedModel,
    instance: &InstanceId,
    kernel: &SimKernel,
    journal: &std::path::Path,
    table: Table,
    ahead: Duration,
    config: EffectiveConfig,
) -> (Pool, CancellationToken, tokio::task::JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let imds = SimImds { shared: shared.clone(), instance: instance.clone() };
    let hands = engine::hands(SimEc2::new(shared.clone(), "agent"), imds, kernel.clone());
    let journal = journal.to_owned();
    let engine_config = EngineConfig { node: "node".into(), cluster: "test".into(), journal, config, table, seed: 42 };
    let uptime = shared.with(|model| model.now());
    let clock = Clock::from(uptime.plus(ahead)).with_uptime(uptime);
    let engine = engine::start(engine_config, hands, clock, shutdown.clone()).await.unwrap();
    engine.pool.snapshot().wait_for(|snapshot| snapshot.phase == Phase::Serving).await.unwrap();
    (engine.pool, shutdown, engine.task)
}
