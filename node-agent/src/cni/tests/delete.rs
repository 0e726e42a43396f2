//! DEL and GC: always to a good end, and never at the cost of another pod.

use enipool_cni::Verb;
use enipool_pool::ledger::{AttachmentKey, PodRef};
use serde_json::json;

use super::doubles::{Asked, Bench, address, key, request, with};
use crate::cni::Addresses;
use crate::dataplane::DataplaneError;

const HOST_END: &str = "eni0d7763386da";

/// What the AWS plugin left in the runtime's cache for a pod on table 2.
fn aws_result(address: &str, vlan: u16) -> serde_json::Value {
    json!({"prevResult": {
        "cniVersion": "0.4.0",
        "interfaces": [
            {"name": "eth0", "mac": "2", "sandbox": "/run/netns/a"},
            {"name": "dummy0d7763386da", "mac": vlan.to_string(), "sandbox": "1"},
        ],
        "ips": [{"version": "4", "interface": 1, "address": address}],
    }})
}

#[tokio::test]
async fn a_pod_is_taken_down_and_its_address_given_back() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    assert_eq!(bench.succeed(&request(Verb::Del, "c1")).await, "");
    assert_eq!(bench.links.asked().last(), Some(&Asked::Del(address(1), HOST_END.into())));
    assert_eq!(bench.pool.free(), 1);
}

#[tokio::test]
async fn deleting_twice_or_what_never_was_succeeds_and_touches_nothing() {
    let bench = Bench::with_free(2);
    bench.add("c1").await;
    bench.succeed(&request(Verb::Del, "c1")).await;
    let asked = bench.links.asked().len();
    for container in ["c1", "never"] {
        let mut call = request(Verb::Del, container);
        call.netns = String::new();
        bench.succeed(&call).await;
    }
    assert_eq!(bench.links.asked().len(), asked);
}

#[tokio::test]
async fn while_the_kernel_is_busy_the_address_stays_taken_and_the_runtime_comes_again() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    bench.links.fail(DataplaneError::Overloaded { waiting: 1 });
    assert_eq!(bench.fail(&request(Verb::Del, "c1")).await.code, 11);
    assert!(bench.pool.lookup(&key("c1")).is_some());
    bench.succeed(&request(Verb::Del, "c1")).await;
    assert!(bench.pool.lookup(&key("c1")).is_none());
}

#[tokio::test]
async fn a_missing_namespace_or_a_lasting_refusal_does_not_keep_a_pod_from_going() {
    let bench = Bench::with_free(2);
    let gone = DataplaneError::NoNamespace { path: "/run/netns/a".into(), source: std::io::ErrorKind::NotFound.into() };
    let lasting = DataplaneError::Malformed { step: "x", detail: "y".into() };
    for (container, error) in [("c1", gone), ("c2", lasting)] {
        bench.add(container).await;
        bench.links.fail(error);
        bench.succeed(&request(Verb::Del, container)).await;
        assert!(bench.pool.lookup(&key(container)).is_none());
    }
}

#[tokio::test]
async fn an_unreadable_prev_result_does_not_keep_a_pod_from_going() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    bench.succeed(&with(request(Verb::Del, "c1"), &json!({"prevResult": {"ips": 7}}))).await;
    assert_eq!(bench.pool.free(), 1);
}

#[tokio::test]
async fn the_link_is_the_one_that_the_result_names() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    let mut call = with(request(Verb::Del, "c1"), &json!({"prevResult": {"interfaces": [{"name": "eniabc"}]}}));
    call.args = String::new();
    bench.succeed(&call).await;
    assert_eq!(bench.links.asked().last(), Some(&Asked::Del(address(1), "eniabc".into())));
}

#[tokio::test]
async fn an_adopted_pod_of_which_the_runtime_remembers_nothing_is_taken_down_by_its_own_link() {
    let bench = Bench::new();
    bench.pool.hold(AttachmentKey::new("", "kernel", HOST_END), PodRef::default(), address(5));
    bench.links.plug(address(5), "/run/netns/a", HOST_END);
    bench.succeed(&request(Verb::Del, "c-of-aws")).await;
    assert_eq!(bench.links.asked(), [Asked::Del(address(5), HOST_END.into())]);
    assert!(bench.pool.attachments().is_empty());
}

