//! The status of classes: how many nodes, and how their subnets fare.

use std::collections::BTreeMap;
use std::time::Duration;

use enipool_crds::{ENIPoolClass, ENIPoolClassStatus, OPERATOR_FIELD_MANAGER, Reason, SubnetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::class::Classes;
use crate::kubernetes::call;
use crate::metrics::Metrics;
use crate::network::{Network, SharedNetwork};
use crate::snapshot;
use crate::world::World;

/// How often the figures are looked at; a write follows only if they differ.
const EVERY: Duration = Duration::from_secs(5);

/// Writes until the token is cancelled.
pub async fn keep(client: Client, world: World, network: SharedNetwork, metrics: Metrics, stop: CancellationToken) {
    let classes: Api<ENIPoolClass> = Api::all(client);
    let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        for (name, status) in changed(&world, &network.get(), Timestamp::now()) {
            let body = json!({
                "apiVersion": format!("{}/{}", enipool_crds::GROUP, enipool_crds::VERSION),
                "kind": "ENIPoolClass",
                "metadata": {"name": name},
                "status": status,
            });
            let answer = call(classes.patch_status(&name, &params, &Patch::Apply(&body))).await;
            metrics.wrote("class_status", &answer);
            if let Err(error) = answer {
                tracing::warn!(class = %name, error = %error.story(), "status of a class cannot be written yet");
            }
        }
    }
}

/// The classes whose status is not what it should be.
fn changed(world: &World, network: &Network, now: Timestamp) -> Vec<(String, ENIPoolClassStatus)> {
    let state = world.state();
    if !state.is_complete() {
        return Vec::new();
    }
    let snapshot = snapshot::take(&state, network);
    let nodes = snapshot::nodes_by_class(&snapshot.planned);
    let in_flight = in_flight(&snapshot);
    let (_, broken) = Classes::new(state.classes.values());
    let mut changed = Vec::new();
    for class in state.classes.values() {
        let name = class.name_any();
        let before = class.status.clone().unwrap_or_default();
        let nodes = nodes.get(&name).copied().unwrap_or(0);
        let selector = broken.iter().find(|broken| broken.class == name).map(|broken| broken.why.as_str());
        let after = status(class, nodes, &in_flight, selector, network, &before, now);
        if after != before {
            changed.push((name, after));
        }
    }
    changed
}

/// Addresses given to nodes that they do not hold yet, by the subnet that they will come from.
fn in_flight(snapshot: &snapshot::Snapshot) -> BTreeMap<String, u32> {
    let mut in_flight = BTreeMap::new();
    for view in &snapshot.views {
        let Some(given) = &view.given else { continue };
        let open = given.addresses.saturating_sub(view.addresses.total());
        if let Some(subnet) = given.subnet.as_ref().or_else(|| view.subnets.first()).filter(|_| open > 0) {
            *in_flight.entry(subnet.to_string()).or_default() += open;
        }
    }
    in_flight
}

fn status(
    class: &ENIPoolClass,
    nodes: u32,
    in_flight: &BTreeMap<String, u32>,
    broken_selector: Option<&str>,
    network: &Network,
    before: &ENIPoolClassStatus,
    now: Timestamp,
) -> ENIPoolClassStatus {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let known = network.classes.get(&class.name_any());
    let chosen = known.and_then(|known| known.subnets.as_ref());
    let subnets = network.subnets.values().filter(|subnet| chosen.is_none_or(|chosen| chosen.contains(&subnet.id)));
    let subnets: Vec<SubnetStatus> = subnets
        .map(|subnet| {
            let in_flight = in_flight.get(subnet.id.as_str()).copied().unwrap_or(0);
            let headroom = network.headroom(&subnet.id);
            let left = subnet.available_ips.saturating_sub(in_flight).saturating_sub(headroom);
            SubnetStatus {
                id: subnet.id.to_string(),
                zone: subnet.zone.to_string(),
                cidr: subnet.cidr.0.to_string(),
                available: number(subnet.available_ips),
                in_flight: number(in_flight),
                headroom: number(headroom),
                share_per_node: left.checked_div(nodes).map_or(0, number),
                exhausted_at: None,
            }
        })
        .collect();
    let problem = known.and_then(|known| known.problem.clone());
    let (ready, reason, message) = match (broken_selector, problem) {
        (Some(why), _) => (false, Reason::ClassNotFound, format!("nodeSelector is not valid, no node matches: {why}")),
        (None, Some((reason, message))) => (false, reason, message),
        (None, None) => (true, Reason::AsPlanned, String::new()),
    };
    ENIPoolClassStatus {
        nodes: number(nodes),
        available_addresses: subnets.iter().map(|subnet| subnet.available).fold(0, i32::saturating_add),
        subnets,
        observed_generation: class.metadata.generation,
        conditions: vec![condition(&before.conditions, ready, reason, message, class.metadata.generation, now)],
    }
}

/// `Ready`, with the time of its last turn kept.
fn condition(
    before: &[Condition],
    ready: bool,
    reason: Reason,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if ready { "True" } else { "False" };
    let last = before.iter().find(|condition| condition.type_ == "Ready" && condition.status == status);
    Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.to_string(),
        message,
        observed_generation: generation,
        last_transition_time: last.map_or(Time(now), |condition| condition.last_transition_time.clone()),
    }
}
