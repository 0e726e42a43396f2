//! ListMetrics, GetMetricStatistics and GetMetricData.

use std::time::Duration;

use ec2_sim::Model;
use ec2_sim::model::ApiError;
use ec2_sim::model::cloudwatch::request::{
    Datapoint, Datum, Dimension, GetMetricData, GetMetricStatistics, ListMetrics, MetricRef, MetricStat, Query,
    QueryResult,
};
use ec2_sim::model::cloudwatch::{Request, Response};

use super::{MINUTE, NAMESPACE, after, before, datum, dimension, model, put};

fn list(model: &mut Model, list: ListMetrics) -> (Vec<String>, Option<String>) {
    match model.call_cloudwatch("test", Request::ListMetrics(list)).result.unwrap() {
        Response::Metrics { metrics, next_token } => (metrics.into_iter().map(|id| id.name).collect(), next_token),
        other => panic!("{other:?}"),
    }
}

fn metric(name: &str) -> MetricRef {
    MetricRef {
        namespace: Some(NAMESPACE.to_owned()),
        name: Some(name.to_owned()),
        dimensions: vec![dimension("CLUSTER_ID", "demo")],
    }
}

/// All five minutes of [`five_minutes`], in periods of one.
fn whole(model: &Model) -> GetMetricStatistics {
    GetMetricStatistics {
        metric: metric("m"),
        start: Some(before(model, 5 * MINUTE)),
        end: Some(model.now()),
        period: Some(60.0),
        statistics: vec!["Sum".to_owned()],
        unit: None,
    }
}

fn statistics(model: &mut Model, get: GetMetricStatistics) -> Result<Vec<Datapoint>, ApiError> {
    match model.call_cloudwatch("test", Request::GetMetricStatistics(get)).result? {
        Response::Statistics { datapoints, .. } => Ok(datapoints),
        other => panic!("{other:?}"),
    }
}

/// The values 1, 2, 3, 4, 5 in minutes that follow each other; now is the end of the last one.
fn five_minutes() -> Model {
    let mut model = model();
    for value in [1.0, 2.0, 3.0, 4.0, 5.0] {
        put(&mut model, vec![datum("m", value)]).unwrap();
        after(&mut model, MINUTE);
    }
    model
}

/// What asks for the sums of [`five_minutes`].
fn data(model: &Model) -> GetMetricData {
    GetMetricData {
        queries: vec![query("q", "m")],
        start: Some(before(model, 5 * MINUTE)),
        end: Some(model.now()),
        ..GetMetricData::default()
    }
}

fn query(id: &str, name: &str) -> Query {
    let stat = MetricStat { metric: metric(name), period: Some(60.0), stat: Some("Sum".to_owned()), unit: None };
    Query { id: Some(id.to_owned()), stat: Some(stat), ..Query::default() }
}

fn results(model: &mut Model, get: GetMetricData) -> Result<(Vec<QueryResult>, Option<String>), ApiError> {
    match model.call_cloudwatch("test", Request::GetMetricData(get)).result? {
        Response::Data { results, next_token } => Ok((results, next_token)),
        other => panic!("{other:?}"),
    }
}

fn values(result: &QueryResult) -> Vec<f64> {
    result.points.iter().map(|(_, value)| *value).collect()
}

#[test]
fn metrics_are_listed_by_namespace_name_and_dimensions() {
    let mut model = model();
    let zoned = Datum { dimensions: vec![dimension("CLUSTER_ID", "demo"), dimension("Zone", "a")], ..datum("z", 1.0) };
    put(&mut model, vec![datum("a", 1.0), datum("b", 1.0), zoned]).unwrap();
    let names = |model: &mut Model, wanted| list(model, wanted).0;
    let all = ListMetrics::default();
    let of = |dimensions: Vec<Dimension>| ListMetrics { dimensions, ..ListMetrics::default() };
    assert_eq!(names(&mut model, all.clone()), ["a", "b", "z"]);
    assert_eq!(names(&mut model, ListMetrics { namespace: Some("Other".to_owned()), ..all.clone() }), [""; 0]);
    assert_eq!(names(&mut model, ListMetrics { name: Some("b".to_owned()), ..all }), ["b"]);
    assert_eq!(names(&mut model, of(vec![Dimension { value: None, ..dimension("Zone", "") }])), ["z"]);
    assert_eq!(names(&mut model, of(vec![dimension("Zone", "b")])), [""; 0]);
    assert_eq!(names(&mut model, of(vec![dimension("CLUSTER_ID", "demo")])), ["a", "b", "z"]);
}

