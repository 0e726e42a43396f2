//! The cluster harness itself: two clusters at once, what is left of one that was killed or interrupted, and what a cluster
//! that fails says; and the demo as a person sees it. Needs root and the programs of `make tools`, so it is left to `make
//! test-harness`, and fails where they are missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this file is tests")]

mod demo;
mod keeper;
mod traces;

use nix::sys::signal::Signal;

use crate::keeper::{Keeper, Place};
use crate::traces::Traces;

/// Runs a pod on the cluster's node and waits until it is ready: API server, controllers, kubelet, containerd and the
/// plugins have all done their part then.
async fn run_pod(cluster: &Keeper, name: &str) {
    cluster.kubectl(&["run", name, "--image=enipool.dev/busybox:1", "--", "sleep", "1000"]).await.unwrap();
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("pod/{name}")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn two_clusters_run_at_once_and_nothing_is_left_of_one_that_is_killed_nor_of_one_that_is_interrupted() {
    let place = Place::new();
    let (mut killed, mut other) = (place.start_cluster().await, place.start_cluster().await);
    tokio::join!(killed.up(), other.up());
    tokio::join!(run_pod(&killed, "first"), run_pod(&other, "first"));

    let of_killed = Traces::of(&killed);
    assert!(of_killed.left().len() > 20, "the traces of a living cluster are found: {:#?}", of_killed.left());
    killed.signal(Signal::SIGKILL);
    killed.ended().await;
    let swept = place.demo_down().await;
    assert_eq!(swept, format!("swept what run {} left\n", killed.run()), "the dead run, and not the living one");
    of_killed.expect_gone().await;

    run_pod(&other, "second").await;
    let of_other = Traces::of(&other);
    other.signal(Signal::SIGINT);
    assert!(other.ended().await.success(), "an end that was asked for is no failure");
    of_other.expect_gone().await;
    assert_eq!(place.demo_down().await, "no demo is up\n", "there was nothing more to sweep");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn a_start_of_the_usual_two_nodes_that_is_interrupted_half_way_leaves_nothing() {
    let place = Place::new();
    let mut cluster = place.start_cluster_as(&[]).await;
    cluster.says("Starting etcd").await;
    cluster.finds_process("etcd").await;
    let traces = Traces::of(&cluster);
    assert!(!traces.left().is_empty());
    cluster.signal(Signal::SIGINT);
    assert!(!cluster.ended().await.success());
    traces.expect_gone().await;
    cluster.expect_words(&["the machines node-1 and node-2", "interrupted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn an_api_server_that_cannot_start_is_told_with_the_end_of_its_log() {
    let place = Place::new();
    place.replace_program("kube-apiserver", "echo 'no disk to write to' >&2; exit 3");
    let mut cluster = place.start_cluster().await;
    assert!(!cluster.ended().await.success());
    let log = cluster.log("kube-apiserver");
    cluster.expect_words(&["kube-apiserver ended on its own (exit status: 3)", &log, "no disk to write to"]);
    assert!(std::fs::read_to_string(log).unwrap().contains("no disk to write to"), "the log that was named is kept");
    Traces::of(&cluster).expect_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn a_kubelet_that_cannot_start_is_told_at_once_with_the_end_of_its_log() {
    let place = Place::new();
    // The last of many lines; the first ones are of no use to anybody.
    place.replace_program("kubelet", "seq 1 100; echo 'this kernel has no cgroups' >&2; exit 4");
    let mut cluster = place.start_cluster().await;
    assert!(!cluster.ended().await.success());
    let log = cluster.log("node-1-kubelet");
    cluster.expect_words(&["node-1-kubelet ended on its own (exit status: 4)", &log, "this kernel has no cgroups"]);
    assert!(!cluster.words().lines().any(|line| line.trim() == "1"), "the end of the log, not all of it");
    Traces::of(&cluster).expect_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn a_cluster_whose_kubelet_dies_shows_pods_events_and_the_logs_that_matter() {
    let place = Place::new();
    let mut cluster = place.start_cluster().await;
    cluster.up().await;
    let crash = ["run", "unhappy", "--image=enipool.dev/busybox:1", "--", "sh", "-c", "echo out of luck; exit 5"];
    cluster.kubectl(&crash).await.unwrap();
    let restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    cluster.kubectl(&["wait", restarted, "--timeout=90s", "pod/unhappy"]).await.unwrap();
    let kubelet = cluster.finds_process("kubelet").await;
    nix::sys::signal::kill(kubelet, Signal::SIGKILL).unwrap();
    assert!(!cluster.ended().await.success());
    let log = cluster.log("node-1-kubelet");
    cluster.expect_words(&[
        "node-1-kubelet ended on its own (signal: 9 (SIGKILL))",
        &format!("the end of {log}"),
        "--- kubectl get pods",
        "unhappy",
        "--- kubectl get events",
        "Successfully assigned default/unhappy",
        "default_unhappy",
        "out of luck",
        "all logs:",
    ]);
}