#[tokio::test]
async fn a_late_del_of_an_old_sandbox_leaves_the_adopted_pod_of_that_name_alone() {
    let bench = Bench::new();
    bench.pool.hold(AttachmentKey::new("", "kernel", HOST_END), PodRef::default(), address(5));
    bench.links.plug(address(5), "/run/netns/running", HOST_END);
    for netns in ["", "/run/netns/a"] {
        let mut call = request(Verb::Del, "old-sandbox");
        call.netns = netns.into();
        bench.succeed(&call).await;
    }
    let gone = DataplaneError::NoNamespace { path: "/run/netns/a".into(), source: std::io::ErrorKind::NotFound.into() };
    bench.links.fail(gone);
    bench.succeed(&request(Verb::Del, "old-sandbox")).await;
    assert_eq!(bench.links.asked(), []);
    assert_eq!(bench.pool.attachments().len(), 1, "the running pod keeps its address");
}

#[tokio::test]
async fn while_the_kernel_is_busy_a_sandbox_is_neither_taken_down_nor_forgotten() {
    let bench = Bench::new();
    bench.pool.hold(AttachmentKey::new("", "kernel", HOST_END), PodRef::default(), address(5));
    bench.links.plug(address(5), "/run/netns/a", HOST_END);
    bench.links.fail(DataplaneError::Overloaded { waiting: 1 });
    assert_eq!(bench.fail(&request(Verb::Del, "c-of-aws")).await.code, 11);
    bench.succeed(&request(Verb::Del, "c-of-aws")).await;
    assert!(bench.pool.attachments().is_empty());
}

#[tokio::test]
async fn a_pod_of_the_aws_plugin_is_taken_down_by_its_prev_result() {
    let bench = Bench::new();
    bench.pool.hold(AttachmentKey::new("", "kernel", HOST_END), PodRef::default(), address(5));
    let mut call = with(request(Verb::Del, "c-of-aws"), &aws_result("10.0.1.5/32", 0));
    call.netns = String::new();
    bench.succeed(&call).await;
    assert_eq!(bench.links.asked(), [Asked::Del(address(5), HOST_END.into())]);
    assert!(bench.pool.attachments().is_empty());
}

#[tokio::test]
async fn an_adopted_pod_whose_interface_has_another_name_is_taken_down_if_the_sandbox_holds_its_other_end() {
    let bench = Bench::new();
    bench.pool.hold(AttachmentKey::new("", "kernel", "enideadbeef012"), PodRef::default(), address(5));
    let call = with(request(Verb::Del, "c-of-aws"), &aws_result("10.0.1.5/32", 0));
    bench.succeed(&call).await;
    assert!(bench.links.asked().is_empty(), "the address is another pod's by now");
    bench.links.plug(address(5), "/run/netns/a", "enideadbeef012");
    bench.succeed(&call).await;
    assert_eq!(bench.links.asked(), [Asked::Del(address(5), "enideadbeef012".into())]);
    assert!(bench.pool.attachments().is_empty());
}

#[tokio::test]
async fn the_routes_of_an_address_that_no_interface_owns_any_more_are_removed() {
    let bench = Bench::new();
    bench.succeed(&with(request(Verb::Del, "c-of-aws"), &aws_result("10.9.9.9/32", 0))).await;
    assert_eq!(bench.links.asked(), [Asked::Del("10.9.9.9".parse().unwrap(), HOST_END.into())]);
}

#[tokio::test]
async fn a_late_del_of_an_old_sandbox_leaves_the_new_one_alone() {
    let bench = Bench::with_free(1);
    bench.add("new").await;
    bench.succeed(&with(request(Verb::Del, "old"), &aws_result("10.0.1.1/32", 0))).await;
    assert!(bench.pool.lookup(&key("new")).is_some());
    bench.pool.hold(AttachmentKey::new("", "kernel", HOST_END), PodRef::default(), address(9));
    bench.succeed(&with(request(Verb::Del, "old"), &aws_result("10.0.1.8/32", 0))).await;
    assert_eq!(bench.links.asked(), [Asked::Add(address(1))], "the adopted pod has another address");
}

#[tokio::test]
async fn a_pod_on_a_branch_interface_is_not_ours_to_take_down() {
    let bench = Bench::new();
    bench.succeed(&with(request(Verb::Del, "c"), &aws_result("10.9.9.9/32", 7))).await;
    assert!(bench.links.asked().is_empty());
}

