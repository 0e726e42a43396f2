//! The EC2 budget: one token bucket per action, how it adapts to throttling, and the agent's own fuse.
//!
//! EC2 counts each action by itself, per account and region. The caller asks before it calls and says afterwards when
//! it was throttled. Time is an argument; nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::ec2::Action;
use crate::time::Timestamp;

/// Millionths of a token: a rate in thousandths of a token per second, times milliseconds.
const TOKEN: u64 = 1_000_000;

/// A bucket as EC2 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Calls at once: the bucket's maximum capacity.
    pub burst: u32,
    /// Refill, in calls per 1,000 seconds (5,000 = five a second).
    pub per_1000_s: u32,
}

impl Limit {
    pub const fn per_second(burst: u32, per_second: u32) -> Self {
        Self { burst, per_1000_s: per_second * 1000 }
    }

    /// The default bucket of an account
    /// ([EC2 API: request throttling](https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html)).
    pub const fn published(action: Action) -> Self {
        match action {
            // Filtered or paginated, as all of ours are.
            Action::DescribeInstances
            | Action::DescribeInstanceTypes
            | Action::DescribeSubnets
            | Action::DescribeSecurityGroups
            | Action::DescribeNetworkInterfaces => Self::per_second(100, 20),
            // Not listed by name: the default of mutating actions.
            Action::AttachNetworkInterface | Action::DetachNetworkInterface => Self::per_second(50, 5),
            Action::CreateNetworkInterface
            | Action::DeleteNetworkInterface
            | Action::ModifyNetworkInterfaceAttribute
            | Action::AssignPrivateIpAddresses
            | Action::UnassignPrivateIpAddresses => Self::per_second(100, 5),
            Action::CreateTags => Self::per_second(100, 10),
        }
    }

    /// This part of it, in percent, but at least one call and some refill.
    #[must_use]
    pub fn share(self, percent: u32) -> Self {
        let part = |whole: u32| u32::try_from(u64::from(whole) * u64::from(percent) / 100).unwrap_or(u32::MAX).max(1);
        Self { burst: part(self.burst), per_1000_s: part(self.per_1000_s) }
    }
}

/// A bucket in use.
#[derive(Debug, Clone)]
struct Bucket {
    limit: Limit,
    /// Millionths of a token.
    tokens: u64,
    at: Timestamp,
    /// Share of the refill that is used, in millionths: halved when throttled, creeping back.
    pace: u64,
    throttled_at: Option<Timestamp>,
}

const FULL_PACE: u64 = 1_000_000;
/// Slowest pace: one in twenty. Others' storms end, and somebody has to find out.
const LEAST_PACE: u64 = FULL_PACE / 20;
/// Regained in a minute: a tenth of the full pace.
const REGAINED_PER_MINUTE: u64 = FULL_PACE / 10;
/// Throttled calls within this time are one lesson, not many.
const ONE_LESSON: Duration = Duration::from_secs(1);

impl Bucket {
    fn new(limit: Limit, now: Timestamp) -> Self {
        Self { limit, tokens: u64::from(limit.burst) * TOKEN, at: now, pace: FULL_PACE, throttled_at: None }
    }

    /// Millionths of a token in a millisecond.
    fn refill(&self) -> u64 {
        (u64::from(self.limit.per_1000_s) * self.pace / FULL_PACE).max(1)
    }

    fn advance(&mut self, now: Timestamp) {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let full = u64::from(self.limit.burst) * TOKEN;
        self.tokens = self.tokens.saturating_add(self.refill().saturating_mul(passed)).min(full);
        let regained = passed.saturating_mul(REGAINED_PER_MINUTE) / 60_000;
        self.pace = self.pace.saturating_add(regained).min(FULL_PACE);
        self.at = now;
    }

    fn take(&mut self, calls: u32, now: Timestamp) -> Result<(), Timestamp> {
        self.advance(now);
        let wanted = u64::from(calls) * TOKEN;
        match self.tokens.checked_sub(wanted) {
            Some(left) => {
                self.tokens = left;
                Ok(())
            }
            None => Err(now.plus(Duration::from_millis((wanted - self.tokens).div_ceil(self.refill())))),
        }
    }

    fn throttled(&mut self, now: Timestamp) {
        self.advance(now);
        if self.throttled_at.is_some_and(|at| now.since(at) < ONE_LESSON && at <= now) {
            return;
        }
        self.throttled_at = Some(now);
        // Whatever we thought was left, EC2's own bucket is empty.
        self.tokens = 0;
        self.pace = (self.pace / 2).max(LEAST_PACE);
    }
}

/// The budget of one account and region, or the part of it that is ours.
#[derive(Debug, Clone)]
pub struct Budget {
    share: u32,
    buckets: BTreeMap<Action, Bucket>,
}

/// How much of an action's budget is used, for metrics and people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    pub limit: Limit,
    /// Calls that could be made at once.
    pub left: u32,
    /// Present refill in percent of the limit's: below 100 after throttling.
    pub pace_percent: u32,
}

