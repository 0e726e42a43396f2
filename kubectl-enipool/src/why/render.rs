//! The story as a page and as JSON.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::facts::{Facts, event_time};
use super::verdict::Verdict;
use super::{advice, story};
use crate::table::Table;
use crate::words::{one_line, since};

/// Events on the page, the newest first. A pod that waits repeats a few of them; more only push the advice away.
const EVENTS_SHOWN: usize = 8;

/// The story as a page: the verdict, the facts, the events, and at the end what to do.
pub fn text(facts: &Facts) -> String {
    let verdict = Verdict::judge(facts);
    let mut page = format!("{}\n\n", verdict.summary(facts));
    let lines = story::lines(verdict, facts);
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    for (label, line) in lines {
        let _ = writeln!(page, "{label:width$}   {line}");
    }
    page.push_str(&events(facts));
    page.push_str("\nWhat to do:\n");
    for step in advice::advice(verdict, facts) {
        let _ = writeln!(page, "- {step}");
    }
    page
}

fn events(facts: &Facts) -> String {
    if let Some(why) = facts.events.unread() {
        return format!("\nEvents: not read: {why}\n");
    }
    let events = facts.newest_events();
    if events.is_empty() {
        return "\nEvents: none (Kubernetes forgets them after an hour)\n".into();
    }
    let mut table = Table::new(["AGE", "COUNT", "TYPE", "REASON", "MESSAGE"]).indented(2);
    for event in events.iter().take(EVENTS_SHOWN) {
        table.row([
            event_time(event).map(|at| since(at, facts.now)).unwrap_or_default(),
            occurrences(event).to_string(),
            event.type_.clone().unwrap_or_default(),
            event.reason.as_deref().map(one_line).unwrap_or_default(),
            event.message.as_deref().map(one_line).unwrap_or_default(),
        ]);
    }
    let older = events.len().saturating_sub(EVENTS_SHOWN);
    let older = if older == 0 { String::new() } else { format!("  and {older} older\n") };
    format!("\nEvents:\n{table}{older}")
}

fn occurrences(event: &Event) -> i32 {
    let series = event.series.as_ref().and_then(|series| series.count);
    series.or(event.count).unwrap_or(1)
}

/// The story for programs: the verdict by name, and the objects' own fields where they have the words already.
pub fn json(facts: &Facts) -> Value {
    let verdict = Verdict::judge(facts);
    let status = facts.pod.status.as_ref();
    json!({
        "verdict": verdict.name(),
        "reason": if verdict == Verdict::NoFreeAddress { facts.reason_text() } else { None },
        "summary": verdict.summary(facts),
        "advice": advice::advice(verdict, facts),
        "pod": {
            "namespace": facts.pod.metadata.namespace,
            "name": facts.pod.metadata.name,
            "node": facts.node_name(),
            "phase": facts.phase(),
            "hostNetwork": facts.on_host_network(),
            "address": facts.address(),
            "boundSecondsAgo": facts.waits_since().map(|at| facts.now.as_second() - at.as_second()),
            "conditions": status.and_then(|status| status.conditions.as_ref()),
            "idleContainers": facts.idle_containers(),
        },
        "agent": facts.agent.found().map(|pod| json!({
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "ready": facts.ailing_agent().is_none(),
        })),
        "nodeReady": facts.node_ready().map(|ready| ready.status == "True"),
        "enipool": facts.pool.found().map(|pool| json!({
            "name": pool.metadata.name,
            "generation": pool.metadata.generation,
            "operations": pool.spec.operations,
            "allocation": pool.spec.allocation,
            "status": pool.status,
        })),
        "subnet": facts.subnet(),
        "events": facts.newest_events().into_iter().map(event_json).collect::<Vec<_>>(),
        "notRead": not_read(facts),
    })
}

fn event_json(event: &Event) -> Value {
    json!({
        "time": event_time(event).map(|at| at.to_string()),
        "count": occurrences(event),
        "type": event.type_,
        "reason": event.reason,
        "message": event.message,
    })
}

/// What was asked for and could not be read, and why.
fn not_read(facts: &Facts) -> Vec<String> {
    let all = [
        ("node", facts.node.unread()),
        ("enipool", facts.pool.unread()),
        ("enipoolclass", facts.class.unread()),
        ("agent", facts.agent.unread()),
        ("events", facts.events.unread()),
    ];
    all.into_iter().filter_map(|(what, why)| Some(format!("{what}: {}", why?))).collect()
}
