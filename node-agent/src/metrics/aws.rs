//! Counters under the AWS plugin's names, for the dashboards and alerts that exist. Each counts what its name counted there;
//! names whose matter does not exist here are left out (docs/node.md says which).
//!
//! Those names do not end in `_total`, so for OpenMetrics they are of unknown type; Prometheus rates them all the same. In
//! the older text they have the types that they had ([`older_type`]), which clients go by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enipool_daemon::OlderType;
use enipool_pool::ec2::{Action, Ec2ErrorKind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// What a metric of unknown type was in the text of the AWS plugin.
pub fn older_type(name: &str) -> OlderType {
    match name {
        "awscni_aws_api_latency_ms_sum" | "awscni_aws_api_latency_ms_count" => OlderType::PartOfSummary,
        _ if name.starts_with("awscni_") => OlderType::Counter,
        _ => OlderType::Untyped,
    }
}

/// The reason that the AWS plugin gives for a DEL of the runtime.
const POD_DELETED: &str = "PodDeleted";
/// Kinds of notices that mean what the AWS plugin calls forced removals: EC2 took it away while pods used it.
const FORCED: [(&str, &str, &str); 2] = [
    ("awscni_force_removed_enis", "VanishedENI", "ENIs that vanished from the instance while the pool used them"),
    ("awscni_force_removed_ips", "StrayAddress", "Addresses that EC2 took away while a pod used them"),
];

#[derive(Debug, Default)]
struct Counts {
    adds: u64,
    dels: u64,
    without_address: u64,
    errors: BTreeMap<&'static str, u64>,
    notices: BTreeMap<&'static str, u64>,
    /// Sum of milliseconds and count, by call and whether it failed.
    latencies: BTreeMap<(&'static str, bool), (u64, u64)>,
    call_errors: BTreeMap<(&'static str, &'static str), u64>,
}

/// The counters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct AwsNames(Arc<Mutex<Counts>>);

impl AwsNames {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, found_no_address: bool) {
        let mut counts = self.counts();
        counts.adds += 1;
        counts.without_address += u64::from(found_no_address);
    }

    pub(super) fn del(&self) {
        self.counts().dels += 1;
    }

    /// Something failed. `what` is one of a closed set.
    pub(super) fn error(&self, what: &'static str) {
        *self.counts().errors.entry(what).or_default() += 1;
    }

    /// Journal, kernel and EC2 disagreed. `kind` is one of a closed set.
    pub(super) fn notice(&self, kind: &'static str) {
        *self.counts().notices.entry(kind).or_default() += 1;
    }

    pub(super) fn ec2_call(&self, action: Action, error: Option<&Ec2ErrorKind>, took: Duration) {
        let mut counts = self.counts();
        let (sum, count) = counts.latencies.entry((action.name(), error.is_some())).or_default();
        *sum = sum.saturating_add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        *count += 1;
        if let Some(error) = error {
            *counts.call_errors.entry((action.name(), error.label())).or_default() += 1;
        }
    }
}

/// Sums of what was counted, for the ENIPool's status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub adds: u64,
    pub dels: u64,
    pub adds_without_address: u64,
    /// CNI calls and status writes that failed.
    pub failures: u64,
    pub ec2_calls: u64,
    pub ec2_errors: u64,
    /// Of all EC2 calls together.
    pub ec2_milliseconds: u64,
    pub lost_enis: u64,
    pub lost_ips: u64,
    pub reconciled: u64,
}

impl AwsNames {
    pub(super) fn totals(&self) -> Totals {
        let counts = self.counts();
        let of_kind = |kind: &str| counts.notices.get(kind).copied().unwrap_or_default();
        let [(_, lost_enis, _), (_, lost_ips, _)] = FORCED;
        let calls = |failed_only: bool| {
            let rows = counts.latencies.iter().filter(move |((_, failed), _)| *failed || !failed_only);
            rows.fold((0u64, 0u64), |sum, (_, (milliseconds, count))| {
                (sum.0.saturating_add(*milliseconds), sum.1.saturating_add(*count))
            })
        };
        let (ec2_milliseconds, ec2_calls) = calls(false);
        Totals {
            adds: counts.adds,
            dels: counts.dels,
            adds_without_address: counts.without_address,
            failures: counts.errors.values().fold(0, |sum, n| sum.saturating_add(*n)),
            ec2_calls,
            ec2_errors: calls(true).1,
            ec2_milliseconds,
            lost_enis: of_kind(lost_enis),
            lost_ips: of_kind(lost_ips),
            reconciled: counts.notices.values().fold(0, |sum, n| sum.saturating_add(*n)),
        }
    }
}

