//! What must survive a crash, as records of a journal: their text form with a checksum, and what a journal adds up to.
//!
//! One record is one line: eight hexadecimal digits of CRC-32, a space, JSON. A person can read it, and a line that a
//! crash cut short cannot pass for a whole one. The file itself is the engine's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AttachmentKey, LONGEST_COOLDOWN, Ledger, PodRef, Rest};
use crate::address::Prefix;
use crate::eni::{Holdings, Intent};
use crate::id::{ClientToken, EniId, InstanceId, SecurityGroupId};
use crate::time::Timestamp;

/// Version of the text form. Another one's journal is not read.
pub const VERSION: u32 = 1;

/// One thing that happened. Written before its effect is seen outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Record {
    /// The first record of every journal.
    Opened {
        version: u32,
        instance: InstanceId,
        at: Timestamp,
        /// Time since the boot at that moment, which no setting of the clock changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uptime: Option<Timestamp>,
    },
    Assigned {
        key: AttachmentKey,
        pod: PodRef,
        address: Ipv4Addr,
        eni: EniId,
        at: Timestamp,
    },
    /// The attachment is gone; its address rests until then, for `period` from when that began.
    Released {
        key: AttachmentKey,
        until: Timestamp,
        #[serde(default = "longest")]
        period: Duration,
    },
    /// An address rests whose attachment the journal no longer names.
    Cooling {
        address: Ipv4Addr,
        until: Timestamp,
        #[serde(default = "longest")]
        period: Duration,
    },
    /// An interface is about to be created.
    Intended {
        intent: Intent,
    },
    /// EC2 created the interface of an intent.
    Created {
        intent: ClientToken,
        eni: EniId,
    },
    /// Nothing is left to be done for an intent: its interface serves, or is gone, or was never made.
    Fulfilled {
        intent: ClientToken,
    },
    /// What an interface holds now, by EC2's answers.
    Holds {
        eni: EniId,
        holdings: Holdings,
        at: Timestamp,
    },
    /// Addresses are about to be taken from an interface.
    Taking {
        eni: EniId,
        addresses: Vec<Ipv4Addr>,
        prefixes: Vec<Prefix>,
        at: Timestamp,
    },
    /// What became of all takings from an interface that name these is known, and [`Record::Holds`] says it.
    Resolved {
        eni: EniId,
        addresses: Vec<Ipv4Addr>,
        prefixes: Vec<Prefix>,
    },
    /// An interface is about to be detached and deleted.
    Releasing {
        eni: EniId,
        at: Timestamp,
    },
    /// An interface is gone for good.
    Gone {
        eni: EniId,
        at: Timestamp,
    },
    /// The journal before this one was lost: when EC2 is to be asked for what it may have known of, unattached interfaces
    /// made for this instance. `None`: that has been done.
    Leftovers {
        due: Option<Timestamp>,
    },
    /// Security groups that the primary interface has had since then.
    PrimaryGroups {
        groups: BTreeSet<SecurityGroupId>,
    },
}

/// So many sets of the primary's security groups are remembered: interfaces that have a former one follow to the newest.
const GROUPS_KEPT: usize = 8;

impl Record {
    /// The record as one line, newline included.
    pub fn encode(&self) -> Result<String, RecordError> {
        let json = serde_json::to_string(self).map_err(|error| RecordError(error.to_string()))?;
        Ok(format!("{:08x} {json}\n", crc32(json.as_bytes())))
    }

    /// Reads one line without its newline.
    pub fn decode(line: &str) -> Result<Self, RecordError> {
        let (sum, json) = line.split_once(' ').ok_or_else(|| RecordError("no checksum".into()))?;
        if u32::from_str_radix(sum, 16) != Ok(crc32(json.as_bytes())) {
            return Err(RecordError("the checksum does not match".into()));
        }
        serde_json::from_str(json).map_err(|error| RecordError(error.to_string()))
    }
}

/// A record that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal record: {0}")]
pub struct RecordError(String);

