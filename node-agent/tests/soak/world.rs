//! One node in virtual time: the machine, its journal as bytes, the simulated EC2, a kernel, pods that come and go, and
//! a process that may die between any two of its steps.

mod life;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_sim::model::request::RunInstances;
use ec2_sim::{Model, Request, Response, SharedModel, SimConfig, SimEc2};
use enipool_agent::engine::machine::{Acquire, Done, Effects, Machine, Op, OpId, WaiterId, by_id};
use enipool_agent::engine::{AttachmentKey, EffectiveConfig, HostPicture, KernelError, Lease, PodRef};
use enipool_pool::ec2::{Ec2, Ec2Error};
use enipool_pool::ledger::record::Record;
use enipool_pool::{EniId, InstanceId, InstanceType, SubnetId, Timestamp};
use futures::executor::block_on;

use self::life::Written;
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

/// A DEL and what it is about.
#[derive(Debug, Clone)]
struct Deletion {
    id: u32,
    pod: Pod,
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
    /// The journal has no room.
    pub(crate) full: bool,
    /// Something could not be written: everything is, before the next record.
    behind: bool,
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
    deletions: Vec<Deletion>,
    pub(crate) released: HashMap<Ipv4Addr, Timestamp>,
    pub(crate) host: HostPicture,
    /// Chance in a hundred that the kernel refuses to be set up.
    pub(crate) apply_fails: u32,
    /// Until when the wait for a link is to last.
    link_until: BTreeMap<(u32, OpId), Timestamp>,
    /// Addresses that a person took, alone or with their interface: for a while the node cannot know.
    pub(crate) by_hand: BTreeSet<Ipv4Addr>,
    /// Interfaces that a person took.
    pub(crate) enis_by_hand: BTreeSet<EniId>,
    /// Interfaces that a person marked `no_manage`.
    pub(crate) hands_off: BTreeSet<EniId>,
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
            full: false,
            behind: false,
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
            apply_fails: 0,
            link_until: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            enis_by_hand: BTreeSet::new(),
            hands_off: BTreeSet::new(),
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
        match self.write(&records) {
            Written::Done => self.grant(grants),
            Written::Died => return,
            Written::Refused => {
                if let (Acquire::Waits(waiter), Some(machine)) = (&answer, self.machine.as_mut()) {
                    machine.stop_waiting(*waiter);
                }
                self.refuse(&records, grants);
                if pod.lease.is_none() {
                    self.del(id);
                }
                return;
            }
        }
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
        self.deletions.push(Deletion { id, pod });
        self.deliver_deletions();
    }

    pub(crate) fn deliver_deletions(&mut self) {
        let (now, clock) = (self.now, self.clock());
        while let Some(Deletion { pod, .. }) = self.deletions.first().cloned() {
            let Some(machine) = self.machine.as_mut() else { return };
            if machine.release(&pod.key, clock).is_none()
                && let Some(lease) = &pod.lease
            {
                machine.release_adopted(lease.address, clock);
            }
            let records = machine.take_records();
            let grants = machine.take_grants();
            if self.write(&records) != Written::Done {
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

    /// What could not be written down was not granted; the runtime cleans up after such sandboxes.
    fn refuse(
        &mut self,
        unwritten: &[Record],
        grants: Vec<(WaiterId, Result<Lease, enipool_agent::engine::AcquireError>)>,
    ) {
        let Some(machine) = self.machine.as_mut() else { return };
        for record in unwritten {
            if let Record::Assigned { key, .. } = record {
                machine.undo(key);
            }
        }
        for (waiter, _) in grants {
            let id = self.pods.iter().find(|(_, pod)| pod.waiter == Some(waiter)).map(|(id, _)| *id);
            if let Some(id) = id {
                self.del(id);
            }
        }
    }

    fn step(&mut self) {
        let (now, clock) = (self.now, self.clock());
        let Some(machine) = self.machine.as_mut() else { return };
        let Effects { records, grants, starts, wake_at } = machine.step(clock);
        self.wake_at = wake_at.map(|at| now.plus(at.since(clock)));
        match self.write(&records) {
            Written::Done => self.grant(grants),
            Written::Died => return,
            Written::Refused => {
                self.refuse(&records, grants);
                if let Some(machine) = self.machine.as_mut() {
                    machine.not_started(starts, clock);
                }
                self.wake_at = Some(now.plus(Duration::from_secs(1)));
                return;
            }
        }
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

    // ---- outside ---------------------------------------------------------------------------------------------------

    fn arrives(&mut self, op: &Op) -> Option<Done> {
        self.check_harmless(op);
        let refused = self.dice.below(100) < self.apply_fails;
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
            Op::Apply(_) if refused => Done::Applied(Err(KernelError("it is told to refuse".into()))),
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
            Op::Hint | Op::Surroundings => Done::Hint(Ok(self.hints())),
        })
    }

    /// What was sent to EC2 arrives, before anything else happens.
    pub(crate) fn let_calls_arrive(&mut self) {
        for (_, due) in std::mem::take(&mut self.due) {
            match due {
                Due::Arrives(_, _, op) if op.action().is_some() => drop(self.arrives(&op)),
                Due::Restart => self.schedule(Duration::ZERO, Due::Restart),
                Due::Arrives(..) | Due::Answers(..) | Due::Word(_) => {}
            }
        }
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
                if let Some(done) = self.arrives(&op) {
                    self.tell(|| format!("{id:?} {} -> {}", op.text(), outcome(&done)));
                    let after = Duration::from_millis(u64::from(self.dice.below(600)));
                    self.schedule(after, Due::Answers(life, id, done));
                    return;
                }
                let Op::AwaitLink { timeout, .. } = &op else { panic!("{op:?}") };
                let last = self.now.plus(*timeout);
                if self.now < *self.link_until.entry((life, id)).or_insert(last) {
                    self.schedule(Duration::from_millis(200), Due::Arrives(life, id, op));
                } else {
                    self.tell(|| format!("{id:?} {} -> never", op.text()));
                    let never = Done::Link(Err(KernelError("no such link".into())));
                    self.schedule(Duration::ZERO, Due::Answers(life, id, never));
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

    /// Lets the machine take its next step now.
    pub(crate) fn wake(&mut self) {
        self.wake_at = self.machine.as_ref().map(|_| self.now);
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

/// The key under which a pod of that number is adopted from the kernel.
pub(crate) fn adopted(id: u32) -> AttachmentKey {
    AttachmentKey::new("", "kernel", format!("eni{id}"))
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
