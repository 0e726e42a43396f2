//! What the machine makes of EC2's Describe answers and of IMDS's hints.
//!
//! An answer is merged into what we know. It proves absence only when nothing of ours was changing at the time.

use std::collections::BTreeSet;

use enipool_pool::ec2::{Ec2Error, Eni, EniStatus};
use enipool_pool::eni::{Holdings, Role, SETTLING, is_no_manage, is_orphan, merge, role};
use enipool_pool::imds::{ImdsEni, ImdsError};
use enipool_pool::ledger::AddressState;
use enipool_pool::ledger::record::Record;
use enipool_pool::{EniId, Timestamp};

use super::entry::{Attachment, Entry, Foreign, Slots, Stage};
use super::{Look, Machine};

/// Looks by IMDS in a row that must contradict us before EC2 is asked: IMDS lags.
const MISMATCHES: u32 = 2;

impl Machine {
    pub(super) fn looked(
        &mut self,
        look: &Look,
        asked_at: Timestamp,
        result: Result<Vec<Eni>, Ec2Error>,
        now: Timestamp,
    ) {
        let enis = match (result, look) {
            (Ok(enis), _) => enis,
            (Err(_), Look::Intent(id)) => return self.retry_creation(id, now),
            (Err(_), Look::Orphans(_)) => {
                let pause = self.pause(8, std::time::Duration::from_secs(1), SETTLING);
                self.timers.orphans = Some(now.plus(pause));
                return;
            }
            (Err(_), _) => return self.look_failed(now),
        };
        self.timers.look_failures = 0;
        match look {
            Look::Attached(_) => self.looked_at_attached(&enis, asked_at, now),
            Look::Enis(ids) => self.looked_at_some(ids, &enis, asked_at, now),
            Look::Intent(id) => {
                let begun = self.creations.get(id).map(|creation| creation.asked_at);
                if let Some(eni) = enis.first() {
                    self.created(id, eni, now);
                } else if begun.is_some_and(|at| asked_at >= at.plus(SETTLING)) {
                    self.drop_creation(id);
                } else {
                    self.retry_creation(id, now);
                }
            }
            Look::Orphans(_) => {
                self.adopt_orphans(&enis, now);
                self.record(Record::Leftovers { due: None });
            }
        }
    }

    fn looked_at_attached(&mut self, enis: &[Eni], asked_at: Timestamp, now: Timestamp) {
        self.blind = false;
        let mut seen = BTreeSet::new();
        for eni in enis {
            seen.insert(eni.id.clone());
            if self.enis.contains_key(&eni.id) {
                self.merge_entry(eni, asked_at, now);
            } else if self.gone.get(&eni.id).is_none_or(|at| asked_at >= at.plus(SETTLING)) {
                self.meet(eni, now);
            }
        }
        self.foreign.retain(|id, _| seen.contains(id));
        let missing: Vec<EniId> = self
            .enis
            .iter()
            .filter(|(id, entry)| entry.stage.is_attached() && !seen.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.miss(&id, asked_at, now);
        }
    }

    fn looked_at_some(&mut self, ids: &[EniId], enis: &[Eni], asked_at: Timestamp, now: Timestamp) {
        for eni in enis {
            self.merge_entry(eni, asked_at, now);
        }
        for id in ids.iter().filter(|id| !enis.iter().any(|eni| eni.id == **id)) {
            self.miss(id, asked_at, now);
        }
    }

    /// An attached interface that we do not know.
    pub(super) fn meet(&mut self, eni: &Eni, now: Timestamp) {
        let Some(attachment) = &eni.attachment else { return };
        if let Role::Foreign(because) = role(eni, &self.me.instance, self.config.manage_untagged) {
            let holdings = Holdings::of(eni);
            let network_card = attachment.network_card;
            let known = self.foreign.get(&eni.id);
            let (since, hinted) = known.map_or((now, false), |known| (known.since, known.hinted));
            let stays = eni.status != EniStatus::Detaching;
            let confirmed = stays && known.is_some_and(|known| known.confirmed || now.since(since) >= SETTLING);
            let foreign = Foreign { holdings, network_card, because, since, hinted, confirmed };
            self.foreign.insert(eni.id.clone(), foreign);
            return;
        }
        self.foreign.remove(&eni.id);
        self.take_in(eni, None, now);
    }

