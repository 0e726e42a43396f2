//! Whatever is asked of it, in whatever order: the simulated EC2 keeps its books.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside #[test] functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ec2_sim::model::request::{
    Assign, AttachInterface, CreateInterface, Describe, InterfaceChange, ModifyInterface, RunInstances, Unassign,
    Wanted,
};
use ec2_sim::model::throttle::ThrottleConfig;
use ec2_sim::model::{Model, Reply, SubnetConfig};
use ec2_sim::{FaultKind, FaultRule, Request, SimConfig, Timing};
use enipool_pool::ec2::InstanceState;
use enipool_pool::{EniId, InstanceId, InstanceType, SubnetCidr};
use proptest::prelude::*;

/// One step; the numbers choose among what exists at that moment.
#[derive(Debug, Clone)]
enum Step {
    Run(u8),
    Terminate(u8),
    Stop(u8),
    Start(u8),
    Create { subnet: u8, addresses: u8, prefixes: bool, token: u8 },
    Attach { eni: u8, instance: u8, index: u8 },
    Detach(u8),
    Delete(u8),
    Mark(u8),
    Assign { eni: u8, count: u8, prefixes: bool },
    Unassign { eni: u8, count: u8 },
    Describe,
    Wait(u16),
    Fault(u8),
    EndFaults,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<u8>().prop_map(Step::Run),
        1 => any::<u8>().prop_map(Step::Terminate),
        1 => any::<u8>().prop_map(Step::Stop),
        1 => any::<u8>().prop_map(Step::Start),
        6 => (any::<u8>(), 0u8..12, any::<bool>(), 0u8..20)
            .prop_map(|(subnet, addresses, prefixes, token)| Step::Create { subnet, addresses, prefixes, token }),
        6 => (any::<u8>(), any::<u8>(), 0u8..4)
            .prop_map(|(eni, instance, index)| Step::Attach { eni, instance, index }),
        2 => any::<u8>().prop_map(Step::Detach),
        2 => any::<u8>().prop_map(Step::Delete),
        1 => any::<u8>().prop_map(Step::Mark),
        6 => (any::<u8>(), 1u8..12, any::<bool>())
            .prop_map(|(eni, count, prefixes)| Step::Assign { eni, count, prefixes }),
        3 => (any::<u8>(), 1u8..6).prop_map(|(eni, count)| Step::Unassign { eni, count }),
        1 => Just(Step::Describe),
        6 => (0u16..30_000).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Fault),
        1 => Just(Step::EndFaults),
    ]
}

fn region(seed: u64) -> SimConfig {
    let subnet = |zone: &str, cidr: &str| SubnetConfig {
        zone: zone.into(),
        cidr: SubnetCidr(cidr.parse().unwrap()),
        tags: BTreeMap::new(),
    };
    SimConfig {
        seed,
        // Small, so that subnets run full and break up.
        subnets: vec![subnet("eu-west-1a", "10.0.0.0/25"), subnet("eu-west-1b", "10.0.1.0/26")],
        timing: Timing::realistic(),
        throttle: ThrottleConfig::default(),
        max_enis: 30,
        ..SimConfig::default()
    }
}

fn pick<T: Clone>(from: impl Iterator<Item = T>, number: u8) -> Option<T> {
    let all: Vec<T> = from.collect();
    all.get(usize::from(number) % all.len().max(1)).cloned()
}

