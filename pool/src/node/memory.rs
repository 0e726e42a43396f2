//! What the planner remembers from one plan to the next: how much was needed lately, and what EC2 refused.
//!
//! Losing it is safe: the next plan starts from what the node holds and finds out again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::{Action, HoldReason};
use crate::ec2::{Ec2ErrorKind, Supply};
use crate::id::SubnetId;
use crate::targets::Policy;
use crate::time::Timestamp;

/// How long less must have been needed before anything is given back.
pub const RETURN_AFTER: Duration = Duration::from_mins(1);
/// Resolution of that window.
const STEP: Duration = Duration::from_secs(5);
/// Time between two rounds of giving back: what becomes superfluous in between goes in one call.
pub(super) const RETURN_GAP: Duration = Duration::from_secs(30);

/// A node that plans for itself because the operator is away spreads what is not urgent over up to this time: all its
/// neighbours do the same, and nobody tells them whose turn it is.
const ALONE_PAUSE: Duration = Duration::from_secs(30);

/// First and longest pause after a refusal, doubled each time.
#[derive(Clone, Copy)]
struct Pause(Duration, Duration);
/// Nobody frees addresses within milliseconds; the AWS plugin pauses two minutes as well.
const SUBNET: Pause = Pause(Duration::from_mins(2), Duration::from_mins(10));
/// For a person to change (IAM, quota), or for our view of the instance to be corrected.
const REFUSED: Pause = Pause(Duration::from_mins(1), Duration::from_mins(10));
const TRANSIENT: Pause = Pause(Duration::from_secs(1), Duration::from_mins(1));
/// An interface that EC2 made a moment ago and does not know everywhere yet: pods wait for it, mostly for less than a
/// second more, and nothing but another try tells that it is known.
const NOT_YET_KNOWN: Pause = Pause(Duration::from_millis(100), Duration::from_mins(1));
const NOT_RUNNING: Pause = Pause(Duration::from_secs(15), Duration::from_mins(1));

/// Calls that are refused together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    /// Every call of this node.
    Any,
    Assign,
    /// Creation and attachment.
    Attach,
    Unassign,
    Release,
    SetDeleteOnTermination,
}

impl Call {
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Assign { .. } => Self::Assign,
            Action::Create { .. } | Action::Attach { .. } => Self::Attach,
            Action::Unassign { .. } => Self::Unassign,
            Action::Release { .. } => Self::Release,
            Action::SetDeleteOnTermination { .. } => Self::SetDeleteOnTermination,
        }
    }
}

/// What a slot is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Single,
    Prefix,
}

impl Kind {
    fn of(supply: Supply) -> (Self, u32) {
        match supply {
            Supply::Addresses(count) => (Self::Single, count),
            Supply::Prefixes(count) => (Self::Prefix, count),
        }
    }
}

/// A refusal and until when it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) reason: HoldReason,
    pub(super) until: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    block: Block,
    failures: u32,
    /// EC2 grants a call in whole or not at all: after a refusal, ask for at most this much.
    at_most: Option<u32>,
}

/// The planner's memory. One per node; never shared, never persisted.
#[derive(Debug, Clone, Default)]
pub struct PlannerMemory {
    seed: u64,
    peaks: Peaks,
    policy: Option<Policy>,
    calls: BTreeMap<Call, Refusal>,
    subnets: BTreeMap<(SubnetId, Kind), Refusal>,
    pub(super) warm_short_since: Option<Timestamp>,
    /// While the operator is away: when the next growth may be that no pod waits for.
    cautious_until: Option<Timestamp>,
    /// Until when, at the latest, somebody is expected to say what the node should hold.
    word_until: Option<Timestamp>,
    pub(super) last_return: Option<Timestamp>,
}

impl PlannerMemory {
    /// `seed` spreads the pauses of different nodes; derive it from the node's name or instance.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Tells that the operator is away (or back). While it is, warm addresses are fetched at a cautious pace, at times
    /// that differ from node to node; what pods need now is not slowed down.
    pub fn set_alone(&mut self, alone: bool, now: Timestamp) {
        match (alone, self.cautious_until) {
            (true, None) => self.cautious_until = Some(now.plus(self.spread(ALONE_PAUSE, now))),
            (false, Some(_)) => self.cautious_until = None,
            _ => {}
        }
    }

