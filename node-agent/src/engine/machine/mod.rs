//! The pool as a state machine without I/O: events go in, effects come out, time is an argument.
//!
//! Whoever drives it writes the records of an [`Effects`] to the journal first, then hands out the grants and starts
//! the operations. A crash at any point in between must leave no address with two owners and no interface that
//! nobody knows: that is what the soak tests try.

mod act;
mod complete;
mod entry;
mod host;
mod look;
mod op;
mod picture;
mod pods;
mod restore;
mod show;
mod subnets;
mod surroundings;
mod taking;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use enipool_pool::budget::Fuse;
use enipool_pool::capacity::Capacity;
use enipool_pool::ec2::{Action, Ec2ErrorKind, Tags};
use enipool_pool::eni::SETTLING;
use enipool_pool::ledger::record::{Record, Recovered, Taken};
use enipool_pool::ledger::{AttachmentKey, Lease, Ledger, PodRef};
use enipool_pool::node::{Plan, PlannerMemory};
use enipool_pool::{
    ClientToken, EniId, InstanceId, InstanceType, MacAddress, SecurityGroupId, SubnetCidr, SubnetId, Timestamp, Zone,
};
use ipnet::Ipv4Net;

use super::config::EffectiveConfig;
use super::error::AcquireError;
use super::port::HostPicture;
use super::view::{CallCounts, Ec2ErrorView, Notice};
use entry::{Creation, Entry, Foreign};
pub use op::{Done, Look, Op, OpId, by_id};
pub use pods::Acquire;
pub use restore::{Described, Start};
use subnets::SubnetLookup;

/// ADDs that may wait at once: more pods than any instance holds.
pub const MAX_WAITING: usize = 1024;
/// An attached interface whose link the kernel does not show for so long is given up.
const LINK_TIMEOUT: Duration = Duration::from_secs(120);
/// How often IMDS is read for hints that somebody else changed something.
const HINT_EVERY: Duration = Duration::from_secs(60);
/// When, after a start without a journal, EC2 is asked for unattached leftovers of this instance. Once, and off the way
/// of the first pods.
const ORPHANS_AFTER: Duration = Duration::from_secs(600);
/// How long a class must have chosen its subnets before interfaces elsewhere are given up for them: what is found while
/// a class is being edited, or an operator starts, may be half of it.
const RETIRE_AFTER: Duration = Duration::from_secs(60);
/// How long after the start what is not pods' demand waits for the first word of ENIPool and class, where one is expected.
/// A word comes within a second or two; without one the flags decide.
const FIRST_WORD: Duration = Duration::from_secs(10);
const MAX_NOTICES: usize = 64;

/// The node, as it was told at the start. While the agent runs only the VPC's ranges and the primary's security groups
/// follow IMDS.
#[derive(Debug, Clone)]
pub struct Me {
    pub node: String,
    /// Name of the cluster, for tags; may be empty.
    pub cluster: String,
    pub instance: InstanceId,
    pub instance_type: InstanceType,
    pub zone: Zone,
    pub region: String,
    pub primary_ip: Ipv4Addr,
    pub primary_mac: MacAddress,
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Subnet and security groups of the primary interface: where new ones go unless told otherwise.
    pub subnet: SubnetId,
    pub subnet_cidr: SubnetCidr,
    pub security_groups: Vec<SecurityGroupId>,
    pub capacity: Capacity,
}

/// Names one waiting ADD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

#[derive(Debug, Clone)]
struct Waiter {
    id: WaiterId,
    key: AttachmentKey,
    pod: PodRef,
    since: Timestamp,
}

/// What is to be done outside, in this order: records, grants, starts.
#[derive(Debug, Default)]
pub struct Effects {
    pub records: Vec<Record>,
    pub grants: Vec<(WaiterId, Result<Lease, AcquireError>)>,
    pub starts: Vec<(OpId, Op)>,
    /// Call [`Machine::step`] again at this time even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Running {
    op: Op,
    since: Timestamp,
}

/// What the host is set up for.
#[derive(Debug, Default)]
struct Host {
    applied: Option<HostPicture>,
    /// It has to be set up again even for the same picture: an interface that serves has got more, or a try failed
    /// halfway.
    stale: bool,
    retry_at: Option<Timestamp>,
    failures: u32,
    /// What the kernel said when it refused last.
    refused: Option<String>,
}

#[derive(Debug, Default)]
struct Timers {
    look: Option<Timestamp>,
    look_failures: u32,
    hint: Option<Timestamp>,
    hint_mismatches: u32,
    orphans: Option<Timestamp>,
}