#[test]
fn a_list_comes_in_pages_of_500() {
    let mut model = model();
    put(&mut model, (0..501).map(|number| datum(&format!("m{number:03}"), 1.0)).collect()).unwrap();
    let (first, token) = list(&mut model, ListMetrics::default());
    assert_eq!((first.len(), first[499].as_str()), (500, "m499"));
    let (second, none) = list(&mut model, ListMetrics { next_token: token, ..ListMetrics::default() });
    assert_eq!((second, none), (vec!["m500".to_owned()], None));
}

#[test]
fn what_has_had_no_data_for_two_weeks_is_not_listed() {
    let mut model = model();
    put(&mut model, vec![datum("m", 1.0)]).unwrap();
    let recent = ListMetrics { recently_active: Some("PT3H".to_owned()), ..ListMetrics::default() };
    after(&mut model, Duration::from_hours(3));
    assert_eq!(list(&mut model, recent.clone()).0, ["m"]);
    after(&mut model, MINUTE);
    assert_eq!(list(&mut model, recent).0, [""; 0]);
    assert_eq!(list(&mut model, ListMetrics::default()).0, ["m"]);
    after(&mut model, Duration::from_hours(14 * 24));
    assert_eq!(list(&mut model, ListMetrics::default()).0, [""; 0]);
}

#[test]
fn statistics_come_per_period_with_the_end_left_out() {
    let mut model = five_minutes();
    let all = whole(&model);
    let sums = |datapoints: Vec<Datapoint>| datapoints.iter().map(|point| point.statistics.sum).collect::<Vec<_>>();
    let minutes = statistics(&mut model, all.clone()).unwrap();
    assert_eq!(minutes[4].at, all.start.unwrap(), "newest first");
    assert_eq!(sums(minutes), [5.0, 4.0, 3.0, 2.0, 1.0]);
    let twos = statistics(&mut model, GetMetricStatistics { period: Some(120.0), ..all.clone() }).unwrap();
    assert_eq!(sums(twos), [5.0, 7.0, 3.0]);
    let early = GetMetricStatistics { end: Some(before(&model, 4 * MINUTE)), ..all.clone() };
    assert_eq!(sums(statistics(&mut model, early).unwrap()), [1.0]);
    let within = GetMetricStatistics { start: Some(before(&model, MINUTE).plus(MINUTE / 2)), ..all };
    assert_eq!(sums(statistics(&mut model, within).unwrap()), [5.0], "the start is rounded down to its minute");
}

#[test]
fn statistics_of_other_dimensions_or_units_are_none() {
    let mut model = five_minutes();
    let all = whole(&model);
    let without = MetricRef { dimensions: vec![], ..metric("m") };
    assert_eq!(statistics(&mut model, GetMetricStatistics { metric: without, ..all.clone() }).unwrap(), []);
    assert_eq!(
        statistics(&mut model, GetMetricStatistics { unit: Some("Bytes".to_owned()), ..all.clone() }),
        Ok(vec![])
    );
    let count = GetMetricStatistics { unit: Some("Count".to_owned()), ..all };
    assert_eq!(statistics(&mut model, count).unwrap().len(), 5);
}

#[test]
fn statistics_that_cannot_be_had_are_refused() {
    let mut model = five_minutes();
    let all = whole(&model);
    let mut code = |get: GetMetricStatistics| statistics(&mut model, get).unwrap_err().code.into_owned();
    for period in [0.0, 1.0, 59.0, 90.0, 86_460.0] {
        assert_eq!(
            code(GetMetricStatistics { period: Some(period), ..all.clone() }),
            "InvalidParameterValue",
            "{period}"
        );
    }
    let (start, end) = (all.start.unwrap(), all.end.unwrap());
    let day = GetMetricStatistics { end: Some(start.plus(1441 * MINUTE)), ..all.clone() };
    assert_eq!(code(day), "InvalidParameterCombination", "more than 1,440 datapoints");
    assert_eq!(code(GetMetricStatistics { start: Some(end), ..all.clone() }), "InvalidParameterValue");
    assert_eq!(code(GetMetricStatistics { start: Some(end.plus(MINUTE)), ..all.clone() }), "InvalidParameterValue");
    assert_eq!(code(GetMetricStatistics { statistics: vec![], ..all.clone() }), "InvalidParameterCombination");
    let percentile = vec!["p99".to_owned()];
    assert_eq!(code(GetMetricStatistics { statistics: percentile, ..all.clone() }), "InvalidParameterValue");
    assert_eq!(code(GetMetricStatistics { start: None, ..all }), "MissingParameter");
}