    /// Tells until when, at the latest, to wait for somebody to say what the node should hold; `None`: somebody has. Till
    /// then nothing is fetched that no pod waits for, and the policy is nobody's: the one that follows is the first, and no
    /// change of mind after which less may be held at once.
    pub fn await_word(&mut self, until: Option<Timestamp>) {
        self.word_until = until;
    }

    /// When warm addresses may be fetched, if not now.
    pub(super) fn cautious_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.cautious_until.max(self.word_until).filter(|until| *until > now)
    }

    /// Warm addresses are being fetched.
    pub(super) fn fetched_warm(&mut self, now: Timestamp) {
        if self.cautious_until.is_some() {
            let pause = ALONE_PAUSE / 3 + self.spread(ALONE_PAUSE, now);
            self.cautious_until = Some(now.plus(pause));
        }
    }

    /// Some part of `time`, another for each node and moment.
    fn spread(&self, time: Duration, now: Timestamp) -> Duration {
        let part = u32::try_from(mix(self.seed ^ now.0) % 1024).unwrap_or(0);
        time.saturating_mul(part) / 1024
    }

    /// EC2 did not do what `action` asked. `subnet`: of the interface or of the creation.
    pub fn refused(&mut self, action: &Action, subnet: Option<&SubnetId>, error: &Ec2ErrorKind, now: Timestamp) {
        let call = Call::of(action);
        let (call, reason, pause) = match error {
            Ec2ErrorKind::SubnetExhausted | Ec2ErrorKind::NoContiguousPrefix => {
                match (subnet, action) {
                    (Some(subnet), Action::Assign { supply, .. } | Action::Create { supply, .. }) => {
                        self.refused_by_subnet(subnet, *supply, error, now);
                    }
                    _ => self.pause(call, HoldReason::SubnetExhausted, SUBNET, now),
                }
                return;
            }
            Ec2ErrorKind::Throttled => (call, HoldReason::Throttled, TRANSIENT),
            Ec2ErrorKind::AttachmentLimit => (Call::Attach, HoldReason::InstanceLimit, REFUSED),
            Ec2ErrorKind::AccountLimit => (Call::Attach, HoldReason::AccountLimit, REFUSED),
            Ec2ErrorKind::AccessDenied => (call, HoldReason::AccessDenied, REFUSED),
            Ec2ErrorKind::InstanceNotRunning | Ec2ErrorKind::InstanceNotFound => {
                (Call::Any, HoldReason::InstanceNotRunning, NOT_RUNNING)
            }
            Ec2ErrorKind::EniNotFound if call == Call::Attach => (call, HoldReason::AttachInFlight, NOT_YET_KNOWN),
            // EC2 has not taken the last one off yet.
            Ec2ErrorKind::EniInUse | Ec2ErrorKind::DeviceIndexInUse if call == Call::Attach => {
                (call, HoldReason::AttachInFlight, TRANSIENT)
            }
            Ec2ErrorKind::AddressLimit
            | Ec2ErrorKind::DeviceIndexInUse
            | Ec2ErrorKind::EniNotFound
            | Ec2ErrorKind::AttachmentNotFound
            | Ec2ErrorKind::EniInUse
            | Ec2ErrorKind::AddressNotAssigned
            | Ec2ErrorKind::TokenMismatch
            | Ec2ErrorKind::Credentials
            | Ec2ErrorKind::Internal
            | Ec2ErrorKind::NoAnswer
            | Ec2ErrorKind::Unexpected => (call, HoldReason::Ec2Unavailable, TRANSIENT),
        };
        self.pause(call, reason, pause, now);
    }

    /// EC2 did what `action` asked.
    pub fn succeeded(&mut self, action: &Action, subnet: Option<&SubnetId>) {
        match action {
            // What EC2 makes it may yet refuse to attach, again and again: the pause grows until an attach ends it.
            Action::Create { .. } => {}
            other => {
                self.calls.remove(&Call::of(other));
                self.calls.remove(&Call::Any);
            }
        }
        if let (Some(subnet), Action::Assign { supply, .. } | Action::Create { supply, .. }) = (subnet, action) {
            let key = (subnet.clone(), Kind::of(*supply).0);
            // The next call may ask for twice as much, until it asks for all again.
            let doubled = self.subnets.get(&key).and_then(|refusal| refusal.at_most).map(|n| n.saturating_mul(2));
            match (doubled, self.subnets.get_mut(&key)) {
                (Some(doubled), Some(refusal)) if doubled < 64 => {
                    refusal.at_most = Some(doubled);
                    refusal.failures = 0;
                    refusal.block.until = Timestamp(0);
                }
                _ => {
                    self.subnets.remove(&key);
                }
            }
        }
    }

    /// The agent's own fuse holds `action` back until then.
    pub fn held_back(&mut self, action: &Action, until: Timestamp) {
        let reason = HoldReason::CallLimit;
        let refusal = self.calls.entry(Call::of(action)).or_insert_with(|| Refusal::new(reason));
        refusal.block = Block { reason, until: refusal.block.until.max(until) };
    }

    fn refused_by_subnet(&mut self, subnet: &SubnetId, supply: Supply, error: &Ec2ErrorKind, now: Timestamp) {
        let (kind, asked) = Kind::of(supply);
        let seed = self.seed;
        // No /28 says nothing about single addresses. A full subnet has neither.
        let exhausted = *error == Ec2ErrorKind::SubnetExhausted;
        let reason = if exhausted { HoldReason::SubnetExhausted } else { HoldReason::NoContiguousPrefix };
        let refusal = self.subnets.entry((subnet.clone(), kind)).or_insert_with(|| Refusal::new(reason));
        refusal.block.reason = reason;
        if asked > 1 {
            // Smaller pieces may still be there: ask again at once.
            refusal.at_most = Some(asked / 2);
            refusal.block.until = now;
            return;
        }
        refusal.at_most = Some(1);
        refusal.extend(SUBNET, now, seed);
        let block = refusal.block;
        if exhausted && kind == Kind::Single {
            let prefixes = self.subnets.entry((subnet.clone(), Kind::Prefix)).or_insert_with(|| Refusal::new(reason));
            if prefixes.block.until < block.until {
                prefixes.block = block;
            }
        }
    }

    fn pause(&mut self, call: Call, reason: HoldReason, pause: Pause, now: Timestamp) {
        let seed = self.seed;
        let refusal = self.calls.entry(call).or_insert_with(|| Refusal::new(reason));
        refusal.block.reason = reason;
        refusal.extend(pause, now, seed);
    }

    /// Why `call` is not made now.
    pub(super) fn blocked(&self, call: Call, now: Timestamp) -> Option<Block> {
        [Call::Any, call]
            .iter()
            .filter_map(|call| self.calls.get(call))
            .map(|refusal| refusal.block)
            .filter(|block| block.until > now)
            .max_by_key(|block| block.until)
    }

    /// Why Assign will not work until somebody gives the right to it: what is missing can only come with an interface.
    fn assign_denied(&self, now: Timestamp) -> Option<Block> {
        self.blocked(Call::Assign, now).filter(|block| block.reason == HoldReason::AccessDenied)
    }

    /// Why `subnet` is not asked for `kind` now.
    pub(super) fn subnet_blocked(&self, subnet: &SubnetId, kind: Kind, now: Timestamp) -> Option<Block> {
        let refusal = self.subnets.get(&(subnet.clone(), kind))?;
        (refusal.block.until > now).then_some(refusal.block)
    }

    /// Why no slot of an interface in `subnet` can be filled with `kind` now. What is only put off does not count.
    pub(super) fn assign_refused(&self, subnet: &SubnetId, kind: Kind, now: Timestamp) -> Option<Block> {
        self.assign_denied(now).or_else(|| self.subnet_blocked(subnet, kind, now))
    }

    /// The most to ask of `subnet` in one call.
    pub(super) fn at_most(&self, subnet: &SubnetId, kind: Kind) -> u32 {
        self.subnets.get(&(subnet.clone(), kind)).and_then(|refusal| refusal.at_most).unwrap_or(u32::MAX).max(1)
    }

    /// Whether the last try for `kind` in `subnet` failed for good.
    pub(super) fn doubtful(&self, subnet: &SubnetId, kind: Kind) -> bool {
        self.subnets.get(&(subnet.clone(), kind)).is_some_and(|refusal| refusal.failures > 0)
    }

    /// The next instant at which a refusal ends.
    pub(super) fn next_retry(&self, now: Timestamp) -> Option<Timestamp> {
        let blocks = self.calls.values().chain(self.subnets.values()).map(|refusal| refusal.block.until);
        blocks.filter(|until| *until > now).min()
    }

    /// Notes what is needed now; answers the most that was needed within [`RETURN_AFTER`]. After a change of policy
    /// only the present counts: people who lower a target mean it. A fresh memory starts from `holding`.
    pub(super) fn peak(&mut self, policy: &Policy, need: Level, holding: Level, now: Timestamp) -> Level {
        let awaits_word = self.word_until.is_some_and(|until| until > now);
        match std::mem::replace(&mut self.policy, (!awaits_word).then_some(*policy)) {
            None => self.peaks.note(holding, now),
            Some(before) if before != *policy => self.peaks = Peaks::default(),
            Some(_) => {}
        }
        self.peaks.note(need, now);
        self.peaks.highest()
    }

    /// When the remembered peak falls next by the passing of time alone.
    pub(super) fn next_decline(&self) -> Option<Timestamp> {
        self.peaks.next_decline()
    }
}

