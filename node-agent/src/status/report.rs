//! The engine's snapshot as the status of an ENIPool. Counts only: the largest instance fits into 16 KiB.

use std::collections::BTreeSet;

use enipool_crds::TargetFields;
use enipool_crds::condition::{self, ConditionType, Reason};
use enipool_crds::enipool::{
    AddressCounts, Capacity, Counters, ENIPoolStatus, EniState as ReportedState, EniStatus, InstanceStatus,
    IntentStatus, LastEc2Error,
};
use enipool_pool::Timestamp;
use enipool_pool::targets::Operations;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::engine::Shortage;
use crate::engine::{EniState, EniView, IntentView, Phase, PoolSnapshot};
use crate::metrics::Totals;

/// What the snapshot does not know of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Generation of the ENIPool whose spec is in force.
    pub generation: Option<i64>,
    /// The agent plans for itself, because nobody answers its demand.
    pub operator_away: bool,
    /// The question to the operator that stands.
    pub asked_at: Option<Timestamp>,
    /// The ENIPool names a class that does not exist, or none matches.
    pub class_missing: bool,
}

/// Throttling is reported for this long after the last refusal: long enough to be seen, short enough to be true.
const THROTTLED_FOR: std::time::Duration = std::time::Duration::from_secs(60);

/// The status to write. `previous` keeps the transition times of conditions that did not turn.
pub fn status(snapshot: &PoolSnapshot, surroundings: Surroundings, previous: &ENIPoolStatus) -> ENIPoolStatus {
    let attached = snapshot.enis.iter().filter(|eni| eni.device_index.is_some() && eni.state != EniState::Unmanaged);
    let mut status = ENIPoolStatus {
        instance: snapshot.instance.as_ref().map(|instance| InstanceStatus {
            id: instance.id.to_string(),
            instance_type: instance.instance_type.to_string(),
            zone: instance.zone.to_string(),
            subnet_id: snapshot.enis.iter().find(|eni| eni.device_index == Some(0)).map(|eni| eni.subnet.to_string()),
            ..InstanceStatus::default()
        }),
        capacity: snapshot.capacity.map(|capacity| Capacity {
            enis: number(capacity.enis),
            addresses_per_eni: number(capacity.slots_per_eni),
            addresses: number(capacity.addresses),
        }),
        attached_enis: length(attached.count()),
        foreign_enis: length(snapshot.enis.iter().filter(|eni| eni.state == EniState::Unmanaged).count()),
        addresses: Some(AddressCounts {
            total: number(snapshot.counts.total),
            assigned: number(snapshot.counts.assigned),
            cooling: number(snapshot.counts.cooling),
            available: number(snapshot.available()),
        }),
        warm: TargetFields::from_targets(&snapshot.config.policy.targets, snapshot.config.policy.addressing).summary(),
        waiting: length(snapshot.waiting.len()),
        enis: snapshot.enis.iter().filter(|eni| eni.state != EniState::Unmanaged).map(eni).collect(),
        intents: snapshot.intents.iter().map(intent).collect(),
        action_in_progress: snapshot.in_progress.first().map(|action| action.text.clone()),
        errors: i64::try_from(snapshot.errors()).unwrap_or(i64::MAX),
        throttles: i64::try_from(snapshot.throttles()).unwrap_or(i64::MAX),
        counters: None,
        last_ec2_error: snapshot.last_ec2_error.as_ref().map(|error| LastEc2Error {
            action: error.action.name().into(),
            kind: error.kind.label().into(),
            message: error.message.clone().unwrap_or_default().chars().take(1024).collect(),
            time: time(error.at),
        }),
        observed_generation: surroundings.generation,
        asked_at: surroundings.asked_at.map(time),
        conditions: previous.conditions.clone(),
        reason: String::new(),
    };
    status.reason = conditions(snapshot, surroundings, &mut status).as_str().into();
    status
}

