//! What PutMetricData refuses ([its reference](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html)).
//! A request becomes samples as a whole, or is refused as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use enipool_pool::Timestamp;

use super::error::{invalid, invalid_combination, missing};
use super::request::{Datum, Dimension, PutMetricData, StatisticSet};
use super::store::{MetricId, Statistics};
use super::unit::Unit;
use crate::model::ApiError;

/// Elements of MetricData in one request.
const MAX_DATA: usize = 1000;
const MAX_DIMENSIONS: usize = 30;
/// Elements of Values, and so of Counts.
const MAX_VALUES: usize = 150;
const MAX_NAME: usize = 255;
const MAX_DIMENSION_VALUE: usize = 1024;
/// How far a datum's time may lie back, and ahead.
const MAX_AGE: Duration = Duration::from_hours(14 * 24);
const MAX_AHEAD: Duration = Duration::from_hours(2);
/// Lines of a refusal that names several data.
const MAX_LINES: usize = 20;

/// A datum that CloudWatch takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) id: MetricId,
    pub(super) at: Timestamp,
    pub(super) unit: Unit,
    pub(super) statistics: Statistics,
    pub(super) high_resolution: bool,
}

/// The samples of a request that arrives now.
pub(super) fn samples(put: PutMetricData, now: Timestamp) -> Result<Vec<Sample>, ApiError> {
    let namespace = namespace(put.namespace)?;
    if put.data.is_empty() {
        return Err(missing("MetricData"));
    }
    at_most(MAX_DATA, "MetricData", put.data.len())?;
    let mut samples = Vec::with_capacity(put.data.len());
    let mut refusals = Vec::new();
    for (index, datum) in put.data.into_iter().enumerate() {
        match sample(&namespace, datum, &format!("MetricData.member.{}", index + 1), now) {
            Ok(sample) => samples.push(sample),
            Err(refusal) => refusals.push(refusal),
        }
    }
    match refusals.first() {
        None => Ok(samples),
        Some(first) => {
            let alike = refusals.iter().filter(|refusal| refusal.code == first.code).take(MAX_LINES);
            let message = alike.map(|refusal| refusal.message.as_str()).collect::<Vec<_>>().join("\n");
            Err(ApiError { message, ..first.clone() })
        }
    }
}

/// The reference's rule. The user guide's (letters, digits and `.-_/#:`) is narrower, and CloudWatch does not keep to it.
fn namespace(namespace: Option<String>) -> Result<String, ApiError> {
    let namespace = required(namespace, "Namespace")?;
    text(&namespace, "Namespace", MAX_NAME)?;
    if namespace.starts_with("AWS/") {
        return Err(invalid("The value AWS/ for parameter Namespace is invalid."));
    }
    if namespace.starts_with(':') {
        return Err(invalid(format!("The value {namespace} for parameter Namespace is invalid.")));
    }
    Ok(namespace)
}

fn sample(namespace: &str, datum: Datum, path: &str, now: Timestamp) -> Result<Sample, ApiError> {
    let statistics = statistics(&datum, path)?;
    let at = at(datum.timestamp, path, now)?;
    let unit = unit(datum.unit.as_deref(), &format!("{path}.Unit"))?.unwrap_or(Unit::NONE);
    let high_resolution = high_resolution(datum.storage_resolution, path)?;
    let name = required(datum.name, &format!("{path}.MetricName"))?;
    text(&name, &format!("{path}.MetricName"), MAX_NAME)?;
    let dimensions = dimensions(datum.dimensions, &format!("{path}.Dimensions"))?;
    let id = MetricId { namespace: namespace.to_owned(), name, dimensions };
    Ok(Sample { id, at, unit, statistics, high_resolution })
}

/// The dimensions of one metric, sorted.
pub(super) fn dimensions(dimensions: Vec<Dimension>, path: &str) -> Result<Vec<(String, String)>, ApiError> {
    at_most(MAX_DIMENSIONS, path, dimensions.len())?;
    let mut pairs = Vec::with_capacity(dimensions.len());
    for (index, Dimension { name, value }) in dimensions.into_iter().enumerate() {
        let path = format!("{path}.member.{}", index + 1);
        let name = dimension_name(name, &path)?;
        let value = required(value, &format!("{path}.Value"))?;
        text(&value, &format!("{path}.Value"), MAX_DIMENSION_VALUE)?;
        pairs.push((name, value));
    }
    pairs.sort();
    if pairs.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len() < pairs.len() {
        return Err(invalid("No metric may specify the same dimension name twice."));
    }
    Ok(pairs)
}

pub(super) fn dimension_name(name: Option<String>, path: &str) -> Result<String, ApiError> {
    let path = format!("{path}.Name");
    let name = required(name, &path)?;
    text(&name, &path, MAX_NAME)?;
    if name.starts_with(':') {
        return Err(invalid(format!("The value {name} for parameter {path} is invalid.")));
    }
    Ok(name)
}

pub(super) fn required<T>(value: Option<T>, path: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| missing(path))
}