fn gc(valid: &serde_json::Value) -> enipool_cni::Request {
    with(request(Verb::Gc, ""), &json!({"cni.dev/valid-attachments": valid}))
}

#[tokio::test]
async fn gc_takes_down_what_the_runtime_forgot_of_this_network_only() {
    let bench = Bench::with_free(3);
    bench.add("kept").await;
    bench.add("forgotten").await;
    bench.pool.hold(AttachmentKey::new("other", "c", "eth0"), PodRef::default(), address(8));
    bench.pool.hold(AttachmentKey::new("", "kernel", HOST_END), PodRef::default(), address(9));
    bench.succeed(&gc(&json!([{"containerID": "kept", "ifname": "eth0"}]))).await;
    assert_eq!(bench.pool.attachments().len(), 3);
    assert!(bench.pool.lookup(&key("forgotten")).is_none());
    assert_eq!(bench.links.asked().last(), Some(&Asked::Del(address(2), HOST_END.into())));
}

#[tokio::test]
async fn gc_without_a_list_takes_nothing_down_and_with_an_empty_one_all() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    bench.succeed(&request(Verb::Gc, "")).await;
    assert!(bench.pool.lookup(&key("c1")).is_some());
    bench.succeed(&gc(&json!([]))).await;
    assert!(bench.pool.lookup(&key("c1")).is_none());
}

#[tokio::test]
async fn gc_goes_on_after_a_failure_and_reports_it() {
    let bench = Bench::with_free(2);
    bench.add("c1").await;
    bench.add("c2").await;
    bench.links.fail(DataplaneError::Overloaded { waiting: 1 });
    let error = bench.fail(&gc(&json!([]))).await;
    assert_eq!(error.code, 11);
    assert_eq!(bench.pool.attachments().len(), 1, "the other one went");
}

#[tokio::test]
async fn queued_deletions_are_carried_out_in_order_before_the_next_call() {
    let bench = Bench::with_free(2);
    bench.add("c1").await;
    bench.add("c2").await;
    for container in ["c2", "c1"] {
        bench.verbs.queue.push("net", &request(Verb::Del, container)).unwrap();
    }
    bench.add("c3").await;
    let asked = bench.links.asked();
    assert_eq!(
        asked[2..],
        [Asked::Del(address(2), HOST_END.into()), Asked::Del(address(1), HOST_END.into()), Asked::Add(address(2))],
        "the ADD finds what the deletions before it gave back"
    );
    assert!(bench.verbs.queue.entries().unwrap().is_empty());
}

#[tokio::test]
async fn an_add_waits_for_the_deletion_of_its_own_attachment_and_for_no_other() {
    let bench = Bench::with_free(3);
    bench.add("c1").await;
    bench.verbs.queue.push("net", &request(Verb::Del, "c1")).unwrap();
    bench.links.fail(DataplaneError::Overloaded { waiting: 1 });
    let error = bench.fail(&request(Verb::Add, "c1")).await;
    assert_eq!(error.code, 11);
    assert!(error.details.contains("deletion"), "{error}");
    assert_eq!(bench.links.asked().len(), 2, "nothing was made over what is to go");

    bench.links.fail(DataplaneError::Overloaded { waiting: 1 });
    bench.add("c2").await;
    bench.add("c1").await;
    bench.verbs.drain().await;
    assert!(bench.pool.lookup(&key("c1")).is_some(), "the new one outlives the deletion of the old one");
}

#[tokio::test]
async fn a_queued_deletion_that_fails_stays_and_one_that_is_rubbish_goes() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    bench.verbs.queue.push("net", &request(Verb::Del, "c1")).unwrap();
    let mut rubbish = request(Verb::Del, "c2");
    rubbish.config = "not json".into();
    bench.verbs.queue.push("net", &rubbish).unwrap();
    bench.links.fail(DataplaneError::Overloaded { waiting: 1 });
    bench.verbs.drain().await;
    assert_eq!(bench.verbs.queue.entries().unwrap().len(), 1);
    bench.verbs.drain().await;
    assert!(bench.verbs.queue.entries().unwrap().is_empty());
    assert_eq!(bench.pool.free(), 1);
}
