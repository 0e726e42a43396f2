//! The built binary against a small HTTP server that answers as an API server does: what people at a terminal get when
//! something is missing, slow or forbidden, and that flags and paging reach the wire.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use enipool_crds::fixtures::{default_class, pool_with_enis};
use serde_json::{Value, json};

/// Answers by path with query; what is not listed gets the plain 404 of an unknown API.
struct ApiServer {
    kubeconfig: tempfile::NamedTempFile,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ApiServer {
    fn start(answers: &[(&str, u16, Value)]) -> Self {
        let answers: BTreeMap<String, (u16, String)> =
            answers.iter().map(|(path, code, body)| ((*path).to_owned(), (*code, body.to_string()))).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, log) = (answers.clone(), log.clone());
                std::thread::spawn(move || answer(stream, &answers, &log));
            }
        });
        let mut kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let context = |name: &str, namespace: &str| json!({"name": name, "context": {"cluster": "c", "user": "u", "namespace": namespace}});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "first",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [context("first", "shop"), context("second", "other")],
        });
        kubeconfig.write_all(config.to_string().as_bytes()).unwrap();
        Self { kubeconfig, asked }
    }

    fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kubectl-enipool"))
            .args(arguments.split(' '))
            .arg("--kubeconfig")
            .arg(self.kubeconfig.path())
            .output()
            .unwrap()
    }

    fn answer(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn failure(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty(), "a failure leaves nothing for a pipe");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn answer(mut stream: TcpStream, answers: &BTreeMap<String, (u16, String)>, log: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let Some(path) = head.split(' ').nth(1) else { return };
    log.lock().unwrap().push(path.to_owned());
    let (code, body) = answers.get(path).cloned().unwrap_or_else(|| (404, "404 page not found".into()));
    if code == SILENT {
        // Holds the connection open without an answer until the client gives up.
        let _ = stream.read(&mut byte);
        return;
    }
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {code} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
}

const SILENT: u16 = 0;

const POOLS: &str = "/apis/enipool.dev/v1alpha1/enipools";
const ALL_POOLS: &str = "/apis/enipool.dev/v1alpha1/enipools?&limit=500";
const ALL_CLASSES: &str = "/apis/enipool.dev/v1alpha1/enipoolclasses?&limit=500";

fn list(kind: &str, items: &[Value], next: &str) -> Value {
    json!({"apiVersion": "v1", "kind": format!("{kind}List"), "metadata": {"continue": next}, "items": items})
}

fn object(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn missing(kind: &str, name: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{kind} {name:?} not found"), "details": {"name": name, "kind": kind}})
}

fn forbidden(message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": message, "details": {}})
}

fn pod(host_network: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "web", "uid": "u-1"},
        "spec": {"nodeName": "node-a", "hostNetwork": host_network, "containers": [{"name": "web"}]},
        "status": {"phase": "Pending"}})
}

#[test]
fn top_reads_a_fleet_page_by_page() {
    let second = format!("{ALL_POOLS}&continue=more");
    let server = ApiServer::start(&[
        (ALL_POOLS, 200, list("ENIPool", &[object(pool_with_enis("node-a", 1, 9, 1))], "more")),
        (&second, 200, list("ENIPool", &[object(pool_with_enis("node-b", 1, 9, 9))], "")),
        (ALL_CLASSES, 200, list("ENIPoolClass", &[object(default_class())], "")),
    ]);
    let text = server.answer("top");
    let order: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).take(4).collect();
    assert_eq!(order, ["NODE", "node-b", "node-a", "TOTAL"], "{text}");
    let json: Value = serde_json::from_str(&server.answer("top -o json --sort name")).unwrap();
    assert_eq!(json["nodes"][0]["node"], "node-a");
    assert_eq!(json["totals"]["free"], 8);
}

#[test]
fn a_cluster_without_enipool_is_named_as_such() {
    let server = ApiServer::start(&[]);
    let text = server.failure("top");
    assert!(text.contains("not installed") && text.contains("helm install"), "{text}");
}

