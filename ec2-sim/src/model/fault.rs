//! Faults on demand: which calls go wrong, how, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a call goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum FaultKind {
    /// `RequestLimitExceeded`; nothing happens.
    Throttle,
    /// `UnauthorizedOperation`; nothing happens.
    Denied,
    /// 500 `InternalError`; nothing happens.
    InternalError,
    /// 503 `Unavailable`; nothing happens.
    Unavailable,
    /// EC2 carries the call out and answers 500 `InternalError` all the same.
    AppliedInternalError,
    /// EC2 carries the call out, but the connection ends without an answer.
    AnswerLost,
    /// The request never arrives: nothing happens, and the connection ends without an answer.
    RequestLost,
    /// As in a full subnet, in the words of the action (`InsufficientFreeAddressesInSubnet`; CreateNetworkInterface says
    /// `InvalidParameterValue`), whatever the subnet holds.
    InsufficientAddresses,
    /// `InsufficientCidrBlocks`, whatever the subnet holds.
    InsufficientPrefixes,
    /// The attach stays in `attaching` until this fault is removed.
    StuckAttach,
    /// The detach stays in `detaching` until this fault is removed.
    StuckDetach,
    /// The answer comes this much later.
    Slow { millis: u64 },
    /// Any other error answer.
    Error { status: u16, code: String, message: String },
}

/// A fault and the calls that it befalls. All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FaultRule {
    #[serde(flatten)]
    pub kind: FaultKind,
    /// EC2's name of the action; absent: every action.
    #[serde(default)]
    pub action: Option<String>,
    /// An id (instance, interface, subnet, …) that the request names; absent: any.
    #[serde(default)]
    pub resource: Option<String>,
    /// The access key that signed the request; absent: any.
    #[serde(default)]
    pub caller: Option<String>,
    /// Matching calls that pass before the first one that fails.
    #[serde(default)]
    pub skip: u32,
    /// How many calls fail; absent: all until the rule is removed.
    #[serde(default)]
    pub count: Option<u32>,
}

impl FaultRule {
    /// Befalls the next `count` calls of `action`.
    pub fn next(kind: FaultKind, action: &str, count: u32) -> Self {
        Self { count: Some(count), ..Self::always(kind, action) }
    }

    /// Befalls all calls of `action` until it is removed.
    pub fn always(kind: FaultKind, action: &str) -> Self {
        Self { kind, action: Some(action.to_owned()), resource: None, caller: None, skip: 0, count: None }
    }
}

/// A rule in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveFault {
    pub id: u64,
    #[serde(flatten)]
    pub rule: FaultRule,
    /// Calls that it has befallen.
    pub hits: u32,
}

/// What befalls one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Befallen {
    /// The first of the failing faults, and the rule's id.
    pub failure: Option<(u64, FaultKind)>,
    pub extra_delay: Duration,
}

/// All rules in force, in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    active: Vec<ActiveFault>,
    next_id: u64,
}

impl Faults {
    pub fn add(&mut self, rule: FaultRule) -> u64 {
        self.next_id += 1;
        self.active.push(ActiveFault { id: self.next_id, rule, hits: 0 });
        self.next_id
    }

    /// Whether there was such a rule.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.active.len();
        self.active.retain(|fault| fault.id != id);
        self.active.len() < before
    }

    pub fn clear(&mut self) {
        self.active.clear();
    }

    pub fn list(&self) -> &[ActiveFault] {
        &self.active
    }

    /// Counts a call against the rules. Delays add up; of the failures the oldest rule counts.
    pub fn befall(&mut self, caller: &str, action: &str, resources: &[&str]) -> Befallen {
        let mut befallen = Befallen::default();
        for fault in &mut self.active {
            let rule = &mut fault.rule;
            let matches = rule.action.as_deref().is_none_or(|wanted| wanted == action)
                && rule.caller.as_deref().is_none_or(|wanted| wanted == caller)
                && rule.resource.as_deref().is_none_or(|wanted| resources.contains(&wanted));
            if !matches || rule.count.is_some_and(|count| fault.hits >= count) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            match &rule.kind {
                FaultKind::Slow { millis } => befallen.extra_delay += Duration::from_millis(*millis),
                kind if befallen.failure.is_none() => befallen.failure = Some((fault.id, kind.clone())),
                _ => continue,
            }
            fault.hits += 1;
        }
        befallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(faults: &mut Faults, action: &str) -> bool {
        faults.befall("someone", action, &["eni-1"]).failure.is_some()
    }

    #[test]
    fn a_fault_befalls_so_many_calls_of_its_action_after_those_it_skips() {
        let mut faults = Faults::default();
        faults.add(FaultRule { skip: 1, ..FaultRule::next(FaultKind::Throttle, "CreateTags", 2) });
        assert!(!fails(&mut faults, "DescribeSubnets"));
        let outcomes: Vec<_> = (0..4).map(|_| fails(&mut faults, "CreateTags")).collect();
        assert_eq!(outcomes, [false, true, true, false]);
        assert_eq!(faults.list()[0].hits, 2);
    }

    #[test]
    fn a_fault_can_be_tied_to_a_resource_and_a_caller() {
        let mut faults = Faults::default();
        let rule = FaultRule {
            action: None,
            resource: Some("eni-1".into()),
            caller: Some("node-a".into()),
            ..FaultRule::always(FaultKind::Denied, "")
        };
        let id = faults.add(rule);
        assert!(faults.befall("node-a", "AnyAction", &["i-1", "eni-1"]).failure.is_some());
        assert!(faults.befall("node-b", "AnyAction", &["eni-1"]).failure.is_none());
        assert!(faults.befall("node-a", "AnyAction", &["eni-2"]).failure.is_none());
        assert!(faults.remove(id) && !faults.remove(id));
    }

    #[test]
    fn a_rule_reads_well_as_json() {
        let rule: FaultRule =
            serde_json::from_str(r#"{"kind": "slow", "millis": 1500, "action": "CreateNetworkInterface"}"#).unwrap();
        assert_eq!(rule, FaultRule::always(FaultKind::Slow { millis: 1500 }, "CreateNetworkInterface"));
    }
}
