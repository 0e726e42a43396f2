//! What readers are shown, and when: EC2's describe calls and the instance metadata.

use std::time::Duration;

use ec2_sim::model::Delay;
use ec2_sim::model::filter::Filter;
use ec2_sim::model::request::{Describe, Wanted};
use ec2_sim::{Model, Request, Response, SimConfig, Timing};
use enipool_pool::{EniId, InstanceId};

use crate::world::{SECOND, World};

#[test]
fn describe_does_not_find_a_new_interface_at_once_nor_forget_a_deleted_one() {
    let mut world = World::with_timing(Timing { visible: Delay::fixed(1500), ..Timing::none() });
    let eni = world.create(Wanted::default()).unwrap();
    let error = world.seen(&eni.id).unwrap_err();
    assert_eq!(error.code, "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(error.message, format!("The networkInterface ID '{}' does not exist", eni.id));
    assert_eq!(world.describe(Describe::default()).unwrap().len(), 0);
    world.after(Duration::from_millis(1500));
    assert!(world.seen(&eni.id).is_ok());
    world.call(Request::DeleteNetworkInterface(eni.id.clone())).unwrap();
    assert!(world.seen(&eni.id).is_ok(), "still shown");
    world.after(Duration::from_millis(1500));
    assert!(world.seen(&eni.id).is_err());
}

#[test]
fn the_truth_says_whether_describe_shows_it_yet() {
    let mut world = World::with_timing(Timing { visible: Delay::fixed(1500), ..Timing::none() });
    let eni = world.create(Wanted::default()).unwrap();
    let shown = |world: &World| world.0.truth().enis.iter().find(|found| found.id == eni.id).unwrap().shown;
    assert!(!shown(&world));
    world.after(Duration::from_millis(1499));
    assert!(!shown(&world) && world.seen(&eni.id).is_err());
    world.after(Duration::from_millis(1));
    assert!(shown(&world) && world.seen(&eni.id).is_ok());
}

#[test]
fn describe_does_not_find_a_new_instance_at_once() {
    let mut world = World::with_timing(Timing { visible: Delay::fixed(1500), ..Timing::none() });
    let node = world.run("m5.large");
    let named = Request::DescribeInstances(Describe::ids([node.id.clone()]));
    let shown = |world: &mut World, describe| match world.call(Request::DescribeInstances(describe)).unwrap() {
        Response::Instances(page) => page.items.into_iter().map(|instance| instance.id).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let error = world.call(named.clone()).unwrap_err();
    assert_eq!(error.code, "InvalidInstanceID.NotFound");
    assert_eq!(error.message, format!("The instance ID '{}' does not exist", node.id));
    assert_eq!(shown(&mut world, Describe::default()), []);
    assert_eq!(world.code(Request::TerminateInstances(vec![node.id.clone()])), "InvalidInstanceID.NotFound");
    world.after(Duration::from_millis(1499));
    assert_eq!(world.code(named), "InvalidInstanceID.NotFound");
    world.after(Duration::from_millis(1));
    assert_eq!(shown(&mut world, Describe::ids([node.id.clone()])), std::slice::from_ref(&node.id));
    assert_eq!(shown(&mut world, Describe::default()), [node.id]);
}

#[test]
fn all_ids_that_are_missing_are_named_in_one_message() {
    let mut world = World::instant();
    let (known, node) = (world.create(Wanted::default()).unwrap().id, world.run("m5.large").id);
    let enis: Vec<EniId> = ["eni-0123456789abcdef0", "eni-0123456789abcdef1"].map(|id| id.parse().unwrap()).into();
    let nodes: Vec<InstanceId> = ["i-0123456789abcdef0", "i-0123456789abcdef1"].map(|id| id.parse().unwrap()).into();
    let error = world.describe(Describe::ids([enis[0].clone(), known, enis[1].clone()])).unwrap_err();
    assert_eq!(error.code, "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(error.message, format!("The networkInterface IDs '{}, {}' do not exist", enis[0], enis[1]));
    for request in [
        Request::DescribeInstances(Describe::ids([nodes[0].clone(), node.clone(), nodes[1].clone()])),
        Request::TerminateInstances(vec![nodes[0].clone(), node.clone(), nodes[1].clone()]),
    ] {
        let error = world.call(request).unwrap_err();
        assert_eq!(error.code, "InvalidInstanceID.NotFound");
        assert_eq!(error.message, format!("The instance IDs '{}, {}' do not exist", nodes[0], nodes[1]));
    }
}

#[test]
fn the_metadata_service_lags_behind_ec2() {
    let timing = Timing { imds_attach: Delay::fixed(3000), imds_addresses: Delay::fixed(10_000), ..Timing::none() };
    let mut world = World::with_timing(timing);
    let node = world.run("m5.large");
    let known = |world: &World| world.0.metadata(&node.id).unwrap().interfaces;
    assert_eq!(known(&world).len(), 1, "the interfaces of the launch are there from the start");
    let eni = world.create(Wanted::addresses(2)).unwrap();
    world.attach(&eni.id, &node.id, 1).unwrap();
    assert_eq!(known(&world).len(), 1);
    world.after(3 * SECOND);
    assert_eq!(known(&world)[1].addresses.len(), 3);
    world.assign(&eni.id, Wanted::addresses(4)).unwrap();
    world.after(9 * SECOND);
    assert_eq!(known(&world)[1].addresses.len(), 3);
    world.after(SECOND);
    assert_eq!(known(&world)[1].addresses.len(), 7);
}

#[test]
fn the_free_count_of_a_subnet_lags() {
    let mut world = World::with_timing(Timing { free_count: Delay::fixed(5000), ..Timing::none() });
    let count = |world: &mut World| {
        let subnet = world.subnet();
        match world.call(Request::DescribeSubnets(Describe::ids([subnet]))).unwrap() {
            Response::Subnets(page) => page.items[0].available_ips,
            other => panic!("{other:?}"),
        }
    };
    let before = count(&mut world);
    world.create(Wanted::prefixes(2)).unwrap();
    assert_eq!(count(&mut world), before);
    world.after(5 * SECOND);
    assert_eq!(count(&mut world), before - 33, "the primary address and two prefixes of sixteen");
}

#[test]
fn describe_by_instance_finds_its_interfaces_only() {
    let mut world = World::with_timing(Timing { visible: Delay::of(0, 100, 2000, 3000), ..Timing::none() });
    let (one, two) = (world.run("m5.large"), world.run("m5.large"));
    world.after(10 * SECOND);
    let eni = world.create(Wanted::default()).unwrap();
    world.after(10 * SECOND);
    world.attach(&eni.id, &one.id, 1).unwrap();
    world.after(10 * SECOND);
    let of = |world: &mut World, id: &InstanceId| {
        let filter = Filter::new("attachment.instance-id", [id.as_str()]);
        world.describe(Describe::filtered([filter])).unwrap().len()
    };
    assert_eq!((of(&mut world, &one.id), of(&mut world, &two.id)), (2, 1));
    // The index must answer as a full search does, also while readers still see the past.
    let attachment = world.0.interface(&eni.id).unwrap().attachment.clone().unwrap().id;
    world.call(Request::DetachNetworkInterface { attachment, force: false }).unwrap();
    let searched = world.describe(Describe::default()).unwrap();
    let expected = searched.iter().filter(|e| e.attachment.as_ref().is_some_and(|a| a.instance == one.id)).count();
    assert_eq!(of(&mut world, &one.id), expected);
}

#[test]
fn a_large_account_must_ask_for_pages_or_narrow_filters() {
    let mut world = World(Model::new(SimConfig { max_unpaged: 3, ..SimConfig::instant() }).unwrap());
    for _ in 0..4 {
        world.create(Wanted::default()).unwrap();
    }
    assert_eq!(world.describe(Describe::default()).unwrap_err().code, "OperationNotPermitted");
    let by_tag = Describe::filtered([Filter::new("tag-key", ["x"])]);
    assert_eq!(world.describe(by_tag).unwrap_err().code, "OperationNotPermitted");
    let by_subnet = Describe::filtered([Filter::new("subnet-id", [world.subnet().as_str()])]);
    assert_eq!(world.describe(by_subnet).unwrap().len(), 4);
}
