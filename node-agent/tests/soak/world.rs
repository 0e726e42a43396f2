//! One node in virtual time: the machine, its journal as bytes, the simulated EC2, a kernel, pods that come and go, and
//! a process that may die between any two of its steps.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_sim::model::request::RunInstances;
use ec2_sim::{Model, Request, Response, SharedModel, SimConfig, SimEc2};
use enipool_agent::engine::machine::{
    Acquire, Described, Done, Effects, Look, Machine, Op, OpId, Start, WaiterId, by_id,
};
use enipool_agent::engine::{AttachmentKey, EffectiveConfig, HostPicture, HostPod, HostView, Lease, PodRef};
use enipool_pool::ec2::{Ec2, Ec2Error};
use enipool_pool::eni::SETTLING;
use enipool_pool::ledger::record::{self, Record, Recovered};
use enipool_pool::{EniId, InstanceId, InstanceType, SubnetId, Timestamp};
use futures::executor::block_on;

use crate::dice::Dice;

/// What happens at some time.
#[derive(Debug)]
enum Due {
    /// A call arrives at EC2 (or the kernel). Sent by the process of that life.
    Arrives(u32, OpId, Op),
    /// Its answer arrives at the process of that life.
    Answers(u32, OpId, Done),
    Restart,
    /// The process of that life hears what it should aim for.
    Word(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) key: AttachmentKey,
    /// Set once the ADD has been answered: the pod runs.
    pub(crate) lease: Option<Lease>,
    pub(crate) waiter: Option<WaiterId>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) shared: SharedModel,
    ec2: SimEc2,
    pub(crate) instance: InstanceId,
    pub(crate) subnet: SubnetId,
    pub(crate) instance_type: InstanceType,
    pub(crate) config: EffectiveConfig,
    /// What the process starts from, where nothing else was kept.
    pub(crate) flags: EffectiveConfig,
    pub(crate) machine: Option<Machine>,
    journal: Vec<u8>,
    /// Length at which the journal is written anew; often while something is under way.
    pub(crate) compact_at: usize,
    wake_at: Option<Timestamp>,
    due: BTreeMap<(Timestamp, u64), Due>,
    seq: u64,
    /// How far the node's clock is ahead of the world's. It is set back now and then, while the process is down.
    skew: Duration,
    pub(crate) strangers: Vec<EniId>,
    life: u32,
    pub(crate) now: Timestamp,
    pub(crate) pods: BTreeMap<u32, Pod>,
    next_pod: u32,
    /// DELs that came while nobody listened.
    deletions: Vec<AttachmentKey>,
    pub(crate) released: HashMap<Ipv4Addr, Timestamp>,
    pub(crate) host: HostPicture,
    /// Chance in a thousand that the process dies at a point where it could.
    pub(crate) crash: u32,
    pub(crate) crashes: u32,
    log: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, sim: SimConfig, instance_type: &str, config: EffectiveConfig) -> Self {
        let dice = Dice::new(seed);
        let now = sim.start;
        let shared = SharedModel::manual(Model::new(sim).unwrap());
        let instance_type = InstanceType::new(instance_type);
        let subnet = shared.with(|model| model.subnets().next().unwrap().info.id.clone());
        let run = RunInstances::one(instance_type.clone(), subnet.clone());
        let reply = shared.with(|model| model.call("person", &Request::RunInstances(run)));
        let Ok(Response::Reservation(instances)) = reply.result else { panic!("no instance: {reply:?}") };
        let instance = instances[0].id.clone();
        let mut world = Self {
            dice,
            ec2: SimEc2::new(shared.clone(), "agent"),
            shared,
            instance,
            subnet,
            instance_type,
            flags: config.clone(),
            config,
            machine: None,
            journal: Vec::new(),
            compact_at: 64 * 1024,
            wake_at: None,
            due: BTreeMap::new(),
            seq: 0,
            skew: Duration::from_secs(36_000),
            strangers: Vec::new(),
            life: 0,
            now,
            pods: BTreeMap::new(),
            next_pod: 0,
            deletions: Vec::new(),
            released: HashMap::new(),
            host: HostPicture::default(),
            crash: 0,
            crashes: 0,
            log: Vec::new(),
        };
        // Boot.
        world.pass(Duration::from_secs(120));
        world.restart();
        world
    }

    pub(crate) fn running_pods(&self) -> Vec<u32> {
        self.pods.iter().filter(|(_, pod)| pod.lease.is_some()).map(|(id, _)| *id).collect()
    }

    pub(crate) fn all_pods(&self) -> Vec<u32> {
        self.pods.keys().copied().collect()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.shared.with(|model| {
            model.calls().counts().iter().filter(|(action, _)| **action != "RunInstances").map(|(_, c)| c.calls).sum()
        })
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if std::env::var_os("ENIPOOL_SOAK_TELL").is_some() {
            let line = format!("{} #{} {}", self.now, self.life, line());
            eprintln!("{line}");
            self.log.push(line);
        }
    }

    // ---- pods ------------------------------------------------------------------------------------------------------

    pub(crate) fn add(&mut self) {
        let id = self.next_pod;
        self.next_pod += 1;
        let key = AttachmentKey::new("enipool", format!("container-{id}"), "eth0");
        self.pods.insert(id, Pod { key: key.clone(), lease: None, waiter: None });
        self.add_again(id);
    }

    /// The ADD of a pod, for the first time or once more.
    pub(crate) fn add_again(&mut self, id: u32) {
        let Some(pod) = self.pods.get(&id).cloned() else { return };
        let (now, clock) = (self.now, self.clock());
        let Some(machine) = self.machine.as_mut() else {
            // The runtime hears that nobody listens, and cleans up after its sandbox.
            self.del(id);
            return;
        };
        let answer = machine.acquire(&pod.key, &PodRef::default(), clock);
        let records = machine.take_records();
        let grants = machine.take_grants();
        if self.write(&records) {
            return;
        }
        self.grant(grants);
        match answer {
            Acquire::Granted(lease) => self.runs(id, lease),
            Acquire::Waits(waiter) => {
                if let Some(pod) = self.pods.get_mut(&id) {
                    pod.waiter = Some(waiter);
                }
            }
            Acquire::Refused(error) => panic!("refused: {error}"),
        }
        self.wake_at = Some(now);
    }

    /// The DEL of a pod.
    pub(crate) fn del(&mut self, id: u32) {
        let Some(pod) = self.pods.remove(&id) else { return };
        self.tell(|| format!("pod {id} is deleted"));
        if let Some(lease) = &pod.lease {
            self.released.insert(lease.address, self.now);
        }
        self.deletions.push(pod.key);
        self.deliver_deletions();
    }

    fn deliver_deletions(&mut self) {
        let (now, clock) = (self.now, self.clock());
        while let Some(key) = self.deletions.first().cloned() {
            let Some(machine) = self.machine.as_mut() else { return };
            machine.release(&key, clock);
            let records = machine.take_records();
            let grants = machine.take_grants();
            if self.write(&records) {
                return;
            }
            self.deletions.remove(0);
            self.grant(grants);
            self.wake_at = Some(now);
        }
    }

    fn grant(&mut self, grants: Vec<(WaiterId, Result<Lease, enipool_agent::engine::AcquireError>)>) {
        for (waiter, result) in grants {
            let id = self.pods.iter().find(|(_, pod)| pod.waiter == Some(waiter)).map(|(id, _)| *id);
            if let (Some(id), Ok(lease)) = (id, result) {
                self.runs(id, lease);
            }
        }
    }

    // ---- the process -----------------------------------------------------------------------------------------------

    /// Whether the process dies here.
    fn dies(&mut self) -> bool {
        if self.crash > 0 && self.dice.below(1000) < self.crash {
            self.kill();
            return true;
        }
        false
    }

    pub(crate) fn kill(&mut self) {
        if self.machine.take().is_none() {
            return;
        }
        self.tell(|| "the process dies".into());
        self.crashes += 1;
        self.wake_at = None;
        // The runtime sees its ADDs fail and cleans up after those sandboxes.
        let lost: Vec<u32> = self.pods.iter().filter(|(_, pod)| pod.lease.is_none()).map(|(id, _)| *id).collect();
        for id in lost {
            self.del(id);
        }
        let after = Duration::from_millis(u64::from(self.dice.below(8000)));
        self.schedule(after, Due::Restart);
    }

    /// Appends records; true: the process died at it, perhaps in the middle of one.
    fn write(&mut self, records: &[Record]) -> bool {
        if records.is_empty() {
            return false;
        }
        for record in records {
            self.tell(|| format!("journal: {record:?}").chars().take(300).collect());
        }
        let text: String = records.iter().map(|record| record.encode().unwrap()).collect();
        if self.crash > 0 && self.dice.below(1000) < self.crash {
            let whole = u32::try_from(text.len()).unwrap();
            let cut = self.dice.below(whole + 1) as usize;
            self.journal.extend_from_slice(&text.as_bytes()[..cut]);
            self.kill();
            return true;
        }
        self.journal.extend_from_slice(text.as_bytes());
        if self.journal.len() > self.compact_at
            && let Some(machine) = &self.machine
        {
            let records = machine.recovered().records(self.clock(), SETTLING);
            self.journal = records.iter().map(|record| record.encode().unwrap()).collect::<String>().into_bytes();
        }
        self.dies()
    }

    fn step(&mut self) {
        let (now, clock) = (self.now, self.clock());
        let Some(machine) = self.machine.as_mut() else { return };
        let Effects { records, grants, starts, wake_at } = machine.step(clock);
        self.wake_at = wake_at.map(|at| now.plus(at.since(clock)));
        if self.write(&records) {
            return;
        }
        self.grant(grants);
        for (id, op) in starts {
            if self.dies() {
                return;
            }
            self.tell(|| format!("{id:?} {}", op.text()));
            let after = Duration::from_millis(u64::from(self.dice.below(400)));
            let life = self.life;
            self.schedule(after, Due::Arrives(life, id, op));
        }
    }

    fn restart(&mut self) {
        self.life += 1;
        self.tell(|| "the process starts".into());
        if self.dice.below(6) == 0 {
            let back = Duration::from_millis(self.dice.next() % 3_600_000);
            self.skew = self.skew.saturating_sub(back);
        }
        let asked_at = self.clock();
        let look = Look::Attached(self.instance.clone());
        let described = match block_on(self.ec2.describe_network_interfaces(&look.filter())) {
            Ok(described) => Described::By(described),
            Err(_) if !self.journal.is_empty() && self.dice.below(2) == 0 => Described::NotYet(self.hints()),
            Err(error) => {
                self.tell(|| format!("the start's describe fails: {error}"));
                self.schedule(Duration::from_millis(500), Due::Restart);
                return;
            }
        };
        let reading = record::read(&self.journal);
        assert_eq!(reading.damaged, 0, "a crash damages nothing but the journal's end");
        let recovered = Recovered::from_records(reading.records);
        self.tell(|| format!("recovered: taken {:?}, releasing {:?}", recovered.taken, recovered.releasing));
        let host = HostView {
            pods: self
                .pods
                .iter()
                .filter_map(|(id, pod)| {
                    Some(HostPod { address: pod.lease.as_ref()?.address, host_ifname: format!("eni{id}") })
                })
                .collect(),
            links: self.links(),
        };
        let config = self.first_config();
        let start = Start { me: self.me(), config, recovered, described, asked_at, host, seed: self.dice.next() };
        let machine = Machine::begin(start, self.clock());
        let mut records = vec![machine.opening(self.clock())];
        records.extend(machine.recovered().records(self.clock(), SETTLING).into_iter().skip(1));
        self.journal = records.iter().map(|record| record.encode().unwrap()).collect::<String>().into_bytes();
        for pod in self.pods.values() {
            let Some(lease) = &pod.lease else { continue };
            let held = machine.ledger().lookup(&pod.key).unwrap_or_else(|| panic!("{:?} lost its lease", pod.key));
            assert_eq!(held.address, lease.address, "{:?} has another address after a restart", pod.key);
        }
        self.machine = Some(machine);
        self.wake_at = Some(self.now);
        self.deliver_deletions();
    }

    /// What was kept of the last word. Where that file is lost: the flags, until somebody speaks.
    fn first_config(&mut self) -> EffectiveConfig {
        if self.dice.below(4) > 0 {
            return self.config.clone();
        }
        let after = Duration::from_millis(self.dice.one_of(&[100, 3000, 30_000]));
        self.schedule(after, Due::Word(self.life));
        EffectiveConfig { awaits_word: true, ..self.flags.clone() }
    }

    // ---- outside ---------------------------------------------------------------------------------------------------

    fn arrives(&mut self, op: &Op) -> Option<Done> {
        self.check_harmless(op);
        let ec2 = &self.ec2;
        Some(match op {
            Op::Look(look) => Done::Enis(block_on(ec2.describe_network_interfaces(&look.filter()))),
            Op::DescribeSubnets(ids) => Done::Subnets(block_on(ec2.describe_subnets(&by_id(ids)))),
            Op::Create(request) => Done::Created(block_on(ec2.create_network_interface(request))),
            Op::Attach { eni, instance, device_index } => {
                Done::Attached(block_on(ec2.attach_network_interface(eni, instance, *device_index)))
            }
            Op::SetDeleteOnTermination { eni, attachment } => {
                Done::Changed(block_on(ec2.set_delete_on_termination(eni, attachment, true)))
            }
            Op::SetSecurityGroups { eni, groups } => Done::Changed(block_on(ec2.set_security_groups(eni, groups))),
            Op::Assign { eni, supply } => Done::Assigned(block_on(ec2.assign(eni, *supply))),
            Op::Unassign { eni, addresses, prefixes } => {
                Done::Changed(block_on(ec2.unassign(eni, addresses, prefixes)))
            }
            Op::Detach { attachment, force, .. } => {
                Done::Changed(block_on(ec2.detach_network_interface(attachment, *force)))
            }
            Op::Delete { eni } => Done::Changed(block_on(ec2.delete_network_interface(eni))),
            Op::Apply(picture) => {
                self.host = picture.clone();
                Done::Applied(Ok(()))
            }
            Op::AwaitLink { mac, .. } => {
                if !self.links().contains(mac) {
                    return None;
                }
                Done::Link(Ok(()))
            }
            Op::Hint => Done::Hint(Ok(self.hints())),
        })
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    /// What the node's clock shows.
    pub(crate) fn clock(&self) -> Timestamp {
        self.now.plus(self.skew)
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.seq += 1;
        self.due.insert((self.now.plus(after), self.seq), due);
    }

    /// Lets time pass, with everything that happens in it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 200_000, "the machine does not come to rest");
            let woken = self.wake_at.filter(|_| self.machine.is_some());
            let due = self.due.first_key_value().map(|((at, _), _)| *at);
            let next = [woken, due].into_iter().flatten().min().filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            let now = self.now;
            self.shared.with(|model| model.advance(now));
            if due.is_some_and(|due| due <= now) {
                self.happens();
            } else {
                self.step();
            }
        }
        self.now = end;
        self.shared.with(|model| model.advance(end));
    }

    fn happens(&mut self) {
        let Some((_, due)) = self.due.pop_first() else { return };
        match due {
            Due::Arrives(life, id, op) => {
                // What was sent before a crash may still arrive: nobody takes it back.
                let local = op.action().is_none();
                if life != self.life && (local || self.dice.below(4) == 0) {
                    return;
                }
                if local && self.machine.is_none() {
                    return;
                }
                match self.arrives(&op) {
                    Some(done) => {
                        self.tell(|| format!("{id:?} {} -> {}", op.text(), outcome(&done)));
                        let after = Duration::from_millis(u64::from(self.dice.below(600)));
                        self.schedule(after, Due::Answers(life, id, done));
                    }
                    None => self.schedule(Duration::from_millis(200), Due::Arrives(life, id, op)),
                }
            }
            Due::Answers(life, id, done) => {
                if life == self.life && self.machine.is_some() && !self.dies() {
                    let (now, clock) = (self.now, self.clock());
                    if let Some(machine) = self.machine.as_mut() {
                        machine.done(id, done, clock);
                        self.wake_at = Some(now);
                    }
                }
            }
            Due::Word(life) => {
                if life == self.life {
                    self.configure(self.config.clone());
                }
            }
            Due::Restart => {
                if self.machine.is_none() {
                    self.restart();
                }
            }
        }
    }

    pub(crate) fn configure(&mut self, config: EffectiveConfig) {
        self.config = config.clone();
        if let Some(machine) = self.machine.as_mut() {
            machine.set_config(config);
            self.wake_at = Some(self.now);
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.pods.values().filter(|pod| pod.waiter.is_some()).count()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    pub(crate) fn decision(&mut self) -> String {
        let now = self.now;
        self.machine
            .as_mut()
            .map_or_else(String::new, |machine| machine.snapshot(enipool_agent::engine::Phase::Serving, now).decision)
    }
}

fn outcome(done: &Done) -> String {
    match done.ec2_error() {
        Some(Ec2Error { kind, .. }) => kind.label().to_owned(),
        None => match done {
            Done::Enis(Ok(enis)) => format!("{} interfaces", enis.len()),
            Done::Created(Ok(eni)) => eni.id.to_string(),
            _ => "ok".to_owned(),
        },
    }
}
