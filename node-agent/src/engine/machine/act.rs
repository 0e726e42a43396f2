//! What the machine starts: the planner's actions, the next steps of releases and creations, looks.

use std::net::Ipv4Addr;
use std::time::Duration;

use enipool_pool::ec2::{Action, CreateEni, Supply};
use enipool_pool::eni::{Intent, SETTLING};
use enipool_pool::ledger::record::{Record, Taken};
use enipool_pool::node::{self as planner, Planned};
use enipool_pool::targets::Operations;
use enipool_pool::{ClientToken, EniId, Prefix, SubnetId, Timestamp};

use super::entry::{Creation, Entry, Stage};
use super::{HINT_EVERY, Look, Machine, Op};

/// First and longest pause between two tries of a release or a creation.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// An interface is detached only if EC2 has told of it, with its tags, within this time: longer than the planner's pause
/// between two rounds of giving back.
const LATELY: Duration = Duration::from_secs(120);
/// First pause after a failed look, and the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Machine {
    /// Asks the planner and carries its actions out.
    pub(super) fn plan(&mut self, now: Timestamp) {
        if self.blind {
            // What EC2 has must be known before anything is changed there.
            return;
        }
        let guided = self.config.allocation.is_some();
        self.had_operator |= self.config.had_operator();
        if self.had_operator {
            self.memory.set_alone(!guided, now);
        }
        self.memory.await_word(self.awaits_word(now));
        let snapshot = self.planner_snapshot(now);
        let mut plan = planner::plan(&snapshot, &mut self.memory, now);
        let actions = std::mem::take(&mut plan.actions);
        self.ledger.set_draining(&plan.draining);
        self.ledger.set_closed(&plan.closed);
        self.plan = plan;
        self.blown = None;
        for Planned { action, .. } in actions {
            if self.permits(&action, now) {
                self.carry_out(action, now);
            }
        }
    }

    /// The fuse: whatever the planner wants, a node makes no more calls than a node ever needs.
    fn permits(&mut self, action: &planner::Action, now: Timestamp) -> bool {
        let call = match action {
            planner::Action::Assign { .. } => Action::AssignPrivateIpAddresses,
            planner::Action::Create { .. } => Action::CreateNetworkInterface,
            planner::Action::Attach { .. } => Action::AttachNetworkInterface,
            planner::Action::Unassign { .. } => Action::UnassignPrivateIpAddresses,
            // Each of its steps asks for itself.
            planner::Action::Release { .. } => return true,
            planner::Action::SetDeleteOnTermination { .. } => Action::ModifyNetworkInterfaceAttribute,
        };
        match self.fuse.permit(call, now) {
            Ok(()) => true,
            Err(blown) => {
                if self.blown.is_none() {
                    tracing::warn!("{blown}");
                }
                self.memory.held_back(action, blown.until());
                Self::sooner(&mut self.blown, blown.until());
                false
            }
        }
    }

    fn carry_out(&mut self, action: planner::Action, now: Timestamp) {
        match action {
            planner::Action::Assign { eni, supply } => {
                self.start(Op::Assign { eni, supply }, now);
            }
            planner::Action::Create { subnet, device_index, supply } => self.intend(subnet, device_index, supply, now),
            planner::Action::Attach { eni, device_index } => self.attach(&eni, device_index, now),
            planner::Action::Unassign { eni, singles, prefixes } => self.unassign(&eni, singles, &prefixes, now),
            planner::Action::Release { eni } if self.may_be_marked(&eni, now) => self.look_at(now),
            planner::Action::Release { eni } => self.release_eni(&eni, now),
            planner::Action::SetDeleteOnTermination { eni } => {
                let attachment = self.enis.get(&eni).and_then(|entry| entry.attachment.id.clone());
                match attachment {
                    Some(attachment) => {
                        self.start(Op::SetDeleteOnTermination { eni, attachment }, now);
                    }
                    None => self.look_at(now),
                }
            }
        }
    }

    /// Writes an intent down and asks EC2 for the interface.
    fn intend(&mut self, subnet: SubnetId, device_index: u32, supply: Supply, now: Timestamp) {
        let id = self.new_token(now);
        let request = CreateEni {
            subnet,
            security_groups: self.wanted_groups().to_vec(),
            supply,
            description: format!("enipool {} {}", self.me.node, self.me.instance),
            tags: self.eni_tags(&id, now),
            client_token: id.clone(),
        };
        let intent = Intent { id: id.clone(), request: request.clone(), device_index, at: now };
        self.record(Record::Intended { intent: intent.clone() });
        let creation = Creation { intent, uncertain: false, failures: 0, retry_at: None, find: false, asked_at: now };
        self.creations.insert(id, creation);
        self.start(Op::Create(request), now);
    }

    /// A token that no other creation of this instance has: its time, its number, and something random against a
    /// clock that was set back.
    fn new_token(&mut self, now: Timestamp) -> ClientToken {
        self.next_id = self.next_id.wrapping_add(1);
        self.draw();
        let instance = self.me.instance.as_str().trim_start_matches("i-");
        let random = u32::try_from(self.random >> 32).unwrap_or_default();
        let text = format!("enipool-{instance}-{:x}-{:x}-{random:08x}", now.0, self.next_id);
        ClientToken::new(text.chars().take(64).collect::<String>())
    }

    pub(super) fn attach(&mut self, eni: &EniId, device_index: u32, now: Timestamp) {
        let Some(entry) = self.enis.get_mut(eni) else { return };
        entry.stage = Stage::Attaching;
        entry.holdings.device_index = Some(device_index);
        let instance = self.me.instance.clone();
        self.start(Op::Attach { eni: eni.clone(), instance, device_index }, now);
    }

    /// Sets free addresses aside, writes that down, and takes them from the interface. What has been handed out since
    /// the plan was made stays.
    fn unassign(&mut self, eni: &EniId, singles: u32, prefixes: &[Prefix], now: Timestamp) {
        let mut addresses: Vec<Ipv4Addr> =
            self.ledger.free_singles(eni).take(usize::try_from(singles).unwrap_or(usize::MAX)).collect();
        addresses.retain(|address| self.ledger.withdraw(&[*address], now).is_ok());
        let mut taken_prefixes = prefixes.to_vec();
        taken_prefixes.retain(|prefix| {
            let members: Vec<_> = prefix.addresses().collect();
            self.ledger.withdraw(&members, now).is_ok()
        });
        if addresses.is_empty() && taken_prefixes.is_empty() {
            return;
        }
        self.taken.push(Taken {
            eni: eni.clone(),
            addresses: addresses.iter().copied().collect(),
            prefixes: taken_prefixes.iter().copied().collect(),
            at: now,
        });
        self.record(Record::Taking {
            eni: eni.clone(),
            addresses: addresses.clone(),
            prefixes: taken_prefixes.clone(),
            at: now,
        });
        self.start(Op::Unassign { eni: eni.clone(), addresses, prefixes: taken_prefixes }, now);
    }

    /// Whether somebody may have marked the attached interface `no_manage` since EC2 last told of it. Nothing else asks for
    /// so long; what the planner wants it wants again after the answer.
    fn may_be_marked(&self, eni: &EniId, now: Timestamp) -> bool {
        let entry = self.enis.get(eni).filter(|entry| entry.stage.is_attached());
        entry.is_some_and(|entry| now.since(entry.looked_at) > LATELY)
    }

    /// Begins the end of an interface, if it is ours, no pod has an address of it and none rests.
    pub(super) fn release_eni(&mut self, eni: &EniId, now: Timestamp) {
        let members: Vec<Ipv4Addr> = self.ledger.addresses(eni).into_iter().map(|view| view.address).collect();
        let fixed = |entry: &Entry| entry.is_primary() || entry.stage.is_leaving() || entry.hands_off.is_some();
        let fixed = self.enis.get(eni).is_none_or(fixed);
        if fixed || self.ledger.strays().any(|stray| stray.eni == *eni) || self.ledger.withdraw(&members, now).is_err()
        {
            return;
        }
        self.record(Record::Releasing { eni: eni.clone(), at: now });
        self.ledger.set_open(eni, false);
        if let Some(entry) = self.enis.get_mut(eni) {
            let attached = entry.stage.is_attached() || entry.attachment.id.is_some();
            entry.stage = if attached { Stage::Detaching } else { Stage::Deleting };
            entry.retry_at = Some(now);
            entry.failures = 0;
        }
        self.push_release(eni, now);
    }

    /// Starts the next step of a release if it is due.
    fn push_release(&mut self, eni: &EniId, now: Timestamp) {
        if self.is_busy(eni) {
            return;
        }
        let Some(entry) = self.enis.get_mut(eni) else { return };
        if entry.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let call = if entry.stage == Stage::Deleting {
            Action::DeleteNetworkInterface
        } else {
            Action::DetachNetworkInterface
        };
        if let Err(blown) = self.fuse.permit(call, now) {
            entry.retry_at = Some(blown.until());
            return;
        }
        entry.retry_at = None;
        let force = entry.failures >= 3;
        match (entry.stage, entry.attachment.id.clone()) {
            (Stage::Detaching, Some(attachment)) => {
                self.start(Op::Detach { eni: eni.clone(), attachment, force }, now);
            }
            (Stage::Detaching, None) => {
                // Attached, but we do not know how: ask.
                entry.doubtful = true;
                entry.retry_at = Some(now.plus(SETTLING));
                self.look_at(now);
            }
            (Stage::Deleting, _) => {
                self.start(Op::Delete { eni: eni.clone() }, now);
            }
            _ => {}
        }
    }

    pub(super) fn retry_release(&mut self, eni: &EniId, now: Timestamp) {
        let failures = self.enis.get(eni).map_or(0, |entry| entry.failures);
        let pause = self.pause(failures, RETRY.0, RETRY.1);
        if let Some(entry) = self.enis.get_mut(eni) {
            entry.failures = entry.failures.saturating_add(1);
            entry.retry_at = Some(now.plus(pause));
        }
    }

    pub(super) fn retry_creation(&mut self, id: &ClientToken, now: Timestamp) {
        let failures = self.creations.get(id).map_or(0, |creation| creation.failures);
        let pause = self.pause(failures, RETRY.0, RETRY.1);
        if let Some(creation) = self.creations.get_mut(id) {
            creation.failures = creation.failures.saturating_add(1);
            creation.retry_at = Some(now.plus(pause));
        }
    }

    /// Starts what time has made due.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let no_cloud = self.blind || self.config.policy.operations == Operations::NoCloud;
        let due: Vec<ClientToken> = self
            .creations
            .iter()
            .filter(|(_, creation)| !no_cloud && creation.retry_at.is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(creation) = self.creations.get_mut(&id) else { continue };
            let call = if creation.find { Action::DescribeNetworkInterfaces } else { Action::CreateNetworkInterface };
            if let Err(blown) = self.fuse.permit(call, now) {
                creation.retry_at = Some(blown.until());
                continue;
            }
            creation.retry_at = None;
            let op = if creation.find {
                Op::Look(Look::Intent(id))
            } else {
                creation.asked_at = now;
                Op::Create(creation.intent.request.clone())
            };
            self.start(op, now);
        }
        let leaving: Vec<EniId> =
            self.enis.iter().filter(|(_, entry)| entry.stage.is_leaving()).map(|(id, _)| id.clone()).collect();
        for eni in leaving.iter().filter(|_| !no_cloud) {
            self.push_release(eni, now);
        }
        self.await_links(now);
        self.look_if_due(now);
        if !no_cloud {
            self.set_security_groups(now);
        }
        if self.timers.hint.is_none_or(|at| at <= now) {
            let first = self.timers.hint.is_none();
            let pause = self.pause(0, HINT_EVERY, HINT_EVERY);
            self.timers.hint = Some(now.plus(pause));
            let reading = self.running.values().any(|running| matches!(running.op, Op::Hint | Op::Surroundings));
            let quiet = !self.running.values().any(|running| running.op.action().is_some())
                && self.enis.values().all(|entry| now.since(entry.changed_at) > SETTLING);
            if !first && !reading {
                self.start(if quiet { Op::Hint } else { Op::Surroundings }, now);
            }
        }
    }

    /// Asks EC2 what the instance has, at `at` the latest.
    pub(super) fn look_at(&mut self, at: Timestamp) {
        Self::sooner(&mut self.timers.look, at);
    }

    pub(super) fn look_failed(&mut self, now: Timestamp) {
        let pause = self.pause(self.timers.look_failures, LOOK_AGAIN.0, LOOK_AGAIN.1);
        self.timers.look_failures = self.timers.look_failures.saturating_add(1);
        self.look_at(now.plus(pause));
    }

    fn look_if_due(&mut self, now: Timestamp) {
        let looking = self.running.values().any(|running| matches!(running.op, Op::Look(_)));
        if looking {
            return;
        }
        if self.timers.look.is_some_and(|at| at <= now) {
            self.timers.look = None;
            self.start(Op::Look(Look::Attached(self.me.instance.clone())), now);
            let unattached: Vec<EniId> = self
                .enis
                .iter()
                .filter(|(_, entry)| entry.doubtful && !entry.stage.is_attached())
                .map(|(id, _)| id.clone())
                .collect();
            if !unattached.is_empty() {
                self.start(Op::Look(Look::Enis(unattached)), now);
            }
        }
        if self.timers.orphans.is_some_and(|at| at <= now) {
            self.timers.orphans = None;
            self.start(Op::Look(Look::Orphans(self.me.instance.clone())), now);
        }
    }

    /// Which kind of slot pods get first.
    pub(super) fn prefer(&mut self) {
        self.ledger.set_addressing(self.me.capacity.addressing(self.config.policy.addressing));
    }
}
