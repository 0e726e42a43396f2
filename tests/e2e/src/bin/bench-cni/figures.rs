//! Percentiles, the table for people and the flat file for machines.

use std::collections::BTreeMap;
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

/// What a figure has to stay under, or reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// All figures of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: BTreeMap<&'static str, f64>,
    rows: Vec<[String; 4]>,
}

impl Report {
    /// A figure with a goal, by its key in the file.
    pub(crate) fn figure(&mut self, key: &'static str, value: f64, goal: Goal) {
        let (text, met) = match goal {
            Goal::AtMost(most) => (format!("≤ {most}"), value <= most),
            Goal::AtLeast(least) => (format!("≥ {least}"), value >= least),
        };
        self.figures.insert(key, (value * 1e4).round() / 1e4);
        self.rows.push([key.to_owned(), format!("{value:.3}"), text, if met { "yes" } else { "NO" }.to_owned()]);
    }

    pub(crate) fn print(&self) {
        println!("\n{:<34}{:>12}{:>12}   met", "figure", "value", "goal");
        for [key, value, goal, met] in &self.rows {
            println!("{key:<34}{value:>12}{goal:>12}   {met}");
        }
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let text = serde_json::to_string_pretty(&self.figures)? + "\n";
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
}
