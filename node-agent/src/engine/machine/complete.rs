//! What the machine makes of the end of each operation, success or failure.

use std::net::Ipv4Addr;
use std::time::Duration;

use enipool_pool::ec2::{Assigned, Ec2Error, Ec2ErrorKind, Eni, Supply};
use enipool_pool::eni::{Holdings, SETTLING, is_no_manage};
use enipool_pool::ledger::record::Record;
use enipool_pool::node as planner;
use enipool_pool::{AttachmentId, ClientToken, EniId, Prefix, SecurityGroupId, Timestamp};

use super::entry::{Entry, Slots, Stage};
use super::{Done, Machine, Op, OpId};
use crate::engine::view::Ec2ErrorView;

/// When to look after a change whose outcome is unknown: EC2 mostly shows it by then.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// From a detach to the first try to delete: EC2 takes a few seconds. Nobody asks whether it is done: the question costs
/// as much as the refusal that it might save, and its answer may lag.
const DETACH_TAKES: Duration = Duration::from_secs(3);
/// Pause after security groups were refused: mostly a person has to do something first.
const GROUPS_AGAIN: Duration = Duration::from_secs(120);
/// How long a device index is avoided that EC2 says is taken by something we do not see.
const BUSY_INDEX: Duration = Duration::from_secs(120);

impl Machine {
    /// An operation has ended.
    pub fn done(&mut self, id: OpId, done: Done, now: Timestamp) {
        let Some(running) = self.running.remove(&id) else { return };
        if let Some(error) = done.ec2_error() {
            self.count_error(error, now);
        }
        match (running.op, done) {
            (Op::Look(look), Done::Enis(result)) => self.looked(&look, running.since, result, now),
            (Op::DescribeSubnets(asked), Done::Subnets(result)) => self.subnets_described(&asked, result, now),
            (Op::Create(request), Done::Created(result)) => match result {
                Ok(eni) => self.created(&request.client_token, &eni, now),
                Err(error) => self.not_created(&request.client_token, &error, now),
            },
            (Op::Attach { eni, device_index, .. }, Done::Attached(result)) => match result {
                Ok(attachment) => self.attached(&eni, attachment, device_index, now),
                Err(error) => self.not_attached(&eni, device_index, &error, now),
            },
            (Op::SetDeleteOnTermination { eni, .. }, Done::Changed(result)) => self.set_delete(&eni, result, now),
            (Op::SetSecurityGroups { eni, groups }, Done::Changed(result)) => {
                self.set_groups(&eni, groups, &result, now);
            }
            (Op::Assign { eni, supply }, Done::Assigned(result)) => match result {
                Ok(assigned) => self.assigned(&eni, supply, &assigned, now),
                Err(error) => self.not_assigned(&eni, supply, &error, now),
            },
            (Op::Unassign { eni, addresses, prefixes }, Done::Changed(result)) => {
                self.unassigned(&eni, &addresses, &prefixes, result, now);
            }
            (Op::Detach { eni, .. }, Done::Changed(result)) => self.detached(&eni, result, now),
            (Op::Delete { eni }, Done::Changed(result)) => self.deleted(&eni, result, now),
            (Op::Apply(picture), Done::Applied(result)) => self.applied(picture, result, now),
            (Op::AwaitLink { eni, .. }, Done::Link(result)) => self.link(&eni, result, now),
            (Op::AwaitLink { eni, .. }, Done::Unheard) => self.await_link_soon(&eni, now),
            (Op::Hint, Done::Hint(result)) => self.hinted(result, now),
            (Op::Surroundings, Done::Hint(result)) => self.surrounded(result, now),
            (op, done) => tracing::error!(?op, ?done, "an operation ended with the answer of another kind"),
        }
    }

    fn count_error(&mut self, error: &Ec2Error, now: Timestamp) {
        let counts = self.calls.entry(error.action).or_default();
        counts.errors = counts.errors.saturating_add(1);
        if error.kind == Ec2ErrorKind::Throttled {
            counts.throttles = counts.throttles.saturating_add(1);
        }
        self.last_ec2_error = Some(Ec2ErrorView {
            at: now,
            action: error.action,
            kind: error.kind.clone(),
            message: error.message.clone(),
        });
        tracing::warn!(action = error.action.name(), kind = error.kind.label(), "{error}");
    }

