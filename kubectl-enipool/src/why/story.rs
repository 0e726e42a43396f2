//! The facts in words: one line each, under a label.

use enipool_crds::condition::ConditionType;
use enipool_crds::{ENIPoolStatus, EniState, Operations, Reason};
use k8s_openapi::api::core::v1::PodCondition;

use super::facts::{Answer, Facts, full_name, idle_containers};
use super::verdict::Verdict;
use crate::words::{count, one_line, since};

/// A fact under its label.
pub type Line = (&'static str, String);

/// All that is worth saying, in the order in which a pod meets it.
pub fn lines(verdict: Verdict, facts: &Facts) -> Vec<Line> {
    let mut lines = pod(facts);
    lines.extend(node(facts));
    if verdict.concerns_pool() {
        lines.extend(agent(facts));
        lines.extend(facts.status().map(pool).unwrap_or_default());
        lines.extend(operator(facts));
        lines.extend(subnet(facts));
        lines.extend(facts.status().map(|status| work(facts, status)).unwrap_or_default());
        lines.extend(facts.pool.unread().map(|why| ("ENIPool", format!("not read: {why}"))));
    }
    lines
}

fn pod(facts: &Facts) -> Vec<Line> {
    let address = match facts.address() {
        Some(address) if facts.on_host_network() => format!("{address}, its node's"),
        Some(address) => address.to_owned(),
        None => "no address".into(),
    };
    let bound = facts.waits_since().map(|at| since(at, facts.now));
    let bound = match (bound, facts.node_name()) {
        (Some(ago), Some(_)) => format!(", bound {ago} ago"),
        (Some(ago), None) => format!(", made {ago} ago"),
        (None, _) => String::new(),
    };
    let mut lines = vec![("Pod", format!("{}, {address}{bound}", facts.phase()))];
    let conditions: Vec<String> = facts.pod_conditions().iter().map(condition).collect();
    if !conditions.is_empty() {
        lines.push(("Conditions", conditions.join(", ")));
    }
    let idle = facts.idle_containers();
    if !idle.is_empty() {
        lines.push(("Containers", idle.join(", ")));
    }
    lines
}

fn condition(condition: &PodCondition) -> String {
    match (condition.status.as_str(), condition.reason.as_deref()) {
        ("True", _) => condition.type_.clone(),
        (_, Some(reason)) => format!("not {} ({})", condition.type_, one_line(reason)),
        (_, None) => format!("not {}", condition.type_),
    }
}

fn node(facts: &Facts) -> Option<Line> {
    let name = facts.node_name()?;
    let instance = facts.status().and_then(|status| status.instance.as_ref());
    let instance = instance.map_or_else(String::new, |instance| {
        format!(" ({}, {}, {})", instance.instance_type, instance.zone, instance.id)
    });
    let ready = match facts.node_ready() {
        Some(ready) if ready.status == "True" => ", ready".to_owned(),
        Some(ready) => {
            let why = [ready.reason.as_deref(), ready.message.as_deref()];
            let why: Vec<String> = why.into_iter().flatten().map(one_line).collect();
            format!(", not ready: {}", why.join(": "))
        }
        None if facts.node == Answer::Missing => ", gone".to_owned(),
        None => String::new(),
    };
    Some(("Node", format!("{name}{instance}{ready}")))
}

fn agent(facts: &Facts) -> Option<Line> {
    facts.pool.found()?;
    let text = match facts.condition(ConditionType::Ready) {
        Some(ready) if ready.status == "True" => "serves pods".to_owned(),
        Some(ready) => format!("does not serve pods: {}: {}", ready.reason, one_line(&ready.message)),
        None => "has not reported yet".to_owned(),
    };
    let text = match &facts.agent {
        Answer::Found(pod) if facts.ailing_agent().is_some() => {
            let idle = idle_containers(pod);
            let idle = if idle.is_empty() { String::new() } else { format!(" ({})", idle.join(", ")) };
            format!("pod {} is not ready{idle}; its last report: {text}", full_name(pod))
        }
        Answer::Found(pod) => format!("{text} (pod {})", full_name(pod)),
        Answer::Missing => format!("its pod is gone from the node; its last report: {text}"),
        Answer::UnknownKind | Answer::Unread(_) | Answer::NotAsked => text,
    };
    Some(("Agent", text))
}

fn pool(status: &ENIPoolStatus) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(addresses) = status.addresses {
        let of = status.capacity.map_or_else(String::new, |capacity| format!(" of {}", capacity.enis));
        lines.push((
            "Addresses",
            format!(
                "{} on {}{of} ENIs: {} in use, {} cooling, {} free{}",
                addresses.total,
                status.attached_enis,
                addresses.assigned,
                addresses.cooling,
                addresses.available,
                if status.warm.is_empty() {
                    String::new()
                } else {
                    format!(" (warm target {})", one_line(&status.warm))
                }
            ),
        ));
    }
    let retiring = status.enis.iter().filter(|eni| eni.state == EniState::Retiring).count();
    if retiring > 0 {
        let retiring = i64::try_from(retiring).unwrap_or(i64::MAX);
        lines.push(("Retiring", count(retiring, "ENI takes no new pods", "ENIs take no new pods")));
    }
    let waiting = count(status.waiting, "pod of this node waits", "pods of this node wait");
    lines.push(("Waiting", format!("{waiting} for an address at this moment")));
    lines
}

