//! The demo as a person sees it: on a terminal, without one, and with second thoughts.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::keeper::Place;
use crate::traces::Traces;

/// With everything built and cached.
const DEMO: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn the_demo_leaves_its_cluster_to_who_watched_it_on_a_terminal_until_demo_down() {
    let place = Place::alone();
    let begun = Instant::now();
    let shown = place.demo_on_a_terminal().await;
    let took = begun.elapsed();
    println!("the demo took {:.0} s", took.as_secs_f64());
    assert!(took < DEMO, "the demo took {took:?}: {shown}");

    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    let export = lines.iter().find(|line| line.starts_with("export KUBECONFIG=")).expect("no export line");
    let commands: Vec<&&str> = lines.iter().skip_while(|line| **line != "Worth trying:").skip(1).take(3).collect();
    assert!(commands.len() == 3 && commands.iter().all(|line| line.starts_with("kubectl ")), "{commands:?}");
    assert!(lines.contains(&"make demo-down"), "how to end it: {shown}");

    // What was shown is typed in.
    let ready = format!("{export}; kubectl wait --for=condition=Ready --timeout=10s node --all");
    assert_eq!(place.shell(&ready).await.lines().count(), 2, "two nodes are ready");
    let seen = place.shell(&format!("{export}; {}", commands[0])).await;
    assert!(seen.contains("node-a") && seen.contains("node-b"), "{}: {seen}", commands[0]);

    let kubeconfig = export.split(['=', ' ']).nth(2).unwrap();
    let dir = Path::new(kubeconfig).parent().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("run.json")).unwrap()).unwrap();
    let keeper = Pid::from_raw(record["keeper"].as_i64().unwrap().try_into().unwrap());
    let traces = Traces::of_run(dir, keeper);
    assert!(traces.left().len() > 20, "the traces of a living demo are found: {:#?}", traces.left());
    let run = dir.file_name().unwrap().to_str().unwrap();
    assert_eq!(place.demo_down().await, format!("ending demo {run}\n"));
    traces.expect_gone().await;
    assert_eq!(place.demo_down().await, "no demo is up\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn the_demo_without_a_terminal_tells_its_whole_story_and_leaves_nothing() {
    let place = Place::alone();
    let begun = Instant::now();
    let mut demo = place.start_demo_into_a_pipe().await;
    // The last chapter: all that a demo has is there.
    demo.says("More spare addresses for one node, now").await;
    let traces = Traces::of(&demo);
    assert!(traces.left().len() > 20, "the traces of a living demo are found: {:#?}", traces.left());
    assert!(demo.ended().await.success(), "{}", demo.words());
    let took = begun.elapsed();
    println!("the demo took {:.0} s", took.as_secs_f64());
    traces.expect_gone().await;
    assert_eq!(place.demo_down().await, "no demo is up\n");
    assert!(took < DEMO, "the demo took {took:?}: {}", demo.words());

    demo.expect_words(&[
        "Install enipool: helm install",
        "Every pod has an address of the VPC",
        "a host outside the VPC",
        "the node's primary address (source NAT)",
        "kubectl get enipools",
        r#"kubectl patch enipool node-a --type merge -p '{"spec":{"warmENITarget":2}}'"#,
        "That was all of it",
    ]);
    let words = demo.words();
    assert!(!words.contains('\x1b') && !words.contains("make demo-down"), "that is for people at terminals: {words}");
    let rows: Vec<Vec<&str>> = words.lines().map(|line| line.split_whitespace().collect()).collect();
    for node in ["node-a", "node-b"] {
        assert!(rows.iter().any(|row| row.starts_with(&[node, "Ready"])), "{node} gets ready: {words}");
    }
    assert_eq!(words.matches("2 packets received").count(), 2, "a pod and the outside answer pings: {words}");
    // The table of pools before the patch, and after it.
    let pools = rows.iter().filter(|row| row.starts_with(&["node-a", "m5.xlarge"]));
    let enis: Vec<u32> = pools.map(|row| row[2].parse().unwrap()).collect();
    assert!(matches!(enis[..], [before, after] if after == before + 1), "one ENI more: {enis:?} in {words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts clusters: make test-harness"]
async fn ctrl_c_at_the_terminal_of_a_demo_that_still_starts_leaves_nothing() {
    const CTRL_C: u8 = 3;
    let place = Place::new();
    let mut demo = place.start_demo_on_a_terminal().await;
    demo.finds_process("etcd").await;
    let traces = Traces::of(&demo);
    assert!(!traces.left().is_empty());
    demo.press(CTRL_C).await;
    assert!(!demo.ended().await.success(), "{}", demo.words());
    demo.expect_words(&["demo: interrupted"]);
    traces.expect_gone().await;
    assert_eq!(place.demo_down().await, "no demo is up\n", "there was nothing more to sweep");
}

/// The last command that `make demo` would run.
fn make_demo(variables: &[&str]) -> String {
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut make = Command::new("make");
    // Of the make that runs these tests.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("CI");
    let output = make.current_dir(tree).args(["--dry-run", "demo"]).args(variables).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim().to_owned()
}

#[test]
fn make_demo_tears_its_cluster_down_when_ci_is_set() {
    assert!(make_demo(&["CI=1"]).ends_with("/demo up --once"));
    assert!(make_demo(&[]).ends_with("/demo up"));
}
