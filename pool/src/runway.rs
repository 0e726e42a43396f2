//! How long a subnet's free addresses last: the slope of the last hour, carried on. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// What the slope is taken from.
const WINDOW: Duration = Duration::from_secs(3600);
/// Least time between two samples that are kept: an hour is then at most 61 of them.
const SPACING: Duration = Duration::from_secs(60);
/// With less than this nothing is said: one deployment that starts is no trend.
const SPAN_MIN: Duration = Duration::from_secs(300);
/// A longer runway is none: a slope that small is noise.
const RUNWAY_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// The free addresses of one subnet over the last hour. Times come from one clock that does not step.
#[derive(Debug, Clone, Default)]
pub struct Trend(VecDeque<(Timestamp, u32)>);

impl Trend {
    /// Notes that `free` addresses were free. Samples that come sooner than a minute after the last one replace nothing.
    pub fn note(&mut self, at: Timestamp, free: u32) {
        if self.0.back().is_some_and(|(last, _)| at < *last) {
            self.0.clear();
        }
        while self.0.front().is_some_and(|(first, _)| at.since(*first) > WINDOW) {
            self.0.pop_front();
        }
        if self.0.back().is_none_or(|(last, _)| at.since(*last) >= SPACING) {
            self.0.push_back((at, free));
        }
    }

    /// Time until `left` addresses are used up at the last hour's pace. `None` while they do not get fewer, while less than
    /// five minutes are known, and above 90 days.
    pub fn runway(&self, left: u32) -> Option<Duration> {
        let per_second = -self.slope()?;
        if per_second <= 0.0 {
            return None;
        }
        let seconds = f64::from(left) / per_second;
        Duration::try_from_secs_f64(seconds).ok().filter(|runway| *runway <= RUNWAY_MAX)
    }

    /// Change in addresses a second, by least squares.
    fn slope(&self) -> Option<f64> {
        let (first, last) = (self.0.front()?.0, self.0.back()?.0);
        if last.since(first) < SPAN_MIN {
            return None;
        }
        let points = || self.0.iter().map(|(at, free)| (at.since(first).as_secs_f64(), f64::from(*free)));
        let count = points().map(|_| 1.0).sum::<f64>();
        let mean_time = points().map(|(time, _)| time).sum::<f64>() / count;
        let mean_free = points().map(|(_, free)| free).sum::<f64>() / count;
        let covariance = points().map(|(time, free)| (time - mean_time) * (free - mean_free)).sum::<f64>();
        let variance = points().map(|(time, _)| (time - mean_time).powi(2)).sum::<f64>();
        (variance > 0.0).then_some(covariance / variance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `free` for each minute.
    fn trend(minutes: u64, free: impl Fn(u64) -> u32) -> Trend {
        let mut trend = Trend::default();
        (0..=minutes).for_each(|minute| trend.note(Timestamp(minute * 60_000), free(minute)));
        trend
    }

    #[test]
    fn a_subnet_that_loses_ten_a_minute_ends_in_ten_minutes() {
        let falling = trend(30, |minute| 400 - 10 * u32::try_from(minute).unwrap());
        assert_eq!(falling.runway(100).map(|runway| runway.as_secs_f64().round()), Some(600.0));
        assert_eq!(falling.runway(0), Some(Duration::ZERO));
    }

    #[test]
    fn a_subnet_that_does_not_shrink_has_no_runway() {
        assert_eq!(trend(30, |_| 100).runway(100), None);
        assert_eq!(trend(30, |minute| 100 + u32::try_from(minute).unwrap()).runway(100), None);
    }

    #[test]
    fn five_minutes_have_to_be_known_first() {
        let falling = |minutes| trend(minutes, |minute| 400 - u32::try_from(minute).unwrap());
        assert_eq!(falling(4).runway(100), None);
        assert!(falling(5).runway(100).is_some());
        assert_eq!(Trend::default().runway(100), None);
    }

    #[test]
    fn what_is_older_than_an_hour_counts_no_more() {
        let since_steady = trend(180, |minute| if minute < 60 { 500 - u32::try_from(minute).unwrap() } else { 400 });
        assert_eq!(since_steady.runway(100), None);
        assert!(since_steady.0.len() <= 61, "bounded: {}", since_steady.0.len());
    }

    #[test]
    fn a_slope_within_the_noise_is_no_end() {
        let hardly = trend(60, |minute| if minute == 60 { 999 } else { 1000 });
        assert_eq!(hardly.runway(1_000_000), None);
    }
}