/// ASCII without control characters, not blank, of up to `max` characters.
fn text(value: &str, path: &str, max: usize) -> Result<(), ApiError> {
    if value.trim().is_empty() {
        return Err(invalid(format!("The parameter {path} must contain at least one non-whitespace character.")));
    }
    if !value.is_ascii() {
        return Err(invalid(format!("The value {value} for parameter {path} contains non-ASCII characters.")));
    }
    if value.contains(|c: char| c.is_ascii_control()) {
        return Err(invalid(format!("The parameter {path} contains control characters.")));
    }
    if value.len() > max {
        return Err(invalid(format!("The parameter {path} must be shorter than {} characters.", max + 1)));
    }
    Ok(())
}

fn at_most(max: usize, path: &str, found: usize) -> Result<(), ApiError> {
    if found > max {
        return Err(invalid(format!("The collection {path} must not have a size greater than {max}.")));
    }
    Ok(())
}

fn at(timestamp: Option<Timestamp>, path: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let at = timestamp.unwrap_or(now);
    if at.plus(MAX_AGE) < now {
        return Err(invalid(format!("The parameter {path}.Timestamp must specify a time within the past two weeks.")));
    }
    if at > now.plus(MAX_AHEAD) {
        let message =
            format!("The parameter {path}.Timestamp must specify a time no more than two hours in the future.");
        return Err(invalid(message));
    }
    Ok(at)
}

/// The unit of that name; `None` where none is named.
pub(super) fn unit(name: Option<&str>, path: &str) -> Result<Option<Unit>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    let unknown = || invalid(format!("The parameter {path} must be a value in the set [ {} ].", Unit::all()));
    Unit::parse(name).map(Some).ok_or_else(unknown)
}

fn high_resolution(seconds: Option<f64>, path: &str) -> Result<bool, ApiError> {
    match seconds {
        None | Some(60.0) => Ok(false),
        Some(1.0) => Ok(true),
        Some(other) => {
            let message =
                format!("The value {other} for parameter {path}.StorageResolution is invalid: it must be 1 or 60.");
            Err(invalid(message))
        }
    }
}

fn statistics(datum: &Datum, path: &str) -> Result<Statistics, ApiError> {
    let given = [
        ("Value", datum.value.is_some()),
        ("StatisticValues", datum.statistics.is_some()),
        ("Values", !datum.values.is_empty()),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
    if let [one, other, ..] = given.as_slice() {
        return Err(invalid_combination(format!(
            "The parameters {path}.{one} and {path}.{other} are mutually exclusive and you have specified both."
        )));
    }
    if datum.values.is_empty() && !datum.counts.is_empty() {
        return Err(invalid_combination(format!("The parameter {path}.Counts needs the parameter {path}.Values.")));
    }
    match (datum.value, &datum.statistics) {
        (Some(value), _) => Ok(Statistics::of(number(value, &format!("{path}.Value"))?, 1.0)),
        (None, Some(set)) => statistic_set(set, &format!("{path}.StatisticValues")),
        (None, None) => distribution(&datum.values, &datum.counts, path),
    }
}

fn statistic_set(set: &StatisticSet, path: &str) -> Result<Statistics, ApiError> {
    let field = |value: Option<f64>, name: &str| {
        let path = format!("{path}.{name}");
        number(required(value, &path)?, &path)
    };
    let statistics = Statistics {
        count: field(set.sample_count, "SampleCount")?,
        sum: field(set.sum, "Sum")?,
        minimum: field(set.minimum, "Minimum")?,
        maximum: field(set.maximum, "Maximum")?,
    };
    if statistics.count <= 0.0 {
        return Err(invalid(format!("The parameter {path}.SampleCount must be greater than 0.")));
    }
    if statistics.maximum < statistics.minimum {
        return Err(invalid(format!("The parameter {path}.Maximum must be greater than {path}.Minimum.")));
    }
    Ok(statistics)
}

fn distribution(values: &[f64], counts: &[f64], path: &str) -> Result<Statistics, ApiError> {
    if values.is_empty() {
        return Err(invalid_combination(format!(
            "At least one of the parameters {path}.Value, {path}.Values and {path}.StatisticValues must be specified."
        )));
    }
    at_most(MAX_VALUES, &format!("{path}.Values"), values.len())?;
    if !counts.is_empty() && counts.len() != values.len() {
        let message = format!("The parameters {path}.Values and {path}.Counts must be of the same size.");
        return Err(invalid(message));
    }
    let mut all: Option<Statistics> = None;
    for (index, value) in values.iter().enumerate() {
        let value = number(*value, &format!("{path}.Values"))?;
        let count = number(counts.get(index).copied().unwrap_or(1.0), &format!("{path}.Counts"))?;
        if count < 0.0 {
            return Err(invalid(format!("The value {count} for parameter {path}.Counts is invalid.")));
        }
        if count > 0.0 {
            let these = Statistics::of(value, count);
            all = Some(all.map_or(these, |before| before.and(these)));
        }
    }
    all.ok_or_else(|| invalid(format!("The parameter {path}.Counts must not be all 0.")))
}

/// A number that CloudWatch can store: zero, or of a magnitude between 2^-360 and 2^360.
fn number(value: f64, path: &str) -> Result<f64, ApiError> {
    let largest = 2_f64.powi(360);
    let magnitude = value.abs();
    // Written so that NaN fails it.
    if value == 0.0 || (largest.recip()..=largest).contains(&magnitude) {
        Ok(value)
    } else {
        Err(invalid(format!("The value {value} for parameter {path} is invalid.")))
    }
}
