//! The picture of the pool for status, introspection and doctor, and the reason that a waiting pod is told.

use std::sync::Arc;
use std::time::Duration;

use enipool_pool::eni::Holdings;
use enipool_pool::ledger::Counts;
use enipool_pool::node::HoldReason;
use enipool_pool::{EniId, Timestamp};

use super::entry::{Entry, Stage};
use super::{Machine, Op, WaiterId};
use crate::engine::error::{AcquireError, Shortage};
use crate::engine::view::{
    ActionView, CapacityView, EniState, EniView, InstanceView, IntentView, Phase, PoolSnapshot, WaitingView,
};

/// What an attach commonly takes on EC2, from the call to the link.
const ATTACH_TAKES: Duration = Duration::from_secs(5);

/// Of what was said so much is passed on, in characters: events and conditions must hold the advice as well.
const DETAIL_MAX: usize = 400;

impl Machine {
    /// The whole pool at `now`.
    pub fn snapshot(&mut self, phase: Phase, now: Timestamp) -> PoolSnapshot {
        self.generation = self.generation.wrapping_add(1);
        let me = &self.me;
        let addressing = me.capacity.addressing(self.config.policy.addressing);
        let shortage = self.shortage(now);
        PoolSnapshot {
            at: now,
            generation: self.generation,
            phase,
            instance: Some(InstanceView {
                id: me.instance.clone(),
                instance_type: me.instance_type.clone(),
                zone: me.zone.clone(),
                region: me.region.clone(),
                primary_ip: me.primary_ip,
                primary_mac: me.primary_mac,
                vpc_cidrs: me.vpc_cidrs.clone(),
            }),
            capacity: Some(CapacityView {
                enis: me.capacity.max_enis,
                slots_per_eni: me.capacity.slots_per_eni,
                addresses: me.capacity.max_pods(addressing),
                max_pods: self.config.max_pods.unwrap_or_else(|| me.capacity.max_pods(addressing)),
            }),
            enis: self.eni_views(now),
            counts: self.ledger.totals(),
            strays: self.ledger.strays().collect(),
            waiting: self
                .waiters
                .iter()
                .map(|waiter| WaitingView { key: waiter.key.clone(), pod: waiter.pod.clone(), since: waiter.since })
                .collect(),
            intents: self.intent_views(),
            in_progress: self
                .running
                .values()
                .filter_map(|running| {
                    Some(ActionView {
                        action: running.op.action().filter(|action| action.is_mutation())?,
                        eni: running.op.eni().cloned(),
                        since: running.since,
                        text: running.op.text(),
                    })
                })
                .collect(),
            shortage: shortage.map(|(shortage, _)| shortage),
            shortage_detail: self.shortage_detail(),
            shortage_ends: shortage.and_then(|(_, eta)| Some(now.plus(eta?))),
            decision: self.plan.decision.clone(),
            target: self.plan.target,
            last_ec2_error: self.last_ec2_error.clone(),
            calls: self.calls.clone(),
            config: Arc::clone(&self.config),
            notices: self.notices.iter().cloned().collect(),
        }
    }

    fn eni_views(&self, now: Timestamp) -> Vec<EniView> {
        let mut views: Vec<EniView> = self
            .enis
            .iter()
            .map(|(id, entry)| EniView {
                id: id.clone(),
                mac: entry.holdings.mac,
                device_index: entry.holdings.device_index,
                subnet: entry.holdings.subnet.clone(),
                subnet_cidr: self.subnets.get(&entry.holdings.subnet).copied(),
                primary_ip: entry.holdings.primary_ip,
                state: match entry.stage {
                    _ if entry.hands_off.is_some() => EniState::Unmanaged,
                    Stage::Detached | Stage::Attaching => EniState::Created,
                    Stage::Attached if entry.attachment.id.is_none() => EniState::Missing,
                    Stage::Detaching | Stage::Deleting => EniState::Releasing,
                    _ if self.is_retiring(entry, now) => EniState::Retiring,
                    Stage::Attached => EniState::Attached,
                    Stage::Ready if self.plan.draining.contains(id) => EniState::Draining,
                    Stage::Ready => EniState::Ready,
                },
                unmanaged_because: entry.hands_off,
                prefixes: entry.holdings.prefixes.iter().copied().collect(),
                addresses: self.ledger.addresses(id),
                counts: self.ledger.counts(id).unwrap_or_default(),
                gives: self.ledger.gives(id),
            })
            .collect();
        views.extend(self.foreign.iter().map(|(id, foreign)| EniView {
            id: id.clone(),
            mac: foreign.holdings.mac,
            device_index: foreign.holdings.device_index,
            subnet: foreign.holdings.subnet.clone(),
            subnet_cidr: self.subnets.get(&foreign.holdings.subnet).copied(),
            primary_ip: foreign.holdings.primary_ip,
            state: EniState::Unmanaged,
            unmanaged_because: Some(foreign.because),
            prefixes: foreign.holdings.prefixes.iter().copied().collect(),
            addresses: Vec::new(),
            counts: Counts::default(),
            gives: false,
        }));
        views.sort_by_key(|view| (view.device_index.is_none(), view.device_index));
        views
    }