    fn refused(&mut self, action: &planner::Action, error: &Ec2Error, now: Timestamp) {
        let subnet = match action {
            planner::Action::Create { subnet, .. } => Some(subnet.clone()),
            other => other.eni().and_then(|eni| self.enis.get(eni)).map(|entry| entry.holdings.subnet.clone()),
        };
        self.memory.refused(action, subnet.as_ref(), &error.kind, now);
    }

    fn succeeded(&mut self, action: &planner::Action) {
        let subnet = match action {
            planner::Action::Create { subnet, .. } => Some(subnet.clone()),
            other => other.eni().and_then(|eni| self.enis.get(eni)).map(|entry| entry.holdings.subnet.clone()),
        };
        self.memory.succeeded(action, subnet.as_ref());
    }

    // ---- creation --------------------------------------------------------------------------------------------------

    /// EC2 has made (or had made before) the interface of an intent: attach it.
    pub(super) fn created(&mut self, id: &ClientToken, eni: &Eni, now: Timestamp) {
        let Some(creation) = self.creations.remove(id) else { return };
        self.succeeded(&creation.action());
        self.record(Record::Created { intent: id.clone(), eni: eni.id.clone() });
        if self.enis.contains_key(&eni.id) {
            // An answer of long ago: it serves already.
            self.record(Record::Fulfilled { intent: id.clone() });
            return;
        }
        if self.foreign.contains_key(&eni.id) || is_no_manage(eni) {
            // Somebody has marked it since: whatever it holds, it is not ours any more.
            self.record(Record::Fulfilled { intent: id.clone() });
            self.look_at(now.plus(SETTLING));
            return;
        }
        let mut entry = Entry::new(Holdings::of(eni), Stage::Detached, now);
        entry.intent = Some(id.clone());
        entry.looked_at = now;
        entry.security_groups = Some(eni.security_groups.iter().cloned().collect());
        let attached_here = eni.attachment.as_ref().filter(|a| a.instance.as_ref() == Some(&self.me.instance)).cloned();
        self.have_left_for(&eni.id, &Slots::of(&entry.holdings));
        self.enis.insert(eni.id.clone(), entry);
        self.ledger.add_eni(&eni.id, creation.intent.device_index);
        if let Some(attachment) = attached_here {
            let index = attachment.device_index;
            self.attached(&eni.id, attachment.id, index, now);
            self.note_attachment(&eni.id, attachment.delete_on_termination);
        } else {
            self.record_holdings(&eni.id);
            self.attach(&eni.id, creation.intent.device_index, now);
        }
    }

    fn note_attachment(&mut self, eni: &EniId, delete_on_termination: bool) {
        if let Some(entry) = self.enis.get_mut(eni) {
            entry.attachment.delete_on_termination = delete_on_termination;
        }
    }

    fn not_created(&mut self, id: &ClientToken, error: &Ec2Error, now: Timestamp) {
        let Some(creation) = self.creations.get_mut(id) else { return };
        let action = creation.action();
        let unknown = error.kind.may_have_happened();
        // Turned away at the door: says nothing of what became of an earlier call with this token.
        let at_the_door =
            matches!(error.kind, Ec2ErrorKind::Throttled | Ec2ErrorKind::AccessDenied | Ec2ErrorKind::Credentials);
        let was_uncertain = creation.uncertain;
        creation.uncertain |= unknown || error.kind == Ec2ErrorKind::TokenMismatch;
        self.refused(&action, error, now);
        if unknown || (was_uncertain && at_the_door) {
            self.retry_creation(id, now);
        } else if let Some(creation) = self.creations.get_mut(id).filter(|creation| creation.uncertain) {
            creation.find = true;
            creation.retry_at = Some(now.plus(SETTLING));
        } else {
            self.drop_creation(id);
        }
    }

    /// The intent has made nothing.
    pub(super) fn drop_creation(&mut self, id: &ClientToken) {
        if self.creations.remove(id).is_some() {
            self.record(Record::Fulfilled { intent: id.clone() });
        }
    }

    // ---- attachment ------------------------------------------------------------------------------------------------

    /// The interface is attached to us as EC2 says.
    pub(super) fn attached(&mut self, eni: &EniId, attachment: AttachmentId, device_index: u32, now: Timestamp) {
        self.succeeded(&planner::Action::Attach { eni: eni.clone(), device_index });
        let Some(entry) = self.enis.get_mut(eni) else { return };
        entry.attachment.id = Some(attachment);
        entry.holdings.device_index = Some(device_index);
        entry.changed_at = now;
        if entry.stage.is_leaving() {
            entry.stage = Stage::Detaching;
            entry.retry_at = Some(now);
            return;
        }
        entry.stage = Stage::Attached;
        entry.since = now;
        entry.attachment.being_detached = false;
        entry.doubtful = false;
        entry.failures = 0;
        let intent = entry.intent.take();
        self.ledger.add_eni(eni, device_index);
        self.enter_all(eni);
        self.record_holdings(eni);
        if let Some(intent) = intent {
            self.record(Record::Fulfilled { intent });
        }
        self.await_link(eni, now);
    }

