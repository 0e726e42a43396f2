//! A journal that refuses, and one that has grown long. EC2 and kernel answer at once, as written down here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use enipool_pool::capacity::{self, Capacity};
use enipool_pool::ec2::{Assigned, Attachment, Eni, EniStatus, InterfaceType, Supply};
use enipool_pool::eni::TAG_INSTANCE;
use enipool_pool::ledger::record::{self, Recovered};
use enipool_pool::targets::{Policy, Targets};
use enipool_pool::{EniId, InstanceType, Zone};

use super::super::journal::Medium;
use super::super::machine::{Described, Done, Me, Op, Start};
use super::super::port::HostView;
use super::*;

/// A journal in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    appends_fail: bool,
    replaces_fail: bool,
    replaced: u32,
}

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    /// Whether there is no room for anything.
    fn is_full(&self, full: bool) {
        let mut kept = self.kept();
        (kept.appends_fail, kept.replaces_fail) = (full, full);
    }

    /// What a process that starts now would know.
    fn recovered(&self) -> Recovered {
        Recovered::from_records(record::read(&self.kept().bytes).records)
    }
}

impl Medium for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.kept();
        if kept.appends_fail {
            return Err(io::ErrorKind::StorageFull.into());
        }
        kept.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.kept();
        if kept.replaces_fail {
            return Err(io::ErrorKind::StorageFull.into());
        }
        kept.bytes = bytes.to_vec();
        kept.replaced += 1;
        Ok(())
    }
}

fn key(n: u32) -> AttachmentKey {
    AttachmentKey::new("enipool", format!("container-{n}"), "eth0")
}

fn id(device_index: u32) -> EniId {
    format!("eni-{device_index}").parse().unwrap()
}

fn eni(device_index: u32, addresses: Vec<Ipv4Addr>, is_attached: bool) -> Eni {
    let attachment = Attachment {
        id: format!("eni-attach-{device_index}").parse().unwrap(),
        instance: Some("i-1".parse().unwrap()),
        device_index,
        network_card: 0,
        delete_on_termination: true,
    };
    Eni {
        id: id(device_index),
        status: EniStatus::InUse,
        interface_type: InterfaceType::Interface,
        mac: format!("02:00:00:00:00:0{device_index}").parse().unwrap(),
        vpc: "vpc-1".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        zone: Zone::new("eu-west-1a"),
        primary_ip: Ipv4Addr::new(10, 0, 1, u8::try_from(device_index).unwrap()),
        secondary_ips: addresses,
        prefixes: Vec::new(),
        security_groups: Vec::new(),
        attachment: is_attached.then_some(attachment),
        description: String::new(),
        tags: [(TAG_INSTANCE.to_owned(), "i-1".to_owned())].into(),
    }
}

/// A pool whose operations are carried out by [`Rig::run`].
struct Rig {
    pool: Pool,
    shared: Arc<Shared>,
    journal: Memory,
    /// Operations that were started, by their first word.
    begun: BTreeMap<String, u32>,
    given: u8,
    made: u32,
    /// The journal is full from the moment at which EC2 has attached an interface.
    fills_with_attach: bool,
}

