//! The process: its death at any step, what its journal then holds, and its next start.

use std::time::Duration;

use enipool_agent::engine::machine::{Described, Look, Machine, Start};
use enipool_agent::engine::{EffectiveConfig, HostPod, HostView};
use enipool_pool::ec2::Ec2;
use enipool_pool::eni::SETTLING;
use enipool_pool::ledger::record::{self, Record, Recovered};
use futures::executor::block_on;

use super::{Due, World, adopted};

/// How a write to the journal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// The process died at it.
    Died,
    /// There is no room.
    Refused,
}

impl World {
    /// Whether the process dies here.
    pub(super) fn dies(&mut self) -> bool {
        if self.crash > 0 && self.dice.below(1000) < self.crash {
            self.kill();
            return true;
        }
        false
    }

    pub(crate) fn kill(&mut self) {
        self.kill_for(Duration::ZERO);
    }

    /// The process dies and stays dead for so long at least.
    pub(crate) fn kill_for(&mut self, least: Duration) {
        if self.machine.take().is_none() {
            return;
        }
        self.behind = false;
        self.tell(|| "the process dies".into());
        self.crashes += 1;
        self.wake_at = None;
        // The runtime sees its ADDs fail and cleans up after those sandboxes.
        let lost: Vec<u32> = self.pods.iter().filter(|(_, pod)| pod.lease.is_none()).map(|(id, _)| *id).collect();
        for id in lost {
            self.del(id);
        }
        let after = Duration::from_millis(u64::from(self.dice.below(8000)));
        self.schedule(least + after, Due::Restart);
    }

    /// Loses the journal.
    pub(crate) fn lose_journal(&mut self) {
        self.journal.clear();
    }

    /// Appends records, or writes everything after some were refused. The process may die at it, perhaps in the middle of
    /// one.
    pub(super) fn write(&mut self, records: &[Record]) -> Written {
        if self.behind && !self.full {
            self.tell(|| "the journal is written anew".into());
            self.behind = false;
            self.write_anew();
            return if self.dies() { Written::Died } else { Written::Done };
        }
        if self.full && (self.behind || !records.is_empty()) {
            self.tell(|| "the journal is full".into());
            self.behind = true;
            return Written::Refused;
        }
        if records.is_empty() {
            return Written::Done;
        }
        for record in records {
            self.tell(|| format!("journal: {record:?}").chars().take(300).collect());
        }
        let text: String = records.iter().map(|record| record.encode().unwrap()).collect();
        if self.crash > 0 && self.dice.below(1000) < self.crash {
            let whole = u32::try_from(text.len()).unwrap();
            let cut = self.dice.below(whole + 1) as usize;
            self.journal.extend_from_slice(&text.as_bytes()[..cut]);
            self.kill();
            return Written::Died;
        }
        self.journal.extend_from_slice(text.as_bytes());
        if self.journal.len() > self.compact_at {
            self.write_anew();
        }
        if self.dies() { Written::Died } else { Written::Done }
    }

    fn write_anew(&mut self) {
        if let Some(machine) = &self.machine {
            let records = machine.recovered().records(self.clock(), SETTLING);
            self.journal = records.iter().map(|record| record.encode().unwrap()).collect::<String>().into_bytes();
        }
    }

    pub(super) fn restart(&mut self) {
        if self.full {
            self.schedule(Duration::from_secs(1), Due::Restart);
            return;
        }
        self.life += 1;
        self.tell(|| "the process starts".into());
        if self.dice.below(6) == 0 {
            let back = Duration::from_millis(self.dice.next() % 3_600_000);
            self.skew = self.skew.saturating_sub(back);
        }
        let asked_at = self.clock();
        let look = Look::Attached(self.instance.clone());
        let described = match block_on(self.ec2.describe_network_interfaces(&look.filter())) {
            Ok(described) => Described::By(described),
            Err(_) if !self.journal.is_empty() && self.dice.below(2) == 0 => Described::NotYet(self.hints()),
            Err(error) => {
                self.tell(|| format!("the start's describe fails: {error}"));
                self.schedule(Duration::from_millis(500), Due::Restart);
                return;
            }
        };
        let reading = record::read(&self.journal);
        assert_eq!(reading.damaged, 0, "a crash damages nothing but the journal's end");
        let recovered = Recovered::from_records(reading.records);
        self.tell(|| format!("recovered: taken {:?}, releasing {:?}", recovered.taken, recovered.releasing));
        let host = HostView {
            // Those of a DEL that has not been delivered are still there.
            pods: self
                .pods
                .iter()
                .map(|(id, pod)| (*id, pod))
                .chain(self.deletions.iter().map(|deletion| (deletion.id, &deletion.pod)))
                .filter_map(|(id, pod)| {
                    Some(HostPod { address: pod.lease.as_ref()?.address, host_ifname: format!("eni{id}") })
                })
                .collect(),
            links: self.links(),
        };
        let config = self.first_config();
        let start = Start { me: self.me(), config, recovered, described, asked_at, host, seed: self.dice.next() };
        let machine = Machine::begin(start, self.clock());
        let records = machine.journal(self.clock(), None);
        self.journal = records.iter().map(|record| record.encode().unwrap()).collect::<String>().into_bytes();
        for (id, pod) in &self.pods {
            let Some(lease) = &pod.lease else { continue };
            let holder = machine.ledger().holder(lease.address).map(|(key, _)| key.clone());
            let holder = holder.unwrap_or_else(|| panic!("{:?} lost its lease", pod.key));
            assert!(holder == pod.key || holder == adopted(*id), "{holder:?} has the address of {:?}", pod.key);
        }
        self.machine = Some(machine);
        self.wake_at = Some(self.now);
        self.deliver_deletions();
    }

    /// What was kept of the last word. Where that file is lost: the flags, until somebody speaks.
    fn first_config(&mut self) -> EffectiveConfig {
        if self.dice.below(4) > 0 {
            return self.config.clone();
        }
        let after = Duration::from_millis(self.dice.one_of(&[100, 3000, 30_000]));
        self.schedule(after, Due::Word(self.life));
        EffectiveConfig { awaits_word: true, ..self.flags.clone() }
    }
}
