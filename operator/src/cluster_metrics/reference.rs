//! `docs/metrics.md` against the code: the tables of that page are made from the cluster's table and from what the
//! operator's registry says. `ENIPOOL_WRITE_DOCS=1` writes them (`make generate`); without it a difference is a failure.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use enipool_pool::ec2::Action;
use prometheus_client::registry::Registry;

use super::table::{Kind, METRICS, Metric, Origin};
use crate::metrics::Metrics;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

fn kind(metric: &Metric) -> &'static str {
    match metric.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    }
}

/// The rows of the cluster's metrics whose names come from there.
fn cluster_rows(origin: Origin) -> String {
    let mut rows =
        String::from("| CloudWatch | Prometheus | kind | unit | by | meaning |\n|---|---|---|---|---|---|\n");
    for metric in METRICS.iter().filter(|metric| metric.origin == origin) {
        let by =
            metric.label().map_or_else(String::new, |label| format!("`{}`, `{}`", label.dimension(), label.name()));
        let (name, series, unit) = (metric.name, metric.prometheus_series(), metric.unit.name());
        writeln!(rows, "| `{name}` | `{series}` | {} | {unit} | {by} | {} |", kind(metric), metric.help).unwrap();
    }
    rows
}

/// The rows of the operator's own metrics, from the text that Prometheus reads.
fn process_rows() -> String {
    let mut registry = Registry::default();
    count_once(&Metrics::register(&mut registry));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &Arc::new(registry)).unwrap();
    let mut rows = String::from("| Prometheus | kind | by | meaning |\n|---|---|---|---|\n");
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        let series = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        writeln!(rows, "| `{series}` | {kind} | {} | {} |", labels(&text, &series), help.trim_end_matches('.'))
            .unwrap();
    }
    rows
}

/// A family without a series is not in the text: one of each.
fn count_once(metrics: &Metrics) {
    metrics.watch_failed("nodes");
    metrics.object_invalid("nodes");
    metrics.wrote("enipools", &Ok(()));
    metrics.called(Action::DescribeSubnets, &Ok(()));
    metrics.deleted("leaked");
}

/// The labels of a series, as its first line has them.
fn labels(text: &str, series: &str) -> String {
    let first = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix('{'));
    let pairs = first.and_then(|line| line.split_once('}')).map_or("", |(pairs, _)| pairs);
    let names = pairs.split(',').filter_map(|pair| pair.split_once('='));
    names.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// `page` with `rows` between the marks of that name.
fn with_section(page: &str, name: &str, rows: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no mark {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no mark {end}"));
    format!("{before}{begin}{rows}{end}{after}")
}

#[test]
fn the_page_of_metrics_says_what_the_code_says() {
    let page = std::fs::read_to_string(Path::new(PAGE)).unwrap();
    let mut expected = page.clone();
    for (name, rows) in [
        ("metrics helper", cluster_rows(Origin::MetricsHelper)),
        ("enipool", cluster_rows(Origin::Enipool)),
        ("operator", process_rows()),
    ] {
        expected = with_section(&expected, name, &rows);
    }
    if std::env::var_os("ENIPOOL_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &expected).unwrap();
    } else {
        assert!(page == expected, "docs/metrics.md is out of date: run `make generate`");
    }
}
