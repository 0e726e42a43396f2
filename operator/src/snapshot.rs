//! From the world to the fleet planner's snapshot. Pure: objects in, counts out.

use std::collections::BTreeMap;
use std::sync::Arc;

use enipool_crds::condition::{self, ConditionType};
use enipool_crds::{ENIPool, ENIPoolClass, ENIPoolStatus, EniState, Reason};
use enipool_pool::capacity::{Capacity, bundled};
use enipool_pool::fleet::{FleetEni, Given, NodeView, SubnetStock};
use enipool_pool::node::Counts;
use enipool_pool::{InstanceType, SubnetId};
use kube::ResourceExt;

use crate::class::Classes;
use crate::network::Network;
use crate::world::{Node, State};

/// A node that gets an allocation, and what belongs to it.
#[derive(Debug, Clone)]
pub struct Planned {
    pub name: Arc<str>,
    pub node: Arc<Node>,
    /// `None`: no class matches; the built-in defaults serve until one does.
    pub class: Option<Arc<ENIPoolClass>>,
    /// `None`: to be made.
    pub pool: Option<Arc<ENIPool>>,
}

impl Planned {
    /// Empty while no class matches.
    pub fn class_name(&self) -> String {
        self.class.as_ref().map_or_else(String::new, |class| class.name_any())
    }
}

/// What the planner is asked.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// In the order of `views`.
    pub planned: Vec<Planned>,
    pub views: Vec<NodeView>,
    pub stocks: Vec<SubnetStock>,
    /// Nodes whose instance type nobody knows yet: the bundled table is older, and no agent has reported what it can
    /// hold. They get a pool, so that the agent can, and no allocation.
    pub unknown: Vec<Planned>,
}

/// The snapshot of everything that can be planned for now.
pub fn take(state: &State, network: &Network) -> Snapshot {
    let (classes, _) = Classes::new(state.classes.values());
    let mut snapshot = Snapshot { stocks: network.stocks(), ..Snapshot::default() };
    let mut names: Vec<&Arc<str>> = state.nodes.keys().collect();
    names.sort_unstable();
    for name in names {
        let Some(node) = state.nodes.get(name).filter(|node| node.instance.is_some()) else { continue };
        let pool = state.pools.get(name);
        if pool.is_some_and(|pool| pool.metadata.deletion_timestamp.is_some()) {
            // The pool of an earlier node of that name has to be gone first.
            continue;
        }
        let class = classes.of(&node.labels).cloned();
        let planned = Planned { name: name.clone(), node: node.clone(), class, pool: pool.cloned() };
        let status = pool.and_then(|pool| pool.status.as_ref());
        let Some(capacity) = capacity(node, status) else {
            snapshot.unknown.push(planned);
            continue;
        };
        let pods = state.pods_on(name);
        let max_pods = node.max_pods.map(|most| most.saturating_sub(pods.host_network));
        snapshot.views.push(view(&planned, capacity, pods.addressed, max_pods, network));
        snapshot.planned.push(planned);
    }
    snapshot
}

fn view(planned: &Planned, capacity: Capacity, pods: u32, max_pods: Option<u32>, network: &Network) -> NodeView {
    let class = planned.class.as_ref().map(|class| &class.spec);
    let spec = planned.pool.as_ref().map(|pool| pool.spec.clone()).unwrap_or_default();
    let status = planned.pool.as_ref().and_then(|pool| pool.status.as_ref());
    NodeView {
        name: planned.name.as_ref().into(),
        capacity,
        policy: spec.policy(class),
        max_pods,
        pods,
        waiting: status.map_or(0, |status| count(status.waiting)),
        addresses: status.and_then(|status| status.addresses).map_or_else(Counts::default, |addresses| Counts {
            assigned: count(addresses.assigned),
            cooling: count(addresses.cooling),
            free: count(addresses.available),
        }),
        enis: status.map(interfaces).unwrap_or_default(),
        foreign_enis: status.map_or(0, |status| count(status.foreign_enis)),
        no_prefixes: status.is_some_and(lacks_prefixes),
        subnets: network.subnets_of(&planned.class_name(), planned.node.zone.as_ref(), primary(status)),
        given: spec.allocation.as_ref().and_then(|allocation| allocation.view().ok()).map(|view| Given {
            addresses: view.addresses,
            prefixes: view.prefixes,
            enis: view.enis,
            subnet: view.subnet,
        }),
    }
}

/// What the agent reports, else what the bundled table says of the type in the node's label.
fn capacity(node: &Node, status: Option<&ENIPoolStatus>) -> Option<Capacity> {
    let reported = status.and_then(|status| status.instance.as_ref());
    let instance_type = reported.map(|instance| InstanceType::new(instance.instance_type.as_str()));
    let known = instance_type.or_else(|| node.instance_type.clone()).and_then(|name| bundled(&name));
    let known = known.map(|limits| Capacity::new(&limits));
    let figures = status.and_then(|status| status.capacity).filter(|figures| figures.addresses_per_eni > 0);
    match (known, figures) {
        (known, None) => known,
        (Some(known), Some(figures)) => Some(Capacity {
            max_enis: known.max_enis.max(count(figures.enis)),
            slots_per_eni: count(figures.addresses_per_eni),
            ..known
        }),
        // Newer than the table: DescribeInstanceTypes gave the agent these; all new types are Nitro.
        (None, Some(figures)) => Some(Capacity {
            max_enis: count(figures.enis),
            slots_per_eni: count(figures.addresses_per_eni),
            supports_prefixes: true,
            advised_prefix_pods: 110,
        }),
    }
}

fn interfaces(status: &ENIPoolStatus) -> Vec<FleetEni> {
    let interface = |eni: &enipool_crds::EniStatus| {
        Some(FleetEni {
            subnet: eni.subnet_id.parse().ok()?,
            primary: eni.device_number == Some(0),
            retiring: eni.state == EniState::Retiring,
            addresses: count(eni.addresses),
            assigned: count(eni.assigned),
            prefixes: count(eni.prefixes),
            singles_held: count(eni.singles_in_use),
            prefixes_in_use: count(eni.prefixes_in_use),
        })
    };
    status.enis.iter().filter_map(interface).collect()
}

fn lacks_prefixes(status: &ENIPoolStatus) -> bool {
    condition::find(&status.conditions, ConditionType::AddressesAvailable)
        .is_some_and(|condition| condition.reason == Reason::NoContiguousPrefix.as_str())
        || status.reason == Reason::NoContiguousPrefix.as_str()
}

fn primary(status: Option<&ENIPoolStatus>) -> Option<SubnetId> {
    status?.instance.as_ref()?.subnet_id.as_ref()?.parse().ok()
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// Nodes of each class.
pub fn nodes_by_class(planned: &[Planned]) -> BTreeMap<String, u32> {
    let mut nodes = BTreeMap::new();
    for one in planned {
        *nodes.entry(one.class_name()).or_default() += 1;
    }
    nodes
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
