//! The engine's clock: wall time at the start, and from there on time that never steps.
//!
//! Rests and intents must mean the same after a restart, so they are wall time; a clock that is set must not end or lengthen
//! them. While the agent runs it does not look at the wall clock again. Between two lives of one boot the kernel's count of
//! time since the boot tells by how much the clock was set: the journal opens with both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use enipool_pool::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Timestamp,
    started: Instant,
    /// Time since the boot at the start.
    booted: Option<Timestamp>,
}

impl Clock {
    /// Wall time from now on.
    pub fn wall() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = Self::from(Timestamp::default().plus(since));
        match clock_gettime(ClockId::CLOCK_BOOTTIME) {
            Ok(booted) => clock.with_uptime(Timestamp::default().plus(Duration::from(booted))),
            Err(_) => clock,
        }
    }

    /// The same clock, on a machine that has run for so long now.
    #[must_use]
    pub fn with_uptime(self, uptime: Timestamp) -> Self {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self { booted: Some(Timestamp(uptime.0.saturating_sub(passed))), ..self }
    }

    /// Time since the boot, whatever the wall clock was set to. `None`: not known.
    pub fn uptime(&self) -> Option<Timestamp> {
        Some(self.booted?.plus(self.started.elapsed()))
    }

    pub fn now(&self) -> Timestamp {
        self.base.plus(self.started.elapsed())
    }

    /// The instant at which [`Self::now`] will be `at`.
    pub fn instant(&self, at: Timestamp) -> Instant {
        let after: Duration = at.since(self.base);
        self.started + after
    }
}

impl From<Timestamp> for Clock {
    /// A clock that shows `base` now.
    fn from(base: Timestamp) -> Self {
        Self { base, started: Instant::now(), booted: None }
    }
}
