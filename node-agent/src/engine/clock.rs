//! The engine's clock: wall time at the start, and from there on time that never steps.
//!
//! Rests and intents must mean the same after a restart, so they are wall time; a clock that is set while the agent
//! runs must not end or lengthen them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use enipool_pool::Timestamp;
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// Wall time from now on.
    pub fn wall() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from(Timestamp::default().plus(since))
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
        Self { base, started: Instant::now() }
    }
}
