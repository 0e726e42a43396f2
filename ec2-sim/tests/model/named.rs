//! Addresses and prefixes that a call names: what is checked, and what moves from one interface to another.

use std::net::Ipv4Addr;

use ec2_sim::model::ApiError;
use ec2_sim::model::request::{Assign, CreateInterface, Wanted};
use ec2_sim::model::resource::Interface;
use ec2_sim::{Request, Response};
use enipool_pool::ec2::Tags;
use enipool_pool::{EniId, Prefix};

use crate::world::World;

fn addresses(named: &[&str]) -> Wanted {
    Wanted { addresses: named.iter().map(|address| address.parse().unwrap()).collect(), ..Wanted::default() }
}

fn prefixes(named: &[&str]) -> Wanted {
    Wanted { prefixes: named.iter().map(|prefix| prefix.parse().unwrap()).collect(), ..Wanted::default() }
}

/// AllowReassignment.
fn move_to(world: &mut World, eni: &EniId, wanted: Wanted) -> Result<Response, ApiError> {
    let assign = Assign { interface: eni.clone(), wanted, allow_reassignment: true };
    world.call(Request::AssignPrivateIpAddresses(assign))
}

fn held(world: &World, eni: &EniId) -> Vec<Ipv4Addr> {
    world.0.interface(eni).unwrap().secondary_ips.clone()
}

/// Two interfaces, the second with 10.0.1.77 and 10.0.1.78.
fn two(world: &mut World) -> (Interface, Interface) {
    let (one, other) = (world.create(Wanted::default()).unwrap(), world.create(Wanted::default()).unwrap());
    world.assign(&other.id, addresses(&["10.0.1.77", "10.0.1.78"])).unwrap();
    (one, other)
}

#[test]
fn named_addresses_are_checked_against_subnet_and_owners() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let (one, other) = (world.create(Wanted::default()).unwrap(), world.create(Wanted::default()).unwrap());
    let message = |world: &mut World, address| world.assign(&one.id, addresses(&[address])).unwrap_err().message;
    assert_eq!(message(&mut world, "10.0.2.5"), "Address does not fall within the subnet's address range");
    assert_eq!(message(&mut world, "10.0.1.3"), "Address is in subnet's reserved address range");
    let taken = other.primary_ip.to_string();
    assert_eq!(message(&mut world, &taken), format!("[{taken}] assigned, but move is not allowed."));
}

#[test]
fn an_address_that_the_interface_has_may_be_assigned_again() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let eni = world.create(Wanted::addresses(1)).unwrap();
    let again = Wanted { addresses: eni.secondary_ips.clone(), ..Wanted::default() };
    assert!(world.assign(&eni.id, again).is_ok());
    assert_eq!(world.0.interface(&eni.id).unwrap().secondary_ips, eni.secondary_ips);
}

#[test]
fn secondary_addresses_move_where_reassignment_is_allowed() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let (one, other) = two(&mut world);
    let free = world.free();
    move_to(&mut world, &one.id, addresses(&["10.0.1.77", "10.0.1.99"])).unwrap();
    assert_eq!(held(&world, &one.id), [Ipv4Addr::new(10, 0, 1, 77), Ipv4Addr::new(10, 0, 1, 99)]);
    assert_eq!(held(&world, &other.id), [Ipv4Addr::new(10, 0, 1, 78)]);
    assert_eq!(world.free(), free - 1, "one was free before");
}

#[test]
fn a_move_that_is_refused_takes_nothing_from_anybody() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let (one, other) = two(&mut world);
    let third = world.create(Wanted::prefixes(1)).unwrap();
    let (primary, in_prefix) =
        (other.primary_ip.to_string(), third.prefixes[0].addresses().next().unwrap().to_string());
    let before = (held(&world, &other.id), world.free());
    world.0.take_events();
    for (hindrance, words) in [
        (primary.as_str(), format!("[{primary}] assigned, but move is not allowed.")),
        (in_prefix.as_str(), format!("[{in_prefix}] assigned, but move is not allowed.")),
        ("10.0.2.5", "Address does not fall within the subnet's address range".to_owned()),
        ("10.0.1.3", "Address is in subnet's reserved address range".to_owned()),
        ("10.0.1.78", "The same address is named twice.".to_owned()),
    ] {
        let error = move_to(&mut world, &one.id, addresses(&["10.0.1.77", "10.0.1.78", hindrance])).unwrap_err();
        assert_eq!((error.code.as_ref(), error.message), ("InvalidParameterValue", words));
        assert_eq!((held(&world, &other.id), world.free()), before, "after {hindrance}");
        assert_eq!(held(&world, &one.id), [] as [Ipv4Addr; 0]);
    }
    assert!(world.0.take_events().is_empty(), "and nobody is told of a change");
}

#[test]
fn nothing_moves_to_an_interface_without_room() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let (_, other) = two(&mut world);
    let node = world.run("m5.large");
    let full = world.create(Wanted::addresses(9)).unwrap();
    world.attach(&full.id, &node.id, 1).unwrap();
    let error = move_to(&mut world, &full.id, addresses(&["10.0.1.77"])).unwrap_err();
    assert_eq!(error.code, "PrivateIpAddressLimitExceeded");
    assert_eq!(held(&world, &other.id).len(), 2);
}

#[test]
fn an_address_of_another_vpc_stays_there_though_it_looks_the_same() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let (_, other) = two(&mut world);
    let vpc = Request::CreateVpc { cidr: "10.0.0.0/16".parse().unwrap(), tags: Tags::new() };
    let Response::Vpc(vpc) = world.call(vpc).unwrap() else { panic!() };
    let cidr = enipool_pool::SubnetCidr("10.0.1.0/24".parse().unwrap());
    let subnet = Request::CreateSubnet { vpc: vpc.id, zone: None, cidr, tags: Tags::new() };
    let Response::Subnet(subnet) = world.call(subnet).unwrap() else { panic!() };
    let create = CreateInterface { subnet: Some(subnet.info.id), ..CreateInterface::default() };
    let Response::Interface(abroad) = world.call(Request::CreateNetworkInterface(create)).unwrap() else { panic!() };
    move_to(&mut world, &abroad.id, addresses(&["10.0.1.77"])).unwrap();
    assert_eq!(held(&world, &other.id).len(), 2, "that was another 10.0.1.77");
}

#[test]
fn a_named_prefix_must_be_whole_free_and_named_once() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let eni = world.create(prefixes(&["10.0.1.32/28"])).unwrap();
    assert_eq!(eni.prefixes, ["10.0.1.32/28".parse::<Prefix>().unwrap()]);
    let before = world.free();
    for (named, words) in [
        (&["10.0.1.32/28"][..], "[10.0.1.32/28] assigned, but move is not allowed."),
        (&["10.0.1.48/28", "10.0.1.48/28"], "The same prefix is named twice."),
        (&["10.0.2.16/28"], "10.0.2.16/28 does not fall within the subnet's address range"),
        (&["10.0.1.0/28"], "Address is in subnet's reserved address range"),
    ] {
        let error = world.create(prefixes(named)).unwrap_err();
        assert_eq!((error.code.as_ref(), error.message.as_str()), ("InvalidParameterValue", words));
        assert_eq!(world.free(), before);
    }
    let again = world.assign(&eni.id, prefixes(&["10.0.1.32/28", "10.0.1.48/28"]));
    assert!(again.is_ok(), "what the interface has already is no error");
    assert_eq!(world.free(), before - 16);
}