fn operator(facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    let Some(pool) = facts.pool.found() else { return lines };
    if let Some(reason) = facts.reason_text().filter(|reason| *reason != Reason::AsPlanned.as_str()) {
        let known = facts.condition(ConditionType::AddressesAvailable);
        let message =
            known.filter(|condition| condition.reason == reason).map(|condition| one_line(&condition.message));
        let message = message.filter(|message| !message.is_empty());
        let meaning = message.or_else(|| facts.reason().map(|reason| super::advice::meaning(reason).to_owned()));
        lines.push(("Reason", meaning.map_or_else(|| reason.to_owned(), |meaning| format!("{reason}: {meaning}"))));
    }
    if let Some(present) = facts.condition(ConditionType::OperatorPresent).filter(|present| present.status != "True") {
        lines.push(("Operator", format!("away: {}", one_line(&present.message))));
    }
    match &pool.spec.allocation {
        Some(allocation) => {
            lines.push((
                "Allowed",
                format!(
                    "{} on {}, at most {}; {} without one; class {}",
                    count(allocation.addresses, "address", "addresses"),
                    count(allocation.enis, "ENI", "ENIs"),
                    allocation.ceiling,
                    count(allocation.demand, "pod", "pods"),
                    allocation.class
                ),
            ));
            lines.push(("Decision", one_line(&allocation.decision)));
        }
        None => lines.push(("Allowed", "the operator has not planned for this node yet".into())),
    }
    match pool.spec.operations {
        None | Some(Operations::Normal) => {}
        Some(Operations::NoRelease) => lines.push(("Operations", "NoRelease: the pool gives nothing back".into())),
        Some(Operations::NoCloud) => lines.push(("Operations", "NoCloud: the pool changes nothing in EC2".into())),
    }
    let acted = pool.status.as_ref().and_then(|status| status.observed_generation);
    if let (Some(acted), Some(latest)) = (acted, pool.metadata.generation)
        && acted < latest
    {
        lines.push(("Spec", format!("the agent acts on generation {acted}, the newest is {latest}")));
    }
    lines
}

fn subnet(facts: &Facts) -> Option<Line> {
    let Some(subnet) = facts.subnet() else { return Some(("Subnet", one_line(facts.subnet_id()?))) };
    let runs_out = match &subnet.exhausted_at {
        Some(at) if at.0 <= facts.now => ", runs out now".to_owned(),
        Some(at) => format!(", runs out in {} at this pace", since(facts.now, at.0)),
        None => String::new(),
    };
    Some((
        "Subnet",
        format!(
            "{} ({}, {}): {} free, {} of them headroom, {} in flight{runs_out}",
            subnet.id, subnet.zone, subnet.cidr, subnet.available, subnet.headroom, subnet.in_flight
        ),
    ))
}

/// What the agent does at EC2 and how that goes.
fn work(facts: &Facts, status: &ENIPoolStatus) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(action) = &status.action_in_progress {
        lines.push(("Under way", one_line(action)));
    }
    for intent in &status.intents {
        let eni = intent.eni_id.as_deref().unwrap_or("a new ENI");
        let ago = since(intent.since.0, facts.now);
        lines.push(("Being made", format!("{}: {} for {ago}", one_line(eni), one_line(&intent.step))));
    }
    if let Some(error) = &status.last_ec2_error {
        let ago = since(error.time.0, facts.now);
        let message = one_line(&error.message);
        lines.push(("Last failure", format!("{} {ago} ago, {}: {message}", error.action, error.kind)));
    }
    if status.throttles > 0 {
        let now = facts.condition(ConditionType::Throttled).is_some_and(|throttled| throttled.status == "True");
        let calls = count(status.throttles, "EC2 call", "EC2 calls");
        let still = if now { "; still so" } else { "; not at this moment" };
        lines.push(("Throttled", format!("{calls} refused for their rate since the agent started{still}")));
    }
    lines
}
