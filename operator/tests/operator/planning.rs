//! The planning loop as the API server sees it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake_api::{Call, FakeApi};
use enipool_crds::{ENIPool, FINALIZER, fixtures};
use enipool_operator::metrics::Metrics;
use enipool_operator::network::SharedNetwork;
use enipool_operator::planning::{INSTANCE_ANNOTATION, Planning};
use enipool_operator::world::{KINDS, Node, World};
use enipool_pool::budget::Budget;
use enipool_pool::{InstanceType, Timestamp, Zone};
use hyper::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

/// Long enough for several rounds, if there were a reason for one.
const QUIET: Duration = Duration::from_millis(600);

struct Site {
    api: FakeApi,
    world: World,
    _stop: tokio_util::sync::DropGuard,
}

async fn plan_for(world: World) -> Site {
    let (api, client) = FakeApi::start().await;
    let stop = CancellationToken::new();
    let budget = Arc::new(Mutex::new(Budget::published(80, Timestamp(0))));
    let metrics = Metrics::register(&mut Registry::default());
    let planning = Planning::new(client, world.clone(), SharedNetwork::default(), budget, metrics);
    tokio::spawn(planning.run(stop.clone()));
    Site { api, world, _stop: stop.drop_guard() }
}

fn world(nodes: &[&str]) -> World {
    let world = World::default();
    world.change(|state| {
        for kind in KINDS {
            state.mark_synced(kind);
        }
        state.classes.insert("default".into(), Arc::new(fixtures::default_class()));
        for name in nodes {
            state.nodes.insert((*name).into(), Arc::new(node(name)));
        }
    });
    world
}

fn node(name: &str) -> Node {
    Node {
        uid: format!("uid-of-node-{name}"),
        labels: std::collections::BTreeMap::new(),
        instance: Some("i-0a".parse().unwrap()),
        instance_type: Some(InstanceType::new("m5.large")),
        zone: Some(Zone::new("eu-west-1a")),
        max_pods: Some(29),
    }
}

/// Edits a pool as a person does, once the operator has it.
async fn edit(world: &World, name: &str, edit: impl FnOnce(&mut ENIPool)) {
    let known = async {
        while !world.state().pools.contains_key(name) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known).await.unwrap();
    world.change(|state| {
        let mut pool = ENIPool::clone(&state.pools[name]);
        edit(&mut pool);
        let version: u64 = pool.metadata.resource_version.as_deref().unwrap().parse().unwrap();
        pool.metadata.resource_version = Some((version + 1000).to_string());
        state.put_pool(pool);
    });
}

fn only_patch(calls: &[Call]) -> &Call {
    assert_eq!(calls.len(), 1, "{calls:#?}");
    assert_eq!(calls[0].method, Method::PATCH);
    &calls[0]
}

#[tokio::test]
async fn a_new_node_gets_its_pool_with_owner_finalizer_and_allocation_in_one_write() {
    let site = plan_for(world(&["n1"])).await;
    let calls = site.api.wait_for(1).await;
    let call = only_patch(&calls);
    assert_eq!(call.path, "/apis/enipool.dev/v1alpha1/enipools/n1");
    assert!(call.query.contains("fieldManager=enipool-operator"), "{}", call.query);
    let (metadata, spec) = (&call.body["metadata"], &call.body["spec"]);
    assert_eq!(metadata["ownerReferences"][0]["uid"], "uid-of-node-n1");
    assert_eq!(metadata["finalizers"][0], FINALIZER);
    assert_eq!(metadata["annotations"][INSTANCE_ANNOTATION], "i-0a");
    assert_eq!(spec["allocation"]["class"], "default");
    assert_eq!(spec["allocation"]["addresses"], 9, "one warm ENI of an m5.large");
    assert_eq!(spec.as_object().unwrap().len(), 1, "what people write is not the operator's: {spec}");
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let site = plan_for(world(&["n1", "n2"])).await;
    site.api.wait_for(2).await;
    for _ in 0..3 {
        site.world.change(|_| ());
        tokio::time::sleep(QUIET / 3).await;
    }
    assert_eq!(site.api.calls().len(), 2, "{:#?}", site.api.calls());
}

