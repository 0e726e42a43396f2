//! The machine's beginning: journal, EC2 and kernel put together, for the good of the pods that run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use enipool_pool::budget::Fuse;
use enipool_pool::ec2::Eni;
use enipool_pool::eni::{Holdings, Role, SETTLING, role};
use enipool_pool::imds::ImdsEni;
use enipool_pool::ledger::record::{Record, Recovered, note_groups};
use enipool_pool::ledger::{AttachmentKey, Ledger, PodRef};
use enipool_pool::node::{Plan, PlannerMemory};
use enipool_pool::{ClientToken, EniId, Timestamp};

use super::entry::{Creation, Entry, Stage};
use super::pods::{ADOPTED_CONTAINER, ADOPTED_NETWORK};
use super::subnets::SubnetLookup;
use super::{Effects, FIRST_WORD, Host, Machine, Me, ORPHANS_AFTER, Timers};
use crate::engine::config::EffectiveConfig;
use crate::engine::port::HostView;

/// Repeating a creation with its token is safe for so long; after that EC2 is asked by tag.
const TOKEN_LIVES: Duration = Duration::from_secs(3600);

/// What EC2 says is attached to the instance.
#[derive(Debug)]
pub enum Described {
    By(Vec<Eni>),
    /// EC2 does not answer. What both the journal and IMDS say is good enough to serve pods, not to change anything.
    NotYet(Vec<ImdsEni>),
}

/// Everything that is known when the machine begins.
#[derive(Debug)]
pub struct Start {
    pub me: Me,
    pub config: EffectiveConfig,
    /// What the journal adds up to; its default if there is none.
    pub recovered: Recovered,
    /// Interfaces attached to the instance, asked for at `asked_at`.
    pub described: Described,
    pub asked_at: Timestamp,
    pub host: HostView,
    /// Spreads pauses and makes tokens unique. Random in production.
    pub seed: u64,
}

impl Machine {
    /// Puts journal, EC2 and kernel together. Where they disagree, the pod that runs is right, and a notice says so.
    ///
    /// The new journal is [`Self::recovered`]; write it before the first [`step`](Self::step)'s effects.
    pub fn begin(start: Start, now: Timestamp) -> Self {
        let Start { me, config, recovered, described, asked_at, host, seed } = start;
        let foreign_journal = recovered.instance.as_ref().is_some_and(|instance| *instance != me.instance);
        let journaled = recovered.instance.is_some() && !foreign_journal;
        let recovered = if foreign_journal { Recovered::default() } else { recovered.not_ahead_of(now) };
        let mut machine = Self {
            ledger: Ledger::new(config.cooldown),
            memory: PlannerMemory::new(seed),
            enis: BTreeMap::new(),
            foreign: BTreeMap::new(),
            creations: BTreeMap::new(),
            running: BTreeMap::new(),
            waiters: VecDeque::new(),
            taken: recovered.taken.clone(),
            gone: recovered.gone.clone(),
            primary_groups: recovered.primary_groups.clone(),
            unseen: BTreeSet::new(),
            gone_once: BTreeSet::new(),
            subnets: BTreeMap::from([(me.subnet.clone(), me.subnet_cidr)]),
            subnet_lookup: SubnetLookup::default(),
            class_subnets: (None, now),
            busy_indexes: BTreeMap::new(),
            host: Host::default(),
            timers: Timers::default(),
            plan: Plan::default(),
            fuse: Fuse::new(me.capacity.max_enis, now),
            blown: None,
            blind: false,
            had_operator: false,
            word_by: now,
            calls: BTreeMap::new(),
            last_ec2_error: None,
            notices: VecDeque::new(),
            generation: 0,
            next_id: 0,
            random: seed | 1,
            out: Effects::default(),
            config: Arc::new(config),
            me,
        };
        if foreign_journal {
            machine.notice(now, "ForeignJournal", "the journal is another instance's; it is not used".into());
        }
        note_groups(&mut machine.primary_groups, machine.me.security_groups.iter().cloned().collect());
        let latest = now.plus(ORPHANS_AFTER);
        machine.timers.orphans = if journaled { recovered.leftovers.map(|due| due.min(latest)) } else { Some(latest) };
        for (key, lease) in recovered.enter(&mut machine.ledger, now) {
            let text = format!("the journal gives {} to two pods; {} loses it", lease.address, key.container_id);
            machine.notice(now, "AddressTwice", text);
        }
        match &described {
            Described::By(described) => machine.restore_enis(&recovered, described, &host, asked_at, now),
            Described::NotYet(hints) => machine.restore_blindly(&recovered, hints, now),
        }
        machine.restore_creations(&recovered, now);
        machine.restore_pods(&host, now);
        for (id, entry) in &mut machine.enis {
            entry.link = entry.stage.is_attached() && host.links.contains(&entry.holdings.mac);
            machine.ledger.set_open(id, false);
        }
        // Waits that were begun above for links that are there need not be.
        let enis = &machine.enis;
        machine.out.starts.retain(|(id, op)| {
            let needless = op.eni().and_then(|eni| enis.get(eni)).is_some_and(|entry| entry.link);
            if needless {
                machine.running.remove(id);
            }
            !needless
        });
        machine.word_by = now.plus(machine.pause(0, FIRST_WORD, FIRST_WORD));
        machine.forget(now);
        machine.out.records.clear();
        machine.prefer();
        machine
    }

