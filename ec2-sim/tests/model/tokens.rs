//! ClientToken: a call may be repeated, and what it makes is made once.

use ec2_sim::model::request::{CreateInterface, RunInstances, Wanted};
use ec2_sim::{Request, Response};
use enipool_pool::InstanceType;

use crate::world::{SECOND, World};

fn launch(world: &World, token: &str) -> RunInstances {
    let one = RunInstances::one(InstanceType::new("m5.large"), world.subnet());
    RunInstances { client_token: Some(token.to_owned()), ..one }
}

#[test]
fn a_client_token_creates_once() {
    let mut world = World::instant();
    let create = CreateInterface {
        subnet: Some(world.subnet()),
        secondary: Wanted::addresses(3),
        client_token: Some("intent-1".into()),
        ..CreateInterface::default()
    };
    let first = world.call(Request::CreateNetworkInterface(create.clone())).unwrap();
    assert_eq!(world.call(Request::CreateNetworkInterface(create.clone())).unwrap(), first);
    assert_eq!(world.0.interfaces().count(), 1);
    let other = CreateInterface { secondary: Wanted::addresses(4), ..create.clone() };
    assert_eq!(world.code(Request::CreateNetworkInterface(other)), "IdempotentParameterMismatch");
    world.after(25 * 3600 * SECOND);
    world.call(Request::CreateNetworkInterface(create)).unwrap();
    assert_eq!(world.0.interfaces().count(), 2, "a day later the token is forgotten");
}

#[test]
fn a_call_that_failed_uses_no_token_up() {
    let mut world = World::with_subnet("10.0.1.0/28");
    let create = CreateInterface {
        subnet: Some(world.subnet()),
        secondary: Wanted::addresses(5),
        client_token: Some("intent-1".into()),
        ..CreateInterface::default()
    };
    let subnet = world.subnet();
    world.0.occupy(&subnet, 11, 1).unwrap();
    assert!(world.call(Request::CreateNetworkInterface(create.clone())).is_err());
    world.0.vacate(&subnet).unwrap();
    assert!(world.call(Request::CreateNetworkInterface(create)).is_ok());
}

#[test]
fn a_launch_with_the_same_token_starts_no_second_instance() {
    let mut world = World::instant();
    let run = launch(&world, "node-1");
    let Response::Reservation(first) = world.call(Request::RunInstances(run.clone())).unwrap() else { panic!() };
    let Response::Reservation(again) = world.call(Request::RunInstances(run.clone())).unwrap() else { panic!() };
    assert_eq!((&again[0].id, &again[0].reservation), (&first[0].id, &first[0].reservation));
    assert_eq!((world.0.instances().count(), world.0.interfaces().count()), (1, 1));
    let other = RunInstances { instance_type: InstanceType::new("m5.xlarge"), ..run };
    let error = world.call(Request::RunInstances(other)).unwrap_err();
    assert_eq!(error.code, "IdempotentParameterMismatch");
    assert!(error.message.contains("'node-1'"), "{error}");
    assert_eq!(world.0.instances().count(), 1);
}

#[test]
fn another_token_or_none_starts_another_instance() {
    let mut world = World::instant();
    let run = launch(&world, "node-1");
    world.call(Request::RunInstances(run.clone())).unwrap();
    world.call(Request::RunInstances(launch(&world, "node-2"))).unwrap();
    world.call(Request::RunInstances(RunInstances { client_token: None, ..run.clone() })).unwrap();
    world.call(Request::RunInstances(RunInstances { client_token: None, ..run })).unwrap();
    assert_eq!(world.0.instances().count(), 4);
}

#[test]
fn one_token_may_serve_two_actions() {
    let mut world = World::instant();
    world.call(Request::RunInstances(launch(&world, "same"))).unwrap();
    let create = CreateInterface {
        subnet: Some(world.subnet()),
        client_token: Some("same".into()),
        ..CreateInterface::default()
    };
    assert!(world.call(Request::CreateNetworkInterface(create)).is_ok());
}

#[test]
fn a_token_has_at_most_64_characters_all_of_them_ascii() {
    let mut world = World::instant();
    for (token, accepted) in [("x".repeat(64), true), ("x".repeat(65), false), ("knoten-ä".to_owned(), false)] {
        let create = CreateInterface {
            subnet: Some(world.subnet()),
            client_token: Some(token.clone()),
            ..CreateInterface::default()
        };
        let run = launch(&world, &token);
        for request in [Request::CreateNetworkInterface(create), Request::RunInstances(run)] {
            let action = request.action();
            match world.call(request) {
                Ok(_) => assert!(accepted, "{action} took {token}"),
                Err(error) => {
                    assert_eq!((error.code.as_ref(), accepted), ("InvalidParameterValue", false), "{action}: {token}");
                }
            }
        }
    }
    assert_eq!((world.0.instances().count(), world.0.interfaces().count()), (1, 2), "what was refused made nothing");
}
