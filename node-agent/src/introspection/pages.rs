//! The pages under `/v1/` as pure functions of a snapshot. `/v1/enis` and `/v1/pods` keep the fields of the AWS plugin's
//! introspection endpoint, so that scripts written for it go on working; the other pages are ours.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use enipool_pool::Timestamp;
use enipool_pool::ledger::{AddressState, AttachmentKey, PodRef};
use serde::Serialize;
use serde_json::{Value, json};

use crate::engine::{EniState, EniView, Phase, PoolSnapshot};

/// Paths that answer, for `/` and for the message of a 404.
pub const PATHS: [&str; 6] = ["/v1/enis", "/v1/pods", "/v1/pool", "/v1/intents", "/v1/config", "/metrics"];

/// The page at `path`; `None` if there is none.
pub fn page(path: &str, snapshot: &PoolSnapshot) -> Option<Value> {
    Some(match path {
        "/" => json!({ "AvailableCommands": PATHS }),
        "/v1/enis" => to_value(&enis(snapshot)),
        "/v1/pods" => to_value(&pods(snapshot)),
        "/v1/pool" => pool(snapshot),
        "/v1/intents" => intents(snapshot),
        "/v1/config" => config(snapshot),
        _ => return None,
    })
}

fn to_value(page: &impl Serialize) -> Value {
    // Our own plain structs: they cannot fail to become JSON. A null shows up in any test if they ever do.
    serde_json::to_value(page).unwrap_or(Value::Null)
}

#[derive(Debug, Serialize)]
struct Enis<'a> {
    #[serde(rename = "AssignedIPs")]
    assigned_ips: u32,
    #[serde(rename = "ENIIPPools")]
    pools: BTreeMap<&'a str, EniPage<'a>>,
    #[serde(rename = "TotalIPs")]
    total_ips: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EniPage<'a> {
    #[serde(rename = "AssignedIPv4Addresses")]
    assigned: u32,
    device_number: u32,
    #[serde(rename = "IPv4Addresses")]
    addresses: BTreeMap<Ipv4Addr, AddressPage>,
    id: &'a str,
    is_primary: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AddressPage {
    assigned: bool,
}

/// Interfaces that are attached and ours, as the AWS plugin listed them.
fn listed(snapshot: &PoolSnapshot) -> impl Iterator<Item = (&EniView, u32)> {
    snapshot
        .enis
        .iter()
        .filter(|eni| !matches!(eni.state, EniState::Created | EniState::Unmanaged | EniState::Missing))
        .filter_map(|eni| Some((eni, eni.device_index?)))
}