impl Budget {
    /// The published buckets, of which `share` percent (1 to 100) are ours: the rest is for others in the account.
    pub fn published(share: u32, now: Timestamp) -> Self {
        let share = share.clamp(1, 100);
        let bucket = |action: Action| Bucket::new(Limit::published(action).share(share), now);
        Self { share, buckets: Action::ALL.into_iter().map(|action| (action, bucket(action))).collect() }
    }

    /// Corrects an action's bucket (from Service Quotas). What was used stays used.
    pub fn set_limit(&mut self, action: Action, limit: Limit, now: Timestamp) {
        let limit = limit.share(self.share);
        let bucket = self.bucket(action, now);
        bucket.advance(now);
        let used = u64::from(bucket.limit.burst) * TOKEN - bucket.tokens;
        bucket.limit = limit;
        bucket.tokens = (u64::from(limit.burst) * TOKEN).saturating_sub(used);
    }

    /// Takes `calls` tokens, or says when there will be as many (never earlier than now). More than the burst never fit.
    pub fn take(&mut self, action: Action, calls: u32, now: Timestamp) -> Result<(), Timestamp> {
        self.bucket(action, now).take(calls, now)
    }

    /// Calls that could be made at once.
    pub fn left(&mut self, action: Action, now: Timestamp) -> u32 {
        let bucket = self.bucket(action, now);
        bucket.advance(now);
        u32::try_from(bucket.tokens / TOKEN).unwrap_or(u32::MAX)
    }

    /// EC2 answered `RequestLimitExceeded`, to us or to an agent that reports it.
    pub fn throttled(&mut self, action: Action, now: Timestamp) {
        self.bucket(action, now).throttled(now);
    }

    pub fn usage(&mut self, action: Action, now: Timestamp) -> BudgetUse {
        let left = self.left(action, now);
        let bucket = self.bucket(action, now);
        BudgetUse {
            limit: bucket.limit,
            left,
            pace_percent: u32::try_from(bucket.pace * 100 / FULL_PACE).unwrap_or(100),
        }
    }

    fn bucket(&mut self, action: Action, now: Timestamp) -> &mut Bucket {
        let share = self.share;
        self.buckets.entry(action).or_insert_with(|| Bucket::new(Limit::published(action).share(share), now))
    }
}

/// The window of the cap on creations.
const CREATION_WINDOW: Duration = Duration::from_mins(10);

/// The agent's fuse: whatever goes wrong in planning, one node cannot use up the account's budget. It does not heed EC2's
/// throttling: for that [`PlannerMemory`](crate::node::PlannerMemory) makes the pauses.
#[derive(Debug, Clone)]
pub struct Fuse {
    budget: Budget,
    creations: VecDeque<Timestamp>,
    most_creations: usize,
}

/// A call that the fuse does not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Blown {
    #[error("this node's limit for {} is used up until {until}", action.name())]
    Rate { action: Action, until: Timestamp },
    #[error("this node made {most} network interfaces within ten minutes; the next one may be made at {until}")]
    Creations { most: u32, until: Timestamp },
}

impl Blown {
    pub fn until(self) -> Timestamp {
        match self {
            Self::Rate { until, .. } | Self::Creations { until, .. } => until,
        }
    }
}

impl Fuse {
    /// For an instance of at most `max_enis` interfaces: it may be filled at once and twice over in ten minutes, and
    /// make a call a second of each kind in the long run.
    pub fn new(max_enis: u32, now: Timestamp) -> Self {
        let limit = Limit { burst: max_enis.max(4) * 2, per_1000_s: 1000 };
        let buckets = Action::ALL.into_iter().map(|action| (action, Bucket::new(limit, now))).collect();
        let most_creations = usize::try_from(max_enis.max(3) * 2).unwrap_or(usize::MAX);
        Self { budget: Budget { share: 100, buckets }, creations: VecDeque::new(), most_creations }
    }