/// The pool of one node. See the module.
#[derive(Debug)]
pub struct Machine {
    me: Me,
    config: Arc<EffectiveConfig>,
    ledger: Ledger,
    memory: PlannerMemory,
    enis: BTreeMap<EniId, Entry>,
    foreign: BTreeMap<EniId, Foreign>,
    creations: BTreeMap<ClientToken, Creation>,
    running: BTreeMap<OpId, Running>,
    waiters: VecDeque<Waiter>,
    taken: Vec<Taken>,
    gone: BTreeMap<EniId, Timestamp>,
    /// The sets of security groups that the primary has had, its present one last.
    primary_groups: Vec<BTreeSet<SecurityGroupId>>,
    /// Leases of the journal whose pods the kernel did not show at the start, and of which no runtime has spoken since.
    unseen: BTreeSet<AttachmentKey>,
    /// Addresses of adopted and unseen pods of which the kernel had nothing at the last look.
    gone_once: BTreeSet<Ipv4Addr>,
    subnets: BTreeMap<SubnetId, SubnetCidr>,
    subnet_lookup: SubnetLookup,
    /// The subnets of the class, and since when they are these.
    class_subnets: (Option<BTreeSet<SubnetId>>, Timestamp),
    /// Device indexes that EC2 says are taken by something that we do not see, and until when that is believed.
    busy_indexes: BTreeMap<u32, Timestamp>,
    host: Host,
    timers: Timers,
    plan: Plan,
    /// EC2 has not answered since the start: nothing is changed there, pods live on what journal and IMDS agree upon.
    blind: bool,
    /// An operator has guided this node, since the start or before it.
    had_operator: bool,
    /// How long to wait for somebody's word on what the node should hold, where one is expected.
    word_by: Timestamp,
    fuse: Fuse,
    /// When the fuse lets through again what it held back.
    blown: Option<Timestamp>,
    calls: BTreeMap<Action, CallCounts>,
    last_ec2_error: Option<Ec2ErrorView>,
    notices: VecDeque<Notice>,
    generation: u64,
    next_id: u64,
    random: u64,
    out: Effects,
}

impl Machine {
    /// Settles everything that can be settled at `now`, and says what is to be done outside.
    pub fn step(&mut self, now: Timestamp) -> Effects {
        self.ledger.expire(now);
        self.forget(now);
        if self.class_subnets.0 != self.config.class_subnets {
            self.class_subnets = (self.config.class_subnets.clone(), now);
        }
        self.serve(now);
        self.advance(now);
        self.learn_subnets(now);
        self.set_up_host(now);
        self.plan(now);
        let mut out = std::mem::take(&mut self.out);
        out.wake_at = self.wake_at(now);
        out
    }

    /// The configuration from now on.
    pub fn set_config(&mut self, config: EffectiveConfig) {
        self.ledger.set_cooldown(config.cooldown);
        self.config = Arc::new(config);
        self.prefer();
    }

    pub fn config(&self) -> Arc<EffectiveConfig> {
        Arc::clone(&self.config)
    }

    /// Until when somebody's word on what the node should hold is waited for; `None`: no longer.
    fn awaits_word(&self, now: Timestamp) -> Option<Timestamp> {
        (self.config.awaits_word && now < self.word_by).then_some(self.word_by)
    }

    /// What EC2 says the instance's type holds, from now on.
    pub fn set_capacity(&mut self, capacity: Capacity, now: Timestamp) {
        if capacity == self.me.capacity {
            return;
        }
        let Capacity { max_enis, slots_per_eni, .. } = capacity;
        let text = format!(
            "EC2 says that {} has {max_enis} interfaces of {slots_per_eni} slots; the bundled table said {} of {}",
            self.me.instance_type, self.me.capacity.max_enis, self.me.capacity.slots_per_eni
        );
        self.notice(now, "CapacityDiffers", text);
        self.me.capacity = capacity;
        self.fuse = Fuse::new(max_enis, now);
        self.prefer();
    }

    /// Whether leases can be given: the host has been set up for what EC2 gave.
    pub fn is_serving(&self) -> bool {
        self.host.applied.is_some()
    }

