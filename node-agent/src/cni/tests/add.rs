//! ADD: an address, a link and an answer; or none of them.

use std::sync::Arc;
use std::time::Duration;

use enipool_cni::{CniResult, Verb};
use futures::FutureExt;
use serde_json::json;
use tokio::sync::Notify;

use super::doubles::{Asked, Bench, address, key, request, with};
use crate::cni::Addresses;
use crate::dataplane::DataplaneError;

fn busy() -> DataplaneError {
    DataplaneError::Overloaded { waiting: 1 }
}

#[tokio::test]
async fn a_pod_gets_an_address_a_link_and_a_result_that_names_them() {
    let bench = Bench::with_free(1);
    let result = bench.add("c1").await;
    assert_eq!(result.ips[0].address, "10.0.1.1/32");
    assert_eq!(result.interfaces[0].name, "eni0d7763386da", "the host's end is named as the AWS plugin names it");
    assert_eq!(result.interfaces[1].sandbox, "/run/netns/a");
    let spec = bench.links.spec(address(1)).unwrap();
    assert_eq!((spec.ifname.as_str(), spec.mtu), ("eth0", 9001));
    let (_, pod, _) = bench.pool.attachments().remove(0);
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("default", "web-0", "u1"));
}

#[tokio::test]
async fn the_same_add_again_gets_the_same_answer_and_leaves_a_whole_link_alone() {
    let bench = Bench::with_free(2);
    assert_eq!(bench.add("c1").await, bench.add("c1").await);
    assert_eq!(bench.links.asked(), [Asked::Add(address(1)), Asked::Check(address(1))]);
    assert_eq!(bench.pool.free(), 1);
}

#[tokio::test]
async fn the_same_add_again_mends_a_broken_link() {
    let bench = Bench::with_free(1);
    let first = bench.add("c1").await;
    bench.links.lose(address(1));
    assert_eq!(bench.add("c1").await, first);
    assert!(bench.links.spec(address(1)).is_some());
}

#[tokio::test]
async fn when_the_kernel_refuses_the_address_goes_back() {
    let bench = Bench::with_free(1);
    bench.links.fail(busy());
    let error = bench.fail(&request(Verb::Add, "c1")).await;
    assert_eq!((error.code, error.cni_version.as_str()), (11, "1.1.0"));
    assert_eq!(bench.pool.free(), 1);
    let asked = bench.links.asked();
    assert_eq!(
        asked,
        [Asked::Add(address(1)), Asked::Del(address(1), "eni0d7763386da".into())],
        "what was half made is removed"
    );
}

#[tokio::test]
async fn when_mending_fails_the_running_pod_keeps_its_address() {
    let bench = Bench::with_free(1);
    bench.add("c1").await;
    bench.links.lose(address(1));
    bench.links.fail(busy());
    bench.links.fail(busy());
    bench.fail(&request(Verb::Add, "c1")).await;
    assert!(bench.pool.lookup(&key("c1")).is_some());
    assert!(!bench.links.asked().iter().any(|asked| matches!(asked, Asked::Del(..))));
}

#[tokio::test(start_paused = true)]
async fn an_add_on_an_empty_pool_waits_for_supply() {
    let bench = Bench::new();
    let call = request(Verb::Add, "c1");
    let supply = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        bench.pool.supply(address(7));
    };
    let (answer, ()) = tokio::join!(bench.succeed(&call), supply);
    assert!(answer.contains("10.0.1.7/32"));
    let seen = bench.seen.0.lock().unwrap();
    assert_eq!((seen[0].outcome, seen[0].phases.wait), ("success", Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn an_add_that_waits_in_vain_ends_before_the_plugin_gives_up_and_says_why() {
    let bench = Bench::new();
    let begun = tokio::time::Instant::now();
    let error = bench.fail(&request(Verb::Add, "c1")).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(8), "the plugin waits for 10 s");
    assert_eq!(error.code, 11);
    assert!(error.msg.contains("Cooling") && error.details.contains("rest after"), "{error}");
    assert_eq!(bench.seen.0.lock().unwrap()[0].outcome, "Cooling");
}

#[tokio::test(start_paused = true)]
async fn an_add_behind_queued_deletions_ends_before_the_plugin_gives_up() {
    for (count, seconds) in [(1, 3), (3, 3)] {
        let bench = Bench::with_free(count);
        for n in 1..=count {
            bench.add(&format!("old{n}")).await;
            bench.verbs.queue.push("net", &request(Verb::Del, &format!("old{n}"))).unwrap();
        }
        *bench.links.slow_del.lock().unwrap() = Duration::from_secs(seconds);
        bench.pool.hoard();
        let begun = tokio::time::Instant::now();
        let error = bench.fail(&request(Verb::Add, "c1")).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(8), "{count} deletions; the plugin waits for 10 s: {error}");
        assert_eq!(error.code, 11);
    }
}

