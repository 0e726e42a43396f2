//! What becomes of interfaces and instances in time: attach and detach, launch, stop and terminate.

use std::time::Duration;

use ec2_sim::model::Delay;
use ec2_sim::model::request::{InterfaceChange, LaunchInterface, ModifyInterface, RunInstances, Wanted};
use ec2_sim::model::resource::AttachStatus;
use ec2_sim::{Event, Request, Response, Timing};
use enipool_pool::InstanceType;
use enipool_pool::ec2::InstanceState;

use crate::world::{SECOND, World};

#[test]
fn an_attach_comes_through_later_and_only_then_is_announced() {
    let mut world = World::with_timing(Timing { attach: Delay::fixed(2000), ..Timing::none() });
    let node = world.run("m5.large");
    let eni = world.create(Wanted::default()).unwrap();
    world.0.take_events();
    world.attach(&eni.id, &node.id, 1).unwrap();
    assert_eq!(world.seen(&eni.id).unwrap().attachment.unwrap().status, AttachStatus::Attaching);
    assert!(world.after(1999 * Duration::from_millis(1)).0.take_events().is_empty());
    let events = world.after(Duration::from_millis(1)).0.take_events();
    assert!(
        matches!(events.as_slice(), [Event::EniAttached { device_index: 1, mac, .. }] if *mac == eni.mac),
        "{events:?}"
    );
    assert_eq!(world.seen(&eni.id).unwrap().attachment.unwrap().status, AttachStatus::Attached);
}

#[test]
fn an_attach_to_an_instance_that_does_not_run_yet_is_refused() {
    let mut world = World::with_timing(Timing { boot: Delay::fixed(8000), ..Timing::none() });
    let node = world.run("m5.large");
    let eni = world.create(Wanted::default()).unwrap();
    let error = world.attach(&eni.id, &node.id, 1).unwrap_err();
    assert!(error.message.contains("is not 'running'"), "{error}");
    world.after(8 * SECOND);
    assert!(world.attach(&eni.id, &node.id, 1).is_ok());
}

#[test]
fn a_detach_takes_time_and_until_then_the_interface_cannot_be_deleted() {
    let mut world = World::with_timing(Timing { detach: Delay::fixed(5000), ..Timing::none() });
    let node = world.run("m5.large");
    let eni = world.create(Wanted::addresses(3)).unwrap();
    let before = world.free() + 4;
    let attachment = world.attach(&eni.id, &node.id, 1).unwrap();
    world.call(Request::DetachNetworkInterface { attachment: attachment.clone(), force: false }).unwrap();
    let error = world.call(Request::DeleteNetworkInterface(eni.id.clone())).unwrap_err();
    assert!(error.message.contains("is currently in use"), "{error}");
    world.after(5 * SECOND);
    assert_eq!(
        world.code(Request::DetachNetworkInterface { attachment, force: false }),
        "InvalidAttachmentID.NotFound"
    );
    world.call(Request::DeleteNetworkInterface(eni.id.clone())).unwrap();
    assert_eq!(world.seen(&eni.id).unwrap_err().code, "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(world.free(), before, "all its addresses are free again");
}

#[test]
fn the_primary_interface_stays() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    let attachment = node.interfaces[0].attachment.clone().unwrap().id;
    assert_eq!(world.code(Request::DetachNetworkInterface { attachment, force: true }), "OperationNotPermitted");
}

#[test]
fn a_terminated_instance_takes_along_what_is_marked_and_leaves_the_rest() {
    let mut world = World::with_timing(Timing { shutdown: Delay::fixed(20_000), ..Timing::none() });
    let node = world.run("m5.large");
    let (marked, left) = (world.create(Wanted::default()).unwrap(), world.create(Wanted::default()).unwrap());
    let attachment = world.attach(&marked.id, &node.id, 1).unwrap();
    world.attach(&left.id, &node.id, 2).unwrap();
    let change = InterfaceChange::DeleteOnTermination { attachment, delete: true };
    let modify = ModifyInterface { interface: marked.id.clone(), change };
    world.call(Request::ModifyNetworkInterfaceAttribute(modify)).unwrap();
    world.call(Request::TerminateInstances(vec![node.id.clone()])).unwrap();
    assert_eq!(world.attach(&left.id, &node.id, 2).unwrap_err().code, "InvalidNetworkInterface.InUse");
    world.after(20 * SECOND);
    let remaining: Vec<_> = world.0.interfaces().map(|eni| eni.id.clone()).collect();
    assert_eq!(remaining, std::slice::from_ref(&left.id));
    assert!(world.seen(&left.id).unwrap().attachment.is_none());
    let state = world.0.instances().next().unwrap().state;
    assert_eq!(state, InstanceState::Terminated);
    assert_eq!(world.after(2 * 3600 * SECOND).0.instances().count(), 0, "after an hour EC2 forgets it");
}

#[test]
fn a_stopped_instance_keeps_its_interfaces_and_starts_again() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    world.call(Request::StopInstances(vec![node.id.clone()])).unwrap();
    assert_eq!(world.0.instances().next().unwrap().state, InstanceState::Stopped);
    assert!(world.0.metadata(&node.id).is_none());
    let eni = world.create(Wanted::default()).unwrap();
    world.attach(&eni.id, &node.id, 1).unwrap();
    world.call(Request::StartInstances(vec![node.id.clone()])).unwrap();
    assert_eq!(world.0.metadata(&node.id).unwrap().interfaces.len(), 2);
}

#[test]
fn a_launch_brings_addresses_and_prefixes_of_its_template() {
    let mut world = World::instant();
    let primary =
        LaunchInterface { subnet: Some(world.subnet()), secondary: Wanted::prefixes(2), ..LaunchInterface::default() };
    let run = RunInstances {
        subnet: None,
        interfaces: vec![primary],
        ..RunInstances::one(InstanceType::new("m5.large"), world.subnet())
    };
    let Response::Reservation(instances) = world.call(Request::RunInstances(run)).unwrap() else { panic!() };
    let metadata = world.0.metadata(&instances[0].id).unwrap();
    assert_eq!(metadata.interfaces[0].prefixes.len(), 2);
    assert!(instances[0].interfaces[0].attachment.as_ref().unwrap().delete_on_termination);
}

#[test]
fn a_launch_that_does_not_fit_leaves_nothing_behind() {
    let mut world = World::with_subnet("10.0.1.0/28");
    let run = RunInstances {
        min_count: 12,
        max_count: 12,
        ..RunInstances::one(InstanceType::new("m5.large"), world.subnet())
    };
    let error = world.call(Request::RunInstances(run.clone())).unwrap_err();
    assert_eq!(error.code, "InsufficientFreeAddressesInSubnet");
    let subnet = world.subnet();
    assert_eq!(
        error.message,
        format!(
            "There are not enough free addresses in subnet '{subnet}' to satisfy the requested number of instances."
        )
    );
    assert_eq!((world.0.instances().count(), world.0.interfaces().count(), world.free()), (0, 0, 11));
    assert!(world.0.take_events().is_empty());
    let as_many_as_fit = RunInstances { min_count: 1, ..run };
    world.call(Request::RunInstances(as_many_as_fit)).unwrap();
    assert_eq!(world.0.instances().count(), 11);
    let one_more = RunInstances::one(InstanceType::new("m5.large"), world.subnet());
    assert_eq!(world.code(Request::RunInstances(one_more)), "InsufficientFreeAddressesInSubnet");
}
