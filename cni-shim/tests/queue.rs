//! The queue of deletions on a real file system.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use enipool_cni::queue::QueueError;
use enipool_cni::{DelQueue, Request, Verb};

fn place(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("enipool-queue-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn del(container: &str) -> Request {
    Request {
        protocol: 1,
        verb: Verb::Del,
        container_id: container.into(),
        netns: String::new(),
        ifname: "eth0".into(),
        args: String::new(),
        timeout_ms: 0,
        config: "{}".into(),
    }
}

#[test]
fn what_was_queued_first_comes_first_also_after_some_are_taken() {
    let queue = DelQueue::new(place("order"));
    assert!(queue.entries().unwrap().is_empty(), "no directory, no entries");
    for n in 0..12 {
        queue.push("net", &del(&format!("c{n}"))).unwrap();
    }
    let entries = queue.entries().unwrap();
    let order: Vec<_> = entries.iter().map(|e| queue.load(e).unwrap().container_id).collect();
    assert_eq!(order, (0..12).map(|n| format!("c{n}")).collect::<Vec<_>>());
    assert!(queue.holds("net", "c0", "eth0").unwrap() && !queue.holds("net", "c0", "net1").unwrap());
    queue.remove(&entries[0]).unwrap();
    queue.remove(&entries[0]).unwrap();
    assert!(!queue.holds("net", "c0", "eth0").unwrap());
    queue.push("net", &del("c0")).unwrap();
    let last = queue.entries().unwrap().pop().unwrap();
    assert_eq!(queue.load(&last).unwrap().container_id, "c0", "a deletion after the first was taken is a new one");
    fs::remove_dir_all(queue.dir()).unwrap();
}

#[test]
fn the_same_attachment_waits_once_and_other_networks_do_not_count_as_the_same() {
    let queue = DelQueue::new(place("once"));
    for network in ["a", "a", "b"] {
        queue.push(network, &del("c")).unwrap();
    }
    assert_eq!(queue.entries().unwrap().len(), 2);
    fs::remove_dir_all(queue.dir()).unwrap();
}

#[test]
fn a_full_queue_says_so_and_still_knows_what_it_holds() {
    let queue = DelQueue::new(place("full")).bounded(2);
    for container in ["c1", "c2"] {
        queue.push("net", &del(container)).unwrap();
    }
    assert!(matches!(queue.push("net", &del("c3")), Err(QueueError::Full(2))));
    queue.push("net", &del("c1")).unwrap();
    fs::remove_dir_all(queue.dir()).unwrap();
}

#[test]
fn many_plugins_at_once_lose_nothing() {
    let queue = DelQueue::new(place("many"));
    let exe = std::env::current_exe().unwrap();
    // Each process has its own temporary file, so processes are what must be tried, not threads.
    let children: Vec<_> = (0..16)
        .map(|n| {
            std::process::Command::new(&exe)
                .args(["--exact", "one_of_many", "--ignored", "--quiet"])
                .env("QUEUE_DIR", queue.dir())
                .env("QUEUE_CONTAINER", format!("c{n}"))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(queue.entries().unwrap().len(), 16);
    let hidden = fs::read_dir(queue.dir()).unwrap().count();
    assert_eq!(hidden, 16, "no temporary file is left");
    fs::remove_dir_all(queue.dir()).unwrap();
}

#[test]
#[ignore = "started by many_plugins_at_once_lose_nothing"]
fn one_of_many() {
    let (Ok(dir), Ok(container)) = (std::env::var("QUEUE_DIR"), std::env::var("QUEUE_CONTAINER")) else { return };
    DelQueue::new(dir).push("net", &del(&container)).unwrap();
}

#[test]
fn leftovers_of_a_killed_plugin_are_no_entries_and_are_tidied_away() {
    let queue = DelQueue::new(place("tidy"));
    queue.push("net", &del("c1")).unwrap();
    fs::write(queue.dir().join(".4711.tmp"), "{\"verb\":").unwrap();
    fs::write(queue.dir().join("README"), "not ours").unwrap();
    assert_eq!(queue.entries().unwrap().len(), 1);
    queue.tidy().unwrap();
    assert!(!queue.dir().join(".4711.tmp").exists());
    assert!(queue.dir().join("README").exists());
    fs::remove_dir_all(queue.dir()).unwrap();
}

#[test]
fn a_file_that_holds_no_request_is_an_error_and_not_a_deletion() {
    let queue = DelQueue::new(place("bad"));
    queue.push("net", &del("c1")).unwrap();
    let entry = queue.entries().unwrap().remove(0);
    let file = fs::read_dir(queue.dir()).unwrap().next().unwrap().unwrap().path();
    fs::write(file, "garbage").unwrap();
    assert_eq!(queue.load(&entry).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    fs::remove_dir_all(queue.dir()).unwrap();
}