#[tokio::test(start_paused = true)]
async fn a_del_cancels_an_add_that_waits() {
    let bench = Bench::new();
    let (waiting, delete) = (request(Verb::Add, "c1"), request(Verb::Del, "c1"));
    let delete = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.succeed(&delete).await;
    };
    let begun = tokio::time::Instant::now();
    let (error, ()) = tokio::join!(bench.fail(&waiting), delete);
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert!(error.code == 11 && error.msg.contains("Cancelled"), "{error}");
    bench.pool.supply(address(1));
    assert_eq!(bench.pool.free(), 1, "nobody is left who would take it");
}

#[tokio::test]
async fn a_del_waits_for_an_add_in_the_kernel_and_then_takes_it_down() {
    let bench = Bench::with_free(1);
    let gate = Arc::new(Notify::new());
    *bench.links.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let (add, del) = (request(Verb::Add, "c1"), request(Verb::Del, "c1"));
    let mut add = Box::pin(bench.answer(&add));
    assert!(add.as_mut().now_or_never().is_none());
    let mut del = Box::pin(bench.answer(&del));
    assert!(del.as_mut().now_or_never().is_none(), "the link is being made");
    gate.notify_one();
    assert_eq!(add.await.exit, 0);
    assert_eq!(del.await.exit, 0);
    assert_eq!(bench.pool.free(), 1);
    assert!(bench.links.spec(address(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_add_whose_plugin_died_takes_no_address() {
    let bench = Bench::new();
    let call = request(Verb::Add, "c1");
    let died = tokio::time::sleep(Duration::from_secs(2));
    let response = bench.verbs.answer(&call, died).await;
    assert_eq!(response.exit, 1);
    bench.pool.supply(address(1));
    assert_eq!(bench.pool.free(), 1);
}

#[tokio::test]
async fn each_version_of_the_specification_gets_its_own_form() {
    let bench = Bench::with_free(4);
    for (n, version) in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"].into_iter().enumerate() {
        let call = with(request(Verb::Add, &format!("c{n}")), &json!({"cniVersion": version}));
        let result: CniResult = serde_json::from_str(&bench.succeed(&call).await).unwrap();
        assert_eq!(result.cni_version, version);
        assert_eq!(result.ips[0].version.is_some(), version.starts_with('0'));
    }
}

#[tokio::test]
async fn dns_and_mtu_of_the_configuration_are_passed_on() {
    let bench = Bench::with_free(2);
    bench.verbs.set_mtu(1500);
    assert_eq!(bench.add("c1").await.interfaces[1].mtu, Some(1500));
    let call = with(request(Verb::Add, "c2"), &json!({"mtu": 1400, "dns": {"nameservers": ["10.0.0.2"]}}));
    let result: CniResult = serde_json::from_str(&bench.succeed(&call).await).unwrap();
    assert_eq!((result.interfaces[1].mtu, result.dns.nameservers), (Some(1400), vec!["10.0.0.2".to_owned()]));
}

#[tokio::test]
async fn two_interfaces_of_one_pod_and_containers_without_a_pod_have_links_of_their_own() {
    let bench = Bench::with_free(4);
    let mut names = std::collections::BTreeSet::new();
    for (container, ifname, args) in
        [("c1", "eth0", "K8S_POD_NAME=a"), ("c1", "net1", "K8S_POD_NAME=a"), ("c2", "eth0", ""), ("c3", "eth0", "")]
    {
        let mut call = request(Verb::Add, container);
        (call.ifname, call.args) = (ifname.into(), args.into());
        let result: CniResult = serde_json::from_str(&bench.succeed(&call).await).unwrap();
        names.insert(result.interfaces[0].name.clone());
    }
    assert_eq!(names.len(), 4);
}

#[tokio::test]
async fn a_bad_request_is_refused_in_the_specification_s_codes() {
    let bench = Bench::with_free(1);
    let mut call = request(Verb::Add, "c1");
    call.args = "oops".into();
    assert_eq!(bench.fail(&call).await.code, 4);
    call.config = "{".into();
    assert_eq!(bench.fail(&call).await.code, 6);
    call.protocol = 9;
    assert_eq!(bench.fail(&call).await.code, 11);
    assert_eq!(bench.pool.free(), 1);
    assert!(bench.seen.0.lock().unwrap().iter().all(|call| call.outcome == "bad_request"));
}