    /// Begins to keep an attached interface: for pods, or, if it is not ours to change, for the pods that it has.
    pub(super) fn take_in(&mut self, eni: &Eni, hands_off: Option<&'static str>, now: Timestamp) {
        let Some(attachment) = &eni.attachment else { return };
        let mut entry = Entry::new(Holdings::of(eni), Stage::Attached, now);
        entry.hands_off = hands_off;
        entry.looked_at = now;
        entry.attachment.id = Some(attachment.id.clone());
        entry.attachment.delete_on_termination = attachment.delete_on_termination;
        entry.security_groups = Some(eni.security_groups.iter().cloned().collect());
        // Not changed by us just now: answers about it can be believed.
        entry.changed_at = Timestamp(0);
        self.have_left_for(&eni.id, &Slots::of(&entry.holdings));
        self.enis.insert(eni.id.clone(), entry);
        self.note_detaching(eni, true, now);
        self.ledger.add_eni(&eni.id, attachment.device_index);
        self.enter_all(&eni.id);
        self.record_holdings(&eni.id);
        self.await_link(&eni.id, now);
        self.prefer();
    }

    /// Merges an answer about an interface that we know.
    fn merge_entry(&mut self, eni: &Eni, asked_at: Timestamp, now: Timestamp) {
        let id = &eni.id;
        let busy = self.is_busy(id);
        let Some(entry) = self.enis.get_mut(id) else { return };
        if busy {
            // It is being changed: what the answer says may be older or newer than that.
            entry.doubtful = true;
            self.look_at(now.plus(SETTLING));
            return;
        }
        entry.looked_at = asked_at;
        let here = eni.attachment.as_ref().filter(|a| a.instance.as_ref() == Some(&self.me.instance));
        let settled = entry.changed_at.plus(SETTLING);
        let conclusive = asked_at >= settled;
        if conclusive || entry.security_groups.is_none() {
            entry.security_groups = Some(eni.security_groups.iter().cloned().collect());
        }
        match here {
            Some(attachment) if matches!(entry.stage, Stage::Detached | Stage::Attaching) => {
                // An attach whose answer we never had.
                let (attachment, device_index) = (attachment.clone(), attachment.device_index);
                self.attached(id, attachment.id, device_index, now);
                if let Some(entry) = self.enis.get_mut(id) {
                    entry.attachment.delete_on_termination = attachment.delete_on_termination;
                }
            }
            Some(attachment) => {
                entry.attachment.id = Some(attachment.id.clone());
                entry.attachment.delete_on_termination |= attachment.delete_on_termination;
                if entry.stage == Stage::Deleting && conclusive {
                    entry.stage = Stage::Detaching;
                }
                if entry.stage == Stage::Detaching {
                    entry.retry_at = Some(now);
                }
            }
            None if eni.attachment.is_some() => {
                self.notice(now, "VanishedENI", format!("{id} is attached to something else"));
                self.eni_gone(id, now);
                return;
            }
            None if conclusive && entry.stage == Stage::Detaching => {
                entry.stage = Stage::Deleting;
                entry.retry_at = Some(now);
            }
            None if entry.stage == Stage::Detached && is_no_manage(eni) => {
                self.notice(now, "HandsOff", format!("{id} is left alone from now on: its tag no_manage says so"));
                self.eni_gone(id, now);
                return;
            }
            None => {}
        }
        self.merge_addresses(eni, asked_at, now);
        self.reconsider_role(eni, conclusive, now);
        self.note_detaching(eni, conclusive, now);
        if let Some(entry) = self.enis.get_mut(id)
            && entry.doubtful
        {
            if conclusive {
                entry.doubtful = false;
            } else {
                self.look_at(settled);
            }
        }
    }

    /// The first answer after a start, about an interface that the journal knows.
    pub(super) fn merge_start(&mut self, eni: &Eni, asked_at: Timestamp, now: Timestamp) {
        if self.enis.get(&eni.id).is_none_or(|entry| entry.stage.is_leaving()) {
            return;
        }
        self.doubt_taken(&eni.id, asked_at);
        self.merge_addresses(eni, asked_at, now);
        let Some(entry) = self.enis.get_mut(&eni.id) else { return };
        entry.looked_at = asked_at;
        let conclusive = asked_at >= entry.changed_at.plus(SETTLING);
        if conclusive {
            entry.doubtful = false;
        }
        self.reconsider_role(eni, conclusive, now);
        self.note_detaching(eni, conclusive, now);
        self.await_link(&eni.id, now);
    }

