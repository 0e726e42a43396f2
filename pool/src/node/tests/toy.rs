//! A node and its EC2 in one: it carries plans out, keeps its own account of addresses, and complains when a plan asks
//! for what it must not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use super::super::*;
pub(crate) use super::slots::Eni;
use super::slots::{State, tally};
use crate::address::Prefix;
use crate::capacity::{Capacity, bundled};
use crate::ec2::{Ec2ErrorKind, Supply};
use crate::id::{EniId, InstanceType, SubnetId};
use crate::targets::{Addressing, Policy, Targets};
use crate::time::Timestamp;

pub(crate) const COOLDOWN: Duration = Duration::from_secs(30);

/// What EC2 has left in a subnet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) addresses: u32,
    pub(crate) prefixes: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Toy {
    pub(crate) now: Timestamp,
    pub(crate) capacity: Capacity,
    pub(crate) policy: Policy,
    pub(crate) max_pods: Option<u32>,
    pub(crate) ceiling: Option<u32>,
    pub(crate) allocation: Option<AllocationView>,
    pub(crate) enis: Vec<Eni>,
    pub(crate) rooms: BTreeMap<SubnetId, Room>,
    pub(crate) memory: PlannerMemory,
    /// Pods without an address, in the order of their arrival.
    pub(crate) waiting: Vec<u32>,
    next_pod: u32,
    next_id: u32,
    latency: Duration,
    /// Actions under way: when EC2 is done, what, and the interface that a creation makes.
    pending: Vec<(Timestamp, Action)>,
    draining: Vec<EniId>,
    closed: Vec<EniId>,
    /// EC2 mutations by name.
    pub(crate) calls: BTreeMap<&'static str, u32>,
    pub(crate) last: Plan,
    /// Answers every call with this error while it is set.
    pub(crate) refuse: Option<Ec2ErrorKind>,
}

