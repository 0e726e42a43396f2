//! The metrics themselves: sums per minute and unit, within fixed bounds.

use std::collections::BTreeMap;

use enipool_pool::Timestamp;

use super::rules::Sample;
use super::unit::Unit;

/// Metrics (namespace, name, dimensions) that are kept. CloudWatch has no such quota: one more makes the metric leave
/// that has waited longest for data, and [`Metrics::dropped`] counts it.
pub const MAX_METRICS: usize = 2000;
/// Minutes that are kept of one metric, the latest; a minute with data in several units counts once for each.
/// CloudWatch keeps 15 days of them. With [`MAX_METRICS`] some 300 MB at the very most; 100 kB a metric after a day.
pub const MAX_MINUTES: usize = 1440;

const MINUTE_MS: u64 = 60_000;

/// Namespace, name and dimensions: what makes two data belong to one metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricId {
    pub namespace: String,
    pub name: String,
    /// By name, each name once: their order in a request does not matter.
    pub dimensions: Vec<(String, String)>,
}

/// What CloudWatch keeps of any number of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Values; not a whole number where a caller says so. Never zero.
    pub count: f64,
    pub sum: f64,
    pub minimum: f64,
    pub maximum: f64,
}

impl Statistics {
    /// `count` times the same value.
    pub fn of(value: f64, count: f64) -> Self {
        Self { count, sum: value * count, minimum: value, maximum: value }
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            minimum: self.minimum.min(other.minimum),
            maximum: self.maximum.max(other.maximum),
        }
    }

    pub fn average(&self) -> f64 {
        self.sum / self.count
    }
}

/// The latest datum of a metric, by its own time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Last {
    /// The time that the datum names.
    pub at: Timestamp,
    /// When it came in.
    pub received: Timestamp,
    pub unit: Unit,
    /// The value, or the average of several.
    pub value: f64,
}

/// One metric.
#[derive(Debug, Clone)]
pub struct Metric {
    minutes: BTreeMap<(Timestamp, Unit), Statistics>,
    last: Last,
    /// When anything came in last, whatever time it names.
    received: Timestamp,
    datapoints: u64,
    high_resolution: bool,
}

impl Metric {
    pub fn last(&self) -> &Last {
        &self.last
    }

    /// Elements of MetricData that were received, since the start or the last reset.
    pub fn datapoints(&self) -> u64 {
        self.datapoints
    }

    /// Whether the latest datum asked for a resolution of one second. It is kept by the minute all the same.
    pub fn is_high_resolution(&self) -> bool {
        self.high_resolution
    }

    /// The sums of each minute and unit, oldest first.
    pub fn minutes(&self) -> impl DoubleEndedIterator<Item = (Timestamp, Unit, &Statistics)> {
        self.minutes.iter().map(|((at, unit), statistics)| (*at, *unit, statistics))
    }

    /// The same from `start` on and before `end`.
    pub(super) fn between(
        &self,
        start: Timestamp,
        end: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, Unit, &Statistics)> {
        self.minutes().skip_while(move |(at, ..)| *at < start).take_while(move |(at, ..)| *at < end)
    }
}

/// The start of the minute that a time is in.
pub(super) fn minute_of(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0 % MINUTE_MS)
}

/// All metrics of the account in this region.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    metrics: BTreeMap<MetricId, Metric>,
    dropped: u64,
}

impl Metrics {
    /// All metrics, by namespace, name and dimensions.
    pub fn iter(&self) -> impl Iterator<Item = (&MetricId, &Metric)> {
        self.metrics.iter()
    }

    pub fn get(&self, id: &MetricId) -> Option<&Metric> {
        self.metrics.get(id)
    }

    /// How many metrics had to leave because there were more than [`MAX_METRICS`].
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn add(&mut self, sample: Sample, now: Timestamp) {
        let Sample { id, at, unit, statistics, high_resolution } = sample;
        let last = Last { at, received: now, unit, value: statistics.average() };
        if !self.metrics.contains_key(&id) && self.metrics.len() >= MAX_METRICS {
            self.drop_one();
        }
        let metric = self.metrics.entry(id).or_insert_with(|| Metric {
            minutes: BTreeMap::new(),
            last,
            received: now,
            datapoints: 0,
            high_resolution,
        });
        let minute = (minute_of(at), unit);
        metric.minutes.entry(minute).and_modify(|sums| *sums = sums.and(statistics)).or_insert(statistics);
        if metric.minutes.len() > MAX_MINUTES {
            metric.minutes.pop_first();
        }
        if at >= metric.last.at {
            metric.last = last;
        }
        metric.received = now;
        metric.high_resolution = high_resolution;
        metric.datapoints += 1;
    }

    fn drop_one(&mut self) {
        let longest_without = self.metrics.iter().min_by_key(|(_, metric)| metric.received).map(|(id, _)| id.clone());
        if let Some(id) = longest_without {
            self.metrics.remove(&id);
            self.dropped += 1;
        }
    }
}
