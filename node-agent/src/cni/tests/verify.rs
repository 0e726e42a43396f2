//! CHECK and STATUS.

use enipool_cni::{CniResult, Request, Verb};
use serde_json::json;

use super::doubles::{Bench, address, request, with};

fn check(container: &str, result: &CniResult) -> Request {
    with(request(Verb::Check, container), &json!({"prevResult": result}))
}

#[tokio::test]
async fn a_pod_as_add_left_it_passes() {
    let bench = Bench::with_free(1);
    let result = bench.add("c1").await;
    assert_eq!(bench.succeed(&check("c1", &result)).await, "");
}

#[tokio::test]
async fn a_pod_passes_with_the_mtu_of_the_day_on_which_it_was_made() {
    let bench = Bench::with_free(1);
    let result = bench.add("c1").await;
    bench.verbs.set_mtu(1500);
    bench.succeed(&check("c1", &result)).await;
}

#[tokio::test]
async fn what_changed_is_said() {
    let bench = Bench::with_free(1);
    let result = bench.add("c1").await;
    let mut elsewhere = check("c1", &result);
    elsewhere.netns = "/run/netns/b".into();
    assert_eq!(bench.fail(&elsewhere).await.code, 101);
    bench.links.lose(address(1));
    let error = bench.fail(&check("c1", &result)).await;
    assert!(error.code == 101 && error.details.contains("no link"), "{error}");
}

#[tokio::test]
async fn a_container_that_the_pool_does_not_know_is_unknown() {
    let bench = Bench::with_free(1);
    let result = bench.add("c1").await;
    assert_eq!(bench.fail(&check("c2", &result)).await.code, 3);
}

#[tokio::test]
async fn check_needs_the_result_of_the_add() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    assert_eq!(bench.fail(&request(Verb::Check, "c1")).await.code, 7);
    let unreadable = with(request(Verb::Check, "c1"), &json!({"prevResult": {"ips": 7}}));
    assert_eq!(bench.fail(&unreadable).await.code, 6);
}

#[tokio::test]
async fn status_fails_while_the_node_cannot_serve_and_says_why() {
    let bench = Bench::new();
    bench.succeed(&request(Verb::Status, "")).await;
    bench.pool.close("the IAM role may not create interfaces");
    let error = bench.fail(&request(Verb::Status, "")).await;
    assert!(error.code == 50 && error.details.contains("IAM"), "{error}");
}