/// The same `cases` histories in every ordinary run; others, as many as asked for, with `PROPTEST_CASES` (as `make soak`
/// does), so that what a new one finds is found by who looks for it.
pub(crate) fn histories(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = asked.map_or(RngSeed::Fixed(1), |_: u32| RngSeed::Random);
    ProptestConfig { cases: asked.unwrap_or(cases), rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

pub(crate) fn subnet(n: u32) -> SubnetId {
    format!("subnet-{n}").parse().unwrap()
}

pub(crate) fn policy(targets: Targets) -> Policy {
    Policy { targets, ..Policy::default() }
}

impl Toy {
    /// A fresh instance with its primary interface and an endless subnet.
    pub(crate) fn new(instance_type: &str, policy: Policy) -> Self {
        let limits = bundled(&InstanceType::new(instance_type)).unwrap();
        let mut toy = Self {
            now: Timestamp(1_700_000_000_000),
            capacity: Capacity::new(&limits),
            policy,
            max_pods: None,
            ceiling: None,
            allocation: None,
            enis: Vec::new(),
            rooms: BTreeMap::from([(subnet(1), Room { addresses: 1_000_000, prefixes: 50_000 })]),
            memory: PlannerMemory::new(42),
            waiting: Vec::new(),
            next_pod: 0,
            next_id: 0,
            latency: Duration::from_millis(300),
            pending: Vec::new(),
            draining: Vec::new(),
            closed: Vec::new(),
            calls: BTreeMap::new(),
            last: Plan::default(),
            refuse: None,
        };
        let primary = toy.eni(&subnet(1), 0, EniPhase::Ready);
        toy.enis.push(primary);
        toy
    }

    fn eni(&mut self, subnet: &SubnetId, index: u32, phase: EniPhase) -> Eni {
        self.next_id += 1;
        let view = EniView {
            id: format!("eni-{:04}", self.next_id).parse().unwrap(),
            role: EniRole::Pods,
            phase,
            primary: index == 0,
            device_index: Some(index),
            network_card: 0,
            subnet: subnet.clone(),
            since: self.now,
            delete_on_termination: index == 0,
            singles: Counts::default(),
            singles_leaving: 0,
            prefixes: Vec::new(),
            incoming: Vec::new(),
        };
        Eni { view, singles: Vec::new(), prefixes: Vec::new() }
    }

    /// An interface that somebody else attached.
    pub(crate) fn attach_foreign(&mut self, index: u32) {
        let mut eni = self.eni(&subnet(1), index, EniPhase::Ready);
        eni.view.role = EniRole::Foreign;
        self.enis.push(eni);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let creating = |action: &Action| match action {
            Action::Create { subnet, device_index, supply } => {
                Some(Creating { subnet: subnet.clone(), device_index: *device_index, supply: *supply })
            }
            _ => None,
        };
        Snapshot {
            capacity: self.capacity,
            max_pods: self.max_pods,
            policy: self.policy,
            usage: Usage { waiting: u32::try_from(self.waiting.len()).unwrap(), bound: None },
            allocation: self.allocation.clone(),
            ceiling: self.ceiling,
            enis: self.enis.iter().map(Eni::view).collect(),
            creating: self.pending.iter().filter_map(|(_, action)| creating(action)).collect(),
            subnets: self.rooms.keys().map(|id| SubnetView { id: id.clone(), available: None }).collect(),
        }
    }

    /// Plans once and starts what the plan asks for.
    pub(crate) fn step(&mut self) -> &Plan {
        self.serve();
        let plan = plan(&self.snapshot(), &mut self.memory, self.now);
        self.check(&plan);
        self.draining.clone_from(&plan.draining);
        self.closed.clone_from(&plan.closed);
        for planned in &plan.actions {
            self.begin(&planned.action);
        }
        let again = super::super::plan(&self.snapshot(), &mut self.memory.clone(), self.now);
        // With Mixed, what is under way may change how the rest is best made up.
        let mixed = self.policy.addressing == Addressing::Mixed;
        assert!(mixed || again.actions.is_empty(), "asked twice for what is under way: {plan:?}, then {again:?}");
        self.last = plan;
        self.serve();
        &self.last
    }

    /// Lets time pass, planning whenever something is done or the planner asked to be woken.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now.plus(time);
        for _ in 0..100_000 {
            self.step();
            let done = self.pending.iter().map(|(at, _)| *at);
            let cooled = self.states().filter_map(|s| if let State::Cooling(at) = s { Some(at) } else { None });
            // The next millisecond: a planner that asks to be woken at once must not stop time.
            let soon = Timestamp(self.now.0 + 1);
            let next = done.chain(cooled).chain(self.last.wake_at).map(|at| at.max(soon)).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = at;
            self.finish();
        }
        panic!("the planner never rests: {:?}", self.last);
    }

    /// Runs until nothing is under way and nothing will happen by itself.
    pub(crate) fn settle(&mut self) {
        self.run(Duration::from_mins(10));
        assert!(self.last.actions.is_empty(), "not at rest after ten minutes: {:?}", self.last);
    }

    pub(crate) fn pods(&mut self, count: u32) {
        for _ in 0..count {
            self.waiting.push(self.next_pod);
            self.next_pod += 1;
        }
        self.serve();
    }

    /// Ends `count` pods, the `nth` first, so that callers can choose which.
    pub(crate) fn end(&mut self, nth: u32, count: u32) {
        for _ in 0..count {
            let live: Vec<u32> =
                self.states().filter_map(|s| if let State::Assigned(pod) = s { Some(pod) } else { None }).collect();
            if live.is_empty() {
                return;
            }
            self.end_pod(live[nth as usize % live.len()]);
        }
    }

    fn end_pod(&mut self, pod: u32) {
        let until = self.now.plus(COOLDOWN);
        for state in self.enis.iter_mut().flat_map(Eni::states_mut) {
            if *state == State::Assigned(pod) {
                *state = State::Cooling(until);
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.enis.iter().map(|eni| eni.view().addresses()).fold(Counts::default(), Counts::plus)
    }

    /// Free addresses on interfaces that are to run empty: they are going, and have been replaced before.
    pub(crate) fn free_on_draining(&self) -> u32 {
        let draining = self.enis.iter().filter(|eni| self.last.draining.contains(&eni.view.id));
        draining.map(|eni| eni.view().addresses().free).sum()
    }

    pub(crate) fn total_calls(&self) -> u32 {
        self.calls.values().sum()
    }

    /// Interfaces of the pool that are attached.
    pub(crate) fn attached(&self) -> usize {
        self.enis.iter().filter(|eni| eni.view.role != EniRole::Foreign).count()
    }

    /// Addresses on each interface, the primary first.
    pub(crate) fn per_eni(&self) -> Vec<u32> {
        self.enis.iter().map(|eni| eni.view().addresses().total()).collect()
    }

    /// What each interface holds, for the message of a test that fails.
    pub(crate) fn tell(&self) -> Vec<String> {
        let tell = |eni: &Eni| {
            let EniView { id, phase, singles, prefixes, .. } = eni.view();
            let prefixes: Vec<_> = prefixes.iter().map(|prefix| prefix.counts).collect();
            format!("{id} {phase:?}, singles {singles:?}, prefixes {prefixes:?}")
        };
        self.enis.iter().map(tell).collect()
    }

    pub(crate) fn prefixes(&self) -> usize {
        self.enis.iter().map(|eni| eni.prefixes.len()).sum()
    }

    pub(crate) fn singles(&self) -> usize {
        self.enis.iter().map(|eni| eni.singles.len()).sum()
    }

    fn states(&self) -> impl Iterator<Item = State> + '_ {
        self.enis.iter().flat_map(|eni| eni.singles.iter().chain(eni.prefixes.iter().flat_map(|(_, s)| s)).copied())
    }

    /// Hands free addresses to waiting pods by the ledger's rule.
    fn serve(&mut self) {
        for state in self.enis.iter_mut().flat_map(Eni::states_mut) {
            if matches!(state, State::Cooling(until) if *until <= self.now) {
                *state = State::Free;
            }
        }
        while !self.waiting.is_empty() {
            let addressing = self.capacity.addressing(self.policy.addressing);
            let mut best: Option<(Preference, usize, Option<usize>)> = None;
            for (at, eni) in self.enis.iter().enumerate() {
                let closed = eni.view.role == EniRole::Foreign || self.closed.contains(&eni.view.id);
                if eni.view.phase != EniPhase::Ready || closed {
                    continue;
                }
                let fit = EniFit {
                    primary: eni.view.primary,
                    draining: self.draining.contains(&eni.view.id),
                    device_index: eni.view.device_index.unwrap(),
                    held: eni.view().addresses().held(),
                };
                if eni.singles.contains(&State::Free) {
                    best = best.max(Some((preference(fit, SlotFit::Single, addressing), at, None)));
                }
                for (nth, (_, states)) in eni.prefixes.iter().enumerate() {
                    if states.contains(&State::Free) {
                        let slot = SlotFit::Prefix { held: tally(states).held() };
                        best = best.max(Some((preference(fit, slot, addressing), at, Some(nth))));
                    }
                }
            }
            let Some((_, at, nth)) = best else { return };
            let pod = self.waiting.remove(0);
            let eni = &mut self.enis[at];
            let states = match nth {
                None => &mut eni.singles[..],
                Some(nth) => &mut eni.prefixes[nth].1[..],
            };
            *states.iter_mut().find(|state| **state == State::Free).unwrap() = State::Assigned(pod);
        }
    }

    fn find(&mut self, id: &EniId) -> &mut Eni {
        self.enis.iter_mut().find(|eni| eni.view.id == *id).unwrap()
    }

    /// What a plan must never ask for.
    fn check(&self, plan: &Plan) {
        let mut unassigned = BTreeSet::new();
        for planned in &plan.actions {
            let Some(id) = planned.action.eni() else { continue };
            let eni = self.enis.iter().find(|eni| eni.view.id == *id).expect("an interface that exists");
            assert_ne!(eni.view.role, EniRole::Foreign, "{planned:?} touches a foreign interface");
            match &planned.action {
                Action::Release { .. } => {
                    assert!(!eni.view.primary, "the primary cannot be given back");
                    assert_eq!(eni.view().addresses().held(), 0, "{planned:?} would take a pod's or a cooling address");
                }
                Action::Unassign { singles, prefixes, .. } => {
                    assert!(unassigned.insert(id), "two Unassigns of {id} may take the same addresses: {plan:?}");
                    assert!(*singles <= eni.view().singles.free, "{planned:?}");
                    for prefix in prefixes {
                        let (_, states) = eni.prefixes.iter().find(|(p, _)| p == prefix).unwrap();
                        assert_eq!(tally(states).free, 16, "{planned:?} would take an address in use");
                    }
                }
                _ => {}
            }
        }
    }

    fn begin(&mut self, action: &Action) {
        match action {
            Action::Assign { eni, supply } => self.find(eni).view.incoming.push(*supply),
            Action::Attach { eni, device_index } => {
                let eni = self.find(eni);
                eni.view.phase = EniPhase::Attaching;
                eni.view.device_index = Some(*device_index);
            }
            Action::Unassign { eni, singles, prefixes } => {
                let eni = self.find(eni);
                let free = eni.singles.iter_mut().rev().filter(|state| **state == State::Free);
                free.take(*singles as usize).for_each(|state| *state = State::Leaving);
                for (prefix, states) in &mut eni.prefixes {
                    if prefixes.contains(prefix) {
                        *states = [State::Leaving; 16];
                    }
                }
            }
            Action::Release { eni } => self.find(eni).view.phase = EniPhase::Releasing,
            Action::SetDeleteOnTermination { eni } => self.find(eni).view.delete_on_termination = true,
            Action::Create { device_index, .. } => {
                let used = self.enis.iter().any(|eni| eni.view.device_index == Some(*device_index));
                assert!(!used, "device index {device_index} is taken");
            }
        }
        self.pending.push((self.now.plus(self.latency), action.clone()));
    }

    fn finish(&mut self) {
        let now = self.now;
        let (done, pending) = std::mem::take(&mut self.pending).into_iter().partition(|(at, _)| *at <= now);
        self.pending = pending;
        let done: Vec<(Timestamp, Action)> = done;
        for (_, action) in done {
            let subnet = match &action {
                Action::Create { subnet, .. } => subnet.clone(),
                other => self.find(other.eni().unwrap()).view.subnet.clone(),
            };
            match self.answer(&action, &subnet) {
                Ok(()) => self.memory.succeeded(&action, Some(&subnet)),
                Err(error) => self.memory.refused(&action, Some(&subnet), &error, now),
            }
            self.within_limits();
        }
    }

    fn call(&mut self, name: &'static str) {
        *self.calls.entry(name).or_default() += 1;
    }

    fn take(&mut self, subnet: &SubnetId, supply: Supply, primary: u32) -> Result<(), Ec2ErrorKind> {
        if let Some(error) = &self.refuse {
            return Err(error.clone());
        }
        let room = self.rooms.get_mut(subnet).unwrap();
        match supply {
            Supply::Addresses(n) if room.addresses < n + primary => Err(Ec2ErrorKind::SubnetExhausted),
            Supply::Prefixes(n) if room.prefixes < n => Err(Ec2ErrorKind::NoContiguousPrefix),
            Supply::Addresses(n) => {
                room.addresses -= n + primary;
                Ok(())
            }
            Supply::Prefixes(n) => {
                room.prefixes -= n;
                Ok(())
            }
        }
    }

    fn answer(&mut self, action: &Action, subnet: &SubnetId) -> Result<(), Ec2ErrorKind> {
        match action {
            Action::Assign { eni, supply } => {
                self.call("Assign");
                let incoming = &mut self.find(eni).view.incoming;
                let at = incoming.iter().position(|coming| coming == supply).unwrap();
                incoming.remove(at);
                self.take(subnet, *supply, 0)?;
                self.grant(eni, *supply);
            }
            Action::Create { device_index, supply, .. } => {
                self.call("Create");
                self.take(subnet, *supply, 1)?;
                self.call("Attach");
                let eni = self.eni(subnet, *device_index, EniPhase::Ready);
                let id = eni.view.id.clone();
                self.enis.push(eni);
                self.grant(&id, *supply);
            }
            Action::Attach { eni, .. } => {
                self.call("Attach");
                let now = self.now;
                let eni = self.find(eni);
                eni.view.phase = EniPhase::Ready;
                eni.view.since = now;
            }
            Action::Unassign { eni, prefixes, .. } => {
                self.call("Unassign");
                let eni = self.find(eni);
                let before = eni.singles.len();
                eni.singles.retain(|state| *state != State::Leaving);
                let singles = u32::try_from(before - eni.singles.len()).unwrap();
                eni.prefixes.retain(|(prefix, _)| !prefixes.contains(prefix));
                let room = self.rooms.get_mut(subnet).unwrap();
                room.addresses += singles;
                room.prefixes += u32::try_from(prefixes.len()).unwrap();
            }
            Action::Release { eni } => {
                self.call("Detach");
                self.call("Delete");
                self.enis.retain(|other| other.view.id != *eni);
            }
            Action::SetDeleteOnTermination { .. } => self.call("Modify"),
        }
        Ok(())
    }

    fn grant(&mut self, id: &EniId, supply: Supply) {
        let mut next = self.next_id;
        let eni = self.find(id);
        match supply {
            Supply::Addresses(n) => eni.singles.extend((0..n).map(|_| State::Free)),
            Supply::Prefixes(n) => {
                for _ in 0..n {
                    next += 1;
                    let first = Ipv4Addr::from_bits((10 << 24) + next * Prefix::SIZE);
                    eni.prefixes.push((Prefix::containing(first), [State::Free; 16]));
                }
            }
        }
        self.next_id = next;
    }

    fn within_limits(&self) {
        let on_card = self.enis.iter().filter(|eni| eni.view.network_card == 0).count();
        let on_card = u32::try_from(on_card).unwrap();
        assert!(on_card <= self.capacity.max_enis, "{on_card} interfaces on the instance");
        for eni in &self.enis {
            if eni.view.role == EniRole::Foreign {
                continue;
            }
            let slots = u32::try_from(eni.singles.len() + eni.prefixes.len()).unwrap();
            assert!(slots <= self.capacity.slots_per_eni, "{slots} slots on {}", eni.view.id);
        }
    }
}