impl Collector for AwsNames {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let counts = self.counts();
        let mut write = Writer(&mut encoder);
        write.one("awscni_add_ip_req_count", "CNI ADDs", counts.adds)?;
        write.family("awscni_del_ip_req_count", "CNI DELs", [(&[("reason", POD_DELETED)], counts.dels)])?;
        write.one("awscni_no_available_ip_addresses", "ADDs that got no address", counts.without_address)?;
        for (name, kind, help) in FORCED {
            write.one(name, help, counts.notices.get(kind).copied().unwrap_or_default())?;
        }
        let errors = counts.errors.iter().map(|(what, n)| ([("fn", *what)], *n)).collect::<Vec<_>>();
        let help = "What the agent could not do: CNI calls by verb, WriteStatus";
        write.family("awscni_ipamd_error_count", help, errors.iter().map(|(labels, n)| (labels, *n)))?;
        let notices = counts.notices.iter().map(|(kind, n)| ([("fn", *kind)], *n)).collect::<Vec<_>>();
        let help = "Disagreements of ledger, kernel and EC2 that were found and settled, by kind";
        write.family("awscni_reconcile_count", help, notices.iter().map(|(labels, n)| (labels, *n)))?;
        let pick = |pick: fn(&(u64, u64)) -> u64| {
            let row = move |(&(api, failed), value): (&(&'static str, bool), &(u64, u64))| {
                ([("api", api), ("error", if failed { "true" } else { "false" })], pick(value))
            };
            counts.latencies.iter().map(row).collect::<Vec<_>>()
        };
        for (name, help, rows) in [
            ("awscni_aws_api_latency_ms_sum", "Milliseconds that EC2 calls took", pick(|value| value.0)),
            ("awscni_aws_api_latency_ms_count", "EC2 calls that ended", pick(|value| value.1)),
        ] {
            write.family(name, help, rows.iter().map(|(labels, n)| (labels, *n)))?;
        }
        let rows = counts.call_errors.iter().map(|((api, error), n)| ([("api", *api), ("error", *error)], *n));
        let rows = rows.collect::<Vec<_>>();
        write.family("awscni_aws_api_error_count", "EC2 calls that failed, by error", rows.iter().map(|(l, n)| (l, *n)))
    }
}

struct Writer<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Writer<'_, '_> {
    fn one(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let descriptor = self.0.encode_descriptor(name, help, None, MetricType::Unknown)?;
        gauge(value).encode(descriptor)
    }

    fn family<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (&'l [(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Unknown)?;
        for (labels, value) in rows {
            gauge(value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::scrape;

    #[test]
    fn what_was_counted_has_the_names_and_labels_that_dashboards_know() {
        let names = AwsNames::default();
        names.add(false);
        names.add(true);
        names.del();
        names.error("ADD");
        names.notice("StrayAddress");
        names.ec2_call(Action::AssignPrivateIpAddresses, None, Duration::from_millis(250));
        names.ec2_call(Action::AssignPrivateIpAddresses, Some(&Ec2ErrorKind::SubnetExhausted), Duration::ZERO);
        let totals = names.totals();
        assert_eq!((totals.adds, totals.dels, totals.adds_without_address, totals.failures), (2, 1, 1, 1));
        assert_eq!((totals.ec2_calls, totals.ec2_errors, totals.ec2_milliseconds), (2, 1, 250));
        assert_eq!((totals.lost_enis, totals.lost_ips, totals.reconciled), (0, 1, 1));
        let text = scrape(|registry| registry.register_collector(Box::new(names)));
        for line in [
            "awscni_add_ip_req_count 2",
            "awscni_no_available_ip_addresses 1",
            "awscni_del_ip_req_count{reason=\"PodDeleted\"} 1",
            "awscni_ipamd_error_count{fn=\"ADD\"} 1",
            "awscni_force_removed_ips 1",
            "awscni_force_removed_enis 0",
            "awscni_reconcile_count{fn=\"StrayAddress\"} 1",
            "awscni_aws_api_latency_ms_sum{api=\"AssignPrivateIpAddresses\",error=\"false\"} 250",
            "awscni_aws_api_latency_ms_count{api=\"AssignPrivateIpAddresses\",error=\"true\"} 1",
            "awscni_aws_api_error_count{api=\"AssignPrivateIpAddresses\",error=\"subnet_exhausted\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
