//! The subnets as the classes report them, each once. Pure.

use std::collections::BTreeMap;

use enipool_crds::ENIPoolClass;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::NodeRow;

/// One subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetRow {
    pub id: String,
    pub zone: String,
    pub cidr: String,
    /// Free addresses as EC2 counts them.
    pub free: i32,
    /// Allocated to nodes that have not taken them yet.
    pub in_flight: i32,
    /// What the pool leaves untouched.
    pub headroom: i32,
    /// What the pool can still hand out: free, less what is in flight and the headroom.
    pub usable: i32,
    pub share_per_node: i32,
    /// Seconds until it runs out at the pace of the last hour; absent while it does not shrink.
    pub exhausted_in_seconds: Option<i64>,
    /// The classes that use it.
    pub classes: Vec<String>,
}

impl SubnetRow {
    /// Whether the node uses this subnet or may come to: its next ENI's, one of its ENIs', or one of its zone.
    pub fn serves(&self, node: &NodeRow) -> bool {
        node.subnet_id.as_ref() == Some(&self.id)
            || node.enis.iter().any(|eni| eni.subnet_id == self.id)
            || node.zone.as_ref() == Some(&self.zone)
    }
}

/// All subnets of all classes, the scarcest first.
///
/// Classes may share a subnet. What they say of it may be seconds apart, so the more careful figure is taken of each.
pub fn merge(classes: &[ENIPoolClass], now: Timestamp) -> Vec<SubnetRow> {
    let mut rows: BTreeMap<&str, SubnetRow> = BTreeMap::new();
    for class in classes {
        for subnet in class.status.iter().flat_map(|status| &status.subnets) {
            let runs_out = subnet.exhausted_at.as_ref().map(|at| (at.0.as_second() - now.as_second()).max(0));
            let row = rows.entry(&subnet.id).or_insert_with(|| SubnetRow {
                id: subnet.id.clone(),
                zone: subnet.zone.clone(),
                cidr: subnet.cidr.clone(),
                free: subnet.available,
                share_per_node: subnet.share_per_node,
                ..SubnetRow::default()
            });
            row.free = row.free.min(subnet.available);
            row.in_flight = row.in_flight.max(subnet.in_flight);
            row.headroom = row.headroom.max(subnet.headroom);
            row.share_per_node = row.share_per_node.min(subnet.share_per_node);
            row.exhausted_in_seconds = [row.exhausted_in_seconds, runs_out].into_iter().flatten().min();
            row.classes.push(class.name_any());
        }
    }
    let mut rows: Vec<SubnetRow> = rows.into_values().collect();
    for row in &mut rows {
        row.usable = row.free.saturating_sub(row.in_flight).saturating_sub(row.headroom).max(0);
    }
    rows.sort_by_key(|row| row.usable);
    rows
}
