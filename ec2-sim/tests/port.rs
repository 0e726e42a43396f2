//! The port on a shared model: what callers inside this process see, on virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are outside #[test] functions")]

use std::time::Duration;

use ec2_sim::model::Delay;
use ec2_sim::model::request::RunInstances;
use ec2_sim::{Event, FaultKind, FaultRule, Model, Request, Response, SharedModel, SimConfig, SimEc2, Timing};
use enipool_pool::ec2::{CreateEni, Ec2, Ec2ErrorKind, EniFilter, EniStatus, InstanceState, Selector, Supply, Tags};
use enipool_pool::{ClientToken, InstanceId, InstanceType, SubnetId};
use tokio::time::Instant;

struct Node {
    shared: SharedModel,
    ec2: SimEc2,
    instance: InstanceId,
    subnet: SubnetId,
}

/// A node that runs, in a region with these delays.
fn node(timing: Timing) -> Node {
    let mut model = Model::new(SimConfig { timing: Timing::none(), ..SimConfig::instant() }).unwrap();
    let subnet = model.subnets().next().unwrap().info.id.clone();
    let run = RunInstances::one(InstanceType::new("m5.large"), subnet.clone());
    let Response::Reservation(instances) = model.act(&Request::RunInstances(run)).unwrap() else { panic!() };
    model.take_events();
    model.set_timing(timing);
    let shared = SharedModel::running(model);
    Node { ec2: SimEc2::new(shared.clone(), "node"), shared, instance: instances[0].id.clone(), subnet }
}