    pub fn me(&self) -> &Me {
        &self.me
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Everything that must be known after a crash, for the compacted journal.
    pub fn recovered(&self) -> Recovered {
        let mut sum = Recovered { instance: Some(self.me.instance.clone()), ..Recovered::default() };
        for (key, pod, lease) in self.ledger.leases() {
            let lease = enipool_pool::ledger::record::RecordedLease {
                pod: pod.clone(),
                address: lease.address,
                eni: lease.eni,
                at: lease.since,
            };
            sum.leases.insert(key.clone(), lease);
        }
        sum.cooling = self.ledger.cooling().collect();
        for creation in self.creations.values() {
            sum.intents.insert(creation.intent.id.clone(), (creation.intent.clone(), None));
        }
        for (id, entry) in &self.enis {
            let mut holdings = entry.holdings.clone();
            if !entry.stage.is_attached() {
                // Not before EC2 says so: it would be taken for one that was attached and has vanished.
                holdings.device_index = None;
            }
            sum.holdings.insert(id.clone(), (holdings, entry.changed_at));
            if entry.stage.is_leaving() {
                sum.releasing.insert(id.clone());
            }
        }
        sum.taken.clone_from(&self.taken);
        sum.gone.clone_from(&self.gone);
        // Also while the question is under way: only its answer settles it.
        let asked = self.running.values().find(|running| matches!(running.op, Op::Look(Look::Orphans(_))));
        sum.leftovers = self.timers.orphans.or_else(|| asked.map(|running| running.since));
        sum.primary_groups.clone_from(&self.primary_groups);
        sum
    }

    /// Counts a call that was made before the machine began.
    pub fn count_call(&mut self, action: Action) {
        let counts = self.calls.entry(action).or_default();
        counts.calls = counts.calls.saturating_add(1);
    }

    /// Whether a call that changes something is under way.
    pub fn is_mutating(&self) -> bool {
        self.running.values().any(|running| running.op.action().is_some_and(Action::is_mutation))
    }

    /// Operations that were not started after all, since their records could not be written: as if refused.
    pub fn not_started(&mut self, starts: Vec<(OpId, Op)>, now: Timestamp) {
        for (id, op) in starts {
            let done = op.unheard(Ec2ErrorKind::Credentials, "not asked: the journal could not be written");
            self.done(id, done, now);
        }
    }

    // ---- small parts -----------------------------------------------------------------------------------------------

    fn start(&mut self, op: Op, now: Timestamp) -> OpId {
        self.next_id = self.next_id.wrapping_add(1);
        let id = OpId(self.next_id);
        if let Some(action) = op.action() {
            let counts = self.calls.entry(action).or_default();
            counts.calls = counts.calls.saturating_add(1);
        }
        self.running.insert(id, Running { op: op.clone(), since: now });
        self.out.starts.push((id, op));
        id
    }

    fn record(&mut self, record: Record) {
        self.out.records.push(record);
    }

    fn record_holdings(&mut self, eni: &EniId) {
        if let Some(entry) = self.enis.get(eni) {
            let record = Record::Holds { eni: eni.clone(), holdings: entry.holdings.clone(), at: entry.changed_at };
            self.record(record);
        }
    }

    fn notice(&mut self, now: Timestamp, kind: &'static str, text: String) {
        tracing::warn!(kind, "{text}");
        if self.notices.len() >= MAX_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(Notice { at: now, kind, text });
    }

    /// Whether an operation that changes (or waits for) the interface is under way.
    fn is_busy(&self, eni: &EniId) -> bool {
        self.running.values().any(|running| running.op.eni() == Some(eni) && running.op.action().is_some())
    }

    fn forget(&mut self, now: Timestamp) {
        self.gone.retain(|_, at| now.since(*at) < SETTLING);
        self.busy_indexes.retain(|_, until| *until > now);
        let busy: BTreeSet<EniId> = self.running.values().filter_map(|running| running.op.eni().cloned()).collect();
        let doubtful: BTreeSet<EniId> =
            self.enis.iter().filter(|(_, entry)| entry.doubtful).map(|(id, _)| id.clone()).collect();
        self.taken.retain(|taken| {
            now.since(taken.at) < SETTLING || busy.contains(&taken.eni) || doubtful.contains(&taken.eni)
        });
    }

    /// A pause that doubles from `first` up to `longest`, give or take a quarter so that nodes do not march in step.
    fn pause(&mut self, failures: u32, first: Duration, longest: Duration) -> Duration {
        let plain = first.saturating_mul(1u32 << failures.min(16)).min(longest);
        plain.mul_f64(0.75 + 0.5 * self.draw())
    }

    /// The next number of a xorshift generator, in [0, 1).
    fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
    }

    fn sooner(slot: &mut Option<Timestamp>, at: Timestamp) {
        *slot = Some(slot.map_or(at, |known| known.min(at)));
    }

    /// What is due and was not done in this step waits for an operation that is under way (its end is the next step) or
    /// for a person: only what lies ahead needs waking.
    fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let releases = self.enis.values().filter(|entry| entry.stage.is_leaving()).filter_map(|entry| entry.retry_at);
        let creations = self.creations.values().filter_map(|creation| creation.retry_at);
        [
            self.ledger.next_expiry(),
            self.timers.look,
            self.timers.hint,
            self.timers.orphans,
            self.host.retry_at,
            self.subnet_lookup.retry_at,
            self.plan.wake_at,
            self.blown,
            self.awaits_word(now),
            self.class_subnets.0.is_some().then(|| self.class_subnets.1.plus(RETIRE_AFTER)),
        ]
        .into_iter()
        .flatten()
        .chain(self.enis.values().filter_map(|entry| entry.groups_retry_at))
        .chain(self.enis.values().filter_map(|entry| entry.link_at))
        .chain(releases)
        .chain(creations)
        .filter(|at| *at > now)
        .min()
    }

    /// Tags of a new interface.
    fn eni_tags(&self, intent: &ClientToken, now: Timestamp) -> Tags {
        let created = jiff::Timestamp::from_millisecond(i64::try_from(now.0).unwrap_or(i64::MAX))
            .map_or_else(|_| now.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let Me { cluster, node, instance, .. } = &self.me;
        enipool_pool::eni::tags(&self.config.eni_tags, cluster, node, instance, intent, &created)
    }
}