impl Refusal {
    fn new(reason: HoldReason) -> Self {
        Self { block: Block { reason, until: Timestamp(0) }, failures: 0, at_most: None }
    }

    fn extend(&mut self, Pause(first, longest): Pause, now: Timestamp, seed: u64) {
        let pause = first.saturating_mul(1 << self.failures.min(10)).min(longest);
        self.failures = self.failures.saturating_add(1);
        // Between 75 and 125 %, so that nodes refused together do not come back together.
        let spread = mix(seed ^ now.0 ^ u64::from(self.failures)) % 512;
        let percent_of = u32::try_from(768 + spread).unwrap_or(1024);
        self.block.until = now.plus(pause.saturating_mul(percent_of) / 1024);
    }
}

/// SplitMix64's finaliser: spreads a seed over all bits.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Addresses, and prefixes where those are counted by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) addresses: u32,
    pub(crate) prefixes: u32,
}

impl Level {
    pub(crate) fn max(self, other: Self) -> Self {
        Self { addresses: self.addresses.max(other.addresses), prefixes: self.prefixes.max(other.prefixes) }
    }
}

/// The highest level within [`RETURN_AFTER`] (and up to [`STEP`] more), in a bounded number of steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peaks {
    steps: Vec<(Timestamp, Level)>,
    present: Level,
}

