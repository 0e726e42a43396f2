//! What PutMetricData does not take, and with what code. A request is taken as a whole, or not at all.

use std::time::Duration;

use ec2_sim::model::cloudwatch::Request;
use ec2_sim::model::cloudwatch::request::{Datum, PutMetricData, StatisticSet};

use super::{before, datum, dimension, model, put};

const VALUE: &str = "InvalidParameterValue";
const COMBINATION: &str = "InvalidParameterCombination";
const MISSING: &str = "MissingParameter";

/// The code that this datum is refused with; empty: it is taken.
fn code(datum: Datum) -> String {
    put(&mut model(), vec![datum]).err().map(|error| error.code.into_owned()).unwrap_or_default()
}

/// The message that this datum is refused with.
fn message(datum: Datum) -> String {
    put(&mut model(), vec![datum]).unwrap_err().message
}

fn of_namespace(namespace: Option<&str>) -> String {
    let put = PutMetricData { namespace: namespace.map(str::to_owned), data: vec![datum("m", 1.0)] };
    let reply = model().call_cloudwatch("test", Request::PutMetricData(put));
    reply.result.err().map(|error| error.code.into_owned()).unwrap_or_default()
}

fn valueless() -> Datum {
    Datum { value: None, ..datum("m", 0.0) }
}

fn set(sample_count: f64, minimum: f64, maximum: f64) -> StatisticSet {
    StatisticSet { sample_count: Some(sample_count), sum: Some(1.0), minimum: Some(minimum), maximum: Some(maximum) }
}

#[test]
fn a_namespace_is_ascii_of_up_to_255_and_not_aws_s_own() {
    for good in ["Kubernetes", "a/b.c-d_e#f:g h", "aws/x", "AWSOME", &"n".repeat(255)] {
        assert_eq!(of_namespace(Some(good)), "", "{good}");
    }
    for bad in ["", " ", "AWS/EC2", "AWS/", ":a", "n\u{fc}", "a\tb", &"n".repeat(256)] {
        assert_eq!(of_namespace(Some(bad)), VALUE, "{bad}");
    }
    assert_eq!(of_namespace(None), MISSING);
}

#[test]
fn a_request_has_one_to_a_thousand_metrics() {
    let mut model = model();
    assert_eq!(put(&mut model, vec![]).unwrap_err().message, "The parameter MetricData is required.");
    put(&mut model, vec![datum("m", 1.0); 1000]).unwrap();
    let refusal = put(&mut model, vec![datum("m", 1.0); 1001]).unwrap_err();
    assert_eq!(refusal.message, "The collection MetricData must not have a size greater than 1000.");
}

#[test]
fn one_bad_datum_spoils_the_request_and_all_alike_are_named() {
    let mut model = model();
    let data = vec![datum("good", 1.0), datum("bad", f64::NAN), datum("worse", f64::INFINITY)];
    let refusal = put(&mut model, data).unwrap_err();
    assert_eq!(
        refusal.message,
        "The value NaN for parameter MetricData.member.2.Value is invalid.\n\
         The value inf for parameter MetricData.member.3.Value is invalid."
    );
    assert_eq!(model.metrics().iter().count(), 0, "nor is the good one kept");
}

#[test]
fn a_metric_has_a_name_of_up_to_255_characters() {
    assert_eq!(code(Datum { name: None, ..datum("", 1.0) }), MISSING);
    assert_eq!(code(datum(&"n".repeat(255), 1.0)), "");
    for bad in ["", "  ", &"n".repeat(256), "\u{e4}", "a\nb"] {
        assert_eq!(code(datum(bad, 1.0)), VALUE, "{bad}");
    }
}

#[test]
fn a_metric_has_up_to_30_dimensions_each_name_once() {
    let with = |dimensions| Datum { dimensions, ..datum("m", 1.0) };
    let many = |count: usize| with((0..count).map(|number| dimension(&format!("d{number}"), "v")).collect());
    assert_eq!((code(many(0)), code(many(30))), (String::new(), String::new()));
    let refusal = message(many(31));
    assert_eq!(refusal, "The collection MetricData.member.1.Dimensions must not have a size greater than 30.");
    let twice = message(with(vec![dimension("a", "1"), dimension("b", "2"), dimension("a", "3")]));
    assert_eq!(twice, "No metric may specify the same dimension name twice.");
}

#[test]
fn dimensions_are_ascii_of_255_and_1024_characters() {
    let with = |name: &str, value: &str| Datum { dimensions: vec![dimension(name, value)], ..datum("m", 1.0) };
    assert_eq!(code(with(&"n".repeat(255), &"v".repeat(1024))), "");
    for (name, value) in
        [(":n", "v"), ("n\u{fc}", "v"), ("n", "\u{fc}"), ("n", "\t"), (" ", "v"), ("n", " "), ("n", "")]
    {
        assert_eq!(code(with(name, value)), VALUE, "{name:?} {value:?}");
    }
    assert_eq!(code(with(&"n".repeat(256), "v")), VALUE);
    assert_eq!(code(with("n", &"v".repeat(1025))), VALUE);
    let mut half = with("n", "v");
    half.dimensions[0].value = None;
    assert_eq!(message(half), "The parameter MetricData.member.1.Dimensions.member.1.Value is required.");
}