    fn restore_enis(
        &mut self,
        recovered: &Recovered,
        described: &[Eni],
        host: &HostView,
        asked_at: Timestamp,
        now: Timestamp,
    ) {
        // What is gone for good may still show in a stale answer.
        let (known, unknown): (Vec<_>, Vec<_>) = described
            .iter()
            .filter(|eni| eni.attachment.is_some())
            .filter(|eni| self.gone.get(&eni.id).is_none_or(|at| asked_at >= at.plus(SETTLING)))
            .partition(|eni| {
                let stays = recovered.leases.values().any(|lease| lease.eni == eni.id);
                recovered.holdings.contains_key(&eni.id) && (stays || self.foreign_because(eni).is_none())
            });
        // First what the journal knows of all, then what EC2 adds to it: what one has got another may have lost.
        for eni in &known {
            if let Some((holdings, at)) = recovered.holdings.get(&eni.id) {
                self.restore_known(eni, holdings, *at, recovered.releasing.contains(&eni.id), now);
            }
        }
        for (id, (holdings, at)) in &recovered.holdings {
            if !self.enis.contains_key(id) && !unknown.iter().any(|eni| eni.id == *id) {
                self.restore_unseen(id, holdings, *at, recovered, asked_at, now);
            }
        }
        for eni in known {
            self.merge_start(eni, asked_at, now);
        }
        for eni in unknown {
            if recovered.holdings.contains_key(&eni.id) {
                // Ours until now, perhaps detached by us a moment ago: an answer that lags may show it still.
                self.look_at(now.plus(SETTLING));
            }
            match self.foreign_because(eni) {
                // Its pods run on, whoever made them: without our part of the host they would be cut off.
                Some(because) if has_pods(eni, host) => {
                    self.notice(now, "HandsOff", format!("{} is left alone, but for its pods: {because}", eni.id));
                    self.take_in(eni, Some(because), now);
                }
                _ => self.meet(eni, now),
            }
        }
    }

