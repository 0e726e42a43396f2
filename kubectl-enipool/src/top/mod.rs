//! `kubectl enipool top`: what each node holds, and what is left of the subnets. Pure: objects and the time in, rows out.

use std::cmp::Reverse;

use enipool_crds::condition::{self, ConditionType};
use enipool_crds::{ENIPool, ENIPoolClass, EniStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::failure::Failure;

pub mod render;
pub mod subnets;
#[cfg(test)]
mod tests;

pub use subnets::SubnetRow;

/// Which rows come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// The fewest free addresses first; before them, nodes that have not reported.
    #[default]
    Free,
    /// The most waiting pods first.
    Waiting,
    /// The most addresses in use first.
    Assigned,
    /// The most addresses held first.
    Ips,
    /// The most throttled EC2 calls first.
    Throttles,
    /// By name.
    Name,
}

/// What `top` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub nodes: Vec<NodeRow>,
    pub totals: Totals,
    pub subnets: Vec<SubnetRow>,
    /// What could not be read, and why.
    pub not_read: Vec<String>,
}

/// One node. What its agent has not reported yet is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    pub node: String,
    pub instance_type: Option<String>,
    #[serde(rename = "instanceID")]
    pub instance_id: Option<String>,
    pub zone: Option<String>,
    #[serde(rename = "attachedENIs")]
    pub attached_enis: Option<i32>,
    /// ENIs that the instance can hold.
    #[serde(rename = "maxENIs")]
    pub max_enis: Option<i32>,
    /// Addresses held: in use, cooling and free.
    pub addresses: Option<i32>,
    pub assigned: Option<i32>,
    pub cooling: Option<i32>,
    pub free: Option<i32>,
    /// Pods whose sandbox waits for an address.
    pub waiting: Option<i32>,
    /// Pods bound to the node without an address, as the operator counts them.
    pub demand: Option<i32>,
    pub ceiling: Option<i32>,
    pub warm: Option<String>,
    /// Status of the condition `Ready`: `True`, `False` or `Unknown`.
    pub ready: Option<String>,
    pub reason: Option<String>,
    /// EC2 calls refused for their rate since the agent started.
    pub throttles: Option<i64>,
    /// Subnet of the node's next ENI.
    #[serde(rename = "subnetID")]
    pub subnet_id: Option<String>,
    pub age_seconds: Option<i64>,
    /// The node's ENIs; only for nodes asked for by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enis: Vec<EniStatus>,
}

/// The sums of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub nodes: usize,
    /// Nodes whose condition `Ready` is `True`.
    pub ready: usize,
    /// Nodes whose agent has not reported yet.
    pub unreported: usize,
    #[serde(rename = "attachedENIs")]
    pub attached_enis: i64,
    #[serde(rename = "maxENIs")]
    pub max_enis: i64,
    pub addresses: i64,
    pub assigned: i64,
    pub cooling: i64,
    pub free: i64,
    pub waiting: i64,
    pub demand: i64,
    pub throttles: i64,
}

/// The report over `pools` and what came of the question for the classes. `named`: the pools were asked for by name, so their ENIs are shown too, and only the subnets
/// that they can use.
pub fn report(
    pools: &[ENIPool],
    classes: Result<Vec<ENIPoolClass>, Failure>,
    sort: Sort,
    named: bool,
    now: Timestamp,
) -> Report {
    let mut nodes: Vec<NodeRow> = pools.iter().map(|pool| row(pool, named, now)).collect();
    sort_rows(&mut nodes, sort);
    let (classes, not_read) = match classes {
        Ok(classes) => (classes, Vec::new()),
        Err(failure) => (Vec::new(), vec![format!("enipoolclasses: {failure}")]),
    };
    let mut subnets = subnets::merge(&classes, now);
    if named {
        subnets.retain(|subnet| nodes.iter().any(|node| subnet.serves(node)));
    }
    Report { totals: totals(&nodes), nodes, subnets, not_read }
}

fn row(pool: &ENIPool, with_enis: bool, now: Timestamp) -> NodeRow {
    let allocation = pool.spec.allocation.as_ref();
    let mut row = NodeRow {
        node: pool.name_any(),
        demand: allocation.map(|allocation| allocation.demand),
        ceiling: allocation.map(|allocation| allocation.ceiling),
        subnet_id: allocation.and_then(|allocation| allocation.subnet_id.clone()),
        age_seconds: pool.creation_timestamp().map(|made| now.as_second() - made.0.as_second()),
        ..NodeRow::default()
    };
    let Some(status) = &pool.status else { return row };
    row.attached_enis = Some(status.attached_enis);
    row.waiting = Some(status.waiting);
    row.throttles = Some(status.throttles);
    row.warm = Some(status.warm.clone()).filter(|warm| !warm.is_empty());
    row.reason = Some(status.reason.clone()).filter(|reason| !reason.is_empty());
    row.max_enis = status.capacity.map(|capacity| capacity.enis);
    row.ready = condition::find(&status.conditions, ConditionType::Ready).map(|ready| ready.status.clone());
    if let Some(instance) = &status.instance {
        row.instance_type = Some(instance.instance_type.clone());
        row.instance_id = Some(instance.id.clone());
        row.zone = Some(instance.zone.clone());
    }
    if let Some(addresses) = status.addresses {
        row.addresses = Some(addresses.total);
        row.assigned = Some(addresses.assigned);
        row.cooling = Some(addresses.cooling);
        row.free = Some(addresses.available);
    }
    if with_enis {
        row.enis.clone_from(&status.enis);
    }
    row
}

fn sort_rows(rows: &mut [NodeRow], sort: Sort) {
    // Names first: every order below keeps them among its equals.
    rows.sort_by(|a, b| a.node.cmp(&b.node));
    match sort {
        Sort::Name => {}
        Sort::Free => rows.sort_by_key(|row| (row.free, Reverse(row.waiting))),
        Sort::Waiting => rows.sort_by_key(|row| (Reverse(row.waiting), row.free)),
        Sort::Assigned => rows.sort_by_key(|row| Reverse(row.assigned)),
        Sort::Ips => rows.sort_by_key(|row| Reverse(row.addresses)),
        Sort::Throttles => rows.sort_by_key(|row| Reverse(row.throttles)),
    }
}

fn totals(rows: &[NodeRow]) -> Totals {
    let sum = |field: fn(&NodeRow) -> Option<i32>| rows.iter().filter_map(field).map(i64::from).sum();
    Totals {
        nodes: rows.len(),
        ready: rows.iter().filter(|row| row.ready.as_deref() == Some("True")).count(),
        unreported: rows.iter().filter(|row| row.free.is_none()).count(),
        attached_enis: sum(|row| row.attached_enis),
        max_enis: sum(|row| row.max_enis),
        addresses: sum(|row| row.addresses),
        assigned: sum(|row| row.assigned),
        cooling: sum(|row| row.cooling),
        free: sum(|row| row.free),
        waiting: sum(|row| row.waiting),
        demand: sum(|row| row.demand),
        throttles: rows.iter().filter_map(|row| row.throttles).sum(),
    }
}