    fn merge_addresses(&mut self, eni: &Eni, asked_at: Timestamp, now: Timestamp) {
        let id = &eni.id;
        let leaving = self.leaving(id);
        let described = Holdings::of(eni);
        let Some(entry) = self.enis.get(id) else { return };
        if entry.stage.is_leaving() {
            return;
        }
        let changed_at = entry.changed_at;
        let conclusive = asked_at >= changed_at.plus(SETTLING);
        let merged = merge(&entry.holdings, &described, (&leaving.addresses, &leaving.prefixes), changed_at, asked_at);
        let gained = Slots { addresses: merged.gained.clone(), prefixes: merged.gained_prefixes.clone() };
        self.have_left_for(id, &gained);
        if let Some(entry) = self.enis.get_mut(id) {
            entry.holdings.addresses.extend(gained.addresses);
            entry.holdings.prefixes.extend(gained.prefixes);
            entry.doubtful |= merged.ask_again.is_some();
        }
        if let Some(at) = merged.ask_again {
            self.look_at(at);
        }
        for address in &merged.lost {
            if let Some((key, pod)) = self.ledger.holder(*address).filter(|_| self.ledger.is_of(*address, id)) {
                let text = format!(
                    "{id} no longer holds {address}, which pod {}/{} ({}) uses; the pod keeps its lease",
                    pod.namespace, pod.name, key.container_id
                );
                self.notice(now, "StrayAddress", text);
            }
        }
        let changed = !merged.changes_nothing();
        let loses = !merged.lost.is_empty() || !merged.lost_prefixes.is_empty();
        self.lose(id, merged.lost, merged.lost_prefixes);
        if loses {
            self.enter_missing();
        }
        if changed {
            self.enter_gained(id);
            self.record_holdings(id);
        }
        if conclusive {
            // Addresses set aside for a taking that did not happen.
            let back: Vec<_> = self
                .ledger
                .addresses(id)
                .into_iter()
                .filter(|view| view.state == AddressState::Withdrawn)
                .map(|view| view.address)
                .collect();
            self.ledger.restore(id, &back);
            if self.taken.iter().any(|taken| taken.eni == *id) {
                self.taken.retain(|taken| taken.eni != *id);
                // After what it holds: a crash in between must not leave the taken ones in use.
                self.record(Record::Resolved {
                    eni: id.clone(),
                    addresses: leaving.addresses.into_iter().collect(),
                    prefixes: leaving.prefixes.into_iter().collect(),
                });
            }
        }
    }

    /// People may mark an interface `no_manage`, or take the mark off, while we have it, or change their mind about those
    /// without tags. Tags may come later than the rest of a young one.
    fn reconsider_role(&mut self, eni: &Eni, conclusive: bool, now: Timestamp) {
        if eni.attachment.is_none() {
            return;
        }
        let hands_off = match role(eni, &self.me.instance, self.config.manage_untagged) {
            Role::Pods => None,
            Role::Foreign(because) => Some(because),
        };
        let Some(entry) = self.enis.get_mut(&eni.id) else { return };
        if entry.hands_off == hands_off || entry.stage.is_leaving() {
            return;
        }
        if eni.tags.is_empty() && !conclusive {
            let settled = entry.changed_at.plus(SETTLING);
            return self.look_at(settled);
        }
        entry.hands_off = hands_off;
        let open = entry.stage == Stage::Ready && hands_off.is_none();
        self.ledger.set_open(&eni.id, open);
        if let Some(because) = hands_off {
            self.notice(now, "HandsOff", format!("{} is left alone from now on: {because}", eni.id));
        }
    }

    /// Somebody may be taking it off. When it has gone it is attached again or deleted, as the node needs it.
    fn note_detaching(&mut self, eni: &Eni, conclusive: bool, now: Timestamp) {
        let detaching = eni.status == EniStatus::Detaching;
        let Some(entry) = self.enis.get_mut(&eni.id).filter(|entry| !entry.stage.is_leaving()) else { return };
        if detaching && !conclusive {
            // From before we attached it, perhaps.
            let settled = entry.changed_at.plus(SETTLING);
            return self.look_at(settled);
        }
        let before = std::mem::replace(&mut entry.attachment.being_detached, detaching);
        if detaching && !before {
            self.notice(now, "BeingDetached", format!("{} is being detached: it gets no new pods", eni.id));
        }
    }

    /// An interface that we know is not in the answer.
    fn miss(&mut self, id: &EniId, asked_at: Timestamp, now: Timestamp) {
        let busy = self.is_busy(id);
        let Some(entry) = self.enis.get_mut(id) else { return };
        let settled = entry.changed_at.plus(SETTLING);
        if busy || asked_at < settled {
            entry.doubtful = true;
            self.look_at(settled.max(now));
            return;
        }
        match entry.stage {
            Stage::Detaching => {
                entry.stage = Stage::Deleting;
                entry.retry_at = Some(now);
            }
            Stage::Deleting => {}
            Stage::Attached | Stage::Ready => {
                let leases = self.ledger.counts(id).map_or(0, |counts| counts.assigned);
                let theirs = entry.hands_off.is_some();
                self.detached_by_hand(id, leases, now);
                if theirs {
                    self.eni_gone(id, now);
                }
            }
            Stage::Detached | Stage::Attaching => {
                tracing::warn!(eni = %id, "it does not exist any more");
                self.eni_gone(id, now);
            }
        }
    }