fn enis(snapshot: &PoolSnapshot) -> Enis<'_> {
    let pools: BTreeMap<_, _> = listed(snapshot)
        .map(|(eni, device_number)| {
            let addresses: BTreeMap<_, _> = eni
                .addresses
                .iter()
                .map(|view| {
                    (view.address, AddressPage { assigned: matches!(view.state, AddressState::Assigned { .. }) })
                })
                .collect();
            let assigned = count(addresses.values().filter(|address| address.assigned).count());
            let page =
                EniPage { assigned, device_number, addresses, id: eni.id.as_str(), is_primary: device_number == 0 };
            (eni.id.as_str(), page)
        })
        .collect();
    Enis {
        assigned_ips: pools.values().map(|eni| eni.assigned).sum(),
        total_ips: pools.values().map(|eni| count(eni.addresses.len())).sum(),
        pools,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[derive(Debug, Serialize)]
struct PodPage {
    #[serde(rename = "DeviceNumber")]
    device_number: u32,
    #[serde(rename = "IP")]
    ip: Ipv4Addr,
}

/// `NAME_NAMESPACE_CONTAINERID`: neither a pod's name nor its namespace can hold an underscore. With the interface's name
/// behind it where these are not enough: a pod's further interfaces, and adopted pods, of which only the host's end is known.
fn pod_name(key: &AttachmentKey, pod: &PodRef) -> String {
    let name = format!("{}_{}_{}", pod.name, pod.namespace, key.container_id);
    if &*key.ifname == "eth0" && !pod.name.is_empty() { name } else { format!("{name}_{}", key.ifname) }
}

fn pods(snapshot: &PoolSnapshot) -> BTreeMap<String, PodPage> {
    snapshot
        .enis
        .iter()
        .filter_map(|eni| Some((eni, eni.device_index?)))
        .flat_map(|(eni, device_number)| {
            eni.addresses.iter().filter_map(move |view| match &view.state {
                AddressState::Assigned { key, pod, .. } => {
                    Some((pod_name(key, pod), PodPage { device_number, ip: view.address }))
                }
                _ => None,
            })
        })
        .collect()
}

/// The pool in one page: what it holds, what it waits for and why, what surprised it.
fn pool(snapshot: &PoolSnapshot) -> Value {
    let since = |at: Timestamp| snapshot.at.since(at).as_secs_f64();
    json!({
        "phase": match &snapshot.phase {
            Phase::Starting(waiting_for) => json!({ "name": "Starting", "waitingFor": waiting_for }),
            Phase::Serving => json!({ "name": "Serving" }),
            Phase::Stopping => json!({ "name": "Stopping" }),
        },
        "instance": snapshot.instance.as_ref().map(|instance| json!({
            "id": instance.id, "type": instance.instance_type, "zone": instance.zone, "region": instance.region,
            "primaryIP": instance.primary_ip, "vpcCIDRs": instance.vpc_cidrs,
        })),
        "capacity": snapshot.capacity.map(|capacity| json!({
            "enis": capacity.enis, "addressesPerENI": capacity.slots_per_eni,
            "addresses": capacity.addresses, "maxPods": capacity.max_pods,
        })),
        "addresses": {
            "total": snapshot.counts.total, "assigned": snapshot.counts.assigned,
            "cooling": snapshot.counts.cooling, "available": snapshot.available(),
        },
        "enis": snapshot.enis.iter().map(|eni| json!({
            "id": eni.id, "mac": eni.mac, "deviceNumber": eni.device_index, "subnetID": eni.subnet,
            "primaryIP": eni.primary_ip, "state": eni.state.label(), "unmanagedBecause": eni.unmanaged_because,
            "prefixes": eni.prefixes, "addresses": eni.counts.total, "assigned": eni.counts.assigned,
            "cooling": eni.counts.cooling,
        })).collect::<Vec<_>>(),
        "waiting": snapshot.waiting.iter().map(|waiting| json!({
            "pod": waiting.pod.name, "namespace": waiting.pod.namespace, "containerID": waiting.key.container_id,
            "seconds": since(waiting.since),
        })).collect::<Vec<_>>(),
        "shortage": snapshot.shortage.map(|shortage| json!({
            "reason": shortage.label(), "explanation": shortage.explanation(), "advice": shortage.advice(),
            "detail": snapshot.shortage_detail,
        })),
        "decision": snapshot.decision,
        "inProgress": snapshot.in_progress.iter().map(|action| json!({
            "action": action.action.name(), "eni": action.eni, "text": action.text, "seconds": since(action.since),
        })).collect::<Vec<_>>(),
        "strays": snapshot.strays.iter().map(|stray| json!({
            "address": stray.address, "pod": stray.pod.name, "namespace": stray.pod.namespace, "eni": stray.eni,
        })).collect::<Vec<_>>(),
        "ec2": {
            "calls": snapshot.calls.iter().map(|(action, counts)| (action.name(), json!({
                "calls": counts.calls, "errors": counts.errors, "throttles": counts.throttles,
            }))).collect::<BTreeMap<_, _>>(),
            "lastError": snapshot.last_ec2_error.as_ref().map(|error| json!({
                "action": error.action.name(), "kind": error.kind.label(), "message": error.message,
                "secondsAgo": since(error.at),
            })),
        },
        "notices": snapshot.notices.iter().map(|notice| json!({
            "kind": notice.kind, "text": notice.text, "secondsAgo": since(notice.at),
        })).collect::<Vec<_>>(),
    })
}

fn intents(snapshot: &PoolSnapshot) -> Value {
    snapshot
        .intents
        .iter()
        .map(|intent| {
            json!({
                "id": intent.id, "subnetID": intent.subnet, "eni": intent.eni,
                "seconds": snapshot.at.since(intent.since).as_secs_f64(),
            })
        })
        .collect()
}

/// What the agent aims for, after people's wishes, the class and the operator's word were put together.
fn config(snapshot: &PoolSnapshot) -> Value {
    let config = &snapshot.config;
    json!({
        "targets": config.policy.targets,
        "addressing": config.policy.addressing,
        "operations": config.policy.operations,
        "usePrimaryENI": config.policy.use_primary_eni,
        "allocation": config.allocation.as_ref().map(|allocation| json!({
            "addresses": allocation.addresses, "enis": allocation.enis, "prefixes": allocation.prefixes,
            "subnetID": allocation.subnet,
        })),
        "ceiling": config.ceiling,
        "demand": config.demand,
        "maxPods": config.max_pods,
        "cooldownSeconds": config.cooldown.as_secs_f64(),
        "subnets": config.subnets,
        "securityGroups": config.security_groups,
        "manageUntagged": config.manage_untagged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::fixture::{snapshot, with_adopted_pods};

    #[test]
    fn enis_has_the_fields_that_scripts_for_the_aws_plugin_read() {
        let page = page("/v1/enis", &snapshot()).unwrap();
        assert_eq!(
            page,
            json!({
                "AssignedIPs": 3,
                "TotalIPs": 5,
                "ENIIPPools": {
                    "eni-0": {
                        "AssignedIPv4Addresses": 2, "DeviceNumber": 0, "Id": "eni-0", "IsPrimary": true,
                        "IPv4Addresses": { "10.0.0.10": { "Assigned": true }, "10.0.0.11": { "Assigned": true } },
                    },
                    "eni-1": {
                        "AssignedIPv4Addresses": 1, "DeviceNumber": 1, "Id": "eni-1", "IsPrimary": false,
                        "IPv4Addresses": {
                            "10.0.1.10": { "Assigned": true },
                            "10.0.1.11": { "Assigned": false },
                            "10.0.1.12": { "Assigned": false },
                        },
                    },
                },
            })
        );
    }

    #[test]
    fn pods_are_named_by_name_namespace_and_container() {
        let page = page("/v1/pods", &snapshot()).unwrap();
        assert_eq!(page["db-0_default_container-db-0"], json!({ "DeviceNumber": 1, "IP": "10.0.1.10" }));
        assert_eq!(page.as_object().map(serde_json::Map::len), Some(3));
    }

    #[test]
    fn pods_that_share_all_but_the_interface_are_listed_each_by_itself() {
        let page = page("/v1/pods", &with_adopted_pods(snapshot())).unwrap();
        let ip = |name: &str| page[name]["IP"].as_str();
        assert_eq!(ip("__kernel_eni0d7763386da"), Some("10.0.1.11"));
        assert_eq!(ip("__kernel_enideadbeef012"), Some("10.0.1.12"));
        assert_eq!(page.as_object().map(serde_json::Map::len), Some(5));
        let second = AttachmentKey::new("enipool", "c1", "net1");
        let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: "".into() };
        assert_eq!(pod_name(&second, &pod), "web_default_c1_net1");
    }

    #[test]
    fn an_interface_that_is_not_ours_is_not_listed() {
        let mut snapshot = snapshot();
        snapshot.enis[1].state = EniState::Unmanaged;
        let page = page("/v1/enis", &snapshot).unwrap();
        assert_eq!((&page["TotalIPs"], page["ENIIPPools"].get("eni-1")), (&json!(2), None));
    }

    #[test]
    fn every_page_that_the_index_names_is_there() {
        let index = page("/", &snapshot()).unwrap();
        for path in index["AvailableCommands"].as_array().unwrap() {
            let path = path.as_str().unwrap();
            assert!(path == "/metrics" || page(path, &snapshot()).is_some(), "{path}");
        }
        assert_eq!(page("/v1/nothing", &snapshot()), None);
    }
}
