//! The read calls: which metrics there are, and what they say per period.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enipool_pool::Timestamp;

use super::error::{invalid, invalid_combination, invalid_next_token, missing, not_simulated, validation};
use super::request::{
    Datapoint, Dimension, GetMetricData, GetMetricStatistics, ListMetrics, MetricRef, MetricStat, Query, QueryResult,
    Response, Statistic,
};
use super::rules::{dimension_name, dimensions, required, unit};
use super::store::{MetricId, Metrics, Statistics, minute_of};
use super::unit::Unit;
use crate::model::ApiError;

/// Metrics on one page of ListMetrics.
const PAGE: usize = 500;
/// A metric without newer data is not listed any more.
const LISTED_FOR: Duration = Duration::from_hours(14 * 24);
/// What `PT3H` stands for.
const RECENT: Duration = Duration::from_hours(3);
/// Dimensions that ListMetrics can be asked for.
const MAX_FILTERS: usize = 10;
/// Datapoints that one GetMetricStatistics may ask for.
const MAX_STATISTICS: u64 = 1440;
const MAX_QUERIES: usize = 500;
/// Datapoints on one page of GetMetricData.
const MAX_DATAPOINTS: usize = 100_800;

/// A stretch of time in periods, all in ms, whole minutes.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: u64,
    end: u64,
    period: u64,
}

impl Metrics {
    pub(super) fn list(&self, list: ListMetrics, now: Timestamp) -> Result<Response, ApiError> {
        let recent = match list.recently_active.as_deref() {
            None => LISTED_FOR,
            Some("PT3H") => RECENT,
            Some(other) => {
                return Err(invalid(format!("The value {other} for parameter RecentlyActive is invalid.")));
            }
        };
        if list.dimensions.len() > MAX_FILTERS {
            let message = format!("The collection Dimensions must not have a size greater than {MAX_FILTERS}.");
            return Err(invalid(message));
        }
        let mut filters = Vec::new();
        for (index, Dimension { name, value }) in list.dimensions.into_iter().enumerate() {
            filters.push((dimension_name(name, &format!("Dimensions.member.{}", index + 1))?, value));
        }
        let invalid_token = |_| invalid("Request parameter NextToken is invalid");
        let skip = list.next_token.as_deref().map(str::parse).transpose().map_err(invalid_token)?.unwrap_or(0);
        let found = self.iter().filter(|(id, metric)| {
            metric.last().at.plus(recent) >= now
                && list.namespace.as_ref().is_none_or(|namespace| *namespace == id.namespace)
                && list.name.as_ref().is_none_or(|name| *name == id.name)
                && filters.iter().all(|filter| has_dimension(id, filter))
        });
        let mut metrics: Vec<MetricId> = found.skip(skip).take(PAGE + 1).map(|(id, _)| id.clone()).collect();
        let more = metrics.len() > PAGE;
        metrics.truncate(PAGE);
        Ok(Response::Metrics { metrics, next_token: more.then(|| (skip + PAGE).to_string()) })
    }

    pub(super) fn statistics(&self, get: GetMetricStatistics) -> Result<Response, ApiError> {
        let id = metric_id(get.metric, "")?;
        let wanted = wanted(&get.statistics)?;
        let unit = unit(get.unit.as_deref(), "Unit")?;
        let start = required(get.start, "StartTime")?;
        let end = required(get.end, "EndTime")?;
        if start == end {
            return Err(invalid("The parameter StartTime must not equal parameter EndTime."));
        }
        if start > end {
            return Err(invalid("The parameter StartTime must be less than the parameter EndTime."));
        }
        let window = window(start, end, get.period, "Period")?;
        let asked = (end.0 - start.0) / window.period;
        if asked > MAX_STATISTICS {
            return Err(invalid_combination(format!(
                "You have requested up to {asked} datapoints, which exceeds the limit of {MAX_STATISTICS}. You may \
                 reduce the datapoints requested by increasing Period, or decreasing the time range."
            )));
        }
        let datapoints = self.by_unit(&id, window, unit).into_iter().rev().map(|((at, unit), statistics)| Datapoint {
            at,
            unit,
            statistics,
        });
        Ok(Response::Statistics { label: id.name.clone(), datapoints: datapoints.collect(), wanted })
    }

