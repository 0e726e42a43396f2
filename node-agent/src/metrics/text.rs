//! What `/metrics` says to a client that was written for the AWS plugin's: format 0.0.4, its names and its types.

use std::time::Duration;

use enipool_cni::Verb;
use enipool_daemon::AdminServer;
use enipool_pool::ec2::{Action, Ec2ErrorKind};

use super::{AddPhase, Metrics};
use crate::cni::{Finished, Observer, Phases};
use crate::introspection::fixture::{ask, server};
use crate::status::fixture::snapshot;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Everything that can be counted has been counted once.
fn busy() -> AdminServer {
    server(snapshot(), |metrics: &Metrics| {
        let ms = Duration::from_millis(1);
        for (verb, outcome) in [(Verb::Add, "success"), (Verb::Del, "success"), (Verb::Add, "kernel")] {
            metrics.finished(&Finished { verb, outcome, total: ms, phases: Phases::default() });
        }
        metrics.started(ms);
        metrics.add_phase(AddPhase::Netlink, ms);
        metrics.ec2_call(Action::AssignPrivateIpAddresses, None, ms);
        metrics.ec2_call(Action::CreateNetworkInterface, Some(&Ec2ErrorKind::SubnetExhausted), ms);
        metrics.drift_repaired("rule");
        metrics.status_write(false);
        metrics.0.aws.notice("StrayAddress");
    })
}

fn scrape(accept: &str) -> String {
    let answer = ask(&busy(), "10.0.0.7:40000", "/metrics", accept);
    assert_eq!(answer.status, 200);
    let expected = if accept == OPENMETRICS { "application/openmetrics-text" } else { "text/plain; version=0.0.4" };
    assert!(answer.content_type.starts_with(expected), "{}", answer.content_type);
    answer.body
}

/// A sample of format 0.0.4: `name{label="value",…} number`, each name and escape as its grammar says.
fn is_sample(line: &str) -> bool {
    let is_name = |name: &str, more: &[char]| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(&c);
        name.chars().all(fits) && name.starts_with(|c: char| !c.is_ascii_digit() && fits(c))
    };
    let Some((series, value)) = line.rsplit_once(' ') else { return false };
    let (name, mut labels) = match series.split_once('{') {
        Some((name, labels)) => match labels.strip_suffix('}') {
            Some(labels) => (name, labels),
            None => return false,
        },
        None => (series, ""),
    };
    while !labels.is_empty() {
        let Some((label, rest)) = labels.split_once("=\"") else { return false };
        // Our values are words: none needs an escape.
        let Some((value, rest)) = rest.split_once('"') else { return false };
        if !is_name(label, &[]) || value.contains(['\\', '\n']) {
            return false;
        }
        labels = match rest.strip_prefix(',') {
            Some(more) => more,
            None if rest.is_empty() => rest,
            None => return false,
        };
    }
    is_name(name, &[':']) && (value == "+Inf" || value.parse::<f64>().is_ok())
}

/// The samples that belong to a family of this type.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "histogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["_sum", "_count", ""],
        _ => &[""],
    }
}

#[test]
fn every_line_is_of_format_0_0_4_and_stands_below_its_family_s_type() {
    let text = scrape("");
    let mut seen = std::collections::BTreeSet::new();
    let mut family = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&family.1), "{line}");
            assert!(seen.insert(family.0), "a second time: {line}");
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.contains(' '), "{line}");
        } else {
            assert!(is_sample(line), "{line}");
            let name = line.split(['{', ' ']).next().unwrap();
            let belongs = suffixes(family.1).iter().any(|suffix| name.strip_suffix(suffix) == Some(family.0));
            assert!(belongs, "{line} does not belong to {family:?}");
        }
    }
    assert!(seen.len() > 30, "{text}");
}

#[test]
fn the_aws_plugin_s_names_are_in_both_texts_with_the_types_that_they_had() {
    let (old, new) = (scrape(""), scrape(OPENMETRICS));
    assert!(new.ends_with("# EOF\n") && !old.contains("# EOF"));
    for (name, kind) in [
        ("awscni_assigned_ip_addresses", "gauge"),
        ("awscni_total_ip_addresses", "gauge"),
        ("awscni_total_ipv4_prefixes", "gauge"),
        ("awscni_eni_allocated", "gauge"),
        ("awscni_eni_max", "gauge"),
        ("awscni_ip_max", "gauge"),
        ("awscni_assigned_ip_per_eni", "gauge"),
        ("awscni_ipamd_action_inprogress", "gauge"),
        ("awscni_build_info", "gauge"),
        ("awscni_ipamd_error_count", "counter"),
        ("awscni_no_available_ip_addresses", "counter"),
        ("awscni_force_removed_enis", "counter"),
        ("awscni_force_removed_ips", "counter"),
        ("awscni_reconcile_count", "counter"),
        ("awscni_add_ip_req_count", "counter"),
        ("awscni_del_ip_req_count", "counter"),
        ("awscni_aws_api_error_count", "counter"),
        ("awscni_ec2api_req_count", "counter"),
        ("awscni_ec2api_error_count", "counter"),
        ("awscni_aws_api_latency_ms", "summary"),
        ("awscni_ipamd_startup_duration_seconds", "histogram"),
    ] {
        assert!(old.contains(&format!("\n# TYPE {name} {kind}\n")), "{name} is no {kind} in\n{old}");
        let sample = format!("\n{name}{}", if matches!(kind, "summary" | "histogram") { "_count" } else { "" });
        for text in [&old, &new] {
            let starts = |end: &str| text.contains(&format!("{sample}{end}"));
            assert!(starts(" ") || starts("{"), "no series {sample} in\n{text}");
        }
    }
}
