//! ENIs of nodes that are gone, and what is known of subnets, against the simulated EC2.

use std::sync::Arc;
use std::time::Duration;

use crate::fake_api::FakeApi;
use ec2_sim::model::request::RunInstances;
use ec2_sim::{Model, Request, Response, SharedModel, SimConfig, SimEc2};
use enipool_crds::{ENIPool, ENIPoolClass, FINALIZER, ResourceSelector, Tag, fixtures};
use enipool_operator::farewell::{self, Farewell, INSTANCE_TAG, judge};
use enipool_operator::leaks::{CREATED_TAG, Claims, INTENT_TAG, unowned};
use enipool_operator::metrics::Metrics;
use enipool_operator::network::{self, SharedNetwork};
use enipool_operator::world::{KINDS, World};
use enipool_pool::ec2::{CreateEni, Ec2, Eni, EniFilter, EniStatus, InstanceState, Supply, Tags};
use enipool_pool::{ClientToken, InstanceId, InstanceType, SubnetId, Zone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

struct Region {
    model: SharedModel,
    ec2: Arc<SimEc2>,
    subnet: SubnetId,
    instance: InstanceId,
}

fn region() -> Region {
    let model = SharedModel::running(Model::new(SimConfig::instant()).unwrap());
    let (subnet, instance) = model.with(|model| {
        let subnet = model.subnets().map(|subnet| subnet.info.id.clone()).min().unwrap();
        let run = RunInstances::one(InstanceType::new("m5.large"), subnet.clone());
        match model.call("test", &Request::RunInstances(run)).result.unwrap() {
            Response::Reservation(instances) => (subnet, instances[0].id.clone()),
            other => panic!("{other:?}"),
        }
    });
    Region { ec2: Arc::new(SimEc2::new(model.clone(), "operator")), model, subnet, instance }
}

impl Region {
    async fn eni(&self, name: &str) -> Eni {
        let tags = [
            (INSTANCE_TAG, self.instance.to_string()),
            (INTENT_TAG, name.to_owned()),
            (CREATED_TAG, "2026-01-01T00:00:00Z".to_owned()),
        ];
        let request = CreateEni {
            subnet: self.subnet.clone(),
            security_groups: Vec::new(),
            supply: Supply::Addresses(1),
            description: String::new(),
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            client_token: ClientToken::new(name),
        };
        self.ec2.create_network_interface(&request).await.unwrap()
    }

    async fn left(&self) -> Vec<Eni> {
        let filter = EniFilter { tag_keys: vec![INSTANCE_TAG.into()], ..EniFilter::default() };
        self.ec2.describe_network_interfaces(&filter).await.unwrap()
    }

    fn terminate(&self) {
        let terminate = Request::TerminateInstances(vec![self.instance.clone()]);
        self.model.with(|model| model.call("test", &terminate).result.map(drop)).unwrap();
    }
}

fn metrics() -> Metrics {
    Metrics::register(&mut Registry::default())
}

fn leaving_pool(instance: &InstanceId) -> ENIPool {
    let mut pool = fixtures::pool_with_enis("n1", 1, 9, 0);
    pool.status.as_mut().unwrap().instance.as_mut().unwrap().id = instance.to_string();
    pool.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    pool.metadata.finalizers = Some(vec!["other.example/keep".into(), FINALIZER.into()]);
    pool.metadata.resource_version = Some("7".into());
    pool
}

#[tokio::test]
async fn the_enis_of_a_terminated_instance_go_before_its_pool_does() {
    let region = region();
    let (loose, attached) = (region.eni("a").await, region.eni("b").await);
    region.ec2.attach_network_interface(&attached.id, &region.instance, 1).await.unwrap();
    region.terminate();
    let world = World::default();
    world.change(|state| state.put_pool(leaving_pool(&region.instance)));
    let (api, client) = FakeApi::start().await;
    let stop = CancellationToken::new();
    tokio::spawn(farewell::see_off(client, region.ec2.clone(), world, metrics(), stop.clone()));
    let _stop = stop.drop_guard();

    let calls = api.wait_for(1).await;
    assert!(region.left().await.is_empty(), "{} or {} is left", loose.id, attached.id);
    let metadata = &calls[0].body["metadata"];
    assert_eq!(metadata["finalizers"].as_array().unwrap(), &["other.example/keep"], "others' finalizers stay");
    assert_eq!(metadata["resourceVersion"], "7", "only if nobody changed it meanwhile");
}

#[tokio::test]
async fn enis_of_an_instance_that_goes_on_running_are_left_alone() {
    let region = region();
    let eni = region.eni("a").await;
    region.ec2.attach_network_interface(&eni.id, &region.instance, 1).await.unwrap();
    let world = World::default();
    world.change(|state| state.put_pool(leaving_pool(&region.instance)));
    let (api, client) = FakeApi::start().await;
    let stop = CancellationToken::new();
    tokio::spawn(farewell::see_off(client, region.ec2.clone(), world, metrics(), stop.clone()));
    let _stop = stop.drop_guard();
    api.wait_for(1).await;
    assert_eq!(region.left().await.len(), 1);
}

#[tokio::test]
async fn enis_that_are_still_attached_to_a_dying_instance_are_waited_for() {
    let region = region();
    let mut eni = region.eni("a").await;
    eni.status = EniStatus::InUse;
    let enis = [eni];
    for dying in [Some(InstanceState::ShuttingDown), Some(InstanceState::Terminated), None] {
        assert_eq!(judge(&enis, dying), Farewell::Wait, "{dying:?}");
    }
    assert_eq!(judge(&enis, Some(InstanceState::Stopped)), Farewell::Over, "it may start again");
    assert_eq!(judge(&[], None), Farewell::Over);
}

#[tokio::test]
async fn an_eni_is_a_leak_only_if_it_is_old_available_ours_and_claimed_by_nobody() {
    let region = region();
    let eni = region.eni("a").await;
    let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    let early: Timestamp = "2026-01-01T00:04:00Z".parse().unwrap();
    let nobody = Claims::default();
    let is_leak = |eni: &Eni, claims: &Claims, now| !unowned(std::slice::from_ref(eni), claims, now).is_empty();

    assert!(is_leak(&eni, &nobody, now));
    assert!(!is_leak(&eni, &nobody, early), "an agent may be about to attach it");
    assert!(!is_leak(&Eni { status: EniStatus::InUse, ..eni.clone() }, &nobody, now));
    let without = |tag: &str| {
        let tags: Tags = eni.tags.iter().filter(|(key, _)| *key != tag).map(|(k, v)| (k.clone(), v.clone())).collect();
        Eni { tags, ..eni.clone() }
    };
    assert!(!is_leak(&without(INTENT_TAG), &nobody, now), "the AWS plugin's");
    assert!(!is_leak(&without(CREATED_TAG), &nobody, now), "nobody knows its age");

    let mut pool = fixtures::pool_with_enis("n1", 1, 9, 0);
    pool.status.as_mut().unwrap().enis[0].id = eni.id.to_string();
    assert!(!is_leak(&eni, &Claims::of([Arc::new(pool)].iter()), now), "a pool names it");
    let claims = Claims { intents: ["a".to_owned()].into(), ..Claims::default() };
    assert!(!is_leak(&eni, &claims, now), "an agent is still at it");
}

/// A class that selects subnets by a tag, and one node whose primary ENI is in the first subnet.
fn world_with_class(region: &Region, tag: &str) -> World {
    let world = World::default();
    let mut class: ENIPoolClass = fixtures::default_class();
    class.spec.subnet_selector = Some(ResourceSelector {
        tags: [("Name".to_owned(), Tag(tag.to_owned()))].into(),
        ..ResourceSelector::default()
    });
    class.spec.headroom = Some(IntOrString::String("5%".into()));
    let mut pool = fixtures::pool_with_enis("n1", 0, 9, 0);
    let instance = pool.status.as_mut().unwrap().instance.as_mut().unwrap();
    instance.subnet_id = Some(region.subnet.to_string());
    instance.vpc_id = Some(region.model.with(|model| model.vpcs().next().unwrap().id.to_string()));
    world.change(|state| {
        for kind in KINDS {
            state.mark_synced(kind);
        }
        state.classes.insert("default".into(), Arc::new(class));
        state.put_pool(pool);
    });
    world
}

#[tokio::test]
async fn a_class_gets_the_subnets_that_its_selector_finds_in_the_nodes_zone() {
    let region = region();
    let world = world_with_class(&region, "nodes-b");
    let (shared, stop) = (SharedNetwork::default(), CancellationToken::new());
    let mut changes = world.changes();
    tokio::spawn(network::refresh(region.ec2.clone(), world.clone(), shared.clone(), metrics(), stop.clone()));
    let _stop = stop.drop_guard();
    tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap().unwrap();

    let network = shared.get();
    let found = network.subnets_of("default", Some(&Zone::new("eu-west-1b")), Some(region.subnet.clone()));
    assert_eq!(found.len(), 1);
    assert_eq!(network.subnets[&found[0]].tags["Name"], "nodes-b");
    assert!(network.subnets_of("default", Some(&Zone::new("eu-west-1a")), None).is_empty(), "not in that zone");
    assert_eq!(network.headroom(&found[0]), 4094 * 5 / 100);
    assert!(network.subnets.contains_key(&region.subnet), "that of the primary ENI is looked at too");
    assert!(network.classes["default"].problem.is_none());
}

#[tokio::test]
async fn a_selector_that_finds_nothing_is_a_problem_of_its_class() {
    let region = region();
    let world = world_with_class(&region, "no-such-subnet");
    let (shared, stop) = (SharedNetwork::default(), CancellationToken::new());
    let mut changes = world.changes();
    tokio::spawn(network::refresh(region.ec2.clone(), world, shared.clone(), metrics(), stop.clone()));
    let _stop = stop.drop_guard();
    tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap().unwrap();
    assert!(shared.get().classes["default"].problem.as_ref().unwrap().1.contains("finds no subnet"));
}
