//! What the simulated EC2 does, seen from outside: limits, subnets, tokens, life cycles, faults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are outside #[test] functions")]
#![allow(clippy::needless_pass_by_value, reason = "tests read better without ampersands")]

use std::time::Duration;

use ec2_sim::model::filter::Filter;
use ec2_sim::model::request::{
    Assign, AttachInterface, CreateInterface, Describe, InterfaceChange, LaunchInterface, ModifyInterface,
    RunInstances, Unassign, Wanted,
};
use ec2_sim::model::resource::{AttachStatus, InstanceView, Interface};
use ec2_sim::model::{ApiError, Delay, SubnetConfig};
use ec2_sim::{Event, FaultKind, FaultRule, Model, Request, Response, SimConfig, Timing};
use enipool_pool::ec2::InstanceState;
use enipool_pool::{AttachmentId, EniId, InstanceId, InstanceType, SubnetId};

/// A model with a few words for what tests do all the time.
struct World(Model);

impl World {
    fn instant() -> Self {
        Self(Model::new(SimConfig::instant()).unwrap())
    }

    fn with_timing(timing: Timing) -> Self {
        Self(Model::new(SimConfig { timing, ..SimConfig::instant() }).unwrap())
    }

    /// One subnet of this range in zone a.
    fn with_subnet(cidr: &str) -> Self {
        let subnet = SubnetConfig {
            zone: "eu-west-1a".into(),
            cidr: enipool_pool::SubnetCidr(cidr.parse().unwrap()),
            tags: std::collections::BTreeMap::new(),
        };
        Self(Model::new(SimConfig { subnets: vec![subnet], ..SimConfig::instant() }).unwrap())
    }

    fn call(&mut self, request: Request) -> Result<Response, ApiError> {
        self.0.call("test", &request).result
    }

    fn code(&mut self, request: Request) -> String {
        self.call(request).unwrap_err().code.into_owned()
    }

    fn subnet(&self) -> SubnetId {
        self.0.subnets().find(|subnet| subnet.info.zone.as_str().ends_with('a')).unwrap().info.id.clone()
    }

    fn run(&mut self, instance_type: &str) -> InstanceView {
        let run = RunInstances::one(InstanceType::new(instance_type), self.subnet());
        match self.call(Request::RunInstances(run)).unwrap() {
            Response::Reservation(mut instances) => instances.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, secondary: Wanted) -> Result<Interface, ApiError> {
        let create = CreateInterface { subnet: Some(self.subnet()), secondary, ..CreateInterface::default() };
        match self.call(Request::CreateNetworkInterface(create))? {
            Response::Interface(interface) => Ok(*interface),
            other => panic!("{other:?}"),
        }
    }

    fn attach(&mut self, eni: &EniId, instance: &InstanceId, device_index: u32) -> Result<AttachmentId, ApiError> {
        let attach =
            AttachInterface { interface: eni.clone(), instance: instance.clone(), device_index, network_card: 0 };
        match self.call(Request::AttachNetworkInterface(attach))? {
            Response::Attached { attachment, .. } => Ok(attachment),
            other => panic!("{other:?}"),
        }
    }

    fn assign(&mut self, eni: &EniId, wanted: Wanted) -> Result<Response, ApiError> {
        let assign = Assign { interface: eni.clone(), wanted, allow_reassignment: false };
        self.call(Request::AssignPrivateIpAddresses(assign))
    }

    fn describe(&mut self, describe: Describe<EniId>) -> Result<Vec<Interface>, ApiError> {
        match self.call(Request::DescribeNetworkInterfaces(describe))? {
            Response::Interfaces(page) => Ok(page.items),
            other => panic!("{other:?}"),
        }
    }

    fn seen(&mut self, eni: &EniId) -> Result<Interface, ApiError> {
        self.describe(Describe::ids([eni.clone()])).map(|mut enis| enis.remove(0))
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        let to = self.0.now().plus(time);
        self.0.advance(to);
        self
    }

    fn free(&self) -> u32 {
        let subnet = self.subnet();
        self.0.subnets().find(|record| record.info.id == subnet).unwrap().map.free()
    }
}

const SECOND: Duration = Duration::from_secs(1);

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
fn named_addresses_are_checked_against_subnet_and_owners() {
    let mut world = World::with_subnet("10.0.1.0/24");
    let (one, other) = (world.create(Wanted::default()).unwrap(), world.create(Wanted::default()).unwrap());
    let named = |address: &str| Wanted { addresses: vec![address.parse().unwrap()], ..Wanted::default() };
    let message = |world: &mut World, address: &str| world.assign(&one.id, named(address)).unwrap_err().message;
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
    assert!(world.call(Request::RunInstances(run.clone())).is_err());
    assert_eq!((world.0.instances().count(), world.0.interfaces().count(), world.free()), (0, 0, 11));
    assert!(world.0.take_events().is_empty());
    let as_many_as_fit = RunInstances { min_count: 1, ..run };
    world.call(Request::RunInstances(as_many_as_fit)).unwrap();
    assert_eq!(world.0.instances().count(), 11);
}

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
fn calls_are_throttled_per_action_and_the_ledger_knows() {
    let config = SimConfig { throttle: ec2_sim::model::throttle::ThrottleConfig::default(), ..SimConfig::instant() };
    let mut world = World(Model::new(config).unwrap());
    let outcomes: Vec<_> = (0..120).map(|_| world.create(Wanted::default()).is_ok()).collect();
    assert_eq!(outcomes.iter().filter(|ok| **ok).count(), 100);
    let count = world.0.calls().counts()["CreateNetworkInterface"].clone();
    assert_eq!((count.calls, count.succeeded, count.errors["RequestLimitExceeded"]), (120, 100, 20));
    assert!(world.after(SECOND).create(Wanted::default()).is_ok());
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

#[test]
fn tags_reach_all_resources_or_none() {
    let mut world = World::instant();
    let eni = world.create(Wanted::default()).unwrap();
    let tags = enipool_pool::ec2::Tags::from([("owner".to_owned(), "enipool".to_owned())]);
    let ghost = "eni-0123456789abcdef0".to_owned();
    let both = Request::CreateTags { resources: vec![eni.id.to_string(), ghost], tags: tags.clone() };
    assert_eq!(world.code(both), "InvalidNetworkInterfaceID.NotFound");
    assert!(world.0.interface(&eni.id).unwrap().tags.is_empty());
    let resources = vec![eni.id.to_string(), world.subnet().to_string()];
    world.call(Request::CreateTags { resources, tags }).unwrap();
    let tagged = Describe::filtered([Filter::new("tag:owner", ["enipool"])]);
    assert_eq!(world.describe(tagged).unwrap().len(), 1);
}
