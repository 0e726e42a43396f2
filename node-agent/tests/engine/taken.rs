//! An address that was being taken from one interface when the process died, and that EC2 has given to another since: the
//! machine alone, with EC2's answers written down here.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use enipool_agent::engine::machine::{Acquire, Described, Done, Effects, Machine, Me, Op, Start};
use enipool_agent::engine::{EffectiveConfig, HostPod, HostView, Lease, Phase, Shortage};
use enipool_pool::capacity::{self, Capacity};
use enipool_pool::ec2::{Action, Attachment, Ec2Error, Ec2ErrorKind, Eni, EniStatus, InterfaceType};
use enipool_pool::eni::{Holdings, SETTLING, TAG_INSTANCE};
use enipool_pool::imds::ImdsError;
use enipool_pool::ledger::record::{Record, Recovered, VERSION};
use enipool_pool::{EniId, InstanceId, InstanceType, MacAddress, Prefix, Timestamp, Zone};

use crate::node::{key, pod};
use crate::warm_ips;

pub(crate) const PRIMARY: u32 = 0;
pub(crate) const SECOND: u32 = 1;
/// When the taking was written down.
pub(crate) const TAKING: Timestamp = Timestamp(1_700_000_000_000);

pub(crate) fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

pub(crate) fn instance() -> InstanceId {
    "i-1".parse().unwrap()
}

pub(crate) fn id(device_index: u32) -> EniId {
    format!("eni-{device_index}").parse().unwrap()
}

fn mac(device_index: u32) -> MacAddress {
    format!("02:00:00:00:00:0{device_index}").parse().unwrap()
}

/// The interface as EC2 describes it.
pub(crate) fn eni(device_index: u32, addresses: &[u8]) -> Eni {
    let attachment = Attachment {
        id: format!("eni-attach-{device_index}").parse().unwrap(),
        instance: Some(instance()),
        device_index,
        network_card: 0,
        delete_on_termination: true,
    };
    Eni {
        id: id(device_index),
        status: EniStatus::InUse,
        interface_type: InterfaceType::Interface,
        mac: mac(device_index),
        vpc: "vpc-1".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        zone: Zone::new("eu-west-1a"),
        primary_ip: Ipv4Addr::new(10, 0, 1, u8::try_from(device_index).unwrap()),
        secondary_ips: addresses.iter().map(|last| ip(*last)).collect(),
        prefixes: Vec::new(),
        security_groups: Vec::new(),
        attachment: Some(attachment),
        description: String::new(),
        tags: [(TAG_INSTANCE.to_owned(), "i-1".to_owned())].into(),
    }
}

fn exhausted(action: Action) -> Ec2Error {
    Ec2Error { action, kind: Ec2ErrorKind::SubnetExhausted, message: None }
}

/// A machine, and what EC2 shows.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    now: Timestamp,
    ec2: Vec<Eni>,
    taken: BTreeSet<Ipv4Addr>,
    subnet_questions: u32,
}

impl Rig {
    /// The second interface had 22, 23 and 24, the last of them in a pod's hands, and 23 was being taken from it when the
    /// process died. Three seconds later EC2 shows 23 on the primary.
    fn start(config: EffectiveConfig) -> Self {
        let long_ago = Timestamp(TAKING.0 - 3_600_000);
        let holds = |eni: &Eni| Record::Holds { eni: eni.id.clone(), holdings: Holdings::of(eni), at: long_ago };
        let records = [
            Record::Opened { version: VERSION, instance: instance(), at: long_ago, uptime: None },
            holds(&eni(PRIMARY, &[])),
            holds(&eni(SECOND, &[22, 23, 24])),
            Record::Assigned { key: key(1), pod: pod(1), address: ip(24), eni: id(SECOND), at: long_ago },
            Record::Taking { eni: id(SECOND), addresses: vec![ip(23)], prefixes: Vec::new(), at: TAKING },
        ];
        let runs = HostPod { address: ip(24), host_ifname: "eni-1".into() };
        let ec2 = vec![eni(PRIMARY, &[23]), eni(SECOND, &[22, 24])];
        Self::restart_with(vec![runs], config, records.into(), ec2)
    }

    /// A start three seconds after the taking was written down, of a node without pods.
    pub(crate) fn restart(config: EffectiveConfig, records: Vec<Record>, ec2: Vec<Eni>) -> Self {
        Self::restart_with(Vec::new(), config, records, ec2)
    }

    fn restart_with(pods: Vec<HostPod>, config: EffectiveConfig, records: Vec<Record>, ec2: Vec<Eni>) -> Self {
        let now = TAKING.plus(Duration::from_secs(3));
        let instance_type = InstanceType::new("m5.large");
        let me = Me {
            node: "node".into(),
            cluster: String::new(),
            instance: instance(),
            capacity: Capacity::new(&capacity::bundled(&instance_type).unwrap()),
            instance_type,
            zone: Zone::new("eu-west-1a"),
            region: "eu-west-1".into(),
            primary_ip: ec2[0].primary_ip,
            primary_mac: mac(PRIMARY),
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            subnet: "subnet-1".parse().unwrap(),
            subnet_cidr: enipool_pool::SubnetCidr("10.0.0.0/16".parse().unwrap()),
            security_groups: Vec::new(),
        };
        let start = Start {
            me,
            config,
            recovered: Recovered::from_records(records),
            described: Described::By(ec2.clone()),
            asked_at: now,
            host: HostView { pods, links: [mac(PRIMARY), mac(SECOND)].into() },
            seed: 1,
        };
        let machine = Machine::begin(start, now);
        let mut rig = Self { machine, now, ec2, taken: BTreeSet::new(), subnet_questions: 0 };
        rig.pass(Duration::ZERO);
        rig
    }