    /// Without EC2: the interfaces that journal and IMDS both know, with the addresses that both name.
    fn restore_blindly(&mut self, recovered: &Recovered, hints: &[ImdsEni], now: Timestamp) {
        self.blind = true;
        self.look_at(now);
        self.notice(now, "EC2Away", "EC2 does not answer; serving what journal and IMDS agree upon".into());
        for (id, (journaled, at)) in &recovered.holdings {
            let mut holdings = journaled.clone();
            let releasing = recovered.releasing.contains(id);
            let hint = hints.iter().find(|hint| hint.id == *id && hint.network_card == 0);
            let stage = match hint {
                _ if releasing => Stage::Deleting,
                Some(hint) => {
                    holdings.device_index = Some(hint.device_index);
                    holdings.addresses.retain(|address| hint.addresses.contains(address));
                    holdings.prefixes.retain(|prefix| hint.prefixes.contains(prefix));
                    Stage::Attached
                }
                None => Stage::Detached,
            };
            let index = holdings.device_index.unwrap_or_default();
            let mut entry = Entry::new(holdings, stage, now);
            entry.changed_at = *at;
            entry.since = *at;
            entry.doubtful = true;
            entry.retry_at = releasing.then_some(now);
            // Attached is what its intent wanted.
            entry.intent = intent_of(recovered, id).filter(|_| stage == Stage::Detached);
            self.enis.insert(id.clone(), entry);
            self.ledger.add_eni(id, index);
            if !releasing {
                self.enter_all(id);
                self.doubt_taken(id, *at);
            }
            if stage == Stage::Attached {
                self.await_link(id, now);
            }
        }
    }

