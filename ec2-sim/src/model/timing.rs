//! How long EC2 and the machines behind it take: distributions, drawn with the model's seed.
//!
//! AWS publishes none of these figures. `realistic` is set from what operators of ENI pools have reported: create plus
//! attach about 0.6 s for the calls and up to 10 s until the interface works, prefixes assigned in under a second,
//! metadata some seconds to a minute behind. Every figure can be set.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rng::Rng;

/// A distribution of durations by four of its quantiles, in milliseconds, linear in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    pub min: u32,
    pub p50: u32,
    pub p99: u32,
    pub max: u32,
}

impl Delay {
    pub const NONE: Self = Self::of(0, 0, 0, 0);

    pub const fn of(min: u32, p50: u32, p99: u32, max: u32) -> Self {
        Self { min, p50, p99, max }
    }

    /// Always the same.
    pub const fn fixed(millis: u32) -> Self {
        Self::of(millis, millis, millis, millis)
    }

    pub fn draw(self, rng: &mut Rng) -> Duration {
        // One draw even where nothing can vary: the later draws of a run then do not depend on this figure.
        let per_mille = rng.below(1000);
        let (from, to, offset, span) = match per_mille {
            0..500 => (self.min, self.p50, per_mille, 500),
            500..990 => (self.p50, self.p99, per_mille - 500, 490),
            _ => (self.p99, self.max, per_mille - 990, 10),
        };
        let rise = u64::from(to.saturating_sub(from)) * u64::from(offset) / span;
        Duration::from_millis(u64::from(from) + rise)
    }

    fn scaled(self, percent: u32) -> Self {
        let scale = |v: u32| u32::try_from(u64::from(v) * u64::from(percent) / 100).unwrap_or(u32::MAX);
        Self { min: scale(self.min), p50: scale(self.p50), p99: scale(self.p99), max: scale(self.max) }
    }
}

/// All delays of the simulated region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Time until the answer of a read-only call.
    pub describe: Delay,
    /// Time until the answer of any other call.
    pub mutation: Delay,
    /// The same for single actions, by AWS's name of the action.
    pub answer: BTreeMap<String, Delay>,
    /// From `AttachNetworkInterface` to the interface in the instance.
    pub attach: Delay,
    /// From `DetachNetworkInterface` until the interface has left the instance and is `available`.
    pub detach: Delay,
    /// From `RunInstances` or `StartInstances` to `running`.
    pub boot: Delay,
    /// From `TerminateInstances` or `StopInstances` to the final state.
    pub shutdown: Delay,
    /// How long read-only calls may show the past of an interface or instance (eventual consistency).
    pub visible: Delay,
    /// How long `availableIpAddressCount` lags.
    pub free_count: Delay,
    /// How long the metadata service lags behind an attach or detach.
    pub imds_attach: Delay,
    /// How long the metadata service lags behind a change of addresses.
    pub imds_addresses: Delay,
}

impl Default for Timing {
    fn default() -> Self {
        Self::realistic()
    }
}

impl Timing {
    /// Everything at once, and reads always up to date.
    pub fn none() -> Self {
        Self {
            describe: Delay::NONE,
            mutation: Delay::NONE,
            answer: BTreeMap::new(),
            attach: Delay::NONE,
            detach: Delay::NONE,
            boot: Delay::NONE,
            shutdown: Delay::NONE,
            visible: Delay::NONE,
            free_count: Delay::NONE,
            imds_attach: Delay::NONE,
            imds_addresses: Delay::NONE,
        }
    }

    pub fn realistic() -> Self {
        Self {
            describe: Delay::of(40, 90, 400, 1500),
            mutation: Delay::of(120, 250, 1000, 3000),
            answer: BTreeMap::from([
                ("CreateNetworkInterface".to_owned(), Delay::of(200, 400, 1500, 5000)),
                ("AttachNetworkInterface".to_owned(), Delay::of(250, 500, 2000, 6000)),
                ("RunInstances".to_owned(), Delay::of(800, 1500, 4000, 10_000)),
                ("PutMetricData".to_owned(), Delay::of(10, 40, 300, 1500)),
            ]),
            attach: Delay::of(400, 1200, 6000, 15_000),
            detach: Delay::of(800, 2500, 12_000, 40_000),
            boot: Delay::of(4000, 8000, 25_000, 60_000),
            shutdown: Delay::of(5000, 20_000, 60_000, 120_000),
            visible: Delay::of(0, 0, 1500, 5000),
            free_count: Delay::of(0, 500, 10_000, 30_000),
            imds_attach: Delay::of(200, 1000, 15_000, 45_000),
            imds_addresses: Delay::of(200, 1500, 30_000, 60_000),
        }
    }

    /// All delays at `percent` of what they are.
    #[must_use]
    pub fn scaled(&self, percent: u32) -> Self {
        Self {
            describe: self.describe.scaled(percent),
            mutation: self.mutation.scaled(percent),
            answer: self.answer.iter().map(|(action, delay)| (action.clone(), delay.scaled(percent))).collect(),
            attach: self.attach.scaled(percent),
            detach: self.detach.scaled(percent),
            boot: self.boot.scaled(percent),
            shutdown: self.shutdown.scaled(percent),
            visible: self.visible.scaled(percent),
            free_count: self.free_count.scaled(percent),
            imds_attach: self.imds_attach.scaled(percent),
            imds_addresses: self.imds_addresses.scaled(percent),
        }
    }

    pub(super) fn answer_to(&self, action: &str) -> Delay {
        let is_read = ["Describe", "Get", "List"].iter().any(|verb| action.starts_with(verb));
        let fallback = if is_read { self.describe } else { self.mutation };
        self.answer.get(action).copied().unwrap_or(fallback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_delays_keep_to_their_quantiles() {
        let delay = Delay::of(100, 200, 1000, 5000);
        let mut rng = Rng::new(3, "test");
        let mut drawn: Vec<_> = (0..10_000).map(|_| delay.draw(&mut rng).as_millis()).collect();
        drawn.sort_unstable();
        assert!(drawn[0] >= 100 && drawn[9999] <= 5000);
        assert!((190..=220).contains(&drawn[5000]), "median {}", drawn[5000]);
        assert!((900..=1500).contains(&drawn[9900]), "99th percentile {}", drawn[9900]);
    }
}
