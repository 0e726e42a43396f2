//! EC2's request limits as callers meet them: which bucket a call draws from, and how many tokens it takes.

use ec2_sim::model::filter::Filter;
use ec2_sim::model::page::PageRequest;
use ec2_sim::model::request::{Describe, RunInstances, Wanted};
use ec2_sim::model::throttle::ThrottleConfig;
use ec2_sim::{Model, Request, Response, SimConfig};
use enipool_pool::{EniId, InstanceId, InstanceType};

use crate::world::{SECOND, World};

/// A region with the limits that AWS publishes.
fn limited() -> World {
    World(Model::new(SimConfig { throttle: ThrottleConfig::default(), ..SimConfig::instant() }).unwrap())
}

/// How many of 300 such calls at one moment get through.
fn burst(world: &mut World, request: &Request) -> usize {
    (0..300).filter(|_| world.call(request.clone()).is_ok()).count()
}

fn run(world: &mut World, count: u32) -> Result<Vec<InstanceId>, String> {
    let one = RunInstances::one(InstanceType::new("m5.large"), world.subnet());
    match world.call(Request::RunInstances(RunInstances { min_count: count, max_count: count, ..one })) {
        Ok(Response::Reservation(instances)) => Ok(instances.into_iter().map(|instance| instance.id).collect()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code.into_owned()),
    }
}

#[test]
fn calls_are_throttled_per_action_and_the_ledger_knows() {
    let mut world = limited();
    let outcomes: Vec<_> = (0..120).map(|_| world.create(Wanted::default()).is_ok()).collect();
    assert_eq!(outcomes.iter().filter(|ok| **ok).count(), 100);
    let count = world.0.calls().counts()["CreateNetworkInterface"].clone();
    assert_eq!((count.calls, count.succeeded, count.errors["RequestLimitExceeded"]), (120, 100, 20));
    assert!(world.after(SECOND).create(Wanted::default()).is_ok());
}

#[test]
fn a_describe_of_everything_has_a_smaller_bucket_of_its_own() {
    let mut world = limited();
    let bare = Request::DescribeNetworkInterfaces(Describe::default());
    assert_eq!(burst(&mut world, &bare), 50);
    let filtered = Describe::filtered([Filter::new("status", ["available"])]);
    assert_eq!(burst(&mut world, &Request::DescribeNetworkInterfaces(filtered)), 100, "as full as before");
    assert_eq!(world.after(SECOND).0.throttle().levels()["DescribeNetworkInterfaces:unfiltered"], 0);
    assert_eq!(burst(&mut world, &bare), 10);
}

#[test]
fn a_describe_of_pages_or_of_named_resources_draws_from_the_action_s_bucket() {
    let page = PageRequest { max_results: Some(1000), next_token: None };
    let all: Describe<EniId> = Describe { page, ..Describe::default() };
    assert_eq!(burst(&mut limited(), &Request::DescribeNetworkInterfaces(all)), 100);
    let mut world = limited();
    let eni = world.create(Wanted::default()).unwrap();
    assert_eq!(burst(&mut world, &Request::DescribeNetworkInterfaces(Describe::ids([eni.id]))), 100);
}

#[test]
fn only_some_describe_calls_have_the_smaller_bucket() {
    assert_eq!(burst(&mut limited(), &Request::DescribeInstances(Describe::default())), 50);
    assert_eq!(burst(&mut limited(), &Request::DescribeSecurityGroups(Describe::default())), 50);
    assert_eq!(burst(&mut limited(), &Request::DescribeSubnets(Describe::default())), 100);
    assert_eq!(burst(&mut limited(), &Request::DescribeVpcs(Describe::default())), 100);
}

#[test]
fn a_launch_takes_one_token_an_instance() {
    let mut world = limited();
    run(&mut world, 600).unwrap();
    assert_eq!(world.0.throttle().levels()["RunInstances:resource"], 400);
    assert_eq!(run(&mut world, 401), Err("RequestLimitExceeded".to_owned()), "all of a launch or nothing");
    run(&mut world, 400).unwrap();
    assert_eq!(
        run(&mut world, 1),
        Err("RequestLimitExceeded".to_owned()),
        "the call itself would be the fourth of five"
    );
    world.after(SECOND);
    assert_eq!(run(&mut world, 2).map(|made| made.len()), Ok(2));
    assert_eq!(world.0.instances().count(), 1002);
}

#[test]
fn stopping_starting_and_ending_take_one_token_an_instance_each_from_a_bucket_of_its_own() {
    let mut world = limited();
    let made = run(&mut world, 300).unwrap();
    world.call(Request::StopInstances(made.clone())).unwrap();
    world.call(Request::StartInstances(made.clone())).unwrap();
    world.call(Request::TerminateInstances(made[..100].to_vec())).unwrap();
    let levels = world.0.throttle().levels();
    let left = |action: &str| levels[&format!("{action}:resource")];
    assert_eq!((left("StopInstances"), left("StartInstances"), left("TerminateInstances")), (700, 700, 900));
}

#[test]
fn a_throttled_call_changes_nothing() {
    let mut world = limited();
    while world.create(Wanted::default()).is_ok() {}
    let before = (world.0.interfaces().count(), world.free());
    assert_eq!(world.create(Wanted::default()).unwrap_err().code, "RequestLimitExceeded");
    assert_eq!((world.0.interfaces().count(), world.free()), before);
}
