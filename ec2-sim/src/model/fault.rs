//! Faults on demand: which calls go wrong, how, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{cloudwatch, request};

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

impl FaultKind {
    /// Whether only EC2 can fail like this.
    fn is_of_ec2(&self) -> bool {
        use FaultKind::{InsufficientAddresses, InsufficientPrefixes, StuckAttach, StuckDetach};
        matches!(self, InsufficientAddresses | InsufficientPrefixes | StuckAttach | StuckDetach)
    }

    /// Fields of a rule's JSON that belong to this kind.
    fn fields(&self) -> &'static [&'static str] {
        match self {
            Self::Slow { .. } => &["kind", "millis"],
            Self::Error { .. } => &["kind", "status", "code", "message"],
            _ => &["kind"],
        }
    }
}

/// A fault and the calls that it befalls. All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "Written")]
pub struct FaultRule {
    #[serde(flatten)]
    pub kind: FaultKind,
    /// AWS's name of the action, EC2's or CloudWatch's; absent: every action of EC2.
    pub action: Option<String>,
    /// An id (instance, interface, subnet, …) or CloudWatch namespace that the request names; absent: any.
    pub resource: Option<String>,
    /// The access key that signed the request; absent: any.
    pub caller: Option<String>,
    /// Matching calls that pass before the first one that fails.
    pub skip: u32,
    /// How many calls fail; absent: all until the rule is removed.
    pub count: Option<u32>,
}

/// A rule as it is written down, before anybody has looked at whether it makes sense.
#[derive(Deserialize)]
struct Written {
    action: Option<String>,
    resource: Option<String>,
    caller: Option<String>,
    #[serde(default)]
    skip: u32,
    count: Option<u32>,
    #[serde(flatten)]
    kind: serde_json::Map<String, serde_json::Value>,
}

/// What is wrong with a rule that somebody wrote.
#[derive(Debug, thiserror::Error)]
enum RuleError {
    #[error("{0}")]
    Kind(#[from] serde_json::Error),
    #[error(
        "a fault of this kind has no field {field:?}: it has {known}, and action, resource, caller, skip and count"
    )]
    Field { field: String, known: String },
    #[error("{0:?} is no action of this simulator; its actions are {known}", known = actions().collect::<Vec<_>>().join(", "))]
    Action(String),
    #[error("{0} does not fail like this: that is for actions of EC2")]
    OfEc2(String),
}

fn actions() -> impl Iterator<Item = &'static str> {
    request::ACTIONS.into_iter().chain(cloudwatch::ACTIONS)
}

/// A misspelt rule would befall nothing, and a test of it would prove nothing.
impl TryFrom<Written> for FaultRule {
    type Error = RuleError;

    fn try_from(written: Written) -> Result<Self, RuleError> {
        let Written { action, resource, caller, skip, count, kind: fields } = written;
        let kind: FaultKind = serde_json::from_value(serde_json::Value::Object(fields.clone()))?;
        if let Some(field) = fields.into_iter().map(|(field, _)| field).find(|f| !kind.fields().contains(&f.as_str())) {
            return Err(RuleError::Field { field, known: kind.fields().join(", ") });
        }
        match action {
            Some(unknown) if !actions().any(|action| action == unknown) => Err(RuleError::Action(unknown)),
            Some(action) if kind.is_of_ec2() && cloudwatch::ACTIONS.contains(&action.as_str()) => {
                Err(RuleError::OfEc2(action))
            }
            action => Ok(Self { kind, action, resource, caller, skip, count }),
        }
    }
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
            let action_matches = match rule.action.as_deref() {
                Some(wanted) => wanted == action,
                None => !cloudwatch::ACTIONS.contains(&action),
            };
            let matches = action_matches
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

    #[test]
    fn a_rule_is_read_back_as_it_was_written() {
        for rule in [
            FaultRule::next(FaultKind::Throttle, "CreateTags", 2),
            FaultRule { action: None, resource: Some("eni-1".into()), ..FaultRule::always(FaultKind::StuckDetach, "") },
            FaultRule {
                skip: 3,
                ..FaultRule::always(
                    FaultKind::Error { status: 400, code: "A".into(), message: "b".into() },
                    "CreateVpc",
                )
            },
        ] {
            let text = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<FaultRule>(&text).unwrap(), rule, "{text}");
        }
    }

    #[test]
    fn a_misspelt_rule_is_refused_and_the_word_is_named() {
        for (text, named) in [
            (r#"{"kind": "throttle", "acton": "CreateTags"}"#, r#"no field "acton""#),
            (r#"{"kind": "throttle", "millis": 5}"#, r#"no field "millis""#),
            (r#"{"kind": "slow", "millis": 5, "status": 400}"#, r#"no field "status": it has kind, millis"#),
            (r#"{"kind": "slow"}"#, "missing field `millis`"),
            (r#"{"kind": "gremlins"}"#, "unknown variant `gremlins`"),
            (r#"{"action": "CreateTags"}"#, "missing field `kind`"),
            (r#"{"kind": "throttle", "action": "CreateTag"}"#, r#""CreateTag" is no action of this simulator"#),
            (r#"{"kind": "throttle", "action": "createtags"}"#, "CreateTags"),
            (r#"{"kind": "throttle", "count": -1}"#, "expected u32"),
            (r#"{"kind": "stuck-attach", "action": "PutMetricData"}"#, "PutMetricData does not fail like this"),
            (r#"{"kind": "throttle", "action": "PutMetricAlarm"}"#, "GetMetricStatistics, ListMetrics, PutMetricData"),
        ] {
            let error = serde_json::from_str::<FaultRule>(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
