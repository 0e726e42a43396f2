//! Requests and responses of the CloudWatch actions, as plain data. Nothing in a request has been looked at yet but its
//! form: `Option` is what a caller may have left out, rightly or not.

use enipool_pool::Timestamp;

use super::store::{MetricId, Statistics};
use super::unit::Unit;

/// CloudWatch's names of all actions that there are here. None of them is the name of an EC2 action.
pub const ACTIONS: [&str; 4] = ["GetMetricData", "GetMetricStatistics", "ListMetrics", "PutMetricData"];

#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    PutMetricData(PutMetricData),
    ListMetrics(ListMetrics),
    GetMetricStatistics(GetMetricStatistics),
    GetMetricData(GetMetricData),
}

impl Request {
    /// CloudWatch's name of the action.
    pub fn action(&self) -> &'static str {
        match self {
            Self::PutMetricData(_) => "PutMetricData",
            Self::ListMetrics(_) => "ListMetrics",
            Self::GetMetricStatistics(_) => "GetMetricStatistics",
            Self::GetMetricData(_) => "GetMetricData",
        }
    }

    /// What the request is about, for faults and the ledger: its namespaces.
    pub fn resources(&self) -> Vec<&str> {
        let namespace = match self {
            Self::PutMetricData(put) => put.namespace.as_deref(),
            Self::ListMetrics(list) => list.namespace.as_deref(),
            Self::GetMetricStatistics(get) => get.metric.namespace.as_deref(),
            Self::GetMetricData(get) => {
                let stats = get.queries.iter().filter_map(|query| query.stat.as_ref());
                let mut all: Vec<&str> = stats.filter_map(|stat| stat.metric.namespace.as_deref()).collect();
                all.sort_unstable();
                all.dedup();
                return all;
            }
        };
        namespace.into_iter().collect()
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct PutMetricData {
    pub namespace: Option<String>,
    pub data: Vec<Datum>,
}

/// One element of MetricData.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Datum {
    pub name: Option<String>,
    pub dimensions: Vec<Dimension>,
    pub timestamp: Option<Timestamp>,
    pub value: Option<f64>,
    pub statistics: Option<StatisticSet>,
    pub values: Vec<f64>,
    pub counts: Vec<f64>,
    pub unit: Option<String>,
    /// Seconds.
    pub storage_resolution: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dimension {
    pub name: Option<String>,
    pub value: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StatisticSet {
    pub sample_count: Option<f64>,
    pub sum: Option<f64>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
}

/// Namespace, name and dimensions of the metric that a read call is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricRef {
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub dimensions: Vec<Dimension>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListMetrics {
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// The value is absent where any will do.
    pub dimensions: Vec<Dimension>,
    /// `PT3H`, or absent.
    pub recently_active: Option<String>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct GetMetricStatistics {
    pub metric: MetricRef,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    /// Seconds.
    pub period: Option<f64>,
    pub statistics: Vec<String>,
    pub unit: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct GetMetricData {
    pub queries: Vec<Query>,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub scan_by: Option<String>,
    pub max_datapoints: Option<f64>,
    pub next_token: Option<String>,
}

/// One element of MetricDataQueries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    pub id: Option<String>,
    pub stat: Option<MetricStat>,
    pub expression: Option<String>,
    pub label: Option<String>,
    pub return_data: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricStat {
    pub metric: MetricRef,
    /// Seconds.
    pub period: Option<f64>,
    pub stat: Option<String>,
    pub unit: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// PutMetricData answers nothing.
    Done,
    Metrics {
        metrics: Vec<MetricId>,
        next_token: Option<String>,
    },
    Statistics {
        label: String,
        /// Newest first: CloudWatch promises no order, and clients must not count on one.
        datapoints: Vec<Datapoint>,
        /// Which of the statistics were asked for.
        wanted: Vec<Statistic>,
    },
    Data {
        results: Vec<QueryResult>,
        next_token: Option<String>,
    },
}

/// All that was measured in one unit in one period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Datapoint {
    /// The period's start.
    pub at: Timestamp,
    pub unit: Unit,
    pub statistics: Statistics,
}

#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    pub id: String,
    pub label: String,
    pub points: Vec<(Timestamp, f64)>,
    /// False: the rest comes with the next token.
    pub complete: bool,
}

/// The statistics that a minute's sums suffice for; percentiles are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    SampleCount,
    Average,
    Sum,
    Minimum,
    Maximum,
}

impl Statistic {
    pub const ALL: [Self; 5] = [Self::SampleCount, Self::Average, Self::Sum, Self::Minimum, Self::Maximum];

    pub fn name(self) -> &'static str {
        match self {
            Self::SampleCount => "SampleCount",
            Self::Average => "Average",
            Self::Sum => "Sum",
            Self::Minimum => "Minimum",
            Self::Maximum => "Maximum",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|statistic| statistic.name() == name)
    }

    pub fn of(self, statistics: &Statistics) -> f64 {
        match self {
            Self::SampleCount => statistics.count,
            Self::Average => statistics.average(),
            Self::Sum => statistics.sum,
            Self::Minimum => statistics.minimum,
            Self::Maximum => statistics.maximum,
        }
    }
}
