//! The table's values at one moment, and their three texts: Prometheus, log lines, CloudWatch. Pure.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use enipool_pool::Timestamp;
use enipool_pool::cloudwatch::Datum;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::figures::Figures;
use super::table::{Kind, METRICS, Metric, Origin, Read, number};

/// The dimension by which the metrics helper tells clusters apart.
const CLUSTER_ID: &str = "CLUSTER_ID";
/// Longest value of a dimension that CloudWatch takes.
const DIMENSION_MAX: usize = 1024;

/// One value.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    /// Value of the metric's label.
    label: Option<String>,
    value: f64,
}

/// The values of one metric. What is no finite number is left out.
fn points(metric: &Metric, figures: &Figures) -> Vec<Point> {
    let points = match metric.read {
        Read::One(read) => vec![Point { label: None, value: number(read(figures)) }],
        Read::Known(read) => read(figures).map(|value| Point { label: None, value }).into_iter().collect(),
        Read::By(_, read) => {
            let by = read(figures).into_iter();
            by.map(|(label, value)| Point { label: Some(label), value }).collect::<Vec<_>>()
        }
    };
    points.into_iter().filter(|point| point.value.is_finite()).collect()
}

/// What was counted from `before` to `now` for a counter, the value itself for a gauge.
fn in_period(metric: &Metric, value: f64, before: &Figures) -> f64 {
    match (metric.kind, metric.read) {
        (Kind::Counter, Read::One(read)) => (value - number(read(before))).max(0.0),
        _ => value,
    }
}

/// The metrics helper's log lines, word for word: people search for them. Of the metrics that have one value.
pub(super) fn log_lines(now: &Figures, before: &Figures) -> Vec<String> {
    let mut lines = Vec::with_capacity(METRICS.len());
    for metric in METRICS.iter().filter(|metric| metric.label().is_none()) {
        for point in points(metric, now) {
            let kind = match metric.kind {
                Kind::Gauge => "GAUGE",
                Kind::Counter => "COUNTER",
            };
            let value = in_period(metric, point.value, before);
            lines.push(format!("Produce {kind} metrics: {}, value: {value:.6}", metric.name));
        }
    }
    lines
}

/// What CloudWatch gets for the period that ends at `at`.
pub(super) fn data(now: &Figures, before: &Figures, cluster: &str, at: Timestamp) -> Vec<Datum> {
    let mut data = Vec::with_capacity(METRICS.len() * 2);
    for metric in &METRICS {
        for point in points(metric, now).into_iter().filter(|point| Some(point.value) != metric.usual) {
            let mut dimensions = vec![(CLUSTER_ID, dimension(cluster))];
            if let (Some(label), Some(value)) = (metric.label(), &point.label) {
                dimensions.push((label.dimension(), dimension(value)));
            }
            let value = in_period(metric, point.value, before);
            data.push(Datum { name: metric.name, dimensions, value, unit: metric.unit, at });
        }
    }
    data
}

/// CloudWatch takes ASCII without control characters, not empty, not starting with a colon.
fn dimension(value: &str) -> String {
    let allowed = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '_' };
    let value: String = value.trim_start_matches(':').chars().take(DIMENSION_MAX).map(allowed).collect();
    if value.trim().is_empty() { "-".into() } else { value }
}

/// Shows the last figures to Prometheus. Only the leader has some: two replicas that showed the same sums would count
/// twice.
#[derive(Debug, Clone, Default)]
pub struct Exposed(Arc<Mutex<Option<Arc<Figures>>>>);

impl Exposed {
    pub fn show(&self, figures: Option<Arc<Figures>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    fn figures(&self) -> Option<Arc<Figures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Collector for Exposed {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(figures) = self.figures() else { return Ok(()) };
        for metric in &METRICS {
            let points = points(metric, &figures);
            if !points.is_empty() {
                encode(metric, &points, &mut encoder)?;
            }
        }
        Ok(())
    }
}

fn encode(metric: &Metric, points: &[Point], encoder: &mut DescriptorEncoder) -> fmt::Result {
    let kind = match (metric.kind, metric.origin) {
        (Kind::Gauge, _) => MetricType::Gauge,
        (Kind::Counter, Origin::Enipool) => MetricType::Counter,
        // A counter whose name does not end in `_total` is "unknown" in OpenMetrics.
        (Kind::Counter, Origin::MetricsHelper) => MetricType::Unknown,
    };
    let name = metric.prometheus_name();
    let mut family = encoder.encode_descriptor(&name, metric.help, None, kind)?;
    for point in points {
        match (metric.label(), &point.label) {
            (Some(label), Some(value)) => {
                let labels = [(label.name(), value.as_str())];
                value_of(kind, point.value, family.encode_family(&labels)?)?;
            }
            _ => return value_of(kind, point.value, family),
        }
    }
    Ok(())
}

fn value_of(kind: MetricType, value: f64, encoder: prometheus_client::encoding::MetricEncoder) -> fmt::Result {
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

/// Whether a metric of this name counts, for the text format in which a counter may have any name.
pub fn is_counter(name: &str) -> bool {
    let named = METRICS.iter().find(|metric| metric.origin == Origin::MetricsHelper && metric.name == name);
    named.is_some_and(|metric| metric.kind == Kind::Counter)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use enipool_crds::Reason;
    use enipool_pool::cloudwatch::Unit;
    use prometheus_client::registry::Registry;

    use super::super::figures::{ClassFigures, Held, SubnetFigures};
    use super::*;

    /// The example of the guide: 11,186 of 11,200 addresses, 799 of 800 interfaces.
    fn example() -> Figures {
        let mut figures = Figures {
            held: Held { enis: 799, enis_max: 800, addresses: 11_186, addresses_max: 11_200, ..Held::default() },
            waiting: [(Reason::SubnetExhausted, 2)].into(),
            ..Figures::default()
        };
        figures.totals.failures = 4;
        figures.slowest_node_ms = Some(250.5);
        let subnet = SubnetFigures { free: 12, runway: Some(Duration::from_secs(90)) };
        figures.subnets.insert("subnet-0a1".parse().unwrap(), subnet);
        figures.classes.insert("gpu".into(), ClassFigures { nodes: 3, ..ClassFigures::default() });
        figures.classes.insert(String::new(), ClassFigures { nodes: 1, ..ClassFigures::default() });
        figures
    }

    fn before() -> Figures {
        let mut figures = Figures::default();
        figures.totals.failures = 3;
        figures
    }

    #[test]
    fn the_log_lines_are_those_of_the_guide() {
        let lines = log_lines(&example(), &before());
        assert!(lines.contains(&"Produce GAUGE metrics: eniAllocated, value: 799.000000".into()), "{lines:#?}");
        assert!(lines.contains(&"Produce COUNTER metrics: ipamdErr, value: 1.000000".into()), "{lines:#?}");
        assert_eq!(lines.len(), lines.iter().collect::<BTreeSet<_>>().len());
    }

    fn datum<'a>(data: &'a [Datum], name: &str) -> Vec<&'a Datum> {
        data.iter().filter(|datum| datum.name == name).collect()
    }

