//! The server on a real socket, with the plugin's own half of the protocol on the other side.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use enipool_cni::{Request, Response, Verb, frame};
use tokio_util::sync::CancellationToken;

use super::doubles::{Bench, address, request};
use crate::cni::{Addresses, Server, ServerConfig};

struct Running {
    bench: Bench,
    socket: PathBuf,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(bench: Bench, allowed_uid: u32) -> Running {
    let socket = bench.dir.path().join("run").join("cni.sock");
    let server = Server::bind(ServerConfig { socket: socket.clone(), allowed_uid }).unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.serve(Arc::clone(&bench.verbs), shutdown.clone()));
    Running { bench, socket, shutdown, task }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

impl Running {
    /// A frame of any shape.
    async fn ask_raw(&self, frame: serde_json::Value) -> Response {
        self.exchange(frame).await.unwrap()
    }

    async fn ask(&self, request: Request) -> std::io::Result<Response> {
        self.exchange(request).await
    }

    async fn exchange(&self, request: impl serde::Serialize + Send + 'static) -> std::io::Result<Response> {
        let socket = self.socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket)?;
            frame::write(&mut stream, &request)?;
            frame::read(&mut stream)
        })
        .await
        .unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn twenty_plugins_at_once_get_twenty_addresses() {
    let running = start(Bench::with_free(20), own_uid());
    let calls = (0..20).map(|n| running.ask(request(Verb::Add, &format!("c{n}"))));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|response| response.exit == 0)));
    assert_eq!(running.bench.pool.attachments().len(), 20);
    running.stop().await;
}

#[tokio::test]
async fn only_the_owner_may_speak() {
    let running = start(Bench::with_free(1), own_uid() + 1);
    assert!(running.ask(request(Verb::Add, "c1")).await.is_err());
    assert!(running.bench.pool.attachments().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn the_socket_is_closed_to_others_from_its_first_moment() {
    let running = start(Bench::new(), own_uid());
    assert_eq!(std::fs::metadata(&running.socket).unwrap().permissions().mode() & 0o777, 0o600);
    let dir = running.socket.parent().unwrap().to_owned();
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_new_agent_takes_the_socket_over() {
    let bench = Bench::with_free(1);
    let socket = bench.dir.path().join("run").join("cni.sock");
    let dead = Server::bind(ServerConfig { socket, allowed_uid: own_uid() }).unwrap();
    drop(dead);
    let running = start(bench, own_uid());
    assert_eq!(running.ask(request(Verb::Add, "c1")).await.unwrap().exit, 0);
    running.stop().await;
}

#[tokio::test]
async fn an_add_whose_plugin_is_killed_stops_waiting() {
    let running = start(Bench::new(), own_uid());
    let mut stream = UnixStream::connect(&running.socket).unwrap();
    frame::write(&mut stream, &request(Verb::Add, "c1")).unwrap();
    // The call is under way once its attachment is.
    let key = super::doubles::key("c1");
    wait_until(|| running.bench.verbs.flights.is_busy(&key)).await;
    drop(stream);
    wait_until(|| !running.bench.verbs.flights.is_busy(&key)).await;
    running.bench.pool.supply(address(1));
    assert_eq!(running.bench.pool.free(), 1);
    running.stop().await;
}

async fn wait_until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn rubbish_on_the_socket_is_answered_and_harms_nobody_else() {
    let running = start(Bench::with_free(1), own_uid());
    let socket = running.socket.clone();
    let rubbish = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&[0, 0, 0, 2, b'n', b'o']).unwrap();
        let answer: Response = frame::read(&mut stream).unwrap();
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&[0xff; 64]).unwrap();
        let too_long: Response = frame::read(&mut stream).unwrap();
        (answer, too_long)
    });
    let (unreadable, too_long) = rubbish.await.unwrap();
    assert!(unreadable.exit == 1 && unreadable.stdout.contains("\"code\":6"), "{unreadable:?}");
    assert!(too_long.exit == 1 && too_long.stdout.contains("longer than"), "{too_long:?}");
    assert_eq!(running.ask(request(Verb::Add, "c1")).await.unwrap().exit, 0);
    running.stop().await;
}

#[tokio::test]
async fn deletions_that_waited_are_done_before_the_first_call_is_answered() {
    let bench = Bench::with_free(1);
    bench.add("old").await;
    bench.verbs.queue.push("net", &request(Verb::Del, "old")).unwrap();
    let running = start(bench, own_uid());
    let answer = running.ask(request(Verb::Add, "new")).await.unwrap();
    assert!(answer.stdout.contains("10.0.1.1/32"), "{}", answer.stdout);
    running.stop().await;
}

#[tokio::test]
async fn plugins_one_version_apart_are_served_whatever_else_their_frames_say() {
    let running = start(Bench::with_free(2), own_uid());
    let config = request(Verb::Add, "").config;
    for (container, protocol) in [("older", Some(0)), ("newer", Some(2)), ("oldest", None)] {
        for verb in ["ADD", "DEL"] {
            let mut call = serde_json::json!({
                "verb": verb, "containerId": container, "netns": "/run/netns/a", "ifname": "eth0", "config": config,
                "priority": {"of": "a later protocol"}, "attempts": [1, 2],
            });
            if let Some(protocol) = protocol {
                call["protocol"] = protocol.into();
            }
            let answer = running.ask_raw(call).await;
            assert_eq!(answer.exit, 0, "{protocol:?} {verb}: {}", answer.stdout);
            assert_eq!(answer.stdout.contains("10.0.1."), verb == "ADD", "{}", answer.stdout);
        }
    }
    let too_new = running.ask_raw(serde_json::json!({"verb": "ADD", "protocol": 3, "config": config})).await;
    assert!(too_new.exit == 1 && too_new.stdout.contains("\"code\":11"), "{too_new:?}");
    running.stop().await;
}

#[tokio::test]
async fn stopping_ends_in_time_also_with_an_add_that_waits() {
    let running = start(Bench::new(), own_uid());
    let mut stream = UnixStream::connect(&running.socket).unwrap();
    frame::write(&mut stream, &request(Verb::Add, "c1")).unwrap();
    wait_until(|| running.bench.verbs.flights.is_busy(&super::doubles::key("c1"))).await;
    tokio::time::timeout(Duration::from_secs(4), running.stop()).await.unwrap();
}