impl Rig {
    /// A fresh m5.large with its primary interface, after its first `warm` addresses.
    fn start(warm: u32) -> Self {
        let instance_type = InstanceType::new("m5.large");
        let primary = eni(0, Vec::new(), true);
        let me = Me {
            node: "node".into(),
            cluster: String::new(),
            instance: "i-1".parse().unwrap(),
            capacity: Capacity::new(&capacity::bundled(&instance_type).unwrap()),
            instance_type,
            zone: Zone::new("eu-west-1a"),
            region: "eu-west-1".into(),
            primary_ip: primary.primary_ip,
            primary_mac: primary.mac,
            vpc_cidrs: Vec::new(),
            subnet: "subnet-1".parse().unwrap(),
            subnet_cidr: enipool_pool::SubnetCidr("10.0.0.0/16".parse().unwrap()),
            security_groups: Vec::new(),
        };
        let targets = Targets { warm_ips: Some(warm), ..Targets::default() };
        let config = EffectiveConfig { policy: Policy { targets, ..Policy::default() }, ..EffectiveConfig::default() };
        let now = Timestamp(1_700_000_000_000);
        let start = Start {
            me,
            config,
            recovered: Recovered::default(),
            host: HostView { pods: Vec::new(), links: [primary.mac].into() },
            described: Described::By(vec![primary]),
            asked_at: now,
            seed: 1,
        };
        let machine = Machine::begin(start, now);
        let journal = Memory::default();
        let records = machine.journal(now, None);
        let open = Journal::on(Box::new(journal.clone()), &records).unwrap();
        let (pool, shared) = Pool::new(machine, open, Clock::from(now));
        let begun = BTreeMap::new();
        Self { pool, shared, journal, begun, given: 0, made: 0, fills_with_attach: false }
    }

