//! The plugin as the runtime runs it: a process, its environment, standard input, what it prints and how it exits.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use enipool_cni::{CniError, DelQueue, Request, Response, Verb, frame};

/// What a run of the plugin left behind.
struct Run {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn error(&self) -> CniError {
        assert_eq!(self.exit, Some(1), "{} {}", self.stdout, self.stderr);
        assert!(self.stderr.is_empty(), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", self.stdout))
    }
}

fn run(env: &[(&str, &str)], stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_enipool-cni"))
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that settles the call before it reads closes the pipe: not our concern here.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        exit: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn call<'a>(verb: &'a str, container: &'a str) -> [(&'a str, &'a str); 4] {
    [("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_NETNS", "/run/netns/a"), ("CNI_IFNAME", "eth0")]
}

/// A directory of its own for each test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("enipool-cni-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("cni.sock")
    }

    fn queue(&self) -> DelQueue {
        DelQueue::new(self.0.join("del-queue"))
    }

    fn config(&self) -> Vec<u8> {
        format!(
            r#"{{"cniVersion":"1.1.0","name":"net","type":"enipool-cni","socket":"{}","delQueue":"{}","addTimeoutSeconds":1}}"#,
            self.socket().display(),
            self.queue().dir().display()
        )
        .into_bytes()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Answers one request and hands it back.
fn agent(socket: &Path, answer: impl serde::Serialize + Send + 'static) -> std::thread::JoinHandle<Request> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = frame::read(&mut stream).unwrap();
        frame::write(&mut stream, &answer).unwrap();
        request
    })
}

#[test]
fn the_agent_s_answer_is_printed_as_it_is() {
    let place = Place::new();
    let agent = agent(&place.socket(), Response::success(r#"{"cniVersion":"1.1.0","ips":[]}"#.into()));
    let mut env = call("ADD", "c1").to_vec();
    env.push(("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"));
    let done = run(&env, &place.config());
    assert_eq!((done.exit, done.stdout.as_str()), (Some(0), "{\"cniVersion\":\"1.1.0\",\"ips\":[]}\n"));
    let request = agent.join().unwrap();
    assert_eq!((request.verb, request.container_id.as_str(), request.ifname.as_str()), (Verb::Add, "c1", "eth0"));
    assert_eq!((request.netns.as_str(), request.timeout_ms), ("/run/netns/a", 1000));
    assert_eq!(request.args, "IgnoreUnknown=1;K8S_POD_NAME=web");
    assert_eq!(request.config.as_bytes(), place.config());
}

#[test]
fn agents_one_version_apart_are_understood_whatever_else_their_frames_say() {
    for answer in [
        serde_json::json!({"protocol": 0, "stdout": "{}"}),
        serde_json::json!({"protocol": 2, "exit": 0, "stdout": "{}", "phases": {"wait": 1.5}, "hints": ["later"]}),
    ] {
        let place = Place::new();
        let agent = agent(&place.socket(), answer.clone());
        let done = run(&call("ADD", "c1"), &place.config());
        assert_eq!((done.exit, done.stdout.as_str()), (Some(0), "{}\n"), "{answer}");
        agent.join().unwrap();
    }
}

#[test]
fn a_failure_of_the_agent_is_a_failure_of_the_plugin() {
    let place = Place::new();
    let refusal = CniError::new(enipool_cni::Code::TryAgainLater, "no address");
    let agent = agent(&place.socket(), Response::failure(&refusal));
    assert_eq!(run(&call("ADD", "c1"), &place.config()).error(), refusal);
    agent.join().unwrap();
}

#[test]
fn version_is_answered_without_an_agent_in_the_version_of_the_question() {
    for (stdin, version) in [(r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), ("", "1.1.0"), (r#"{"cniVersion":"9"}"#, "1.1.0")]
    {
        let done = run(&[("CNI_COMMAND", "VERSION")], stdin.as_bytes());
        let answer: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!((done.exit, answer["cniVersion"].as_str()), (Some(0), Some(version)));
        assert_eq!(answer["supportedVersions"], serde_json::json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }
}

#[test]
fn add_check_and_gc_without_an_agent_are_to_be_tried_again() {
    let place = Place::new();
    for verb in ["ADD", "CHECK", "GC"] {
        let error = run(&call(verb, "c1"), &place.config()).error();
        assert_eq!((error.code, error.cni_version.as_str()), (11, "1.1.0"), "{verb}");
        assert!(error.details.contains("enipool-agent"), "says where to look: {error}");
    }
    assert!(place.queue().entries().unwrap().is_empty());
}

#[test]
fn status_without_an_agent_is_not_available() {
    let place = Place::new();
    assert_eq!(run(&[("CNI_COMMAND", "STATUS")], &place.config()).error().code, 50);
}

#[test]
fn an_agent_that_goes_away_or_hangs_ends_in_an_error_to_be_tried_again() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket()).unwrap();
    let gone = std::thread::spawn(move || {
        drop(listener.accept().unwrap());
        // The second caller is accepted by the kernel alone: nobody answers.
        listener
    });
    let error = run(&call("ADD", "c1"), &place.config()).error();
    assert!(error.code == 11 && error.msg.contains("went away"), "{error}");
    let listener = gone.join().unwrap();
    let error = run(&call("ADD", "c1"), &place.config()).error();
    assert!(error.code == 11 && error.msg.contains("in time"), "{error}");
    drop(listener);
}

#[test]
fn a_del_while_the_agent_is_away_succeeds_and_waits_in_order() {
    let place = Place::new();
    // The same one again (the runtime repeats), with another cached result: still one entry.
    for container in ["c1", "c2", "c1", "c3"] {
        let done = run(&call("DEL", container), &place.config());
        assert_eq!((done.exit, done.stdout.as_str(), done.stderr.as_str()), (Some(0), "", ""));
    }
    let queue = place.queue();
    let waiting: Vec<_> =
        queue.entries().unwrap().iter().map(|entry| queue.load(entry).unwrap().container_id).collect();
    assert_eq!(waiting, ["c1", "c2", "c3"]);
}

#[test]
fn a_del_without_an_answer_is_queued_too() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket()).unwrap();
    let agent = std::thread::spawn(move || drop(listener.accept().unwrap()));
    assert_eq!(run(&call("DEL", "c1"), &place.config()).exit, Some(0));
    agent.join().unwrap();
    assert_eq!(place.queue().entries().unwrap().len(), 1);
}

#[test]
fn bad_input_is_named_with_the_specification_s_codes() {
    let place = Place::new();
    assert_eq!(run(&[], b"").error().code, 4);
    assert_eq!(run(&[("CNI_COMMAND", "DANCE")], b"").error().code, 4);
    assert_eq!(run(&[("CNI_COMMAND", "ADD")], &place.config()).error().code, 4);
    assert_eq!(run(&call("ADD", "../c1"), &place.config()).error().code, 4);
    assert_eq!(run(&call("ADD", "c1"), b"").error().code, 6);
    assert_eq!(run(&call("ADD", "c1"), b"{\xff").error().code, 6);
    assert_eq!(run(&call("ADD", "c1"), &vec![b' '; (1 << 20) + 1]).error().code, 6);
    assert_eq!(run(&call("ADD", "c1"), br#"{"cniVersion":"0.1.0","name":"n"}"#).error().code, 1);
    assert_eq!(run(&call("ADD", "c1"), br#"{"cniVersion":"1.0.0"}"#).error().code, 7);
    assert_eq!(run(&[("CNI_COMMAND", "GC")], br#"{"cniVersion":"1.0.0","name":"n"}"#).error().code, 1);
}
