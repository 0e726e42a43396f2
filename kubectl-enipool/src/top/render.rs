//! The report as text.

use std::fmt::Write as _;

use super::{NodeRow, Report, SubnetRow};
use crate::table::{Table, cell};
use crate::words::{count, one_line, span};

/// The report as tables; `wide` adds the columns that only some ask for.
pub fn text(report: &Report, wide: bool) -> String {
    let mut text = nodes(report, wide).to_string();
    for node in report.nodes.iter().filter(|node| !node.enis.is_empty()) {
        let _ = write!(text, "\nENIs of {}:\n{}", node.node, enis(node));
    }
    for what in &report.not_read {
        let _ = writeln!(text, "\nNot read: {what}");
    }
    if report.subnets.is_empty() && report.not_read.is_empty() {
        text.push_str("\nNo ENIPoolClass reports these nodes' subnets yet: see `kubectl get enipoolclasses`.\n");
    } else if !report.subnets.is_empty() {
        let _ = write!(text, "\n{}", subnets(&report.subnets));
    }
    let totals = &report.totals;
    if totals.unreported > 0 {
        let who = count(counted(totals.unreported), "node has", "nodes have");
        let _ = writeln!(text, "\n{who} not reported yet: is the enipool-agent running there?");
    }
    if totals.waiting > 0 {
        let who = count(totals.waiting, "pod waits", "pods wait");
        let _ = writeln!(text, "\n{who} for an address. Why one of them does: kubectl enipool why POD -n NAMESPACE");
    }
    text
}

fn counted(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn nodes(report: &Report, wide: bool) -> Table {
    let mut headings = vec![
        "NODE", "TYPE", "ENIS", "MAX", "IPS", "ASSIGNED", "COOLING", "FREE", "WAITING", "WARM", "READY", "REASON",
        "AGE",
    ];
    if wide {
        headings.extend(["SUBNET", "CEILING", "DEMAND", "THROTTLES", "INSTANCE"]);
    }
    let mut table = Table::new(headings);
    for node in &report.nodes {
        table.row(node_cells(node, wide));
    }
    let totals = &report.totals;
    let mut cells = vec![format!("TOTAL {}", totals.nodes), String::new()];
    cells.extend(
        [
            totals.attached_enis,
            totals.max_enis,
            totals.addresses,
            totals.assigned,
            totals.cooling,
            totals.free,
            totals.waiting,
        ]
        .map(|sum| sum.to_string()),
    );
    cells.extend([String::new(), format!("{}/{}", totals.ready, totals.nodes), String::new(), String::new()]);
    if wide {
        cells.extend([String::new(), String::new(), totals.demand.to_string(), totals.throttles.to_string()]);
        cells.push(String::new());
    }
    table.row(cells);
    table
}

fn node_cells(node: &NodeRow, wide: bool) -> Vec<String> {
    let word = |text: &Option<String>| text.as_deref().map(one_line).unwrap_or_default();
    let mut cells = vec![
        node.node.clone(),
        word(&node.instance_type),
        cell(node.attached_enis),
        cell(node.max_enis),
        cell(node.addresses),
        cell(node.assigned),
        cell(node.cooling),
        cell(node.free),
        cell(node.waiting),
        word(&node.warm),
        word(&node.ready),
        word(&node.reason),
        cell(node.age_seconds.map(span)),
    ];
    if wide {
        cells.extend([
            word(&node.subnet_id),
            cell(node.ceiling),
            cell(node.demand),
            cell(node.throttles),
            word(&node.instance_id),
        ]);
    }
    cells
}

fn enis(node: &NodeRow) -> Table {
    let mut table = Table::new(["ENI", "DEVICE", "STATE", "IPS", "ASSIGNED", "PREFIXES", "SUBNET", "PRIMARY-IP"]);
    for eni in &node.enis {
        table.row([
            one_line(&eni.id),
            cell(eni.device_number),
            format!("{:?}", eni.state),
            eni.addresses.to_string(),
            eni.assigned.to_string(),
            eni.prefixes.to_string(),
            one_line(&eni.subnet_id),
            one_line(&eni.primary_ip),
        ]);
    }
    table
}

fn subnets(rows: &[SubnetRow]) -> Table {
    let mut table = Table::new([
        "SUBNET",
        "ZONE",
        "CIDR",
        "FREE",
        "IN-FLIGHT",
        "HEADROOM",
        "USABLE",
        "SHARE/NODE",
        "RUNS-OUT",
        "CLASSES",
    ]);
    for row in rows {
        table.row([
            row.id.clone(),
            row.zone.clone(),
            row.cidr.clone(),
            row.free.to_string(),
            row.in_flight.to_string(),
            row.headroom.to_string(),
            row.usable.to_string(),
            row.share_per_node.to_string(),
            row.exhausted_in_seconds.map(runs_out).unwrap_or_default(),
            row.classes.join(","),
        ]);
    }
    table
}

fn runs_out(seconds: i64) -> String {
    if seconds == 0 { "now".into() } else { format!("in {}", span(seconds)) }
}
