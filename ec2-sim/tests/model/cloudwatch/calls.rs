//! Faults, limits and the ledger: as EC2's calls meet them, and apart from EC2's.

use std::time::Duration;

use ec2_sim::model::cloudwatch::request::{ListMetrics, PutMetricData};
use ec2_sim::model::cloudwatch::{Reply, Request};
use ec2_sim::model::request::Describe;
use ec2_sim::model::throttle::ThrottleConfig;
use ec2_sim::{FaultKind, FaultRule, Model, SimConfig};

use super::{NAMESPACE, after, datum, model};

fn call(model: &mut Model) -> Reply {
    let put = PutMetricData { namespace: Some(NAMESPACE.to_owned()), data: vec![datum("m", 1.0)] };
    model.call_cloudwatch("test", Request::PutMetricData(put))
}

fn code(model: &mut Model) -> String {
    call(model).result.err().map(|error| format!("{} {}", error.status, error.code)).unwrap_or_default()
}

fn kept(model: &Model) -> usize {
    model.metrics().iter().count()
}

#[test]
fn faults_fail_with_cloudwatch_s_codes_and_nothing_is_kept() {
    let mut model = model();
    let teapot = FaultKind::Error { status: 418, code: "Teapot".into(), message: "short and stout".into() };
    for (kind, expected) in [
        (FaultKind::Throttle, "400 Throttling"),
        (FaultKind::Denied, "403 AccessDenied"),
        (FaultKind::InternalError, "500 InternalServiceError"),
        (FaultKind::Unavailable, "503 ServiceUnavailable"),
        (teapot, "418 Teapot"),
    ] {
        model.inject(FaultRule::next(kind, "PutMetricData", 1));
        assert_eq!((code(&mut model).as_str(), kept(&model)), (expected, 0));
    }
    assert_eq!((code(&mut model).as_str(), kept(&model)), ("", 1));
}

#[test]
fn a_denied_caller_is_named_with_the_action() {
    let mut model = model();
    model.inject(FaultRule::always(FaultKind::Denied, "PutMetricData"));
    let message = call(&mut model).result.unwrap_err().message;
    assert!(
        message.starts_with(
            "User: arn:aws:sts::123456789012:assumed-role/enipool-node/test is not authorized to perform: \
             cloudwatch:PutMetricData"
        ),
        "{message}"
    );
}

#[test]
fn a_lost_answer_leaves_the_data_a_lost_request_does_not() {
    let mut model = model();
    model.inject(FaultRule::next(FaultKind::RequestLost, "PutMetricData", 1));
    assert_eq!((call(&mut model).answered, kept(&model)), (false, 0));
    model.inject(FaultRule::next(FaultKind::AnswerLost, "PutMetricData", 1));
    assert_eq!((call(&mut model).answered, kept(&model)), (false, 1));
    model.clear_metrics();
    model.inject(FaultRule::next(FaultKind::AppliedInternalError, "PutMetricData", 1));
    assert_eq!((code(&mut model).as_str(), kept(&model)), ("500 InternalServiceError", 1));
    model.inject(FaultRule::next(FaultKind::Slow { millis: 3000 }, "PutMetricData", 1));
    assert_eq!(call(&mut model).latency, Duration::from_secs(3));
}

#[test]
fn a_fault_can_be_of_a_namespace_or_a_caller() {
    let mut model = model();
    let rule = |rule| FaultRule { count: Some(1), ..rule };
    let denied = FaultRule::always(FaultKind::Denied, "PutMetricData");
    model.inject(rule(FaultRule { resource: Some("Other".into()), ..denied.clone() }));
    model.inject(rule(FaultRule { caller: Some("other".into()), ..denied.clone() }));
    assert_eq!(code(&mut model), "");
    model.inject(rule(FaultRule { resource: Some(NAMESPACE.into()), caller: Some("test".into()), ..denied }));
    assert_eq!(code(&mut model), "403 AccessDenied");
}

#[test]
fn a_fault_of_no_action_is_ec2_s_alone() {
    let mut model = model();
    model.inject(FaultRule { action: None, ..FaultRule::next(FaultKind::Denied, "", 1) });
    assert_eq!(code(&mut model), "");
    let describe = ec2_sim::Request::DescribeVpcs(Describe::default());
    assert!(model.call("test", &describe).result.is_err(), "not used up by CloudWatch's call");
}

#[test]
fn five_hundred_calls_a_second_are_not_throttled() {
    let mut model = Model::new(SimConfig { throttle: ThrottleConfig::default(), ..SimConfig::instant() }).unwrap();
    let taken = |model: &mut Model| (0..600).filter(|_| call(model).result.is_ok()).count();
    assert_eq!(taken(&mut model), 500);
    assert_eq!(code(&mut model), "400 Throttling");
    after(&mut model, Duration::from_secs(1));
    assert_eq!(taken(&mut model), 500);
    after(&mut model, Duration::from_millis(10));
    assert_eq!(taken(&mut model), 5);
}

#[test]
fn cloudwatch_s_calls_have_a_ledger_of_their_own() {
    let mut model = model();
    model.inject(FaultRule { skip: 1, ..FaultRule::next(FaultKind::Throttle, "PutMetricData", 1) });
    call(&mut model);
    call(&mut model);
    model.call_cloudwatch("reader", Request::ListMetrics(ListMetrics::default())).result.unwrap();
    assert_eq!((model.calls().last_seq(), model.calls().counts().len()), (0, 0));
    let ledger = model.cloudwatch_calls();
    let lines: Vec<_> =
        ledger.since(0).map(|call| (call.seq, call.action, call.caller.as_str(), call.error.as_deref())).collect();
    assert_eq!(
        lines,
        [
            (1, "PutMetricData", "test", None),
            (2, "PutMetricData", "test", Some("Throttling")),
            (3, "ListMetrics", "reader", None)
        ]
    );
    assert_eq!(ledger.since(0).next().unwrap().resources, [NAMESPACE]);
    model.reset_calls();
    assert_eq!((model.cloudwatch_calls().count("PutMetricData"), model.cloudwatch_calls().last_seq()), (0, 3));
}

#[test]
fn cloudwatch_s_calls_shift_nothing_that_ec2_draws() {
    let run = |metrics: bool| {
        let mut model = Model::new(SimConfig { seed: 7, ..SimConfig::default() }).unwrap();
        let describe = ec2_sim::Request::DescribeVpcs(Describe::default());
        let draw = |model: &mut Model| {
            if metrics {
                call(model);
            }
            let reply = model.call("test", &describe);
            (reply.request_id, reply.latency)
        };
        (draw(&mut model), draw(&mut model))
    };
    assert_eq!(run(false), run(true));
}