impl Peaks {
    const LASTS: Duration = RETURN_AFTER.saturating_add(STEP);

    pub(crate) fn note(&mut self, level: Level, now: Timestamp) {
        // A clock that stepped back must not freeze the past: what lies ahead counts as now.
        for (at, _) in &mut self.steps {
            *at = (*at).min(now);
        }
        self.steps.retain(|(at, _)| now.since(*at) < Self::LASTS);
        // What was needed before was needed until this moment.
        let until_now = level.max(self.present);
        self.present = level;
        match self.steps.last_mut() {
            Some((at, highest)) if now.since(*at) < STEP => *highest = highest.max(until_now),
            _ => self.steps.push((now, until_now)),
        }
    }

    pub(crate) fn highest(&self) -> Level {
        self.steps.iter().fold(self.present, |highest, (_, level)| highest.max(*level))
    }

    pub(crate) fn next_decline(&self) -> Option<Timestamp> {
        let highest = self.highest();
        // The last step that holds each figure up.
        let last = |figure: fn(&Level) -> u32| {
            let held_up = figure(&highest) > figure(&self.present);
            let mut steps = self.steps.iter().rev();
            steps.find(|(_, level)| held_up && figure(level) == figure(&highest)).map(|(at, _)| *at)
        };
        let at = [last(|level| level.addresses), last(|level| level.prefixes)].into_iter().flatten().min()?;
        Some(at.plus(Self::LASTS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EniId;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000 + seconds * 1000)
    }

    fn level(addresses: u32) -> Level {
        Level { addresses, prefixes: 0 }
    }

    fn assign(count: u32) -> Action {
        Action::Assign { eni: "eni-1".parse::<EniId>().unwrap(), supply: Supply::Addresses(count) }
    }

    fn subnet() -> SubnetId {
        "subnet-1".parse().unwrap()
    }

    #[test]
    fn the_peak_of_the_last_minute_counts() {
        let mut peaks = Peaks::default();
        peaks.note(level(20), at(0));
        peaks.note(level(5), at(1000));
        assert_eq!(peaks.highest(), level(20), "it was needed until a moment ago");
        assert_eq!(peaks.next_decline(), Some(at(1065)));
        peaks.note(level(5), at(1065));
        assert_eq!(peaks.highest(), level(5));
        assert_eq!(peaks.next_decline(), None);
    }

    #[test]
    fn a_wild_history_takes_bounded_room() {
        let mut peaks = Peaks::default();
        for step in 0..10_000 {
            peaks.note(level(u32::try_from(step % 37).unwrap()), Timestamp(step * 100));
            assert!(peaks.steps.len() <= 14);
        }
    }

    #[test]
    fn a_clock_that_steps_back_does_not_freeze_the_peak() {
        let mut peaks = Peaks::default();
        peaks.note(level(20), at(100_000));
        peaks.note(level(5), at(0));
        assert_eq!(peaks.highest(), level(20));
        peaks.note(level(5), at(70));
        assert_eq!(peaks.highest(), level(5));
    }

    #[test]
    fn a_refused_call_is_tried_in_smaller_pieces_before_the_subnet_counts_as_full() {
        let mut memory = PlannerMemory::default();
        let refuse = |memory: &mut PlannerMemory, count| {
            memory.refused(&assign(count), Some(&subnet()), &Ec2ErrorKind::SubnetExhausted, at(0));
        };
        refuse(&mut memory, 9);
        assert_eq!(memory.subnet_blocked(&subnet(), Kind::Single, at(0)), None);
        assert_eq!(memory.at_most(&subnet(), Kind::Single), 4);
        refuse(&mut memory, 1);
        let block = memory.subnet_blocked(&subnet(), Kind::Single, at(1)).unwrap();
        assert_eq!(block.reason, HoldReason::SubnetExhausted);
        assert!(memory.subnet_blocked(&subnet(), Kind::Prefix, at(1)).is_some(), "no address, then no /28 either");
    }

    #[test]
    fn a_missing_prefix_does_not_stop_single_addresses() {
        let mut memory = PlannerMemory::default();
        let action = Action::Assign { eni: "eni-1".parse().unwrap(), supply: Supply::Prefixes(1) };
        memory.refused(&action, Some(&subnet()), &Ec2ErrorKind::NoContiguousPrefix, at(0));
        assert!(memory.subnet_blocked(&subnet(), Kind::Prefix, at(1)).is_some());
        assert_eq!(memory.subnet_blocked(&subnet(), Kind::Single, at(1)), None);
        assert_eq!(memory.subnet_blocked(&subnet(), Kind::Prefix, at(151)), None, "it is tried again");
    }

    #[test]
    fn pauses_grow_and_a_success_ends_them() {
        let mut memory = PlannerMemory::new(7);
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            memory.refused(&assign(1), Some(&subnet()), &Ec2ErrorKind::Throttled, at(0));
            let pause = memory.blocked(Call::Assign, at(0)).unwrap().until.since(at(0));
            assert!(pause > last, "{pause:?} after {last:?}");
            last = pause;
        }
        assert_eq!(memory.blocked(Call::Attach, at(0)), None, "each action has its own bucket at EC2");
        memory.succeeded(&assign(1), Some(&subnet()));
        assert_eq!(memory.blocked(Call::Assign, at(0)), None);
    }