fn create(node: &Node, supply: Supply) -> CreateEni {
    CreateEni {
        subnet: node.subnet.clone(),
        security_groups: vec![],
        supply,
        description: "enipool node i-1".to_owned(),
        tags: Tags::from([("enipool.dev/node".to_owned(), "node".to_owned())]),
        client_token: ClientToken::new("intent-1"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_interface_is_created_attached_filled_and_taken_away() {
    let node = node(Timing::none());
    let eni = node.ec2.create_network_interface(&create(&node, Supply::Addresses(4))).await.unwrap();
    assert_eq!((eni.status, eni.secondary_ips.len()), (EniStatus::Available, 4));
    let attachment = node.ec2.attach_network_interface(&eni.id, &node.instance, 1).await.unwrap();
    node.ec2.set_delete_on_termination(&eni.id, &attachment, true).await.unwrap();
    assert_eq!(node.ec2.assign(&eni.id, Supply::Prefixes(2)).await.unwrap().prefixes.len(), 2);
    let filter = EniFilter { instance: Some(node.instance.clone()), ..EniFilter::default() };
    let mut enis = node.ec2.describe_network_interfaces(&filter).await.unwrap();
    enis.sort_by_key(|eni| eni.attachment.as_ref().unwrap().device_index);
    assert_eq!(enis.len(), 2);
    assert!(enis[1].attachment.as_ref().unwrap().delete_on_termination);
    node.ec2.unassign(&eni.id, &enis[1].secondary_ips, &enis[1].prefixes).await.unwrap();
    let instance = &node.ec2.describe_instances(std::slice::from_ref(&node.instance)).await.unwrap()[0];
    assert_eq!((instance.state, instance.device_indexes.as_slice()), (InstanceState::Running, &[(0, 0), (1, 0)][..]));
    node.ec2.detach_network_interface(&attachment, false).await.unwrap();
    node.ec2.delete_network_interface(&eni.id).await.unwrap();
    let gone = EniFilter { ids: vec![eni.id], ..EniFilter::default() };
    assert_eq!(node.ec2.describe_network_interfaces(&gone).await.unwrap(), [], "not found is no error here");
}

#[tokio::test(start_paused = true)]
async fn answers_take_the_model_s_time() {
    let node = node(Timing { mutation: Delay::fixed(700), ..Timing::none() });
    let start = Instant::now();
    node.ec2.create_network_interface(&create(&node, Supply::Addresses(0))).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_takes_nothing_back() {
    let node = node(Timing { mutation: Delay::fixed(700), ..Timing::none() });
    let request = create(&node, Supply::Addresses(0));
    let call = node.ec2.create_network_interface(&request);
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
    let filter = EniFilter { tag_keys: vec!["enipool.dev/node".to_owned()], ..EniFilter::default() };
    assert_eq!(node.ec2.describe_network_interfaces(&filter).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attach_comes_through_by_itself_while_the_model_is_driven() {
    let node = node(Timing { attach: Delay::fixed(3000), ..Timing::none() });
    let driver = node.shared.clone();
    let driving = tokio::spawn(async move { driver.drive().await });
    let mut events = node.shared.subscribe();
    let eni = node.ec2.create_network_interface(&create(&node, Supply::Addresses(0))).await.unwrap();
    let start = Instant::now();
    node.ec2.attach_network_interface(&eni.id, &node.instance, 1).await.unwrap();
    let filter = EniFilter { ids: vec![eni.id.clone()], ..EniFilter::default() };
    let attaching = node.ec2.describe_network_interfaces(&filter).await.unwrap();
    assert_eq!(attaching[0].status, EniStatus::Attaching);
    let event = events.recv().await.unwrap();
    assert!(matches!(event, Event::EniAttached { device_index: 1, .. }), "{event:?}");
    assert!((3000..3010).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(node.ec2.describe_network_interfaces(&filter).await.unwrap()[0].status, EniStatus::InUse);
    driving.abort();
}

#[tokio::test(start_paused = true)]
async fn time_can_be_skipped() {
    let node = node(Timing { attach: Delay::fixed(3_600_000), ..Timing::none() });
    let eni = node.ec2.create_network_interface(&create(&node, Supply::Addresses(0))).await.unwrap();
    node.ec2.attach_network_interface(&eni.id, &node.instance, 1).await.unwrap();
    node.shared.advance(Duration::from_hours(1));
    assert!(node.shared.with(|model| model.interface(&eni.id).unwrap().attachment.as_ref().unwrap().plugged));
}

#[tokio::test(start_paused = true)]
async fn errors_arrive_as_the_pool_s_kinds() {
    let node = node(Timing::none());
    let eni = node.ec2.create_network_interface(&create(&node, Supply::Addresses(0))).await.unwrap();
    let fault = |kind, action: &str| node.shared.with(|model| model.inject(FaultRule::next(kind, action, 1)));
    for (kind, expected) in [
        (FaultKind::Throttle, Ec2ErrorKind::Throttled),
        (FaultKind::Denied, Ec2ErrorKind::AccessDenied),
        (FaultKind::InternalError, Ec2ErrorKind::Internal),
        (FaultKind::Unavailable, Ec2ErrorKind::Internal),
        (FaultKind::AnswerLost, Ec2ErrorKind::NoAnswer),
        (FaultKind::RequestLost, Ec2ErrorKind::NoAnswer),
        (FaultKind::InsufficientAddresses, Ec2ErrorKind::SubnetExhausted),
        (FaultKind::InsufficientPrefixes, Ec2ErrorKind::NoContiguousPrefix),
    ] {
        fault(kind.clone(), "AssignPrivateIpAddresses");
        assert_eq!(node.ec2.assign(&eni.id, Supply::Addresses(1)).await.unwrap_err().kind, expected, "{kind:?}");
    }
    let ec2 = &node.ec2;
    let attachment = ec2.attach_network_interface(&eni.id, &node.instance, 1).await.unwrap();
    let again = ec2.attach_network_interface(&eni.id, &node.instance, 2).await;
    assert_eq!(again.unwrap_err().kind, Ec2ErrorKind::EniInUse);
    assert_eq!(ec2.delete_network_interface(&eni.id).await.unwrap_err().kind, Ec2ErrorKind::EniInUse);
    assert_eq!(ec2.assign(&eni.id, Supply::Addresses(10)).await.unwrap_err().kind, Ec2ErrorKind::AddressLimit);
    let stranger = ["10.0.15.200".parse().unwrap()];
    let unassigned = ec2.unassign(&eni.id, &stranger, &[]).await;
    assert_eq!(unassigned.unwrap_err().kind, Ec2ErrorKind::AddressNotAssigned);
    let other = CreateEni { client_token: ClientToken::new("intent-2"), ..create(&node, Supply::Addresses(0)) };
    let spare = ec2.create_network_interface(&other).await.unwrap();
    let taken = ec2.attach_network_interface(&spare.id, &node.instance, 1).await;
    assert_eq!(taken.unwrap_err().kind, Ec2ErrorKind::DeviceIndexInUse);
    let changed = CreateEni { supply: Supply::Addresses(1), ..other };
    assert_eq!(ec2.create_network_interface(&changed).await.unwrap_err().kind, Ec2ErrorKind::TokenMismatch);
    ec2.detach_network_interface(&attachment, false).await.unwrap();
    let detached = ec2.detach_network_interface(&attachment, false).await;
    assert_eq!(detached.unwrap_err().kind, Ec2ErrorKind::AttachmentNotFound);
    ec2.delete_network_interface(&eni.id).await.unwrap();
    assert_eq!(ec2.delete_network_interface(&eni.id).await.unwrap_err().kind, Ec2ErrorKind::EniNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_subnet_that_runs_full_and_one_that_breaks_up_are_told_apart() {
    let node = node(Timing::none());
    let occupy = |every| node.shared.with(|model| model.occupy(&node.subnet, 5000, every)).unwrap();
    occupy(8);
    let prefixes = node.ec2.create_network_interface(&create(&node, Supply::Prefixes(1))).await;
    assert_eq!(prefixes.unwrap_err().kind, Ec2ErrorKind::NoContiguousPrefix);
    occupy(1);
    let addresses = node.ec2.create_network_interface(&create(&node, Supply::Addresses(1))).await;
    assert_eq!(addresses.unwrap_err().kind, Ec2ErrorKind::SubnetExhausted);
    let subnets = node.ec2.describe_subnets(&Selector { ids: vec![node.subnet.clone()], ..empty() }).await.unwrap();
    assert_eq!(subnets[0].available_ips, 0);
}

fn empty<Id>() -> Selector<Id> {
    Selector { ids: vec![], vpc: None, zone: None, tags: Tags::new() }
}

#[tokio::test(start_paused = true)]
async fn more_interfaces_than_a_page_are_all_found() {
    let node = node(Timing::none());
    for number in 0..1005 {
        let token = ClientToken::new(format!("intent-{number}"));
        let request = CreateEni { client_token: token, ..create(&node, Supply::Addresses(0)) };
        node.ec2.create_network_interface(&request).await.unwrap();
    }
    let filter = EniFilter { tag_keys: vec!["enipool.dev/node".to_owned()], ..EniFilter::default() };
    assert_eq!(node.ec2.describe_network_interfaces(&filter).await.unwrap().len(), 1005);
    let calls = node.shared.with(|model| model.calls().count("DescribeNetworkInterfaces"));
    assert_eq!(calls, 2);
}