/// Sets the conditions and returns the most pressing reason of all.
fn conditions(snapshot: &PoolSnapshot, surroundings: Surroundings, status: &mut ENIPoolStatus) -> Reason {
    let mut pressing = Vec::new();
    let now = time(snapshot.at).0;
    let mut set = |kind, holds: bool, reason: Reason, message: String| {
        condition::set(&mut status.conditions, kind, Some(holds), reason, message, surroundings.generation, now);
    };

    match &snapshot.phase {
        Phase::Serving => set(ConditionType::Ready, true, Reason::AsPlanned, "The node serves pods.".into()),
        Phase::Starting(waiting_for) => {
            pressing.push(Reason::Starting);
            set(ConditionType::Ready, false, Reason::Starting, format!("The agent starts: {waiting_for}."));
        }
        Phase::Stopping => {
            pressing.push(Reason::Starting);
            set(ConditionType::Ready, false, Reason::Starting, "The agent stops; its successor takes over.".into());
        }
    }

    let available = snapshot.available();
    match snapshot.shortage {
        Some(shortage) => {
            let reason = reason(shortage);
            // A shortage of warm addresses only is no news for a pod: it gets one at once.
            let served = available > 0 && snapshot.waiting.is_empty();
            pressing.push(reason);
            set(
                ConditionType::AddressesAvailable,
                served,
                reason,
                format!(
                    "{available} free, {} waiting: {}{}; {}.",
                    snapshot.waiting.len(),
                    shortage.explanation(),
                    detail(snapshot),
                    shortage.advice()
                ),
            );
        }
        None => set(
            ConditionType::AddressesAvailable,
            available > 0,
            Reason::AsPlanned,
            format!("{available} free. {}", snapshot.decision),
        ),
    }

    let throttled = snapshot.last_ec2_error.as_ref().is_some_and(|error| {
        error.kind == enipool_pool::ec2::Ec2ErrorKind::Throttled && snapshot.at.since(error.at) < THROTTLED_FOR
    });
    if throttled {
        pressing.push(Reason::Throttled);
        set(
            ConditionType::Throttled,
            true,
            Reason::Throttled,
            "EC2 refuses calls of this account for their rate (RequestLimitExceeded); the agent slows down.".into(),
        );
    } else {
        set(ConditionType::Throttled, false, Reason::AsPlanned, "EC2 takes this node's calls.".into());
    }

    if surroundings.class_missing {
        pressing.push(Reason::ClassNotFound);
        set(
            ConditionType::OperatorPresent,
            true,
            Reason::ClassNotFound,
            "No ENIPoolClass matches this node; the agent's own defaults apply. Create the class `default`.".into(),
        );
    } else if surroundings.operator_away {
        pressing.push(Reason::OperatorAway);
        set(
            ConditionType::OperatorPresent,
            false,
            Reason::OperatorAway,
            "Nobody answers this node's demand; the agent plans for itself, at a cautious pace.".into(),
        );
    } else {
        set(ConditionType::OperatorPresent, true, Reason::AsPlanned, "The operator plans for this node.".into());
    }
    if snapshot.config.policy.operations == Operations::NoCloud {
        pressing.push(Reason::Paused);
    }
    // In the order in which they were found: what keeps the node from serving, then what keeps pods waiting, then the rest.
    pressing.into_iter().next().unwrap_or(Reason::AsPlanned)
}

/// What kernel or EC2 said, as a part of a sentence.
fn detail(snapshot: &PoolSnapshot) -> String {
    snapshot.shortage_detail.as_ref().map(|said| format!(" ({said})")).unwrap_or_default()
}

fn reason(shortage: Shortage) -> Reason {
    match shortage {
        Shortage::Starting => Reason::Starting,
        Shortage::Cooling => Reason::Cooling,
        Shortage::HostNotSetUp => Reason::DataplaneFailed,
        Shortage::Hold(reason) => reason.into(),
    }
}