    fn not_attached(&mut self, eni: &EniId, device_index: u32, error: &Ec2Error, now: Timestamp) {
        self.refused(&planner::Action::Attach { eni: eni.clone(), device_index }, error, now);
        let Some(entry) = self.enis.get_mut(eni) else { return };
        entry.changed_at = if error.kind.may_have_happened() { now } else { entry.changed_at };
        entry.stage = Stage::Detached;
        entry.holdings.device_index = None;
        let young = now.since(entry.since) < SETTLING;
        match error.kind {
            // It may be attached by now: ask, and again when the answer can be trusted.
            Ec2ErrorKind::Internal | Ec2ErrorKind::NoAnswer | Ec2ErrorKind::Unexpected | Ec2ErrorKind::EniInUse => {
                entry.doubtful = true;
                self.look_at(now.plus(SOON));
            }
            Ec2ErrorKind::DeviceIndexInUse => {
                self.busy_indexes.insert(device_index, now.plus(BUSY_INDEX));
                self.look_at(now);
            }
            // A Describe that lags makes an attach fail so just after the creation; the planner tries again.
            Ec2ErrorKind::EniNotFound if young => {}
            Ec2ErrorKind::EniNotFound => {
                self.notice(now, "VanishedENI", format!("{eni} was deleted before it could be attached"));
                self.eni_gone(eni, now);
            }
            // It holds more than we know: the planner gives back what is too much once EC2 has told.
            Ec2ErrorKind::AddressLimit => {
                entry.doubtful = true;
                self.look_at(now);
            }
            // It can not be attached here, so it only holds addresses that others need.
            Ec2ErrorKind::AttachmentLimit
            | Ec2ErrorKind::InstanceNotRunning
            | Ec2ErrorKind::InstanceNotFound
            | Ec2ErrorKind::AccessDenied => self.release_eni(eni, now),
            _ => {}
        }
    }

    fn set_delete(&mut self, eni: &EniId, result: Result<(), Ec2Error>, now: Timestamp) {
        let action = planner::Action::SetDeleteOnTermination { eni: eni.clone() };
        match result {
            Ok(()) => {
                self.succeeded(&action);
                self.note_attachment(eni, true);
            }
            Err(error) => {
                self.refused(&action, &error, now);
                if matches!(error.kind, Ec2ErrorKind::EniNotFound | Ec2ErrorKind::AttachmentNotFound) {
                    if let Some(entry) = self.enis.get_mut(eni) {
                        entry.doubtful = true;
                    }
                    self.look_at(now.plus(SOON));
                }
            }
        }
    }

    fn set_groups(&mut self, eni: &EniId, groups: Vec<SecurityGroupId>, result: &Result<(), Ec2Error>, now: Timestamp) {
        let pause = self.pause(0, GROUPS_AGAIN, GROUPS_AGAIN);
        let Some(entry) = self.enis.get_mut(eni) else { return };
        if result.is_ok() {
            entry.security_groups = Some(groups.into_iter().collect());
            entry.changed_at = now;
        } else {
            entry.groups_retry_at = Some(now.plus(pause));
        }
    }

    // ---- addresses -------------------------------------------------------------------------------------------------

    fn assigned(&mut self, eni: &EniId, supply: Supply, assigned: &Assigned, now: Timestamp) {
        self.succeeded(&planner::Action::Assign { eni: eni.clone(), supply });
        let gained = Slots {
            addresses: assigned.addresses.iter().copied().collect(),
            prefixes: assigned.prefixes.iter().copied().collect(),
        };
        self.have_left_for(eni, &gained);
        let Some(entry) = self.enis.get_mut(eni) else { return };
        entry.holdings.addresses.extend(&gained.addresses);
        entry.holdings.prefixes.extend(&gained.prefixes);
        entry.changed_at = now;
        self.record_holdings(eni);
        self.given_again(eni, &gained);
        self.enter_gained(eni);
    }