    fn is(datum: &Datum, value: f64) -> bool {
        (datum.value - value).abs() < 1e-9
    }

    #[test]
    fn cloudwatch_gets_the_period_s_counts_by_cluster() {
        let data = data(&example(), &before(), "prod", Timestamp(5));
        let max = datum(&data, "maxIPAddresses")[0];
        assert!(is(max, 11_200.0));
        assert_eq!((max.unit, max.at), (Unit::Count, Timestamp(5)));
        assert_eq!(max.dimensions, [("CLUSTER_ID", "prod".to_owned())]);
        assert!(is(datum(&data, "ipamdErr")[0], 1.0));
        assert_eq!(datum(&data, "awsAPILatency")[0].unit, Unit::Milliseconds);
    }

    #[test]
    fn series_of_subnets_and_classes_have_a_second_dimension() {
        let data = data(&example(), &before(), "prod", Timestamp(5));
        let free = datum(&data, "subnetFreeAddresses")[0];
        assert_eq!(free.dimensions[1], ("SUBNET_ID", "subnet-0a1".to_owned()));
        assert!(is(datum(&data, "subnetRunwaySeconds")[0], 90.0));
        let classes = datum(&data, "classNodes");
        assert_eq!(classes.len(), 1, "nodes without a class have no series");
        assert_eq!(classes[0].dimensions[1], ("ENI_POOL_CLASS", "gpu".to_owned()));
        let reasons = datum(&data, "waitingPodsByReason");
        assert_eq!(reasons.len(), 1, "zeros of a reason cost money and say nothing");
        assert_eq!(reasons[0].dimensions[1], ("REASON", "SubnetExhausted".to_owned()));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let data = data(&Figures::default(), &Figures::default(), "prod", Timestamp(5));
        for name in ["leakedENIs", "awsAPILatency", "subnetFreeAddresses"] {
            assert!(datum(&data, name).is_empty(), "{name}");
        }
        assert!(is(datum(&data, "waitingPods")[0], 0.0), "but zero is known");
    }

    #[test]
    fn dimensions_are_what_cloudwatch_takes() {
        assert_eq!(dimension("prod"), "prod");
        assert_eq!(dimension(":größe\n"), "gr__e_");
        assert_eq!(dimension(""), "-");
        assert_eq!(dimension(&"x".repeat(2000)).len(), DIMENSION_MAX);
    }

    fn scrape(exposed: &Exposed) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(exposed.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn prometheus_gets_every_metric_of_the_table() {
        let exposed = Exposed::default();
        exposed.show(Some(Arc::new(example())));
        let text = scrape(&exposed);
        for line in [
            "maxIPAddresses 11200.0",
            "eniAllocated 799.0",
            "ipamdErr 4.0",
            "enipool_cluster_ec2_throttles_total 0.0",
            "enipool_cluster_waiting_pods_by_reason{reason=\"SubnetExhausted\"} 2.0",
            "enipool_cluster_waiting_pods_by_reason{reason=\"Throttled\"} 0.0",
            "enipool_cluster_subnet_runway_seconds{subnet=\"subnet-0a1\"} 90.0",
            "enipool_cluster_class_nodes{class=\"gpu\"} 3.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(is_counter("ipamdErr") && !is_counter("maxIPAddresses"));
    }

    #[test]
    fn a_replica_that_does_not_lead_shows_nothing() {
        let exposed = Exposed::default();
        exposed.show(Some(Arc::new(example())));
        exposed.show(None);
        assert_eq!(scrape(&exposed), "# EOF\n");
    }
}