fn eni(eni: &EniView) -> EniStatus {
    let held = || eni.addresses.iter().filter(|address| address.state.is_held());
    let prefixes_in_use: BTreeSet<_> = held().filter_map(|address| address.prefix).collect();
    EniStatus {
        id: eni.id.to_string(),
        mac: eni.mac.to_string(),
        device_number: eni.device_index.map(number),
        subnet_id: eni.subnet.to_string(),
        primary_ip: eni.primary_ip.to_string(),
        addresses: number(eni.counts.total),
        prefixes: length(eni.prefixes.len()),
        prefixes_in_use: length(prefixes_in_use.len()),
        assigned: number(eni.counts.assigned),
        singles_in_use: length(held().filter(|address| address.prefix.is_none()).count()),
        state: match eni.state {
            EniState::Created => ReportedState::Created,
            EniState::Attached => ReportedState::Attached,
            EniState::Ready => ReportedState::Ready,
            EniState::Draining => ReportedState::Draining,
            // Neither gets a pod again: the operator does not count on them.
            EniState::Retiring | EniState::Releasing => ReportedState::Retiring,
            EniState::Unmanaged | EniState::Missing => ReportedState::Unknown,
        },
    }
}

fn intent(intent: &IntentView) -> IntentStatus {
    IntentStatus {
        id: intent.id.clone(),
        eni_id: intent.eni.as_ref().map(ToString::to_string),
        step: if intent.eni.is_some() { "Attach" } else { "Create" }.into(),
        since: time(intent.since),
    }
}

fn time(at: Timestamp) -> Time {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    Time(k8s_openapi::jiff::Timestamp::from_millisecond(millis).unwrap_or(k8s_openapi::jiff::Timestamp::MAX))
}

fn number(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn length(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The agent's totals as the status has them. `since`: when the agent began to count.
pub fn counters(totals: &Totals, since: Timestamp) -> Counters {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX).min(COUNTER_MAX);
    Counters {
        since: time(since),
        adds: number(totals.adds),
        dels: number(totals.dels),
        adds_without_address: number(totals.adds_without_address),
        failures: number(totals.failures),
        ec2_calls: number(totals.ec2_calls),
        ec2_errors: number(totals.ec2_errors),
        ec2_milliseconds: number(totals.ec2_milliseconds),
        lost_enis: number(totals.lost_enis),
        lost_ips: number(totals.lost_ips),
        reconciled: number(totals.reconciled),
    }
}

/// The largest counter that the schema allows: 2^53 - 1, which every JSON reader holds exactly.
const COUNTER_MAX: i64 = 9_007_199_254_740_991;

/// How soon a status has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing changed.
    None,
    /// Only counters changed: they inform, and nobody waits for them.
    Inform,
    /// What the node holds changed.
    Changed,
    /// A condition turned, its reason did, or a new spec was taken up.
    Turned,
}

/// How soon `after` has to be written over `before`.
pub fn urgency(before: &ENIPoolStatus, after: &ENIPoolStatus) -> Urgency {
    if is_urgent(before, after) {
        return Urgency::Turned;
    }
    let without_counters = |status: &ENIPoolStatus| ENIPoolStatus { counters: None, ..status.clone() };
    match (before == after, without_counters(before) == without_counters(after)) {
        (true, _) => Urgency::None,
        (false, true) => Urgency::Inform,
        (false, false) => Urgency::Changed,
    }
}

/// Whether going from `before` to `after` is worth a write at once: a condition turned, or its reason did.
fn is_urgent(before: &ENIPoolStatus, after: &ENIPoolStatus) -> bool {
    let essence = |status: &ENIPoolStatus| {
        status
            .conditions
            .iter()
            .map(|condition| (condition.type_.clone(), condition.status.clone(), condition.reason.clone()))
            .collect::<Vec<_>>()
    };
    essence(before) != essence(after) || before.observed_generation != after.observed_generation
}

#[cfg(test)]
mod tests {
    use enipool_pool::Prefix;
    use enipool_pool::node::HoldReason;

    use super::*;
    use crate::engine::WaitingView;
    use crate::status::fixture::{NOW, snapshot};

    fn report(snapshot: &PoolSnapshot) -> ENIPoolStatus {
        status(snapshot, Surroundings::default(), &ENIPoolStatus::default())
    }