#[tokio::test]
async fn an_edited_target_is_answered_within_a_second() {
    let site = plan_for(world(&["n1"])).await;
    site.api.wait_for(1).await;
    edit(&site.world, "n1", |pool| pool.spec.targets.warm_eni_target = Some(2)).await;
    let asked = tokio::time::Instant::now();
    let calls = site.api.wait_for(2).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    let allocation = &calls[1].body["spec"]["allocation"];
    assert_eq!((&allocation["addresses"], &allocation["enis"]), (&18.into(), &2.into()));
    assert_eq!(allocation["targets"]["warmENITarget"], 2);
}

#[tokio::test]
async fn an_agent_that_asks_is_answered_at_once_though_nothing_can_be_raised() {
    let site = plan_for(world(&["n1"])).await;
    let before = site.api.wait_for(1).await[0].body["spec"]["allocation"].clone();
    assert_eq!(before["answers"], serde_json::Value::Null);
    let asked = Time("2026-01-02T03:04:05Z".parse().unwrap());
    edit(&site.world, "n1", |pool| pool.status.get_or_insert_default().asked_at = Some(asked)).await;
    let calls = site.api.wait_for(2).await;
    let after = &calls[1].body["spec"]["allocation"];
    assert_eq!((&after["answers"], &after["addresses"]), (&"2026-01-02T03:04:05Z".into(), &before["addresses"]));

    edit(&site.world, "n1", |pool| pool.status.get_or_insert_default().asked_at = None).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(site.api.calls().len(), 2, "that nobody asks any more needs no answer: {:#?}", site.api.calls());
}

#[tokio::test]
async fn an_allocation_that_somebody_edited_by_hand_is_put_right() {
    let site = plan_for(world(&["n1"])).await;
    site.api.wait_for(1).await;
    edit(&site.world, "n1", |pool| pool.spec.allocation.as_mut().unwrap().ceiling = 1_000_000).await;
    let calls = site.api.wait_for(2).await;
    assert_eq!(calls[1].body["spec"]["allocation"], calls[0].body["spec"]["allocation"]);
}

#[tokio::test]
async fn a_write_that_fails_is_made_again() {
    let world = world(&["n1"]);
    let (api, client) = FakeApi::start().await;
    api.refuse_next(1);
    let stop = CancellationToken::new();
    let budget = Arc::new(Mutex::new(Budget::published(80, Timestamp(0))));
    let metrics = Metrics::register(&mut Registry::default());
    let planning = Planning::new(client, world.clone(), SharedNetwork::default(), budget, metrics);
    tokio::spawn(planning.run(stop.clone()));
    let _stop = stop.drop_guard();
    let calls = api.wait_for(2).await;
    assert_eq!(calls[1].path, calls[0].path);
    assert_eq!(calls[1].body["spec"], calls[0].body["spec"]);
}

#[tokio::test]
async fn a_pool_whose_node_is_gone_is_deleted_and_no_other() {
    let world = world(&["n1"]);
    world.change(|state| {
        let mut pool = fixtures::new_pool("gone");
        pool.metadata.uid = Some("uid-of-gone".into());
        state.put_pool(pool);
    });
    let site = plan_for(world).await;
    let calls = site.api.wait_for(2).await;
    let deleted: Vec<_> = calls.iter().filter(|call| call.method == Method::DELETE).collect();
    assert_eq!(deleted.len(), 1);
    assert!(deleted[0].path.ends_with("/gone"));
    assert_eq!(deleted[0].body["preconditions"]["uid"], "uid-of-gone", "not its successor of the same name");
}

#[tokio::test]
async fn nothing_is_written_or_deleted_from_half_a_picture() {
    let world = World::default();
    world.change(|state| {
        state.mark_synced("pools");
        state.put_pool(fixtures::new_pool("n1"));
    });
    let site = plan_for(world).await;
    tokio::time::sleep(QUIET).await;
    assert!(site.api.calls().is_empty(), "nodes have not been listed yet: {:#?}", site.api.calls());
}
