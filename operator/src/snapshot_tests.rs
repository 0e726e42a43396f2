use enipool_crds::{ENIPoolClassSpec, TargetFields, fixtures};
use enipool_pool::Zone;
use enipool_pool::targets::Targets;

use super::*;
use crate::world::KINDS;

fn node(instance_type: &str) -> Node {
    Node {
        uid: "uid".into(),
        labels: BTreeMap::new(),
        instance: Some("i-0a".parse().unwrap()),
        instance_type: Some(InstanceType::new(instance_type)),
        zone: Some(Zone::new("eu-west-1a")),
        max_pods: Some(29),
    }
}

fn state(nodes: &[(&str, Node)]) -> State {
    let mut state = State::default();
    for kind in KINDS {
        state.mark_synced(kind);
    }
    for (name, node) in nodes {
        state.nodes.insert((*name).into(), Arc::new(node.clone()));
    }
    state.classes.insert("default".into(), Arc::new(fixtures::default_class()));
    state
}

#[test]
fn a_node_whose_agent_has_not_spoken_is_planned_for_by_its_instance_type() {
    let snapshot = take(&state(&[("n", node("m5.large"))]), &Network::default());
    let view = &snapshot.views[0];
    assert_eq!((view.capacity.max_enis, view.capacity.slots_per_eni), (3, 9));
    assert_eq!((view.max_pods, view.given.is_none()), (Some(29), true));
    assert!(view.subnets.is_empty(), "nobody has said which subnet its primary ENI is in");
}

#[test]
fn a_type_that_nobody_knows_gets_a_pool_without_an_allocation() {
    let snapshot = take(&state(&[("n", node("z99.huge"))]), &Network::default());
    assert!(snapshot.views.is_empty());
    assert_eq!(snapshot.unknown.len(), 1);
}

#[test]
fn a_node_that_is_no_instance_gets_no_pool() {
    let other = Node { instance: None, ..node("m5.large") };
    let snapshot = take(&state(&[("n", other)]), &Network::default());
    assert!(snapshot.planned.is_empty() && snapshot.unknown.is_empty());
}

#[test]
fn the_pool_of_an_earlier_node_of_that_name_has_to_go_first() {
    let mut state = state(&[("n", node("m5.large"))]);
    let mut leaving = fixtures::new_pool("n");
    leaving.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    state.put_pool(leaving);
    assert!(take(&state, &Network::default()).planned.is_empty());
}

#[test]
fn what_the_agent_reports_becomes_counts() {
    let mut state = state(&[("n", node("m5.large"))]);
    state.put_pool(fixtures::pool_with_enis("n", 2, 9, 10));
    let snapshot = take(&state, &Network::default());
    let view = &snapshot.views[0];
    assert_eq!(view.addresses, Counts { assigned: 10, cooling: 0, free: 8 });
    assert_eq!(view.enis.len(), 2);
    assert!(view.enis[0].primary && !view.enis[1].primary);
    assert_eq!(view.subnets.len(), 1, "that of the primary ENI");
    assert_eq!(view.capacity.max_enis, 3, "the type's, although two are attached");
}

#[test]
fn targets_of_the_pool_go_before_those_of_its_class() {
    let mut state = state(&[("n", node("m5.large"))]);
    let targets = TargetFields { warm_eni_target: Some(3), max_enis: Some(2), ..TargetFields::default() };
    let class = ENIPoolClass::new("default", ENIPoolClassSpec { targets, ..ENIPoolClassSpec::default() });
    state.classes.insert("default".into(), Arc::new(class));
    let mut pool = fixtures::new_pool("n");
    pool.spec.targets.warm_eni_target = Some(0);
    state.put_pool(pool);
    let policy = take(&state, &Network::default()).views[0].policy;
    assert_eq!(policy.targets, Targets { warm_enis: Some(0), max_enis: Some(2), ..Targets::default() });
}

#[test]
fn a_node_that_no_class_wants_is_planned_for_with_the_built_in_defaults() {
    let mut state = state(&[("n", node("m5.large"))]);
    state.classes.clear();
    let snapshot = take(&state, &Network::default());
    assert_eq!(snapshot.planned[0].class_name(), "");
    assert_eq!(snapshot.views.len(), 1);
}