#[test]
fn a_node_without_a_pool_is_told_apart_from_that() {
    let path = format!("{POOLS}/node-x");
    let classes = list("ENIPoolClass", &[], "");
    let server = ApiServer::start(&[(&path, 404, missing("enipools", "node-x")), (ALL_CLASSES, 200, classes)]);
    let text = server.failure("top node-x");
    assert!(text.contains("no ENIPool node-x") && text.contains("enipool-operator"), "{text}");
}

#[test]
fn what_is_forbidden_is_named_with_what_to_ask_for() {
    let server = ApiServer::start(&[
        (ALL_POOLS, 403, forbidden("user may not list enipools")),
        (ALL_CLASSES, 403, forbidden("no")),
    ]);
    let text = server.failure("top");
    assert!(text.contains("not allowed to list enipools") && text.contains("role"), "{text}");
}

#[test]
fn a_server_that_does_not_answer_costs_the_limit_and_no_more() {
    let server = ApiServer::start(&[(ALL_POOLS, SILENT, Value::Null), (ALL_CLASSES, SILENT, Value::Null)]);
    let begun = std::time::Instant::now();
    let text = server.failure("top --request-timeout 1s");
    assert!(begun.elapsed().as_secs() < 9, "{:?}", begun.elapsed());
    assert!(text.contains("within 1s") && text.contains("/readyz"), "{text}");
}

#[test]
fn a_pod_that_is_not_there_is_looked_for_in_other_namespaces() {
    let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "web"}});
    let server = ApiServer::start(&[
        ("/api/v1/namespaces/other/pods/web", 404, missing("pods", "web")),
        ("/api/v1/pods?&fieldSelector=metadata.name%3Dweb&limit=500", 200, list("Pod", &[other], "")),
    ]);
    let text = server.failure("why web --context second");
    assert!(text.contains("no pod web in namespace other") && text.contains("-n shop"), "{text}");
}

#[test]
fn the_story_is_told_with_what_could_be_read() {
    let pool = pool_with_enis("node-a", 1, 9, 9);
    let path = format!("{POOLS}/node-a");
    let server = ApiServer::start(&[
        ("/api/v1/namespaces/shop/pods/web", 200, pod(false)),
        ("/api/v1/nodes/node-a", 403, forbidden("no nodes")),
        (&path, 200, object(pool)),
    ]);
    let text = server.answer("why pod/web");
    assert!(text.starts_with("Pod shop/web waits for an address: node node-a has none free"), "{text}");
    assert!(text.contains("Addresses   9 on 1 of 1 ENIs"), "{text}");
    let json: Value = serde_json::from_str(&server.answer("why web -o json")).unwrap();
    assert_eq!(json["verdict"], "NoFreeAddress");
    assert!(json["notRead"][0].as_str().unwrap().contains("no nodes"), "{json}");
    let asked = server.asked.lock().unwrap().join("\n");
    assert!(asked.contains("/api/v1/namespaces/shop/events?"), "{asked}");
    assert!(asked.contains("involvedObject.uid%3Du-1"), "{asked}");
    assert!(asked.contains("spec.nodeName%3Dnode-a") && asked.contains("component%3Dagent"), "{asked}");
}

#[test]
fn a_pod_on_the_host_s_network_needs_no_enipool_installed() {
    let server = ApiServer::start(&[("/api/v1/namespaces/shop/pods/web", 200, pod(true))]);
    assert!(server.answer("why web").contains("hostNetwork"));
}

#[test]
fn a_kubeconfig_or_context_that_is_not_there_is_named() {
    let server = ApiServer::start(&[]);
    let text = server.failure("top --context third");
    assert!(text.contains("third") && text.contains("get-contexts"), "{text}");
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-enipool"))
        .args(["top", "--kubeconfig", "/nonexistent/config"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/nonexistent/config"), "{text}");
}