#[test]
fn value_values_and_statistics_exclude_each_other() {
    let one = Datum { value: Some(1.0), ..valueless() };
    let several = Datum { values: vec![1.0], ..valueless() };
    let sums = Datum { statistics: Some(set(1.0, 1.0, 1.0)), ..valueless() };
    for good in [&one, &several, &sums] {
        assert_eq!(code(good.clone()), "");
    }
    assert_eq!(code(Datum { values: vec![1.0], ..one.clone() }), COMBINATION);
    assert_eq!(code(Datum { statistics: sums.statistics, ..one }), COMBINATION);
    assert_eq!(code(Datum { statistics: sums.statistics, ..several }), COMBINATION);
    assert_eq!(code(valueless()), COMBINATION, "nor is it any of them");
}

#[test]
fn values_are_up_to_150_with_a_count_for_each() {
    let with = |values: Vec<f64>, counts: Vec<f64>| code(Datum { values, counts, ..valueless() });
    assert_eq!(with(vec![1.0; 150], vec![]), "");
    assert_eq!(with(vec![1.0; 151], vec![]), VALUE);
    assert_eq!(with(vec![1.0, 2.0], vec![3.0, 0.0]), "");
    assert_eq!(with(vec![1.0, 2.0], vec![3.0]), VALUE);
    assert_eq!(with(vec![1.0], vec![-1.0]), VALUE);
    assert_eq!(with(vec![1.0], vec![0.0]), VALUE, "no value at all");
    assert_eq!(with(vec![], vec![1.0]), COMBINATION);
    assert_eq!(with(vec![f64::NAN], vec![]), VALUE);
}

#[test]
fn a_statistic_set_is_whole_and_makes_sense() {
    let with = |statistics| code(Datum { statistics: Some(statistics), ..valueless() });
    assert_eq!(with(set(2.0, -1.0, 1.0)), "");
    assert_eq!(with(StatisticSet { sum: None, ..set(2.0, -1.0, 1.0) }), MISSING);
    assert_eq!(with(StatisticSet { sample_count: None, ..set(2.0, -1.0, 1.0) }), MISSING);
    assert_eq!(with(set(0.0, 1.0, 1.0)), VALUE);
    assert_eq!(with(set(2.0, 1.0, 0.5)), VALUE);
    assert_eq!(with(set(2.0, f64::NEG_INFINITY, 0.5)), VALUE);
}

#[test]
fn numbers_are_zero_or_between_2_to_minus_360_and_2_to_360() {
    let (largest, smallest) = (2_f64.powi(360), 2_f64.powi(-360));
    for good in [0.0, -0.0, largest, -largest, smallest, -smallest, 1.5] {
        assert_eq!(code(datum("m", good)), "", "{good}");
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, largest * 1.001, -largest * 1.001, smallest / 1.001, 5e-324]
    {
        assert_eq!(code(datum("m", bad)), VALUE, "{bad}");
    }
}

#[test]
fn a_time_lies_two_weeks_back_or_two_hours_ahead_at_most() {
    let (two_weeks, two_hours) = (Duration::from_hours(14 * 24), Duration::from_hours(2));
    let ms = Duration::from_millis(1);
    let model = model();
    let at = |timestamp| code(Datum { timestamp: Some(timestamp), ..datum("m", 1.0) });
    assert_eq!(at(before(&model, two_weeks)), "");
    assert_eq!(at(before(&model, two_weeks + ms)), VALUE);
    assert_eq!(at(model.now().plus(two_hours)), "");
    assert_eq!(at(model.now().plus(two_hours + ms)), VALUE);
}

#[test]
fn units_and_resolutions_are_closed_lists() {
    let unit = |unit: &str| code(Datum { unit: Some(unit.to_owned()), ..datum("m", 1.0) });
    for good in ["None", "Count", "Count/Second", "Percent", "Milliseconds", "Terabits/Second"] {
        assert_eq!(unit(good), "", "{good}");
    }
    for bad in ["count", "Counts", "", "Minutes"] {
        assert_eq!(unit(bad), VALUE, "{bad}");
    }
    let resolution = |seconds| code(Datum { storage_resolution: Some(seconds), ..datum("m", 1.0) });
    assert_eq!((resolution(1.0), resolution(60.0)), (String::new(), String::new()));
    for bad in [0.0, 30.0, 61.0, -1.0, 1.5] {
        assert_eq!(resolution(bad), VALUE, "{bad}");
    }
}