    #[test]
    fn interfaces_that_are_made_but_never_attached_come_at_growing_pauses() {
        let mut memory = PlannerMemory::new(7);
        let create = Action::Create { subnet: subnet(), device_index: 1, supply: Supply::Addresses(9) };
        let attach = Action::Attach { eni: "eni-1".parse().unwrap(), device_index: 1 };
        for kind in [Ec2ErrorKind::AttachmentLimit, Ec2ErrorKind::AccessDenied, Ec2ErrorKind::InstanceNotRunning] {
            let mut last = Duration::ZERO;
            for _ in 0..3 {
                memory.succeeded(&create, Some(&subnet()));
                memory.refused(&attach, None, &kind, at(0));
                let pause = memory.blocked(Call::Attach, at(0)).unwrap().until.since(at(0));
                assert!(pause > last, "{kind}: {pause:?} after {last:?}");
                last = pause;
            }
            memory.succeeded(&attach, None);
            assert_eq!(memory.blocked(Call::Attach, at(0)), None, "an attach that works ends it");
        }
    }

    #[test]
    fn an_interface_that_ec2_does_not_know_yet_is_asked_for_again_within_a_moment_and_ever_less_often() {
        let mut memory = PlannerMemory::new(7);
        let attach = Action::Attach { eni: "eni-1".parse().unwrap(), device_index: 1 };
        let mut pauses = Vec::new();
        for _ in 0..12 {
            memory.refused(&attach, None, &Ec2ErrorKind::EniNotFound, at(0));
            pauses.push(memory.blocked(Call::Attach, at(0)).unwrap().until.since(at(0)));
        }
        assert!(pauses[0] <= Duration::from_millis(125), "{pauses:?}");
        assert!(pauses[..9].is_sorted() && pauses[11] >= Duration::from_secs(45), "{pauses:?}");
    }

