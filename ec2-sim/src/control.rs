//! The control API under `/_sim/`, for tests and people: faults, time, the ledger of calls, the true state, nodes.
//! Described in README.md. It is outside AWS: no client of EC2 uses it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use enipool_pool::{InstanceId, InstanceType, SubnetId};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::model::calls::CallLog;
use crate::model::cloudwatch::{Metric, MetricId};
use crate::model::request::{LaunchInterface, RunInstances, Wanted};
use crate::model::throttle::ThrottleConfig;
use crate::model::{ApiError, FaultRule, Model, Request, Response, Timing};
use crate::server::Front;
use crate::wire::query::Params;

/// What a request to the control API can get wrong.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("no such path or method; see ec2-sim/README.md")]
    NotFound,
    #[error("no {0}")]
    Missing(String),
    #[error("cannot read the body: {0}")]
    Body(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(#[from] ApiError),
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    #[error("{0}")]
    Bad(String),
}

impl ControlError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Body(_) | Self::Refused(_) | Self::Listen(_) | Self::Bad(_) => StatusCode::BAD_REQUEST,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimingProfile {
    profile: String,
    #[serde(default)]
    percent: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewInstance {
    instance_type: InstanceType,
    #[serde(default)]
    subnet: Option<SubnetId>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Secondary addresses and prefixes of the primary interface, as a launch template would ask for.
    #[serde(default)]
    addresses: Option<u32>,
    #[serde(default)]
    prefixes: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Occupy {
    count: u32,
    #[serde(default = "one")]
    every: u32,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenImds {
    instance: InstanceId,
    listen: SocketAddr,
}

/// Answers one control request: status and JSON.
pub(crate) async fn answer(
    front: &Front,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) -> (StatusCode, String) {
    let answered = match (method, path) {
        (&Method::POST, "imds") => open_imds(front, body).await,
        (&Method::POST, "time") => read::<Advance>(body).map(|advance| {
            front.shared.advance(Duration::from_millis(advance.advance_ms));
            front.shared.with(|model| json!({ "now": model.now() }))
        }),
        _ => front.shared.with(|model| on_model(model, method, path, query, body)),
    };
    match answered {
        Ok(value) => (StatusCode::OK, format!("{value:#}\n")),
        Err(error) => (error.status(), format!("{:#}\n", json!({ "error": error.to_string() }))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    Ok(serde_json::from_slice(body)?)
}

async fn open_imds(front: &Front, body: &[u8]) -> Result<Value, ControlError> {
    let open: OpenImds = read(body)?;
    if front.shared.with(|model| model.metadata(&open.instance).is_none()) {
        return Err(ControlError::Missing(format!("running instance {}", open.instance)));
    }
    let address = front.open_imds(open.listen, open.instance).await?;
    Ok(json!({ "endpoint": format!("http://{address}") }))
}

fn on_model(model: &mut Model, method: &Method, path: &str, query: &str, body: &[u8]) -> Result<Value, ControlError> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["time"]) => Ok(json!({ "now": model.now() })),
        ("GET", ["config"]) => Ok(serde_json::to_value(model.config())?),
        ("GET", ["state"]) => Ok(json!({
            "now": model.now(),
            "vpcs": model.vpcs().collect::<Vec<_>>(),
            "subnets": subnets(model),
            "security_groups": model.security_groups().collect::<Vec<_>>(),
            "truth": model.truth(),
        })),
        ("GET", ["calls"]) => {
            let mut answer = ledger(model.calls(), query)?;
            let cloudwatch = model.cloudwatch_calls();
            answer["cloudwatch"] = json!({ "last": cloudwatch.last_seq(), "counts": cloudwatch.counts() });
            Ok(answer)
        }
        ("GET", ["calls", "cloudwatch"]) => ledger(model.cloudwatch_calls(), query),
        ("DELETE", ["calls"]) => {
            model.reset_calls();
            Ok(json!({}))
        }
        ("GET", ["metrics"]) => metrics(model, query),
        ("DELETE", ["metrics"]) => {
            model.clear_metrics();
            Ok(json!({}))
        }
        ("GET", ["faults"]) => Ok(json!({ "faults": model.faults().list() })),
        ("POST", ["faults"]) => Ok(json!({ "id": model.inject(read::<FaultRule>(body)?) })),
        ("DELETE", ["faults"]) => {
            model.end_all_faults();
            Ok(json!({}))
        }
        ("DELETE", ["faults", id]) => {
            let known = id.parse().is_ok_and(|id| model.end_fault(id));
            known.then(|| json!({})).ok_or_else(|| ControlError::Missing(format!("fault {id}")))
        }
        ("GET", ["timing"]) => Ok(serde_json::to_value(&model.config().timing)?),
        ("PUT", ["timing"]) => {
            let timing = read_timing(body)?;
            model.set_timing(timing);
            Ok(serde_json::to_value(&model.config().timing)?)
        }
        ("GET", ["throttle"]) => {
            Ok(json!({ "config": model.throttle().config(), "tokens": model.throttle().levels() }))
        }
        ("PUT", ["throttle"]) => {
            model.set_throttle(read::<ThrottleConfig>(body)?);
            Ok(json!({ "config": model.throttle().config() }))
        }
        ("POST", ["instances"]) => run_instance(model, read(body)?),
        ("DELETE", ["instances", id]) => {
            let id = id.parse().map_err(|_| ControlError::Missing(format!("instance {id}")))?;
            model.act(&Request::TerminateInstances(vec![id]))?;
            Ok(json!({}))
        }
        ("POST", ["subnets", id, "occupy"]) => {
            let Occupy { count, every } = read(body)?;
            Ok(json!({ "taken": model.occupy(&subnet_id(id)?, count, every)? }))
        }
        ("POST", ["subnets", id, "vacate"]) => Ok(json!({ "freed": model.vacate(&subnet_id(id)?)? })),
        _ => Err(ControlError::NotFound),
    }
}

/// One service's calls: `query` is `since=NUMBER`, or empty.
fn ledger(log: &CallLog, query: &str) -> Result<Value, ControlError> {
    let since = if query.is_empty() { "since=0" } else { query };
    let since = since.strip_prefix("since=").and_then(|number| number.parse().ok());
    let since = since.ok_or_else(|| ControlError::Bad(format!("{query:?} is not since=NUMBER")))?;
    let calls: Vec<_> = log.since(since).collect();
    Ok(json!({ "last": log.last_seq(), "counts": log.counts(), "calls": calls }))
}

/// What CloudWatch has received: of one namespace with `namespace=NAME`, and with the latest N minutes of each metric
/// with `minutes=N`.
fn metrics(model: &Model, query: &str) -> Result<Value, ControlError> {
    let params = Params::parse(query)?;
    let namespace = params.text("namespace");
    let minutes = params.parsed::<usize>("minutes")?.unwrap_or(0);
    params.all_understood()?;
    let wanted = model.metrics().iter().filter(|(id, _)| namespace.is_none_or(|wanted| wanted == id.namespace));
    let metrics: Vec<Value> = wanted.map(|(id, metric)| shown(id, metric, minutes)).collect();
    Ok(json!({ "now": model.now(), "metrics": metrics, "dropped": model.metrics().dropped() }))
}

fn shown(id: &MetricId, metric: &Metric, minutes: usize) -> Value {
    let last = metric.last();
    let mut shown = json!({
        "namespace": id.namespace,
        "name": id.name,
        "dimensions": id.dimensions.iter().cloned().collect::<BTreeMap<_, _>>(),
        "unit": last.unit,
        "value": last.value,
        "at": last.at,
        "received": last.received,
        "datapoints": metric.datapoints(),
        "storage_resolution": if metric.is_high_resolution() { 1 } else { 60 },
    });
    if minutes > 0 {
        let latest = metric.minutes().rev().take(minutes);
        let mut latest: Vec<Value> = latest
            .map(|(at, unit, sums)| {
                json!({
                    "at": at, "unit": unit, "count": sums.count, "sum": sums.sum, "minimum": sums.minimum,
                    "maximum": sums.maximum,
                })
            })
            .collect();
        latest.reverse();
        shown["minutes"] = Value::Array(latest);
    }
    shown
}

fn subnet_id(text: &str) -> Result<SubnetId, ControlError> {
    text.parse().map_err(|_| ControlError::Missing(format!("subnet {text}")))
}

fn subnets(model: &Model) -> Vec<Value> {
    model
        .subnets()
        .map(|subnet| {
            json!({
                "subnet": subnet.info,
                "free": subnet.map.free(),
                "free_prefixes": subnet.map.free_prefixes(),
                "shown_free": subnet.view(model.now()).available_ips,
            })
        })
        .collect()
}

fn read_timing(body: &[u8]) -> Result<Timing, ControlError> {
    let Ok(profile) = serde_json::from_slice::<TimingProfile>(body) else { return read(body) };
    let timing = match profile.profile.as_str() {
        "none" => Timing::none(),
        "realistic" => Timing::realistic(),
        other => return Err(ControlError::Bad(format!("no timing profile {other:?}: there are none and realistic"))),
    };
    Ok(timing.scaled(profile.percent.unwrap_or(100)))
}

fn run_instance(model: &mut Model, new: NewInstance) -> Result<Value, ControlError> {
    let subnet = new.subnet.or_else(|| model.subnets().next().map(|subnet| subnet.info.id.clone()));
    let subnet = subnet.ok_or_else(|| ControlError::Missing("subnet".to_owned()))?;
    let mut tags = new.tags;
    tags.extend(new.name.map(|name| ("Name".to_owned(), name)));
    let primary = LaunchInterface {
        subnet: Some(subnet.clone()),
        secondary: Wanted { address_count: new.addresses, prefix_count: new.prefixes, ..Wanted::default() },
        ..LaunchInterface::default()
    };
    let run = RunInstances {
        subnet: None,
        interfaces: vec![primary],
        instance_tags: tags,
        ..RunInstances::one(new.instance_type, subnet)
    };
    match model.act(&Request::RunInstances(run))? {
        Response::Reservation(instances) => Ok(json!({ "instance": instances.first() })),
        other => Err(ControlError::Bad(format!("unexpected answer {other:?}"))),
    }
}