#[test]
fn a_day_of_minutes_can_be_had_from_any_second_on() {
    let mut model = five_minutes();
    let start = before(&model, 5 * MINUTE).plus(Duration::from_secs(30));
    let day = GetMetricStatistics { start: Some(start), end: Some(start.plus(1440 * MINUTE)), ..whole(&model) };
    assert_eq!(statistics(&mut model, day).unwrap().len(), 5);
}

#[test]
fn data_come_newest_first_unless_asked_otherwise() {
    let mut model = five_minutes();
    let all = data(&model);
    let (newest, none) = results(&mut model, all.clone()).unwrap();
    assert_eq!((values(&newest[0]), none), (vec![5.0, 4.0, 3.0, 2.0, 1.0], None));
    assert_eq!((newest[0].label.as_str(), newest[0].complete), ("m", true));
    let ascending = GetMetricData { scan_by: Some("TimestampAscending".to_owned()), ..all.clone() };
    assert_eq!(values(&results(&mut model, ascending).unwrap().0[0]), [1.0, 2.0, 3.0, 4.0, 5.0]);
    let hidden = Query { return_data: Some(false), ..query("hidden", "m") };
    let (shown, _) = results(&mut model, GetMetricData { queries: vec![hidden, query("q", "m")], ..all }).unwrap();
    assert_eq!(shown.iter().map(|result| result.id.as_str()).collect::<Vec<_>>(), ["q"]);
}

#[test]
fn data_come_in_pages_over_all_queries() {
    let mut model = five_minutes();
    let paged =
        GetMetricData { queries: vec![query("a", "m"), query("b", "m")], max_datapoints: Some(4.0), ..data(&model) };
    let mut shown = Vec::new();
    let mut token = None;
    loop {
        let (page, next) = results(&mut model, GetMetricData { next_token: token, ..paged.clone() }).unwrap();
        shown.push(page.iter().map(values).collect::<Vec<_>>());
        token = next;
        if token.is_none() {
            break;
        }
    }
    let (a, b) = (vec![5.0, 4.0, 3.0, 2.0], vec![1.0]);
    assert_eq!(shown, [[a, vec![]], [b, vec![5.0, 4.0, 3.0]], [vec![], vec![2.0, 1.0]]]);
}

#[test]
fn expressions_percentiles_and_doubled_ids_are_refused() {
    let mut model = five_minutes();
    let all = data(&model);
    let mut refusal = |queries| results(&mut model, GetMetricData { queries, ..all.clone() }).unwrap_err();
    let expression = Query { stat: None, expression: Some("SUM(METRICS())".to_owned()), ..query("e", "m") };
    let named = "MetricDataQueries.member.1.Expression (metric math and Metrics Insights) is not simulated.";
    assert_eq!(refusal(vec![expression.clone()]).message, named);
    assert_eq!(refusal(vec![Query { stat: query("e", "m").stat, ..expression }]).code, "ValidationError");
    assert_eq!(refusal(vec![Query { stat: None, ..query("e", "m") }]).code, "ValidationError");
    assert_eq!(refusal(vec![query("q", "m"), query("q", "m")]).code, "ValidationError");
    assert_eq!(refusal(vec![query("Q", "m")]).code, "ValidationError");
    assert_eq!(refusal(vec![]).code, "MissingParameter");
    let mut percentile = query("q", "m");
    percentile.stat.as_mut().unwrap().stat = Some("p99".to_owned());
    assert_eq!(refusal(vec![percentile]).message, "The statistic p99 is not simulated.");
}