    fn intent_views(&self) -> Vec<IntentView> {
        let begun = self.creations.values().map(|creation| IntentView {
            id: creation.intent.id.as_str().to_owned(),
            subnet: creation.intent.request.subnet.clone(),
            eni: None,
            since: creation.intent.at,
        });
        let made = self.enis.iter().filter_map(|(id, entry)| {
            Some(IntentView {
                id: entry.intent.as_ref()?.as_str().to_owned(),
                subnet: entry.holdings.subnet.clone(),
                eni: Some(id.clone()),
                since: entry.since,
            })
        });
        begun.chain(made).collect()
    }

    /// What stands between the node and the addresses that it should have, and when it may be over.
    pub fn shortage(&self, now: Timestamp) -> Option<(Shortage, Option<Duration>)> {
        if let Some((shortage, _)) = self.not_set_up() {
            return Some((shortage, None));
        }
        if !self.is_serving() {
            return Some((Shortage::Starting, None));
        }
        if self.blind {
            return Some((Shortage::Hold(HoldReason::Ec2Unavailable), None));
        }
        let (shortage, eta) = self.hold(now)?;
        // A time that has passed tells nobody anything.
        Some((shortage, eta.filter(|eta| !eta.is_zero())))
    }

    fn hold(&self, now: Timestamp) -> Option<(Shortage, Option<Duration>)> {
        let planned = self.plan.holds.first();
        if let Some(hold) = planned.filter(|hold| !is_under_way(hold.reason)) {
            let resting = usize::try_from(self.ledger.totals().cooling).unwrap_or(usize::MAX);
            let full = matches!(hold.reason, HoldReason::InstanceLimit | HoldReason::MaxPods);
            if full && (1..=resting).contains(&self.waiters.len()) {
                // No more can be had, but those who wait get what rests now.
                return Some((Shortage::Cooling, self.ledger.next_expiry().map(|at| at.since(now))));
            }
            return Some((Shortage::Hold(hold.reason), hold.until.map(|until| until.since(now))));
        }
        if planned.is_none() && self.waiters.is_empty() {
            return None;
        }
        if planned.is_none()
            && let Some(until) = self.blown
        {
            return Some((Shortage::Hold(HoldReason::CallLimit), Some(until.since(now))));
        }
        let attaching = self
            .enis
            .values()
            .filter(|entry| matches!(entry.stage, Stage::Attaching | Stage::Attached))
            .map(|entry| entry.since)
            .chain(self.creations.values().map(|creation| creation.intent.at))
            .min();
        if let Some(since) = attaching {
            let eta = ATTACH_TAKES.saturating_sub(now.since(since));
            return Some((Shortage::Hold(HoldReason::AttachInFlight), Some(eta)));
        }
        if self.running.values().any(|running| matches!(running.op, Op::Assign { .. } | Op::Apply(_))) {
            return Some((Shortage::Hold(HoldReason::AssignInFlight), Some(Duration::from_secs(1))));
        }
        if let Some(hold) = planned {
            return Some((Shortage::Hold(hold.reason), None));
        }
        let eta = self.ledger.next_expiry().map(|at| at.since(now));
        Some((Shortage::Cooling, eta))
    }

    /// What keeps addresses that EC2 has given from the pods, and what was said: by the kernel, which is not set up for
    /// them, or by EC2, which does not tell the range of their subnet.
    fn not_set_up(&self) -> Option<(Shortage, &str)> {
        if let Some(refused) = &self.host.refused
            && (!self.is_serving() || self.enis.iter().any(|(id, entry)| self.awaits_the_host(id, entry)))
        {
            return Some((Shortage::HostNotSetUp, refused));
        }
        let (reason, said) = self.subnet_lookup.refused.as_ref()?;
        let lacking = self.enis.values().any(|entry| entry.hands_off.is_none() && self.lacks_subnet(entry));
        lacking.then_some((Shortage::Hold(*reason), said.as_str()))
    }

    /// Whether the interface holds addresses that no pod can have before the host is set up for them.
    fn awaits_the_host(&self, id: &EniId, entry: &Entry) -> bool {
        let Holdings { addresses, prefixes, .. } = &entry.holdings;
        let mut held = addresses.iter().copied().chain(prefixes.iter().filter_map(|prefix| prefix.addresses().next()));
        match entry.stage {
            _ if entry.hands_off.is_some() => false,
            Stage::Attached => entry.link && !self.lacks_subnet(entry),
            Stage::Ready => held.any(|address| !self.ledger.is_of(address, id)),
            _ => false,
        }
    }

    /// What kernel or EC2 said of the shortage, where that tells more than its reason.
    fn shortage_detail(&self) -> Option<String> {
        self.not_set_up().map(|(_, said)| said.chars().take(DETAIL_MAX).collect())
    }

    /// How far the start is, in words.
    pub fn starting(&self) -> String {
        let said = self.host.refused.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        format!("setting the host up{said}")
    }

    /// Why this ADD still waits, and when it may end.
    pub fn why_waiting(&self, id: WaiterId, now: Timestamp) -> AcquireError {
        let waited = self.waiters.iter().find(|waiter| waiter.id == id).map_or(Duration::ZERO, |w| now.since(w.since));
        let (shortage, eta) = self.shortage(now).unwrap_or((Shortage::Cooling, None));
        AcquireError::TimedOut { waited, shortage, eta, detail: self.shortage_detail() }
    }
}

fn is_under_way(reason: HoldReason) -> bool {
    matches!(reason, HoldReason::AttachInFlight | HoldReason::AssignInFlight)
}