    fn not_assigned(&mut self, eni: &EniId, supply: Supply, error: &Ec2Error, now: Timestamp) {
        self.refused(&planner::Action::Assign { eni: eni.clone(), supply }, error, now);
        let refresh = matches!(error.kind, Ec2ErrorKind::AddressLimit | Ec2ErrorKind::EniNotFound);
        let unknown = error.kind.may_have_happened();
        if let Some(entry) = self.enis.get_mut(eni)
            && (refresh || unknown)
        {
            entry.doubtful = true;
            if unknown {
                entry.changed_at = now;
            }
            self.look_at(now.plus(if unknown { SOON } else { Duration::ZERO }));
        }
    }

    fn unassigned(
        &mut self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        prefixes: &[Prefix],
        result: Result<(), Ec2Error>,
        now: Timestamp,
    ) {
        let action = planner::Action::Unassign {
            eni: eni.clone(),
            singles: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            prefixes: prefixes.to_vec(),
        };
        match result {
            Ok(()) => {
                self.succeeded(&action);
                self.lose(eni, addresses.iter().copied().collect(), prefixes.iter().copied().collect());
                if let Some(entry) = self.enis.get_mut(eni) {
                    entry.changed_at = now;
                }
                self.touch_taken(eni, addresses, prefixes, now);
                self.record_holdings(eni);
            }
            Err(error) => {
                self.refused(&action, &error, now);
                let unknown = error.kind.may_have_happened()
                    || matches!(error.kind, Ec2ErrorKind::AddressNotAssigned | Ec2ErrorKind::EniNotFound);
                if unknown {
                    if let Some(entry) = self.enis.get_mut(eni) {
                        entry.doubtful = true;
                        entry.changed_at = now;
                    }
                    self.touch_taken(eni, addresses, prefixes, now);
                    self.look_at(now.plus(SETTLING));
                } else {
                    // Not done: back into the pool with them, unless the whole interface is leaving by now.
                    self.resolve(eni, addresses, prefixes);
                    if self.enis.get(eni).is_some_and(|entry| !entry.stage.is_leaving()) {
                        self.ledger.restore(eni, addresses);
                        let members: Vec<_> = prefixes.iter().flat_map(|prefix| prefix.addresses()).collect();
                        self.ledger.restore(eni, &members);
                    }
                }
            }
        }
    }

    // ---- the end of an interface -----------------------------------------------------------------------------------

    fn detached(&mut self, eni: &EniId, result: Result<(), Ec2Error>, now: Timestamp) {
        match result.map_err(|error| error.kind) {
            Ok(()) => {
                if let Some(entry) = self.enis.get_mut(eni) {
                    entry.stage = Stage::Deleting;
                    entry.changed_at = now;
                    entry.failures = 0;
                    entry.retry_at = Some(now.plus(DETACH_TAKES));
                }
            }
            Err(Ec2ErrorKind::AttachmentNotFound | Ec2ErrorKind::EniNotFound) => {
                if let Some(entry) = self.enis.get_mut(eni) {
                    entry.stage = Stage::Deleting;
                    entry.retry_at = Some(now);
                }
            }
            Err(_) => self.retry_release(eni, now),
        }
    }

    fn deleted(&mut self, eni: &EniId, result: Result<(), Ec2Error>, now: Timestamp) {
        match result.map_err(|error| error.kind) {
            Ok(()) => self.eni_gone(eni, now),
            Err(Ec2ErrorKind::EniNotFound) => {
                // Just after its creation EC2 may not know it yet: only later does this mean that it is gone.
                if self.enis.get(eni).is_some_and(|entry| now.since(entry.since) < SETTLING) {
                    self.retry_release(eni, now);
                } else {
                    self.eni_gone(eni, now);
                }
            }
            Err(kind) => {
                self.retry_release(eni, now);
                if kind == Ec2ErrorKind::EniInUse
                    && let Some(entry) = self.enis.get_mut(eni)
                    && entry.failures >= 3
                {
                    // Still attached after all this time: detach it again, by force.
                    entry.stage = Stage::Detaching;
                }
            }
        }
    }

    /// Forgets an interface that is gone for good. Pods that still have an address of it keep their leases.
    pub(super) fn eni_gone(&mut self, eni: &EniId, now: Timestamp) {
        let Some(entry) = self.enis.remove(eni) else { return };
        if let Some(intent) = entry.intent {
            self.record(Record::Fulfilled { intent });
        }
        self.record(Record::Gone { eni: eni.clone(), at: now });
        self.ledger.remove_eni(eni);
        self.taken.retain(|taken| taken.eni != *eni);
        self.gone.insert(eni.clone(), now);
        self.enter_missing();
    }
}