    #[test]
    fn what_the_fuse_holds_back_is_not_planned_until_then() {
        let mut memory = PlannerMemory::default();
        memory.held_back(&assign(1), at(30));
        assert_eq!(memory.blocked(Call::Assign, at(29)), Some(Block { reason: HoldReason::CallLimit, until: at(30) }));
        assert_eq!(memory.blocked(Call::Assign, at(30)), None);
    }

    #[test]
    fn until_somebody_has_spoken_nothing_warm_is_fetched_and_no_policy_is_a_change_of_mind() {
        let mut memory = PlannerMemory::default();
        let (flags, class) = (Policy::default().for_demand_alone(), Policy::default());
        memory.await_word(Some(at(10)));
        assert_eq!(memory.cautious_until(at(0)), Some(at(10)));
        assert_eq!(memory.cautious_until(at(10)), None, "the word did not come");
        memory.peak(&flags, level(1), level(18), at(0));
        memory.await_word(None);
        assert_eq!(memory.cautious_until(at(2)), None);
        assert_eq!(memory.peak(&class, level(3), level(18), at(2)), level(18), "held until a moment ago");
        let raised = Policy { use_primary_eni: false, ..class };
        assert_eq!(memory.peak(&raised, level(3), level(18), at(3)), level(3), "from here on a change means it");
    }

    #[test]
    fn nodes_refused_together_do_not_come_back_together() {
        let pause = |seed| {
            let mut memory = PlannerMemory::new(seed);
            memory.refused(&assign(1), Some(&subnet()), &Ec2ErrorKind::AccessDenied, at(0));
            memory.blocked(Call::Assign, at(0)).unwrap().until
        };
        let times: std::collections::BTreeSet<_> = (0..50).map(pause).collect();
        assert!(times.len() > 40);
    }
}