/// The part of [`Record::Opened`] that every version has.
#[derive(Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
enum Opening {
    Opened { version: u32 },
}

/// The version that a line says the journal is of.
fn version_of(line: &str) -> Option<u32> {
    let (sum, json) = line.split_once(' ')?;
    let whole = u32::from_str_radix(sum, 16) == Ok(crc32(json.as_bytes()));
    let Opening::Opened { version } = serde_json::from_str(json).ok().filter(|_| whole)?;
    Some(version)
}

/// A journal as read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub records: Vec<Record>,
    /// Length of the part that ends with a whole, valid record: cut the file there before appending.
    pub valid_bytes: usize,
    /// Whether the last line was cut short by a crash. Nothing is lost by it: its effect was never seen.
    pub torn: bool,
    /// Lines before the last that could not be read: damage, to be reported.
    pub damaged: usize,
    /// It is of this other version: nothing of it is read.
    pub other_version: Option<u32>,
}

/// Reads a journal. Never fails: what cannot be read is counted.
pub fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut start = 0;
    while let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) {
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            reading.torn = true;
            break;
        };
        let line = rest.get(..length).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
        start = start.saturating_add(length).saturating_add(1);
        let first = reading.records.is_empty() && reading.damaged == 0;
        if let Some(version) = Some(line).filter(|_| first).and_then(version_of).filter(|version| *version != VERSION) {
            return Reading { other_version: Some(version), ..Reading::default() };
        }
        match Record::decode(line) {
            Ok(record) => {
                reading.records.push(record);
                reading.valid_bytes = start;
            }
            Err(_) if start == bytes.len() => reading.torn = true,
            Err(_) => reading.damaged = reading.damaged.saturating_add(1),
        }
    }
    reading
}

/// A lease as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedLease {
    pub pod: PodRef,
    pub address: Ipv4Addr,
    pub eni: EniId,
    pub at: Timestamp,
}

/// Addresses taken, or about to be taken, from an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub eni: EniId,
    pub addresses: BTreeSet<Ipv4Addr>,
    pub prefixes: BTreeSet<Prefix>,
    pub at: Timestamp,
}

/// A moment by both of the node's clocks: the wall's, which may be set, and the time since the boot, which goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub at: Timestamp,
    pub uptime: Timestamp,
}

/// A clock that is off by less was slewed or read a little later, not set.
const SLEW_MS: u64 = 1000;

/// What a journal adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The instance that wrote it; `None`: there was no journal.
    pub instance: Option<InstanceId>,
    /// When it was opened; `None`: its writer did not know the time since the boot.
    pub opened: Option<Moment>,
    pub leases: HashMap<AttachmentKey, RecordedLease>,
    pub cooling: HashMap<Ipv4Addr, Rest>,
    /// Creations that were under way, with their interface once known.
    pub intents: BTreeMap<ClientToken, (Intent, Option<EniId>)>,
    /// Interfaces last known, and when that was.
    pub holdings: BTreeMap<EniId, (Holdings, Timestamp)>,
    pub taken: Vec<Taken>,
    pub releasing: BTreeSet<EniId>,
    /// Interfaces that are gone for good, and since when: a stale answer may still show them.
    pub gone: BTreeMap<EniId, Timestamp>,
    /// When EC2 is to be asked for leftovers of a journal that was lost.
    pub leftovers: Option<Timestamp>,
    /// The sets of security groups that the primary interface has had, each once, the newest last.
    pub primary_groups: Vec<BTreeSet<SecurityGroupId>>,
}

