//! How many interfaces, addresses and prefixes fit: the limits of instance types, and subnets that run full.

use ec2_sim::model::request::{CreateInterface, Unassign, Wanted};
use ec2_sim::{Request, Response};

use crate::world::World;

#[test]
fn a_m5_large_holds_three_interfaces_of_ten_addresses() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    for index in 1..3 {
        let eni = world.create(Wanted::addresses(9)).unwrap();
        world.attach(&eni.id, &node.id, index).unwrap();
        assert_eq!(world.assign(&eni.id, Wanted::addresses(1)).unwrap_err().code, "PrivateIpAddressLimitExceeded");
    }
    let one_more = world.create(Wanted::default()).unwrap();
    let error = world.attach(&one_more.id, &node.id, 3).unwrap_err();
    assert_eq!(error.code, "AttachmentLimitExceeded");
    assert_eq!(error.message, "Interface count 4 exceeds the limit for m5.large");
}

#[test]
fn an_interface_with_more_addresses_than_the_type_allows_cannot_be_attached() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    let eni = world.create(Wanted::addresses(10)).unwrap();
    assert_eq!(world.attach(&eni.id, &node.id, 1).unwrap_err().code, "PrivateIpAddressLimitExceeded");
}

#[test]
fn prefixes_need_a_nitro_instance() {
    let mut world = World::instant();
    let old = world.run("m4.large");
    let primary = old.interfaces[0].id.clone();
    assert_eq!(world.assign(&primary, Wanted::prefixes(1)).unwrap_err().code, "UnsupportedOperation");
    let nitro = world.run("m5.large");
    let primary = nitro.interfaces[0].id.clone();
    assert!(world.assign(&primary, Wanted::prefixes(9)).is_ok());
    assert_eq!(world.0.interface(&primary).unwrap().prefixes.len(), 9);
}

#[test]
fn a_device_index_is_taken_once() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    let (first, second) = (world.create(Wanted::default()).unwrap(), world.create(Wanted::default()).unwrap());
    world.attach(&first.id, &node.id, 1).unwrap();
    let error = world.attach(&second.id, &node.id, 1).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
    assert!(error.message.contains("already has an interface attached at device index '1'"), "{error}");
    assert_eq!(world.attach(&first.id, &node.id, 2).unwrap_err().code, "InvalidNetworkInterface.InUse");
}

#[test]
fn an_interface_of_another_zone_cannot_be_attached() {
    let mut world = World::instant();
    let node = world.run("m5.large");
    let elsewhere = world.0.subnets().find(|s| s.info.zone.as_str() == "eu-west-1b").unwrap().info.id.clone();
    let create = CreateInterface { subnet: Some(elsewhere), ..CreateInterface::default() };
    let Response::Interface(eni) = world.call(Request::CreateNetworkInterface(create)).unwrap() else { panic!() };
    assert_eq!(world.attach(&eni.id, &node.id, 1).unwrap_err().code, "InvalidParameterCombination");
}

#[test]
fn a_full_subnet_says_so_in_the_words_of_each_action() {
    let mut world = World::with_subnet("10.0.1.0/27");
    let node = world.run("m5.4xlarge");
    let primary = node.interfaces[0].id.clone();
    assert_eq!(world.free(), 26);
    assert_eq!(world.assign(&primary, Wanted::addresses(27)).unwrap_err().code, "InsufficientFreeAddressesInSubnet");
    assert_eq!(world.free(), 26, "a call that fails takes nothing");
    assert!(world.assign(&primary, Wanted::addresses(26)).is_ok());
    let error = world.create(Wanted::default()).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
    assert_eq!(error.message, "There aren't sufficient free Ipv4 addresses or prefixes");
    let error = world.assign(&primary, Wanted::prefixes(1)).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue", "fewer than sixteen addresses are left at all");
}

#[test]
fn a_fragmented_subnet_has_addresses_but_no_prefix() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let subnet = world.subnet();
    assert_eq!(world.0.occupy(&subnet, 100, 8).unwrap(), 31);
    let error = world.create(Wanted::prefixes(1)).unwrap_err();
    assert_eq!(error.code, "InsufficientCidrBlocks");
    let before = world.free();
    assert!(world.create(Wanted::addresses(5)).is_ok());
    assert_eq!(world.free(), before - 6);
    world.0.vacate(&subnet).unwrap();
    assert!(world.create(Wanted::prefixes(1)).is_ok());
}

#[test]
fn addresses_and_prefixes_are_not_taken_in_one_call() {
    let mut world = World::instant();
    let both = Wanted { address_count: Some(1), prefix_count: Some(1), ..Wanted::default() };
    assert_eq!(world.create(both).unwrap_err().code, "InvalidParameterCombination");
}

#[test]
fn unassigning_what_is_not_there_changes_nothing() {
    let mut world = World::instant();
    let eni = world.create(Wanted::addresses(2)).unwrap();
    let addresses = vec![eni.secondary_ips[0], "10.0.200.1".parse().unwrap()];
    let unassign = Unassign { interface: eni.id.clone(), addresses, prefixes: vec![] };
    let error = world.call(Request::UnassignPrivateIpAddresses(unassign)).unwrap_err();
    assert!(error.message.starts_with("Some of the specified addresses are not assigned to interface"), "{error}");
    assert_eq!(world.0.interface(&eni.id).unwrap().secondary_ips.len(), 2);
    let primary = Unassign { interface: eni.id, addresses: vec![eni.primary_ip], prefixes: vec![] };
    assert_eq!(world.code(Request::UnassignPrivateIpAddresses(primary)), "InvalidParameterValue");
}