    pub(super) fn data(&self, get: GetMetricData) -> Result<Response, ApiError> {
        if get.queries.is_empty() {
            return Err(missing("MetricDataQueries"));
        }
        if get.queries.len() > MAX_QUERIES {
            let message = format!("The collection MetricDataQueries must not have a size greater than {MAX_QUERIES}.");
            return Err(validation(message));
        }
        let newest_first = match get.scan_by.as_deref() {
            None | Some("TimestampDescending") => true,
            Some("TimestampAscending") => false,
            Some(other) => return Err(validation(format!("The value {other} for parameter ScanBy is invalid."))),
        };
        let limit = datapoints_per_page(get.max_datapoints)?;
        let skip = get.next_token.as_deref().map(str::parse::<usize>).transpose();
        let skip = skip.map_err(|_| invalid_next_token())?.unwrap_or(0);
        let start = required(get.start, "StartTime")?;
        let end = required(get.end, "EndTime")?;
        if start == end {
            return Err(validation("The parameter StartTime must not equal parameter EndTime."));
        }
        if start > end {
            return Err(validation("The parameter EndTime must be greater than StartTime."));
        }
        let mut results: Vec<QueryResult> = Vec::new();
        let mut ids = BTreeSet::new();
        for (index, query) in get.queries.into_iter().enumerate() {
            let returned = query.return_data.unwrap_or(true);
            let question = question(query, &format!("MetricDataQueries.member.{}", index + 1), start, end)?;
            if !ids.insert(question.id.clone()) {
                let message =
                    format!("The values for parameter Id in MetricDataQueries are not unique: {}.", question.id);
                return Err(validation(message));
            }
            if returned {
                results.push(self.answer(question, newest_first));
            }
        }
        let more = cut(&mut results, skip, limit);
        Ok(Response::Data { results, next_token: more.then(|| (skip + limit).to_string()) })
    }

    fn answer(&self, question: Question, newest_first: bool) -> QueryResult {
        let mut sums: BTreeMap<Timestamp, Statistics> = BTreeMap::new();
        for ((at, _), statistics) in self.by_unit(&question.metric, question.window, question.unit) {
            sums.entry(at).and_modify(|sum| *sum = sum.and(statistics)).or_insert(statistics);
        }
        let mut points: Vec<_> = sums.iter().map(|(at, sums)| (*at, question.statistic.of(sums))).collect();
        if newest_first {
            points.reverse();
        }
        QueryResult { id: question.id, label: question.label, points, complete: true }
    }

    /// Sums of each period and unit.
    fn by_unit(&self, id: &MetricId, window: Window, only: Option<Unit>) -> BTreeMap<(Timestamp, Unit), Statistics> {
        let mut sums = BTreeMap::new();
        let minutes =
            self.get(id).into_iter().flat_map(|metric| metric.between(Timestamp(window.start), Timestamp(window.end)));
        for (at, unit, statistics) in minutes.filter(|(_, unit, _)| only.is_none_or(|only| only == *unit)) {
            let period = Timestamp(at.0 - (at.0 - window.start) % window.period);
            let merge = |sums: &mut Statistics| *sums = sums.and(*statistics);
            sums.entry((period, unit)).and_modify(merge).or_insert(*statistics);
        }
        sums
    }
}

/// A query, understood.
#[derive(Debug)]
struct Question {
    id: String,
    label: String,
    metric: MetricId,
    window: Window,
    statistic: Statistic,
    unit: Option<Unit>,
}