impl Recovered {
    /// Adds the records up, in order.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        let mut sum = Self::default();
        for record in records {
            sum.apply(record);
        }
        sum
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Opened { instance, at, uptime, .. } => {
                self.instance = Some(instance);
                self.opened = uptime.map(|uptime| Moment { at, uptime });
            }
            Record::Assigned { key, pod, address, eni, at } => {
                self.cooling.remove(&address);
                self.leases.insert(key, RecordedLease { pod, address, eni, at });
            }
            Record::Released { key, until, period } => {
                if let Some(lease) = self.leases.remove(&key) {
                    self.cooling.insert(lease.address, Rest { until, period });
                }
            }
            Record::Cooling { address, until, period } => {
                self.cooling.insert(address, Rest { until, period });
            }
            Record::Intended { intent } => {
                self.intents.insert(intent.id.clone(), (intent, None));
            }
            Record::Created { intent, eni } => {
                if let Some((_, created)) = self.intents.get_mut(&intent) {
                    *created = Some(eni);
                }
            }
            Record::Fulfilled { intent } => {
                self.intents.remove(&intent);
            }
            Record::Holds { eni, holdings, at } => {
                // What it has got again since it was taken is no longer being taken.
                if let Some((before, _)) = self.holdings.get(&eni) {
                    let addresses = holdings.addresses.difference(&before.addresses).copied().collect();
                    let prefixes = holdings.prefixes.difference(&before.prefixes).copied().collect();
                    self.resolve(&eni, &addresses, &prefixes);
                }
                self.holdings.insert(eni, (holdings, at));
            }
            Record::Resolved { eni, addresses, prefixes } => {
                self.resolve(&eni, &addresses.into_iter().collect(), &prefixes.into_iter().collect());
            }
            Record::Taking { eni, addresses, prefixes, at } => self.taken.push(Taken {
                eni,
                addresses: addresses.into_iter().collect(),
                prefixes: prefixes.into_iter().collect(),
                at,
            }),
            Record::Releasing { eni, .. } => {
                self.releasing.insert(eni);
            }
            Record::Gone { eni, at } => {
                self.releasing.remove(&eni);
                self.holdings.remove(&eni);
                self.taken.retain(|taken| taken.eni != eni);
                self.gone.insert(eni, at);
            }
            Record::Leftovers { due } => self.leftovers = due,
            Record::PrimaryGroups { groups } => note_groups(&mut self.primary_groups, groups),
        }
    }

    fn resolve(&mut self, eni: &EniId, addresses: &BTreeSet<Ipv4Addr>, prefixes: &BTreeSet<Prefix>) {
        for taken in self.taken.iter_mut().filter(|taken| taken.eni == *eni) {
            taken.addresses.retain(|address| !addresses.contains(address));
            taken.prefixes.retain(|prefix| !prefixes.contains(prefix));
        }
        self.taken.retain(|taken| !taken.addresses.is_empty() || !taken.prefixes.is_empty());
    }

    /// The fewest records that add up to the same, less interfaces gone for longer than `forget`: the compacted journal.
    pub fn records(&self, now: Timestamp, forget: Duration) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(instance) = &self.instance {
            records.push(Record::Opened { version: VERSION, instance: instance.clone(), at: now, uptime: None });
        }
        for (eni, (holdings, at)) in &self.holdings {
            records.push(Record::Holds { eni: eni.clone(), holdings: holdings.clone(), at: *at });
        }
        for (key, lease) in &self.leases {
            let RecordedLease { pod, address, eni, at } = lease.clone();
            records.push(Record::Assigned { key: key.clone(), pod, address, eni, at });
        }
        for (address, rest) in self.cooling.iter().filter(|(_, rest)| rest.until > now) {
            let Rest { until, period } = *rest;
            records.push(Record::Cooling { address: *address, until, period });
        }
        for (intent, eni) in self.intents.values() {
            records.push(Record::Intended { intent: intent.clone() });
            if let Some(eni) = eni {
                records.push(Record::Created { intent: intent.id.clone(), eni: eni.clone() });
            }
        }
        // Not by age: one whose end is not known matters for as long as that is so. The writer drops the others.
        for taken in &self.taken {
            records.push(Record::Taking {
                eni: taken.eni.clone(),
                addresses: taken.addresses.iter().copied().collect(),
                prefixes: taken.prefixes.iter().copied().collect(),
                at: taken.at,
            });
        }
        for eni in &self.releasing {
            records.push(Record::Releasing { eni: eni.clone(), at: now });
        }
        for (eni, at) in self.gone.iter().filter(|(_, at)| now.since(**at) < forget) {
            records.push(Record::Gone { eni: eni.clone(), at: *at });
        }
        if let Some(at) = self.leftovers {
            records.push(Record::Leftovers { due: Some(at) });
        }
        records.extend(self.primary_groups.iter().cloned().map(|groups| Record::PrimaryGroups { groups }));
        records
    }

    /// Moves all times by as much as the clock was set between the journal's opening and `now`, if that is known and worth
    /// it: rests are then as long as they were, and what was changed a moment ago is no older than that. Answers how far
    /// ahead (or, negative, behind) the clock was set, in milliseconds.
    pub fn follow_clock(&mut self, now: Moment) -> i64 {
        let Some(then) = self.opened.filter(|then| then.uptime <= now.uptime) else { return 0 };
        // As the journal's clock would show now.
        let expected = then.at.plus(now.uptime.since(then.uptime));
        let ahead = i128::from(now.at.0) - i128::from(expected.0);
        let ahead = i64::try_from(ahead).unwrap_or(0);
        if ahead.unsigned_abs() < SLEW_MS {
            return 0;
        }
        for Rest { until, .. } in self.cooling.values_mut() {
            until.0 = until.0.saturating_add_signed(ahead);
        }
        for at in self.times() {
            at.0 = at.0.saturating_add_signed(ahead);
        }
        ahead
    }

    fn times(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        let leases = self.leases.values_mut().map(|lease| &mut lease.at);
        let intents = self.intents.values_mut().map(|(intent, _)| &mut intent.at);
        let holdings = self.holdings.values_mut().map(|(_, at)| at);
        let taken = self.taken.iter_mut().map(|taken| &mut taken.at);
        leases.chain(intents).chain(holdings).chain(taken).chain(self.gone.values_mut())
    }

    /// Cuts times that lie ahead of `now` (the clock was set back since) to now.
    #[must_use]
    pub fn not_ahead_of(mut self, now: Timestamp) -> Self {
        for at in self.times() {
            *at = (*at).min(now);
        }
        self
    }

    /// Enters leases and rests into a ledger that knows no address yet.
    ///
    /// Returns the leases that could not be entered because their address has another holder: the older of two, if a
    /// journal should ever name two.
    pub fn enter(&self, ledger: &mut Ledger, now: Timestamp) -> Vec<(AttachmentKey, RecordedLease)> {
        let mut leases: Vec<_> = self.leases.iter().collect();
        leases.sort_by(|a, b| b.1.at.cmp(&a.1.at).then_with(|| a.0.cmp(b.0)));
        let mut refused = Vec::new();
        for (key, lease) in leases {
            let entered = ledger.adopt(key.clone(), lease.pod.clone(), lease.address, lease.eni.clone(), lease.at);
            if entered.is_err() {
                refused.push((key.clone(), lease.clone()));
            }
        }
        for (address, rest) in &self.cooling {
            ledger.cool(*address, *rest, now);
        }
        refused
    }
}

/// The period of a rest that was written down without one, by an older agent.
fn longest() -> Duration {
    LONGEST_COOLDOWN
}

/// Puts the primary's newest set of security groups last. The oldest of many is forgotten.
pub fn note_groups(known: &mut Vec<BTreeSet<SecurityGroupId>>, newest: BTreeSet<SecurityGroupId>) {
    known.retain(|groups| *groups != newest);
    if known.len() >= GROUPS_KEPT {
        known.remove(0);
    }
    known.push(newest);
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "index is below 256")]
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xEDB8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// CRC-32 as of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        crc = (crc >> 8) ^ CRC_TABLE.get(index as usize).copied().unwrap_or_default();
    }
    !crc
}

#[cfg(test)]
mod tests;
