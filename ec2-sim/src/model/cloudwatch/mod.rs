//! CloudWatch's custom metrics as data: what PutMetricData takes and refuses, and what the read calls show of it.
//!
//! As pure as the rest of the model. Knows no wire protocol, and nothing of EC2 but the faults and limits that it shares.

pub mod error;
mod gate;
mod read;
pub mod request;
mod rules;
mod store;
mod unit;

pub use request::{ACTIONS, Request, Response};
pub use store::{Last, MAX_METRICS, MAX_MINUTES, Metric, MetricId, Metrics, Statistics};
pub use unit::Unit;

/// How a call to CloudWatch ended.
pub type Reply = super::Reply<Response>;