fn question(query: Query, path: &str, start: Timestamp, end: Timestamp) -> Result<Question, ApiError> {
    let id = required(query.id, &format!("{path}.Id"))?;
    if !is_query_id(&id) {
        return Err(validation(format!(
            "The value {id} for parameter {path}.Id is invalid. It must begin with a lowercase letter and contain only \
             letters, digits and underscores."
        )));
    }
    let MetricStat { metric, period, stat: name, unit: unit_name } = match (query.stat, query.expression) {
        (Some(asked), None) => asked,
        (None, Some(_)) => {
            return Err(not_simulated(&format!("{path}.Expression (metric math and Metrics Insights)")));
        }
        (None, None) => return Err(validation(format!("The parameter {path}.MetricStat is required."))),
        (Some(_), Some(_)) => {
            return Err(validation(format!(
                "The parameters {path}.MetricStat and {path}.Expression are mutually exclusive and you have specified \
                 both."
            )));
        }
    };
    let path = format!("{path}.MetricStat");
    let metric = metric_id(metric, &format!("{path}.Metric."))?;
    let name = required(name, &format!("{path}.Stat"))?;
    let statistic = Statistic::parse(&name).ok_or_else(|| not_simulated(&format!("The statistic {name}")))?;
    let unit = unit(unit_name.as_deref(), &format!("{path}.Unit"))?;
    let window = window(start, end, period, &format!("{path}.Period"))?;
    let label = query.label.unwrap_or_else(|| metric.name.clone());
    Ok(Question { id, label, metric, window, statistic, unit })
}

fn has_dimension(id: &MetricId, (name, value): &(String, Option<String>)) -> bool {
    id.dimensions.iter().any(|(known, its)| known == name && value.as_ref().is_none_or(|value| value == its))
}

/// `prefix` is the path of the metric, with its full stop.
fn metric_id(metric: MetricRef, prefix: &str) -> Result<MetricId, ApiError> {
    Ok(MetricId {
        namespace: required(metric.namespace, &format!("{prefix}Namespace"))?,
        name: required(metric.name, &format!("{prefix}MetricName"))?,
        dimensions: dimensions(metric.dimensions, &format!("{prefix}Dimensions"))?,
    })
}

fn wanted(names: &[String]) -> Result<Vec<Statistic>, ApiError> {
    if names.is_empty() {
        return Err(invalid_combination("Must specify either Statistics or ExtendedStatistics"));
    }
    let parse = |name: &String| {
        Statistic::parse(name).ok_or_else(|| {
            let set = Statistic::ALL.map(Statistic::name).join(", ");
            invalid(format!("The parameter Statistics.member.1 must be a value in the set [ {set} ]; it is {name}."))
        })
    };
    names.iter().map(parse).collect()
}

/// The time from `start` (in whole minutes, as CloudWatch rounds it) to `end`. Sums are kept by the minute, so periods of
/// less are refused.
fn window(start: Timestamp, end: Timestamp, period: Option<f64>, path: &str) -> Result<Window, ApiError> {
    let seconds = required(period, path)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds, and whole")]
    let period = if (60.0..=86_400.0).contains(&seconds) && seconds % 60.0 == 0.0 {
        seconds as u64 * 1000
    } else {
        let message = format!(
            "The parameter {path} must be a multiple of 60, of at most 86400; periods of less than a minute are not \
             simulated."
        );
        return Err(invalid(message));
    };
    Ok(Window { start: minute_of(start).0, end: end.0, period })
}

fn datapoints_per_page(max: Option<f64>) -> Result<usize, ApiError> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds, and whole")]
    match max {
        None => Ok(MAX_DATAPOINTS),
        Some(max) if (1.0..=100_800.0).contains(&max) && max.fract() == 0.0 => Ok(max as usize),
        Some(max) => Err(validation(format!("The value {max} for parameter MaxDatapoints is invalid."))),
    }
}

fn is_query_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.len() <= 255
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Leaves of all points, counted over all results, those after `skip` and at most `limit`. True if there are more.
fn cut(results: &mut [QueryResult], skip: usize, limit: usize) -> bool {
    let (mut skip, mut left, mut more) = (skip, limit, false);
    for result in results {
        let skipped = skip.min(result.points.len());
        result.points.drain(..skipped);
        skip -= skipped;
        result.complete = result.points.len() <= left;
        more |= !result.complete;
        result.points.truncate(left);
        left -= result.points.len();
    }
    more
}