    /// Somebody took it off the instance. Whether it still exists, one look by its id tells: then it is attached again or
    /// deleted, as the node needs it.
    pub(super) fn detached_by_hand(&mut self, id: &EniId, pods: u32, now: Timestamp) {
        let text = format!("{id} is no longer attached to this instance; {pods} pods had addresses of it");
        self.notice(now, "VanishedENI", text);
        let Some(entry) = self.enis.get_mut(id) else { return };
        entry.stage = Stage::Detached;
        entry.attachment = Attachment::default();
        entry.holdings.device_index = None;
        entry.link = false;
        entry.link_at = None;
        entry.doubtful = true;
        self.ledger.set_open(id, false);
        self.record_holdings(id);
        self.look_at(now);
    }

    /// Unattached interfaces made for this instance that nobody remembers are deleted, but for those that pods need.
    fn adopt_orphans(&mut self, enis: &[Eni], now: Timestamp) {
        for eni in enis {
            let intents: BTreeSet<&str> = self.creations.keys().map(enipool_pool::ClientToken::as_str).collect();
            let being_made =
                eni.tags.get(enipool_pool::eni::TAG_INTENT).is_some_and(|intent| intents.contains(intent.as_str()));
            let remembered = |id: &EniId| self.enis.contains_key(id) || self.gone.contains_key(id);
            if being_made || !is_orphan(eni, &self.me.instance, remembered) {
                continue;
            }
            let mut entry = Entry::new(Holdings::of(eni), Stage::Deleting, now);
            entry.looked_at = now;
            let mut members = eni.secondary_ips.iter().copied().chain(eni.prefixes.iter().flat_map(|p| p.addresses()));
            if members.any(|address| self.ledger.holder(address).is_some()) {
                entry.stage = Stage::Detached;
                self.enis.insert(eni.id.clone(), entry);
                self.ledger.add_eni(&eni.id, 0);
                self.enter_all(&eni.id);
                self.record_holdings(&eni.id);
                self.notice(now, "Leftover", format!("{} was taken off, and pods run with its addresses", eni.id));
                continue;
            }
            entry.retry_at = Some(now);
            self.enis.insert(eni.id.clone(), entry);
            // A life that begins before it is deleted has to know of it: the question is not asked again.
            self.record_holdings(&eni.id);
            self.record(Record::Releasing { eni: eni.id.clone(), at: now });
            self.notice(now, "Leftover", format!("{} was left over from an earlier life; it is deleted", eni.id));
        }
    }

    /// IMDS says what it believes is attached. Twice in a row different from what we know: ask EC2.
    pub(super) fn hinted(&mut self, result: Result<Vec<ImdsEni>, ImdsError>, now: Timestamp) {
        let Ok(hints) = result else { return };
        let mut foreign_left = false;
        for (id, foreign) in &mut self.foreign {
            let shown = hints.iter().any(|hint| hint.id == *id);
            // One that IMDS never showed may have left before it was met: the answer that showed it may have lagged.
            foreign_left |= (foreign.hinted || !foreign.confirmed) && !shown;
            foreign.hinted |= shown;
        }
        self.absorb(&hints);
        let known = self.enis.iter().filter(|(_, entry)| entry.stage.is_attached());
        let differs = hints.iter().any(|hint| match self.enis.get(&hint.id) {
            None => !self.foreign.contains_key(&hint.id),
            Some(entry) => {
                let singles: BTreeSet<_> =
                    hint.addresses.iter().copied().filter(|a| *a != entry.holdings.primary_ip).collect();
                singles != entry.holdings.addresses
                    || hint.prefixes.iter().copied().collect::<BTreeSet<_>>() != entry.holdings.prefixes
            }
        }) || foreign_left
            || known.into_iter().any(|(id, _)| !hints.iter().any(|hint| hint.id == *id));
        self.timers.hint_mismatches = if differs { self.timers.hint_mismatches.saturating_add(1) } else { 0 };
        if self.timers.hint_mismatches >= MISMATCHES {
            self.timers.hint_mismatches = 0;
            self.look_at(now);
        }
    }
}
