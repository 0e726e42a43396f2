//! The calls themselves: client tokens, dry runs, tags, throttling, and faults that are asked for.

use ec2_sim::model::request::{CreateInterface, RunInstances, Wanted};
use ec2_sim::model::resource::AttachStatus;
use ec2_sim::{Event, FaultKind, FaultRule, Model, Request, SimConfig};
use enipool_pool::InstanceType;

use crate::world::{SECOND, World};

#[test]
fn a_lost_answer_leaves_the_work_done() {
    let mut world = World::instant();
    world.0.inject(FaultRule::next(FaultKind::AnswerLost, "CreateNetworkInterface", 1));
    let create = CreateInterface {
        subnet: Some(world.subnet()),
        client_token: Some("intent-7".into()),
        ..CreateInterface::default()
    };
    let request = Request::CreateNetworkInterface(create);
    assert!(!world.0.call("test", &request).answered);
    assert_eq!(world.0.interfaces().count(), 1);
    assert!(world.0.call("test", &request).answered);
    assert_eq!(world.0.interfaces().count(), 1, "the token finds what was made");
}

#[test]
fn a_lost_request_does_nothing() {
    let mut world = World::instant();
    world.0.inject(FaultRule::next(FaultKind::RequestLost, "CreateNetworkInterface", 1));
    assert!(world.create(Wanted::default()).is_err());
    assert_eq!(world.0.interfaces().count(), 0);
}

#[test]
fn a_stuck_attach_goes_on_when_the_fault_ends() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    let eni = world.create(Wanted::default()).unwrap();
    let fault = world.0.inject(FaultRule::always(FaultKind::StuckAttach, "AttachNetworkInterface"));
    world.attach(&eni.id, &node.id, 1).unwrap();
    world.after(3600 * SECOND);
    assert_eq!(world.seen(&eni.id).unwrap().attachment.unwrap().status, AttachStatus::Attaching);
    assert!(world.0.end_fault(fault));
    assert_eq!(world.seen(&eni.id).unwrap().attachment.unwrap().status, AttachStatus::Attached);
}

#[test]
fn a_stuck_attach_can_be_detached_by_force() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    let eni = world.create(Wanted::default()).unwrap();
    let fault = world.0.inject(FaultRule::always(FaultKind::StuckAttach, "AttachNetworkInterface"));
    let attachment = world.attach(&eni.id, &node.id, 1).unwrap();
    world.call(Request::DetachNetworkInterface { attachment, force: true }).unwrap();
    assert!(world.seen(&eni.id).unwrap().attachment.is_none());
    world.0.end_fault(fault);
    assert!(world.seen(&eni.id).unwrap().attachment.is_none(), "the late attach finds its attachment gone");
    let plugged = |event: &Event| matches!(event, Event::EniAttached { .. } | Event::EniDetached { .. });
    assert!(!world.0.take_events().iter().any(plugged), "it was never in the instance");
}

#[test]
fn what_others_do_uses_up_no_limit_and_meets_no_fault() {
    let config = SimConfig { throttle: ec2_sim::model::throttle::ThrottleConfig::default(), ..SimConfig::instant() };
    let mut model = Model::new(config).unwrap();
    model.inject(FaultRule { action: None, ..FaultRule::always(FaultKind::Denied, "") });
    let subnet = model.subnets().next().unwrap().info.id.clone();
    for _ in 0..20 {
        let run = RunInstances::one(InstanceType::new("m5.large"), subnet.clone());
        model.act(&Request::RunInstances(run)).unwrap();
    }
    assert_eq!((model.instances().count(), model.calls().last_seq()), (20, 0));
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = World::instant();
    let create = CreateInterface { subnet: Some(world.subnet()), ..CreateInterface::default() };
    let reply = world.0.call_with("test", &Request::CreateNetworkInterface(create), true);
    assert_eq!(reply.result.unwrap_err().code, "DryRunOperation");
    assert_eq!(world.0.interfaces().count(), 0);
}