    /// Carries out all there is to do now.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let now = self.shared.clock.now();
            let starts = self.shared.lock().step(now)?.starts;
            if starts.is_empty() {
                return Ok(());
            }
            for (id, op) in starts {
                let word = op.text().split(' ').next().unwrap().to_owned();
                *self.begun.entry(word).or_default() += 1;
                if let Some(done) = self.answer(op) {
                    self.shared.lock().machine.done(id, done, now);
                }
            }
        }
    }

    fn addresses(&mut self, supply: Supply) -> Vec<Ipv4Addr> {
        let Supply::Addresses(count) = supply else { panic!("{supply:?}") };
        let first = self.given;
        self.given += u8::try_from(count).unwrap();
        (first..self.given).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect()
    }

    fn answer(&mut self, op: Op) -> Option<Done> {
        Some(match op {
            Op::Apply(_) => Done::Applied(Ok(())),
            Op::Assign { supply, .. } => {
                Done::Assigned(Ok(Assigned { addresses: self.addresses(supply), prefixes: Vec::new() }))
            }
            Op::Create(request) => {
                self.made += 1;
                let addresses = self.addresses(request.supply);
                Done::Created(Ok(eni(self.made, addresses, false)))
            }
            Op::Attach { device_index, .. } => {
                self.journal.is_full(self.fills_with_attach);
                Done::Attached(Ok(format!("eni-attach-{device_index}").parse().unwrap()))
            }
            // The link shows only where a test says so.
            Op::AwaitLink { .. } | Op::Hint => return None,
            _ => Done::Changed(Ok(())),
        })
    }

    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            let _ = self.run();
        }
    }

    async fn add(&self, n: u32) -> Result<Lease, AcquireError> {
        self.pool.acquire(key(n), PodRef::default(), Instant::now() + Duration::from_secs(1)).await
    }

    /// Journal and memory are of one mind.
    fn check_written(&self) {
        let known = self.shared.lock().machine.recovered();
        assert_eq!(self.journal.recovered(), known);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_or_called_while_the_journal_cannot_be_written_and_all_goes_on_when_it_can() {
    let mut rig = Rig::start(4);
    rig.run().unwrap();
    let kept = rig.add(1).await.unwrap();
    rig.journal.is_full(true);
    let assigns = rig.begun["assign"];
    assert!(matches!(rig.add(2).await, Err(AcquireError::Journal(_))));
    assert!(rig.run().is_err());
    rig.pass(5).await;
    assert_eq!(rig.begun["assign"], assigns);
    assert_eq!(rig.pool.lookup(&key(2)), None, "nobody has heard of it");
    assert_eq!(rig.pool.lookup(&key(1)), Some(kept.clone()));

    rig.journal.is_full(false);
    rig.pass(70).await;
    rig.check_written();
    assert!(rig.begun["assign"] > assigns, "the warm address that went with the first pod is replaced");
    assert_ne!(rig.add(2).await.unwrap().address, kept.address);
    rig.check_written();
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_pod_has_stays_its_own_when_the_same_add_cannot_be_written_down() {
    let mut rig = Rig::start(4);
    rig.run().unwrap();
    let kept = rig.add(1).await.unwrap();
    rig.add(2).await.unwrap();
    rig.journal.is_full(true);
    assert!(rig.pool.release(&key(2)).is_err());
    assert!(rig.add(1).await.is_err());
    assert_eq!(rig.pool.lookup(&key(1)), Some(kept.clone()));
    rig.journal.is_full(false);
    assert_eq!(rig.add(1).await, Ok(kept));
    rig.check_written();
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_not_written_down_is_no_success_before_it_is() {
    let mut rig = Rig::start(4);
    rig.run().unwrap();
    rig.add(1).await.unwrap();
    rig.journal.is_full(true);
    assert!(matches!(rig.pool.release(&key(1)), Err(AcquireError::Journal(_))));
    assert_eq!(rig.pool.lookup(&key(1)), None, "carried out all the same");
    assert!(matches!(rig.pool.release(&key(1)), Err(AcquireError::Journal(_))), "a crash would bring it back");
    rig.journal.is_full(false);
    assert_eq!(rig.pool.release(&key(1)), Ok(None));
    assert!(rig.journal.recovered().leases.is_empty());
    rig.check_written();
}

#[tokio::test(start_paused = true)]
async fn what_ec2_gave_while_the_journal_could_not_be_written_is_written_later() {
    let mut rig = Rig::start(12);
    rig.fills_with_attach = true;
    assert!(rig.run().is_err());
    assert!(rig.journal.recovered().holdings.values().all(|(holdings, _)| holdings.device_index != Some(1)));
    rig.fills_with_attach = false;
    rig.journal.is_full(false);
    rig.run().unwrap();
    rig.check_written();
    assert_eq!(rig.journal.recovered().holdings[&id(1)].0.device_index, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_link_that_was_not_begun_is_begun_later_and_the_interface_stays() {
    let mut rig = Rig::start(12);
    rig.fills_with_attach = true;
    assert!(rig.run().is_err(), "the wait is not begun");
    rig.journal.is_full(false);
    assert_eq!(rig.begun.get("wait"), None);
    rig.pass(60).await;
    assert_eq!(rig.begun.get("wait"), Some(&1));
    assert_eq!((rig.begun.get("detach"), rig.begun["create"]), (None, 1));
}

/// A journal with so many records that it should be shortened.
fn long(rig: &Rig) -> usize {
    let mut state = rig.shared.lock();
    while !state.journal.is_long() {
        state.journal.append(&[Record::Released { key: key(9), until: Timestamp(0), period: Duration::ZERO }]).unwrap();
    }
    drop(state);
    rig.journal.kept().bytes.len()
}

#[tokio::test(start_paused = true)]
async fn a_long_journal_is_shortened_and_says_the_same() {
    let mut rig = Rig::start(4);
    rig.run().unwrap();
    rig.add(1).await.unwrap();
    rig.add(2).await.unwrap();
    rig.pool.release(&key(2)).unwrap();
    let before = long(&rig);
    rig.run().unwrap();
    assert!(rig.journal.kept().bytes.len() < before / 50);
    rig.check_written();
    assert_eq!(rig.journal.recovered().leases.len(), 1);
    rig.add(3).await.unwrap();
    rig.check_written();
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_shortened_keeps_nothing_from_being_started_and_is_tried_again() {
    let mut rig = Rig::start(4);
    let before = long(&rig);
    rig.journal.kept().replaces_fail = true;
    rig.run().unwrap();
    assert_eq!((rig.begun["set"], rig.begun["assign"]), (2, 1), "as if it were short");
    assert!(rig.pool.serving());
    rig.add(1).await.unwrap();
    rig.journal.kept().replaces_fail = false;
    rig.pass(30).await;
    assert_eq!(rig.journal.kept().replaced, 1, "not at every step");
    rig.pass(40).await;
    assert!(rig.journal.kept().bytes.len() < before / 50);
    rig.check_written();
}
