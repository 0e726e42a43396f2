//! CloudWatch's metrics: what is refused, what is kept, what reads show, and how calls go wrong.

mod calls;
mod kept;
mod reads;
mod refusals;

use std::time::Duration;

use ec2_sim::model::ApiError;
use ec2_sim::model::cloudwatch::request::{Datum, Dimension, PutMetricData};
use ec2_sim::model::cloudwatch::{MetricId, Request, Response};
use ec2_sim::{Model, SimConfig};
use enipool_pool::Timestamp;

const MINUTE: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "Kubernetes";

fn model() -> Model {
    Model::new(SimConfig::instant()).unwrap()
}

/// One value of a metric of the cluster `demo`, now.
fn datum(name: &str, value: f64) -> Datum {
    Datum {
        name: Some(name.to_owned()),
        dimensions: vec![dimension("CLUSTER_ID", "demo")],
        value: Some(value),
        unit: Some("Count".to_owned()),
        ..Datum::default()
    }
}

fn dimension(name: &str, value: &str) -> Dimension {
    Dimension { name: Some(name.to_owned()), value: Some(value.to_owned()) }
}

/// The metric that [`datum`] is of.
fn id(name: &str) -> MetricId {
    let dimensions = vec![("CLUSTER_ID".to_owned(), "demo".to_owned())];
    MetricId { namespace: NAMESPACE.to_owned(), name: name.to_owned(), dimensions }
}

fn put(model: &mut Model, data: Vec<Datum>) -> Result<Response, ApiError> {
    let put = PutMetricData { namespace: Some(NAMESPACE.to_owned()), data };
    model.call_cloudwatch("test", Request::PutMetricData(put)).result
}

/// The model's time, `ago` before the present.
fn before(model: &Model, ago: Duration) -> Timestamp {
    Timestamp(model.now().0 - u64::try_from(ago.as_millis()).unwrap())
}

fn after(model: &mut Model, time: Duration) {
    let to = model.now().plus(time);
    model.advance(to);
}