    /// Leave for one call, made now.
    pub fn permit(&mut self, action: Action, now: Timestamp) -> Result<(), Blown> {
        let creation = action == Action::CreateNetworkInterface;
        if creation {
            // After a step back of the clock, what lies ahead is forgotten: the rate limit remains.
            self.creations.retain(|at| *at <= now && now.since(*at) < CREATION_WINDOW);
            if let Some(oldest) = self.creations.front().filter(|_| self.creations.len() >= self.most_creations) {
                let most = u32::try_from(self.most_creations).unwrap_or(u32::MAX);
                return Err(Blown::Creations { most, until: oldest.plus(CREATION_WINDOW) });
            }
        }
        self.budget.take(action, 1, now).map_err(|until| Blown::Rate { action, until })?;
        if creation {
            self.creations.push_back(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASSIGN: Action = Action::AssignPrivateIpAddresses;
    const CREATE: Action = Action::CreateNetworkInterface;

    fn at(ms: u64) -> Timestamp {
        Timestamp(1_000_000 + ms)
    }

    #[test]
    fn the_published_buckets_leave_a_share_for_others() {
        let mut budget = Budget::published(80, at(0));
        assert_eq!(budget.left(ASSIGN, at(0)), 80);
        assert_eq!(budget.left(Action::AttachNetworkInterface, at(0)), 40);
        budget.take(ASSIGN, 80, at(0)).unwrap();
        // 4 a second: the next one in 250 ms.
        assert_eq!(budget.take(ASSIGN, 1, at(0)), Err(at(250)));
        assert_eq!(budget.take(ASSIGN, 1, at(250)), Ok(()));
        assert_eq!(budget.left(Action::AttachNetworkInterface, at(250)), 40, "each action has its own");
    }

    #[test]
    fn throttling_halves_the_pace_once_a_second_and_it_creeps_back() {
        let mut budget = Budget::published(100, at(0));
        for _ in 0..10 {
            budget.throttled(ASSIGN, at(0));
        }
        let usage = budget.usage(ASSIGN, at(0));
        assert_eq!((usage.left, usage.pace_percent), (0, 50), "ten answers at once are one lesson");
        budget.throttled(ASSIGN, at(1000));
        assert_eq!(budget.usage(ASSIGN, at(1000)).pace_percent, 25);
        assert_eq!(budget.usage(ASSIGN, at(61_000)).pace_percent, 35, "a tenth a minute");
        assert_eq!(budget.usage(ASSIGN, at(600_000)).pace_percent, 100);
        for second in 600..700 {
            budget.throttled(ASSIGN, at(second * 1000));
        }
        assert_eq!(budget.usage(ASSIGN, at(699_000)).pace_percent, 5, "it never stops asking");
    }

    #[test]
    fn a_quota_read_later_corrects_the_bucket_and_forgets_nothing() {
        let mut budget = Budget::published(100, at(0));
        budget.take(ASSIGN, 30, at(0)).unwrap();
        budget.set_limit(ASSIGN, Limit::per_second(200, 15), at(0));
        assert_eq!(budget.left(ASSIGN, at(0)), 170);
        assert_eq!(budget.left(ASSIGN, at(1000)), 185);
        budget.set_limit(ASSIGN, Limit::per_second(10, 1), at(1000));
        assert_eq!(budget.left(ASSIGN, at(1000)), 0);
    }

    #[test]
    fn the_fuse_lets_an_instance_be_filled_and_stops_a_loop() {
        let mut fuse = Fuse::new(3, at(0));
        let mut made = 0;
        for second in 0..600 {
            made += u32::from(fuse.permit(CREATE, at(second * 1000)).is_ok());
        }
        assert_eq!(made, 6);
        let blown = fuse.permit(CREATE, at(599_999)).unwrap_err();
        assert_eq!(blown, Blown::Creations { most: 6, until: at(600_000) });
        assert_eq!(fuse.permit(CREATE, blown.until()), Ok(()));
    }

    #[test]
    fn the_fuse_of_a_small_node_holds_a_burst_of_each_call() {
        let mut fuse = Fuse::new(15, at(0));
        for _ in 0..30 {
            fuse.permit(Action::AttachNetworkInterface, at(0)).unwrap();
        }
        assert!(matches!(fuse.permit(Action::AttachNetworkInterface, at(0)), Err(Blown::Rate { .. })));
    }

    proptest! {
        #[test]
        fn no_history_overspends_the_bucket(steps in prop::collection::vec((0u64..2000, 1u32..8, any::<bool>()), 1..200)) {
            let limit = Limit::published(ASSIGN);
            let mut budget = Budget::published(100, at(0));
            let (mut now, mut taken) = (0, 0u64);
            for (pause, calls, throttled) in steps {
                now += pause;
                if budget.take(ASSIGN, calls, at(now)).is_ok() {
                    taken += u64::from(calls);
                }
                if throttled {
                    budget.throttled(ASSIGN, at(now));
                }
                let granted = u64::from(limit.burst) + u64::from(limit.per_1000_s) * now / 1_000_000;
                prop_assert!(taken <= granted, "{taken} calls of {granted}");
            }
        }

        #[test]
        fn the_time_named_is_the_time_it_works(calls in 1u32..100, before in 0u32..100, throttles in 0u32..4) {
            let mut budget = Budget::published(100, at(0));
            budget.take(ASSIGN, before, at(0)).unwrap();
            for n in 0..throttles {
                budget.throttled(ASSIGN, at(u64::from(n) * 1000));
            }
            let now = at(u64::from(throttles) * 1000);
            if let Err(until) = budget.take(ASSIGN, calls, now) {
                prop_assert!(until > now);
                prop_assert_eq!(budget.take(ASSIGN, calls, until), Ok(()));
            }
        }

        #[test]
        fn a_clock_that_steps_back_gives_no_tokens_away(back in 0u64..1_000_000) {
            let mut budget = Budget::published(100, at(0));
            budget.take(ASSIGN, 100, at(0)).unwrap();
            let early = Timestamp(1_000_000u64.saturating_sub(back));
            prop_assert!(budget.take(ASSIGN, 1, early).is_err());
        }
    }
}