    fn condition(status: &ENIPoolStatus, kind: ConditionType) -> (String, String) {
        let condition = condition::find(&status.conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    #[test]
    fn a_node_that_serves_is_ready_and_as_planned() {
        let status = report(&snapshot());
        assert_eq!(condition(&status, ConditionType::Ready), ("True".into(), "AsPlanned".into()));
        assert_eq!(status.reason, "AsPlanned");
        assert_eq!((status.attached_enis, status.addresses.unwrap().available), (2, 2));
    }

    #[test]
    fn the_operator_learns_which_slots_pods_hold() {
        let mut snapshot = snapshot();
        let block: Prefix = "10.0.1.0/28".parse().unwrap();
        snapshot.enis[1].prefixes = vec![block];
        for address in &mut snapshot.enis[1].addresses {
            address.prefix = Some(block);
        }
        let enis = report(&snapshot).enis;
        assert_eq!((enis[0].singles_in_use, enis[0].prefixes_in_use), (2, 0));
        assert_eq!((enis[1].singles_in_use, enis[1].prefixes_in_use), (0, 1));
    }

    #[test]
    fn waiting_pods_have_their_reason_and_an_advice_on_the_pool() {
        let mut snapshot = snapshot();
        let pod = enipool_pool::ledger::PodRef { namespace: "default".into(), name: "web-3".into(), uid: "".into() };
        let key = enipool_pool::ledger::AttachmentKey::new("enipool", "c", "eth0");
        snapshot.waiting.push(WaitingView { key, pod, since: NOW });
        snapshot.shortage = Some(Shortage::Hold(HoldReason::SubnetExhausted));
        let status = report(&snapshot);
        assert_eq!(condition(&status, ConditionType::AddressesAvailable), ("False".into(), "SubnetExhausted".into()));
        assert_eq!((status.reason.as_str(), status.waiting), ("SubnetExhausted", 1));
        let message = &condition::find(&status.conditions, ConditionType::AddressesAvailable).unwrap().message;
        assert!(message.contains("no free address") && message.contains("add a subnet"), "{message}");
    }

    #[test]
    fn a_condition_that_does_not_turn_keeps_its_time() {
        let first = report(&snapshot());
        let mut later = snapshot();
        later.at = enipool_pool::Timestamp(NOW.0 + 60_000);
        assert_eq!(status(&later, Surroundings::default(), &first).conditions, first.conditions);
    }

    #[test]
    fn the_question_to_the_operator_stands_in_the_status() {
        let asked = Surroundings { asked_at: Some(NOW), ..Surroundings::default() };
        assert_eq!(status(&snapshot(), asked, &ENIPoolStatus::default()).asked_at, Some(time(NOW)));
        assert_eq!(report(&snapshot()).asked_at, None);
    }

    #[test]
    fn only_a_turned_condition_is_urgent() {
        let before = report(&snapshot());
        let mut snapshot = snapshot();
        snapshot.counts.assigned = 4;
        assert!(!is_urgent(&before, &report(&snapshot)));
        snapshot.phase = Phase::Stopping;
        assert!(is_urgent(&before, &report(&snapshot)));
    }

    #[test]
    fn counters_alone_are_worth_a_late_write_only() {
        let before = report(&snapshot());
        let counted = |adds| Some(counters(&Totals { adds, ..Totals::default() }, NOW));
        let after = ENIPoolStatus { counters: counted(1), ..before.clone() };
        assert_eq!(urgency(&before, &before), Urgency::None);
        assert_eq!(urgency(&before, &after), Urgency::Inform);
        let more = ENIPoolStatus { waiting: 1, ..after.clone() };
        assert_eq!(urgency(&before, &more), Urgency::Changed);
        assert_eq!(counted(u64::MAX).unwrap().adds, COUNTER_MAX, "within the schema's bound");
    }

    /// The largest holding of today: 15 ENIs with 49 prefixes each.
    #[test]
    fn the_status_of_the_largest_instance_stays_below_16_kib() {
        let mut snapshot = snapshot();
        let eni = snapshot.enis[1].clone();
        snapshot.enis = (0..15u32)
            .map(|index| EniView {
                id: format!("eni-0123456789abcde{index:02}").parse().unwrap(),
                device_index: Some(index),
                subnet: "subnet-0123456789abcdef0".parse().unwrap(),
                ..eni.clone()
            })
            .collect();
        let size = serde_json::to_vec(&report(&snapshot)).unwrap().len();
        assert!(size < 16 * 1024, "{size} bytes");
    }
}
