//! Tags, and what EC2 takes as such.

use ec2_sim::Request;
use ec2_sim::model::filter::Filter;
use ec2_sim::model::request::{CreateInterface, Describe, RunInstances, Wanted};
use enipool_pool::InstanceType;
use enipool_pool::ec2::Tags;

use crate::world::World;

fn tag(key: impl Into<String>, value: impl Into<String>) -> Tags {
    Tags::from([(key.into(), value.into())])
}

fn many(count: usize) -> Tags {
    (0..count).map(|n| (format!("key-{n}"), "x".to_owned())).collect()
}

/// Three ways to the same tags, and the code with which each is refused.
fn refusals(tags: &Tags) -> [Option<String>; 3] {
    let mut world = World::instant();
    let eni = world.create(Wanted::default()).unwrap();
    let one = RunInstances::one(InstanceType::new("m5.large"), world.subnet());
    let create = CreateInterface { subnet: Some(world.subnet()), tags: tags.clone(), ..CreateInterface::default() };
    [
        Request::CreateTags { resources: vec![eni.id.to_string()], tags: tags.clone() },
        Request::CreateNetworkInterface(create),
        Request::RunInstances(RunInstances { instance_tags: tags.clone(), ..one }),
    ]
    .map(|request| world.call(request).err().map(|error| error.code.into_owned()))
}

#[test]
fn tags_reach_all_resources_or_none() {
    let mut world = World::instant();
    let eni = world.create(Wanted::default()).unwrap();
    let tags = tag("owner", "enipool");
    let ghost = "eni-0123456789abcdef0".to_owned();
    let both = Request::CreateTags { resources: vec![eni.id.to_string(), ghost], tags: tags.clone() };
    assert_eq!(world.code(both), "InvalidNetworkInterfaceID.NotFound");
    assert!(world.0.interface(&eni.id).unwrap().tags.is_empty());
    let resources = vec![eni.id.to_string(), world.subnet().to_string()];
    world.call(Request::CreateTags { resources, tags }).unwrap();
    let tagged = Describe::filtered([Filter::new("tag:owner", ["enipool"])]);
    assert_eq!(world.describe(tagged).unwrap().len(), 1);
}

#[test]
fn keys_have_128_characters_and_values_256() {
    let accepted = [None, None, None];
    let refused = [(); 3].map(|()| Some("InvalidParameterValue".to_owned()));
    assert_eq!(refusals(&tag("k".repeat(128), "v".repeat(256))), accepted);
    assert_eq!(refusals(&tag("ü".repeat(128), "ü".repeat(256))), accepted, "characters, not bytes");
    assert_eq!(refusals(&tag("k".repeat(129), "v")), refused);
    assert_eq!(refusals(&tag("k", "v".repeat(257))), refused);
    assert_eq!(refusals(&tag("k", "")), accepted);
    assert_eq!(refusals(&tag("", "v")), refused);
    for reserved in ["aws:x", "AWS:x", "Aws:"] {
        assert_eq!(refusals(&tag(reserved, "v")), refused, "{reserved}");
    }
    assert_eq!(refusals(&tag("aws", "v")), accepted);
}

#[test]
fn a_resource_has_at_most_50_tags() {
    assert_eq!(refusals(&many(50)), [None, None, None]);
    assert_eq!(refusals(&many(51)), [(); 3].map(|()| Some("TagLimitExceeded".to_owned())));
}

#[test]
fn tags_are_counted_with_those_that_are_there_already() {
    let mut world = World::instant();
    let eni = world.create(Wanted::default()).unwrap().id.to_string();
    let add = |tags| Request::CreateTags { resources: vec![eni.clone()], tags };
    world.call(add(many(49))).unwrap();
    world.call(add(tag("one-more", "x"))).unwrap();
    assert_eq!(world.code(add(tag("too-many", "x"))), "TagLimitExceeded");
    world.call(add(tag("one-more", "changed"))).unwrap();
    let shown = &world.describe(Describe::default()).unwrap()[0];
    assert_eq!((shown.tags.len(), shown.tags["one-more"].as_str()), (50, "changed"));
}
