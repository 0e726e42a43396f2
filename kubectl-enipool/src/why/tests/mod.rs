//! Pods at each place of their way, made of plain objects.

use enipool_crds::condition::{self, ConditionType};
use enipool_crds::fixtures::{default_class, pool_with_enis};
use enipool_crds::{Allocation, ENIPool, ENIPoolClassStatus, ENIPoolStatus, Reason, SubnetStatus};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

mod pages;
mod verdicts;

const NOW: i64 = 1_700_000_000;

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW - seconds).unwrap()
}

/// A pod bound two minutes and a bit ago, without an address.
fn pod() -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "u-1", "creationTimestamp": ago(131).to_string()},
        "spec": {"nodeName": "node-a", "containers": [{"name": "web"}]},
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodReadyToStartContainers", "status": "False"},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(130).to_string()},
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            ],
            "containerStatuses": [{
                "name": "web", "image": "web", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}},
            }],
        },
    })
}

fn agent(ready: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": "enipool", "name": "enipool-agent-x1"},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap()
}

fn node(ready: &str) -> Node {
    let condition = json!({"type": "Ready", "status": ready, "reason": "KubeletNotReady", "message": "disk\nfull"});
    serde_json::from_value(json!({"metadata": {"name": "node-a"}, "status": {"conditions": [condition]}})).unwrap()
}

/// A pool of two ENIs of nine addresses, of which `assigned` are in use.
fn pool(assigned: i32) -> ENIPool {
    let mut pool = pool_with_enis("node-a", 2, 9, assigned);
    pool.metadata.generation = Some(1);
    pool.spec.allocation = Some(Allocation {
        class: "default".into(),
        enis: 2,
        addresses: 18,
        ceiling: 27,
        pods: 20,
        demand: 2,
        subnet_id: Some("subnet-1".into()),
        decision: "18 = 18 used; 2 demand and 9 warm withheld: subnet-1 has 0 left".into(),
        ..Allocation::default()
    });
    pool
}

fn event(seconds_ago: i64, reason: &str, message: &str) -> Event {
    serde_json::from_value(json!({
        "metadata": {"name": "e"}, "involvedObject": {}, "type": "Warning", "reason": reason, "message": message,
        "count": 3, "lastTimestamp": ago(seconds_ago).to_string(),
    }))
    .unwrap()
}

fn facts(pod: Value, pool: ENIPool) -> Facts {
    let subnet = SubnetStatus {
        id: "subnet-1".into(),
        zone: "eu-west-1a".into(),
        cidr: "10.0.0.0/24".into(),
        available: 10,
        in_flight: 1,
        headroom: 10,
        share_per_node: 0,
        exhausted_at: Some(Time(ago(-3600))),
    };
    let mut class = default_class();
    class.status = Some(ENIPoolClassStatus { subnets: vec![subnet], ..ENIPoolClassStatus::default() });
    Facts {
        pod: serde_json::from_value::<Pod>(pod).unwrap(),
        node: Answer::Found(node("True")),
        pool: Answer::Found(pool),
        class: Answer::Found(class),
        agent: Answer::Found(agent("True")),
        events: Answer::Found(Vec::new()),
        now: ago(0),
    }
}

/// The pool has none free, for this reason.
fn short_of(reason: Reason, message: &str, change: impl FnOnce(&mut ENIPoolStatus)) -> ENIPool {
    let mut pool = pool(18);
    let status = pool.status.as_mut().unwrap();
    status.waiting = 2;
    status.reason = reason.to_string();
    let shortage = ConditionType::AddressesAvailable;
    condition::set(&mut status.conditions, shortage, Some(false), reason, message, Some(1), ago(100));
    change(status);
    pool
}