    /// Why the interface is not ours.
    fn foreign_because(&self, eni: &Eni) -> Option<&'static str> {
        match role(eni, &self.me.instance, self.config.manage_untagged) {
            Role::Pods => None,
            Role::Foreign(because) => Some(because),
        }
    }

    /// An interface that the journal knows and EC2 shows.
    fn restore_known(
        &mut self,
        eni: &Eni,
        journaled: &Holdings,
        changed_at: Timestamp,
        releasing: bool,
        now: Timestamp,
    ) {
        let Some(attachment) = &eni.attachment else { return };
        let mut holdings = journaled.clone();
        holdings.device_index = Some(attachment.device_index);
        let mut entry = Entry::new(holdings, if releasing { Stage::Detaching } else { Stage::Attached }, now);
        entry.attachment.id = Some(attachment.id.clone());
        entry.attachment.delete_on_termination = attachment.delete_on_termination;
        entry.security_groups = Some(eni.security_groups.iter().cloned().collect());
        entry.changed_at = changed_at;
        entry.retry_at = releasing.then_some(now);
        self.enis.insert(eni.id.clone(), entry);
        self.ledger.add_eni(&eni.id, attachment.device_index);
        if !releasing {
            self.enter_all(&eni.id);
        }
    }

    /// An interface that the journal knows and EC2's answer lacks: unattached, leaving, gone, or the answer is stale.
    fn restore_unseen(
        &mut self,
        id: &EniId,
        holdings: &Holdings,
        at: Timestamp,
        recovered: &Recovered,
        asked_at: Timestamp,
        now: Timestamp,
    ) {
        let intent = intent_of(recovered, id);
        let mut entry = Entry::new(holdings.clone(), Stage::Detached, now);
        entry.changed_at = at;
        if recovered.releasing.contains(id) {
            entry.stage = Stage::Deleting;
            entry.retry_at = Some(now);
            entry.since = at;
        } else if intent.is_some() {
            // Made, and perhaps attached: EC2 is asked before it is attached (again).
            entry.holdings.device_index = None;
            entry.doubtful = true;
            entry.intent = intent;
            entry.since = at;
            self.look_at(now);
        } else if holdings.device_index.is_some() && asked_at < at.plus(SETTLING) {
            entry.stage = Stage::Attached;
            entry.doubtful = true;
            self.look_at(at.plus(SETTLING));
        } else if holdings.device_index.is_none() {
            entry.doubtful = true;
            self.look_at(now);
        }
        let index = entry.holdings.device_index.unwrap_or_default();
        let (attached, leaving) = (entry.stage == Stage::Attached, entry.stage.is_leaving());
        let vanished = entry.stage == Stage::Detached && entry.holdings.device_index.is_some();
        self.enis.insert(id.clone(), entry);
        self.ledger.add_eni(id, index);
        if !leaving {
            // Also of one that is not attached: its pods keep it from being deleted, and bring it back.
            self.enter_all(id);
            self.doubt_taken(id, asked_at);
        }
        if attached {
            self.await_link(id, now);
        } else if vanished {
            let pods = recovered.leases.values().filter(|lease| lease.eni == *id).count();
            self.detached_by_hand(id, u32::try_from(pods).unwrap_or(u32::MAX), now);
        }
    }

    fn restore_creations(&mut self, recovered: &Recovered, now: Timestamp) {
        for (id, (intent, eni)) in &recovered.intents {
            if eni.as_ref().is_some_and(|eni| self.enis.contains_key(eni) || self.gone.contains_key(eni)) {
                continue;
            }
            let creation = Creation {
                intent: intent.clone(),
                // Journaled, so perhaps asked for. Asking again with the same token tells.
                uncertain: true,
                failures: 0,
                retry_at: Some(now),
                find: now.since(intent.at) > TOKEN_LIVES,
                asked_at: intent.at,
            };
            self.creations.insert(id.clone(), creation);
        }
    }

    /// Pods that the kernel shows and no lease explains keep their addresses under a key made up for them. Leases whose pods
    /// the kernel does not show are watched from now on.
    fn restore_pods(&mut self, host: &HostView, now: Timestamp) {
        let shown: BTreeSet<_> = host.pods.iter().map(|pod| pod.address).collect();
        let unseen: Vec<_> = self.ledger.leases().filter(|(_, _, lease)| !shown.contains(&lease.address)).collect();
        let texts: Vec<_> = unseen
            .iter()
            .map(|(key, pod, lease)| {
                format!(
                    "the kernel does not show pod {}/{} ({}), which has {}; its lease ends if nothing of it is found",
                    pod.namespace, pod.name, key.container_id, lease.address
                )
            })
            .collect();
        self.unseen = unseen.into_iter().map(|(key, _, _)| key.clone()).collect();
        for text in texts {
            self.notice(now, "LeaseWithoutPod", text);
        }
        let known: BTreeSet<_> = self.ledger.leases().map(|(_, _, lease)| lease.address).collect();
        for pod in host.pods.iter().filter(|pod| !known.contains(&pod.address)) {
            if self.ledger.cooling().any(|(address, _)| address == pod.address) {
                // Deleted; the kernel takes a moment to take the veth apart.
                continue;
            }
            let owner = self
                .enis
                .iter()
                .find(|(_, entry)| entry.holdings.contains(pod.address))
                .or_else(|| self.enis.iter().find(|(_, entry)| entry.is_primary()))
                .map(|(id, _)| id.clone());
            let Some(owner) = owner else { continue };
            let key = AttachmentKey::new(ADOPTED_NETWORK, ADOPTED_CONTAINER, pod.host_ifname.as_str());
            match self.ledger.adopt(key, PodRef::default(), pod.address, owner, now) {
                Ok(()) => {
                    let text = format!("{} on {} has no lease; it keeps its address", pod.address, pod.host_ifname);
                    self.notice(now, "ForgottenLease", text);
                }
                Err(error) => {
                    let text = format!("cannot keep {} for {}: {error}", pod.address, pod.host_ifname);
                    self.notice(now, "ForgottenLease", text);
                }
            }
        }
    }

    /// The journal that says what must be known after a crash in the fewest records. `uptime`: time since the boot, where
    /// that is known.
    pub fn journal(&self, now: Timestamp, uptime: Option<Timestamp>) -> Vec<Record> {
        let mut records = self.recovered().records(now, SETTLING);
        if let Some(Record::Opened { uptime: opened, .. }) = records.first_mut() {
            *opened = uptime;
        }
        records
    }
}

/// Whether the kernel shows pods with addresses of an interface of the default network card.
fn has_pods(eni: &Eni, host: &HostView) -> bool {
    let holdings = Holdings::of(eni);
    let usable = eni.attachment.as_ref().is_some_and(|attachment| attachment.network_card == 0);
    usable && host.pods.iter().any(|pod| holdings.contains(pod.address))
}

/// The intent that made an interface and is not known to be fulfilled.
fn intent_of(recovered: &Recovered, eni: &EniId) -> Option<ClientToken> {
    recovered.intents.values().find(|(_, made)| made.as_ref() == Some(eni)).map(|(intent, _)| intent.id.clone())
}