fn take(model: &mut Model, step: &Step) -> Option<Reply> {
    let enis = |model: &Model| model.interfaces().map(|eni| eni.id.clone()).collect::<Vec<EniId>>().into_iter();
    let instances = |model: &Model| model.instances().map(|i| i.id.clone()).collect::<Vec<InstanceId>>().into_iter();
    let subnets = |model: &Model| model.subnets().map(|s| s.info.id.clone()).collect::<Vec<_>>().into_iter();
    let wanted = |count: u8, prefixes: bool| {
        if prefixes { Wanted::prefixes(u32::from(count) / 4) } else { Wanted::addresses(u32::from(count)) }
    };
    let request = match step {
        Step::Run(n) => {
            let kind = ["m5.large", "t3.small", "m4.large"][usize::from(*n) % 3];
            Request::RunInstances(RunInstances::one(InstanceType::new(kind), pick(subnets(model), *n)?))
        }
        Step::Terminate(n) => Request::TerminateInstances(vec![pick(instances(model), *n)?]),
        Step::Stop(n) => Request::StopInstances(vec![pick(instances(model), *n)?]),
        Step::Start(n) => Request::StartInstances(vec![pick(instances(model), *n)?]),
        Step::Create { subnet, addresses, prefixes, token } => Request::CreateNetworkInterface(CreateInterface {
            subnet: pick(subnets(model), *subnet),
            secondary: wanted(*addresses, *prefixes),
            client_token: (*token < 10).then(|| format!("token-{token}")),
            ..CreateInterface::default()
        }),
        Step::Attach { eni, instance, index } => Request::AttachNetworkInterface(AttachInterface {
            interface: pick(enis(model), *eni)?,
            instance: pick(instances(model), *instance)?,
            device_index: u32::from(*index),
            network_card: 0,
        }),
        Step::Detach(n) => {
            let attachments: Vec<_> =
                model.interfaces().filter_map(|eni| eni.attachment.as_ref().map(|a| a.id.clone())).collect();
            Request::DetachNetworkInterface { attachment: pick(attachments.into_iter(), *n)?, force: n % 2 == 0 }
        }
        Step::Delete(n) => Request::DeleteNetworkInterface(pick(enis(model), *n)?),
        Step::Mark(n) => {
            let interface = pick(enis(model), *n)?;
            let attachment = model.interface(&interface)?.attachment.as_ref()?.id.clone();
            let change = InterfaceChange::DeleteOnTermination { attachment, delete: n % 2 == 0 };
            Request::ModifyNetworkInterfaceAttribute(ModifyInterface { interface, change })
        }
        Step::Assign { eni, count, prefixes } => Request::AssignPrivateIpAddresses(Assign {
            interface: pick(enis(model), *eni)?,
            wanted: wanted(*count, *prefixes),
            allow_reassignment: false,
        }),
        Step::Unassign { eni, count } => {
            let interface = pick(enis(model), *eni)?;
            let held = model.interface(&interface)?;
            let addresses = held.secondary_ips.iter().copied().take(usize::from(*count)).collect();
            let prefixes = held.prefixes.iter().copied().take(usize::from(*count) / 2).collect();
            Request::UnassignPrivateIpAddresses(Unassign { interface, addresses, prefixes })
        }
        Step::Describe => Request::DescribeNetworkInterfaces(Describe::default()),
        Step::Wait(millis) => {
            let to = model.now().plus(Duration::from_millis(u64::from(*millis)));
            model.advance(to);
            return None;
        }
        Step::Fault(n) => {
            let (kind, action) = [
                (FaultKind::AnswerLost, "CreateNetworkInterface"),
                (FaultKind::AppliedInternalError, "AssignPrivateIpAddresses"),
                (FaultKind::StuckAttach, "AttachNetworkInterface"),
                (FaultKind::StuckDetach, "DetachNetworkInterface"),
            ][usize::from(*n) % 4]
                .clone();
            model.inject(FaultRule::next(kind, action, 2));
            return None;
        }
        Step::EndFaults => {
            model.end_all_faults();
            return None;
        }
    };
    Some(model.call("test", &request))
}

/// What must hold after every step.
fn check(model: &Model) -> Result<(), TestCaseError> {
    let mut owned = BTreeSet::new();
    let mut used: BTreeMap<_, u32> = BTreeMap::new();
    for eni in model.interfaces() {
        let subnet = model.subnets().find(|subnet| subnet.info.id == eni.subnet).unwrap();
        let all = eni.addresses().chain(eni.prefixes.iter().flat_map(|prefix| prefix.addresses()));
        for address in all {
            prop_assert!(owned.insert((eni.vpc.clone(), address)), "{address} has two owners");
            prop_assert!(subnet.info.cidr.0.contains(&address), "{address} is not of its subnet");
            prop_assert!(!subnet.info.cidr.is_reserved(address), "{address} is reserved");
            prop_assert!(subnet.map.is_taken(address), "{address} is in use but could be handed out");
            *used.entry(subnet.info.id.clone()).or_default() += 1;
        }
        for prefix in &eni.prefixes {
            prop_assert_eq!(prefix.first().to_bits() % 16, 0);
        }
    }
    for subnet in model.subnets() {
        let size = 1u32 << (32 - subnet.info.cidr.0.prefix_len());
        let used = used.get(&subnet.info.id).copied().unwrap_or(0);
        prop_assert_eq!(subnet.map.free(), size - 5 - used, "addresses leak from {}", subnet.info.id);
    }
    for instance in model.instances() {
        let limits = &instance.info.limits;
        prop_assert!(u32::try_from(instance.interfaces.len()).unwrap() <= limits.max_enis);
        let mut indexes = BTreeSet::new();
        for id in &instance.interfaces {
            let eni = model.interface(id).unwrap();
            let attachment = eni.attachment.as_ref().unwrap();
            prop_assert_eq!(&attachment.instance, &instance.id);
            prop_assert!(indexes.insert(attachment.device_index), "two interfaces at one device index");
            prop_assert!(eni.slots() <= limits.ipv4_per_eni);
            prop_assert!(eni.prefixes.is_empty() || limits.supports_prefixes);
            prop_assert_eq!(&eni.zone, &instance.zone);
        }
        let gone = instance.state == InstanceState::Terminated;
        prop_assert_eq!(gone, instance.interfaces.is_empty(), "only a terminated instance has no interface");
    }
    prop_assert!(model.interfaces().count() <= 30 + model.instances().count());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_after_every_step(seed: u64, steps in prop::collection::vec(step(), 1..200)) {
        let mut model = Model::new(region(seed)).unwrap();
        for step in &steps {
            take(&mut model, step);
            check(&model)?;
        }
    }

    #[test]
    fn the_same_seed_and_steps_give_the_same_answers(seed: u64, steps in prop::collection::vec(step(), 1..120)) {
        let run = || {
            let mut model = Model::new(region(seed)).unwrap();
            let replies: Vec<_> = steps.iter().map(|step| take(&mut model, step)).collect();
            (replies, model.take_events(), model.truth(), model.now())
        };
        prop_assert_eq!(run(), run());
    }
}

#[test]
fn another_seed_gives_other_ids_addresses_and_delays() {
    let first = |seed| {
        let mut model = Model::new(region(seed)).unwrap();
        take(&mut model, &Step::Run(0)).unwrap()
    };
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
}