    /// Lets time pass. The kernel does what it is told, and so does EC2 with what is to be taken; it gives nothing.
    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        loop {
            let Effects { starts, wake_at, .. } = self.machine.step(self.now);
            if starts.is_empty() {
                match wake_at.filter(|at| *at <= end) {
                    Some(at) => self.now = at,
                    None => break,
                }
            }
            for (op_id, op) in starts {
                let done = match op {
                    Op::Apply(_) => Done::Applied(Ok(())),
                    Op::Look(_) => Done::Enis(Ok(self.ec2.clone())),
                    Op::Unassign { eni, addresses, .. } => {
                        self.taken.extend(&addresses);
                        let from = self.ec2.iter_mut().find(|shown| shown.id == eni).unwrap();
                        from.secondary_ips.retain(|address| !addresses.contains(address));
                        Done::Changed(Ok(()))
                    }
                    Op::Assign { .. } => Done::Assigned(Err(exhausted(Action::AssignPrivateIpAddresses))),
                    Op::Create(_) => Done::Created(Err(exhausted(Action::CreateNetworkInterface))),
                    Op::DescribeSubnets(_) => {
                        self.subnet_questions += 1;
                        Done::Subnets(Ok(Vec::new()))
                    }
                    Op::Surroundings => Done::Hint(Err(ImdsError::Unavailable("it is silent".into()))),
                    // Never answered.
                    Op::Hint => continue,
                    op => panic!("not expected: {op:?}"),
                };
                self.machine.done(op_id, done, self.now);
            }
        }
        self.now = end;
    }

    fn acquire(&mut self, n: u32) -> Option<Lease> {
        match self.machine.acquire(&key(n), &pod(n), self.now) {
            Acquire::Granted(lease) => Some(lease),
            Acquire::Waits(_) => None,
            Acquire::Refused(error) => panic!("{error}"),
        }
    }

    pub(crate) fn notices(&mut self) -> Vec<&'static str> {
        let snapshot = self.machine.snapshot(Phase::Serving, self.now);
        snapshot.notices.iter().map(|notice| notice.kind).collect()
    }
}

#[test]
fn no_pod_gets_an_address_that_was_taken_from_two_interfaces_one_after_the_other() {
    let mut config = warm_ips(2);
    config.policy.use_primary_eni = false;
    let mut rig = Rig::start(config);
    rig.pass(Duration::from_secs(5));
    assert!(rig.taken.contains(&ip(23)), "the primary is not for pods, so it goes back from there");
    assert_eq!(rig.acquire(2).map(|lease| lease.address), Some(ip(22)));
    assert_eq!(rig.acquire(3), None, "no interface has another address");
    rig.pass(SETTLING);
    assert_eq!(rig.acquire(4), None, "nor had one to be looked for");
    assert_eq!(rig.machine.ledger().state(ip(23)), None);
}

#[test]
fn an_address_that_ec2_gave_to_another_interface_serves_there_at_once_and_for_good() {
    let mut rig = Rig::start(warm_ips(2));
    let lease = rig.acquire(2).unwrap();
    assert_eq!((lease.address, lease.eni), (ip(23), id(PRIMARY)), "the primary is filled first");
    rig.pass(SETTLING);
    assert_eq!(rig.machine.ledger().strays().count(), 0);
    assert_eq!(rig.notices(), Vec::<&str>::new(), "nothing disagreed: EC2 gives no address twice");
}

#[test]
fn an_address_that_two_interfaces_claim_keeps_no_other_pods_address_out_of_the_pool() {
    let rig = Rig::start(warm_ips(2));
    assert_eq!(rig.machine.ledger().strays().count(), 0);
    assert!(rig.machine.ledger().state(ip(22)).is_some());
}

#[test]
fn an_address_out_of_a_prefix_that_was_taken_serves_when_ec2_gives_it_as_a_single_one() {
    let prefix: Prefix = "10.0.0.16/28".parse().unwrap();
    let with = |addresses: &[u8], prefixes: &[Prefix]| {
        let holdings =
            Holdings { prefixes: prefixes.iter().copied().collect(), ..Holdings::of(&eni(PRIMARY, addresses)) };
        Record::Holds { eni: id(PRIMARY), holdings, at: TAKING }
    };
    let records = vec![
        Record::Opened { version: VERSION, instance: instance(), at: TAKING, uptime: None },
        with(&[], &[prefix]),
        Record::Taking { eni: id(PRIMARY), addresses: Vec::new(), prefixes: vec![prefix], at: TAKING },
        with(&[20], &[]),
    ];
    let mut rig = Rig::restart(warm_ips(1), records, vec![eni(PRIMARY, &[20])]);
    assert_eq!(rig.acquire(1).map(|lease| lease.address), Some(ip(20)), "only the prefix was taken");
}

#[test]
fn a_subnet_that_ec2_does_not_know_is_asked_for_ever_less_often() {
    let mut far = eni(SECOND, &[22]);
    far.subnet = "subnet-2".parse().unwrap();
    let mut rig = Rig::restart(warm_ips(0), Vec::new(), vec![eni(PRIMARY, &[]), far]);
    rig.pass(Duration::from_secs(3600));
    assert!((5..40).contains(&rig.subnet_questions), "{} questions in an hour", rig.subnet_questions);
    assert_eq!(rig.acquire(1), None);
    let snapshot = rig.machine.snapshot(Phase::Serving, rig.now);
    assert_eq!(snapshot.shortage.map(Shortage::label), Some("Ec2Unavailable"));
    assert!(snapshot.shortage_detail.unwrap().contains("subnet-2"));
}
