//! What the pool holds, as metrics: read from the snapshot at each scrape, so that a gauge cannot go stale.
//!
//! The `awscni_*` names are those of the AWS plugin, for the dashboards that exist; where its name counts something, ours
//! counts the same. Its series per address are left out: their number has no bound.

use std::fmt;
use std::sync::Arc;

use enipool_pool::ec2::Action;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use crate::engine::{EniState, PoolSnapshot};

/// The collector. It keeps the newest snapshot at hand and nothing else.
#[derive(Debug)]
pub struct PoolCollector(pub watch::Receiver<Arc<PoolSnapshot>>);

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let snapshot = self.0.borrow().clone();
        gauges(&snapshot, &mut encoder)?;
        counters(&snapshot, &mut encoder)
    }
}

fn gauges(snapshot: &PoolSnapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let attached = snapshot.enis.iter().filter(|eni| eni.device_index.is_some());
    let ours = attached.clone().filter(|eni| eni.state != EniState::Unmanaged);
    let prefixes: usize = ours.clone().map(|eni| eni.prefixes.len()).sum();
    let capacity = snapshot.capacity;
    let counts = snapshot.counts;
    let rows: [(&str, &str, i64); 13] = [
        ("awscni_eni_allocated", "ENIs attached to the instance and managed by the pool", len(ours.clone().count())),
        ("awscni_eni_max", "ENIs that the instance can hold", capacity.map_or(0, |c| i64::from(c.enis))),
        (
            "awscni_ip_max",
            "Addresses for pods that the instance can hold",
            capacity.map_or(0, |c| i64::from(c.addresses)),
        ),
        ("awscni_total_ip_addresses", "Addresses for pods that the node holds", counts.total.into()),
        ("awscni_assigned_ip_addresses", "Addresses in use by pods", counts.assigned.into()),
        ("awscni_total_ipv4_prefixes", "/28 prefixes that the node holds", len(prefixes)),
        ("enipool_addresses_available", "Addresses that a pod gets at once", snapshot.available().into()),
        ("enipool_addresses_cooling", "Addresses that rest after their last pod", counts.cooling.into()),
        (
            "enipool_addresses_stray",
            "Addresses that pods use and that EC2 says are not this node's",
            len(snapshot.strays.len()),
        ),
        ("enipool_adds_waiting", "ADDs that wait for an address", len(snapshot.waiting.len())),
        ("enipool_intents", "ENI creations that are not finished", len(snapshot.intents.len())),
        ("enipool_enis_unmanaged", "ENIs on the instance that the pool leaves alone", len(unmanaged(snapshot))),
        (
            "enipool_serving",
            "1 while the node serves pods",
            i64::from(matches!(snapshot.phase, crate::engine::Phase::Serving)),
        ),
    ];
    for (name, help, value) in rows {
        let gauge = ConstGauge::new(value);
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    let mut family = encoder.encode_descriptor(
        "awscni_assigned_ip_per_eni",
        "Addresses in use by pods, by ENI of the node",
        None,
        MetricType::Gauge,
    )?;
    for eni in ours {
        ConstGauge::new(i64::from(eni.counts.assigned)).encode(family.encode_family(&[("eni", eni.id.as_str())])?)?;
    }
    let mut family = encoder.encode_descriptor(
        "awscni_ipamd_action_inprogress",
        "EC2 mutations of the node under way, by action",
        None,
        MetricType::Gauge,
    )?;
    for action in Action::ALL.into_iter().filter(|action| action.is_mutation()) {
        let running = snapshot.in_progress.iter().filter(|view| view.action == action).count();
        ConstGauge::new(len(running)).encode(family.encode_family(&[("fn", action.name())])?)?;
    }
    let mut family = encoder.encode_descriptor(
        "enipool_waiting_pods",
        "Pods that wait for an address, by what stands between them and it",
        None,
        MetricType::Gauge,
    )?;
    if let Some(shortage) = snapshot.shortage {
        ConstGauge::new(len(snapshot.waiting.len())).encode(family.encode_family(&[("reason", shortage.label())])?)?;
    }
    Ok(())
}

/// Counters under the AWS plugin's names end in `_count`, not in `_total`: OpenMetrics knows such a thing as "unknown".
fn counters(snapshot: &PoolSnapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    for (name, help, pick) in [
        ("awscni_ec2api_req_count", "EC2 calls", (|c| c.calls) as fn(&crate::engine::CallCounts) -> u64),
        ("awscni_ec2api_error_count", "EC2 calls that failed", |c| c.errors),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
        for action in Action::ALL {
            let value = snapshot.calls.get(&action).map_or(0, pick);
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("fn", action.name())])?)?;
        }
    }
    let throttles = ConstCounter::new(snapshot.throttles());
    throttles.encode(encoder.encode_descriptor(
        "enipool_ec2_throttles",
        "EC2 calls refused for their rate",
        None,
        throttles.metric_type(),
    )?)
}

fn unmanaged(snapshot: &PoolSnapshot) -> usize {
    snapshot.enis.iter().filter(|eni| eni.state == EniState::Unmanaged).count()
}

fn len(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::status::fixture::snapshot;

    #[test]
    fn the_aws_plugins_names_say_what_they_said() {
        let (_sender, receiver) = watch::channel(Arc::new(snapshot()));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(PoolCollector(receiver)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "awscni_assigned_ip_addresses 3",
            "awscni_total_ip_addresses 5",
            "awscni_eni_allocated 2",
            "awscni_eni_max 3",
            "awscni_ip_max 27",
            "awscni_assigned_ip_per_eni{eni=\"eni-1\"} 1",
            "awscni_ec2api_req_count{fn=\"CreateNetworkInterface\"} 0",
            "enipool_addresses_available 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
