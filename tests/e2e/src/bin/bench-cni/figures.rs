//! Percentiles, the table for people and the flat file for machines.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Times of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of all do not exceed (nearest rank), in milliseconds; NaN of nothing.
    pub(crate) fn percentile(&self, percent: u32) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent as usize).div_ceil(100).saturating_sub(1);
        sorted.get(rank).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}

/// The middle of some figures; NaN of nothing.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The figures that every whole run has to have, by their keys in the file.
pub(crate) const REQUIRED: [&str; 12] = [
    "add_p50_vs_ptp",
    "add_p99_vs_ptp",
    "del_p50_vs_ptp",
    "adds_per_s_20_parallel_vs_ptp",
    "add_p50_250_pods_vs_10",
    "udp_rtt_250_pods_vs_2",
    "agent_rss_idle_mb",
    "agent_rss_200_pods_mb",
    "ec2_calls_fill_m5_large",
    "ec2_calls_restart",
    "burst_27_s",
    "burst_27_failed",
];

/// What a figure has to stay under, or reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// What was never measured (NaN) meets no goal.
    fn met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(out, "≤ {most}"),
            Self::AtLeast(least) => write!(out, "≥ {least}"),
        }
    }
}

/// All figures of one run, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(&'static str, f64, Goal)>);

impl Report {
    /// A figure with a goal, by its key in the file.
    pub(crate) fn figure(&mut self, key: &'static str, value: f64, goal: Goal) {
        self.0.push((key, value, goal));
    }

    /// The figures that miss their goals, in words: `key 1.300, goal ≤ 1`.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.0.iter().filter(|(_, value, goal)| !goal.met_by(*value));
        missed.map(|(key, value, goal)| format!("{key} {value:.3}, goal {goal}")).collect()
    }

    /// The required figures that nobody measured.
    pub(crate) fn lacking(&self) -> Vec<&'static str> {
        REQUIRED.into_iter().filter(|required| !self.0.iter().any(|(key, ..)| key == required)).collect()
    }

    pub(crate) fn print(&self) {
        println!("\n{:<34}{:>12}{:>12}   met", "figure", "value", "goal");
        for (key, value, goal) in &self.0 {
            let met = if goal.met_by(*value) { "yes" } else { "NO" };
            println!("{key:<34}{value:>12.3}{:>12}   {met}", goal.to_string());
        }
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let figures: BTreeMap<_, _> = self.0.iter().map(|(key, value, _)| (key, (value * 1e4).round() / 1e4)).collect();
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let mut sample = Sample::default();
        (1..=200).for_each(|ms| sample.push(Duration::from_millis(ms)));
        assert!((sample.percentile(50) - 100.0).abs() < 1e-9);
        assert!((sample.percentile(99) - 198.0).abs() < 1e-9);
        assert!((sample.percentile(100) - 200.0).abs() < 1e-9);
        assert!(Sample::default().percentile(50).is_nan());
    }

    fn report(figures: &[(&'static str, f64, Goal)]) -> Report {
        let mut report = Report::default();
        for (key, value, goal) in figures {
            report.figure(key, *value, *goal);
        }
        report
    }

    #[test]
    fn figures_on_the_good_side_of_their_goals_miss_nothing() {
        let good = [("seconds", 0.9, Goal::AtMost(1.0)), ("on the mark", 1.0, Goal::AtMost(1.0))];
        assert_eq!(report(&good).missed(), [""; 0]);
        assert_eq!(report(&[("rate", 4.5, Goal::AtLeast(4.5))]).missed(), [""; 0]);
    }

    #[test]
    fn each_figure_that_misses_its_goal_is_named_with_value_and_goal() {
        let mixed = [
            ("good", 0.1, Goal::AtMost(0.25)),
            ("slow", 1.3, Goal::AtMost(1.0)),
            ("rate", 4.4, Goal::AtLeast(4.5)),
            ("few", 9.0, Goal::AtMost(8.0)),
        ];
        assert_eq!(report(&mixed).missed(), ["slow 1.300, goal ≤ 1", "rate 4.400, goal ≥ 4.5", "few 9.000, goal ≤ 8"]);
    }

    #[test]
    fn a_run_that_did_not_measure_what_it_has_to_is_told_by_the_keys_that_are_lacking() {
        let mut whole = Report::default();
        for key in REQUIRED.iter().rev() {
            whole.figure(key, 1.0, Goal::AtMost(2.0));
        }
        whole.figure("one more", 1.0, Goal::AtMost(2.0));
        assert_eq!(whole.lacking(), [""; 0]);
        whole.0.retain(|(key, ..)| *key != "burst_27_s");
        assert_eq!(whole.lacking(), ["burst_27_s"]);
    }

    #[test]
    fn a_figure_of_nothing_misses_every_goal() {
        let nothing = Sample::default().percentile(50);
        let figures = [("most", nothing, Goal::AtMost(1.0)), ("least", nothing, Goal::AtLeast(1.0))];
        assert_eq!(report(&figures).missed().len(), 2);
    }
}
