//! What is kept of the data: sums per metric, minute and unit, within bounds.

use std::time::Duration;

use ec2_sim::Model;
use ec2_sim::model::cloudwatch::request::{Datum, StatisticSet};
use ec2_sim::model::cloudwatch::{MAX_METRICS, MAX_MINUTES, Statistics, Unit};

use super::{MINUTE, after, before, datum, dimension, id, model, put};

/// The sums of all minutes, in their order.
fn sums(model: &Model, name: &str) -> Vec<Statistics> {
    model.metrics().get(&id(name)).unwrap().minutes().map(|(.., sums)| *sums).collect()
}

fn statistics(count: f64, sum: f64, minimum: f64, maximum: f64) -> Statistics {
    Statistics { count, sum, minimum, maximum }
}

#[test]
fn values_of_a_minute_are_summed_and_minutes_stay_apart() {
    let mut model = model();
    put(&mut model, vec![datum("m", 3.0)]).unwrap();
    after(&mut model, Duration::from_secs(59));
    put(&mut model, vec![datum("m", 5.0), datum("m", -1.0)]).unwrap();
    after(&mut model, Duration::from_secs(1));
    put(&mut model, vec![datum("m", 7.0)]).unwrap();
    assert_eq!(sums(&model, "m"), [statistics(3.0, 7.0, -1.0, 5.0), statistics(1.0, 7.0, 7.0, 7.0)]);
    assert_eq!(model.metrics().get(&id("m")).unwrap().datapoints(), 4);
}

#[test]
fn however_values_are_packed_the_sums_are_the_same() {
    let mut model = model();
    let empty = |name: &str| Datum { value: None, ..datum(name, 0.0) };
    let set = StatisticSet { sample_count: Some(4.0), sum: Some(10.0), minimum: Some(1.0), maximum: Some(4.0) };
    put(&mut model, vec![datum("a", 1.0), datum("a", 4.0), datum("a", 4.0), datum("a", 1.0)]).unwrap();
    put(&mut model, vec![Datum { values: vec![1.0, 4.0], counts: vec![2.0, 2.0], ..empty("b") }]).unwrap();
    put(&mut model, vec![Datum { statistics: Some(set), ..empty("c") }]).unwrap();
    put(&mut model, vec![Datum { values: vec![4.0, 1.0, 9.0], counts: vec![2.0, 2.0, 0.0], ..empty("d") }]).unwrap();
    for name in ["a", "b", "c", "d"] {
        assert_eq!(sums(&model, name), [statistics(4.0, 10.0, 1.0, 4.0)], "{name}");
    }
}

#[test]
fn the_order_of_dimensions_does_not_matter_their_values_do() {
    let mut model = model();
    let of = |dimensions| Datum { dimensions, ..datum("m", 1.0) };
    let (a, b) = (dimension("a", "1"), dimension("b", "2"));
    put(&mut model, vec![of(vec![a.clone(), b.clone()]), of(vec![b, a.clone()])]).unwrap();
    assert_eq!(model.metrics().iter().count(), 1);
    put(&mut model, vec![of(vec![a, dimension("b", "3")]), of(vec![])]).unwrap();
    assert_eq!(model.metrics().iter().count(), 3);
}

#[test]
fn data_in_other_units_are_kept_apart() {
    let mut model = model();
    let seconds = Datum { unit: Some("Seconds".to_owned()), ..datum("m", 2.0) };
    let no_unit = Datum { unit: None, ..datum("m", 4.0) };
    put(&mut model, vec![datum("m", 1.0), seconds, no_unit]).unwrap();
    let metric = model.metrics().get(&id("m")).unwrap();
    let units: Vec<_> = metric.minutes().map(|(_, unit, sums)| (unit.as_str(), sums.sum)).collect();
    assert_eq!(units, [("Count", 1.0), ("None", 4.0), ("Seconds", 2.0)]);
    assert_eq!(metric.last().unit, Unit::NONE);
}

#[test]
fn the_last_value_is_that_of_the_latest_time() {
    let mut model = model();
    put(&mut model, vec![datum("m", 1.0)]).unwrap();
    after(&mut model, MINUTE);
    let late = Datum { timestamp: Some(before(&model, 30 * MINUTE)), ..datum("m", 2.0) };
    put(&mut model, vec![late]).unwrap();
    let last = *model.metrics().get(&id("m")).unwrap().last();
    assert_eq!((last.value, last.at), (1.0, before(&model, MINUTE)));
    let several = Datum { value: None, values: vec![4.0, 8.0], ..datum("m", 0.0) };
    put(&mut model, vec![several]).unwrap();
    let last = model.metrics().get(&id("m")).unwrap().last();
    assert_eq!((last.value, last.at, last.received), (6.0, model.now(), model.now()), "the average of several");
}

#[test]
fn of_a_metric_the_latest_minutes_are_kept() {
    let mut model = model();
    for _ in 0..MAX_MINUTES + 5 {
        put(&mut model, vec![datum("m", 1.0)]).unwrap();
        after(&mut model, MINUTE);
    }
    let metric = model.metrics().get(&id("m")).unwrap();
    assert_eq!(metric.minutes().count(), MAX_MINUTES);
    assert_eq!(metric.minutes().next_back().unwrap().0, before(&model, MINUTE));
    assert_eq!(metric.datapoints(), MAX_MINUTES as u64 + 5);
}

#[test]
fn the_metric_that_waited_longest_makes_room_for_a_new_one() {
    let mut model = model();
    let names: Vec<String> = (0..MAX_METRICS).map(|number| format!("m{number}")).collect();
    for some in names.chunks(1000) {
        put(&mut model, some.iter().map(|name| datum(name, 1.0)).collect()).unwrap();
        after(&mut model, MINUTE);
    }
    put(&mut model, vec![datum("m0", 2.0), datum("new", 1.0)]).unwrap();
    assert_eq!((model.metrics().iter().count(), model.metrics().dropped()), (MAX_METRICS, 1));
    assert!(model.metrics().get(&id("new")).is_some());
    assert!(model.metrics().get(&id("m0")).is_some(), "it has just had data");
    model.clear_metrics();
    assert_eq!((model.metrics().iter().count(), model.metrics().dropped()), (0, 0));
}
