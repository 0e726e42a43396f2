//! Tests of the support script: run as on a node, against the pages that the agent serves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::install::{SUPPORT_SCRIPT, SUPPORT_SCRIPT_NAME};
use crate::introspection::fixture::served;
use crate::status::fixture::snapshot;

/// A node's folders, and a container runtime that knows one agent, whose doctor finds something.
struct Place {
    root: tempfile::TempDir,
}

const CRICTL: &str = r#"#!/bin/sh
case "$1" in
  pods) [ "$2" = -q ] && echo sandbox ;;
  ps) [ "$2" = -q ] && echo container ;;
  exec) echo '{"healthy":false,"findings":[]}'; exit 1 ;;
esac
"#;

impl Place {
    fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["log", "run/del-queue", "cni", "bin"] {
            fs::create_dir_all(place.path(folder)).unwrap();
        }
        place.write("log/ipamd.log.2026-11-23-07", "a line of the agent");
        place.write("log/aws-cni-support.tar.gz", "an older bundle");
        place.write("run/ledger.journal", "a record");
        place.write("run/del-queue/00000001", "a deletion");
        place.write("run/found.json", "settings as found");
        place.write("run/instance-type.json", "what EC2 says");
        place.write("run/chained-plugins.json", "what portmap says");
        place.write("run/wishes.json", "what was asked for last");
        place.write("cni/10-enipool.conflist", r#"{"name":"enipool","plugins":[{"type":"enipool-cni"}]}"#);
        place.write(
            "cni/20-other.conf",
            r#"{"mtu":1500,"policy":{"k8s_auth_token":"hush-1","Password" : "hush-\"2\" hush"},"type":"other"}"#,
        );
        place.write("cni/other-kubeconfig", "token: hush-3");
        place.write("bin/crictl", CRICTL);
        place.write(&format!("bin/{SUPPORT_SCRIPT_NAME}"), std::str::from_utf8(SUPPORT_SCRIPT).unwrap());
        fs::set_permissions(place.path("bin/crictl"), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn script(&self, introspection: &str) -> Command {
        let mut command = Command::new("sh");
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap_or_default());
        command
            .arg(self.path("bin").join(SUPPORT_SCRIPT_NAME))
            .env("PATH", path)
            .env("ENIPOOL_LOG_DIR", self.path("log"))
            .env("ENIPOOL_RUN_DIR", self.path("run"))
            .env("ENIPOOL_CNI_CONF_DIR", self.path("cni"))
            .env("ENIPOOL_INTROSPECTION", introspection)
            .env("HUSH", "hush-4");
        command
    }

    /// The bundle's folder, unpacked.
    fn unpack(&self, archive: &Path) -> PathBuf {
        let to = self.path("unpacked");
        fs::create_dir(&to).unwrap();
        let tar = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&to).status().unwrap();
        assert!(tar.success());
        to.join("enipool-support")
    }
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

fn is_root() -> bool {
    // It asks the kernel for links, rules and routes.
    let can = nix::unistd::geteuid().is_root() && std::env::var_os("ENIPOOL_NO_NETNS").is_none();
    if !can {
        eprintln!("left out: tests of the support script (it needs root, and a kernel whose network answers)");
    }
    can
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bundle_has_what_an_engineer_asks_for_next_and_no_secrets() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let script = place.script(&format!("http://{}", served(snapshot()).await));
    let output = tokio::task::spawn_blocking(move || run(script)).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let archive = place.path("log/aws-cni-support.tar.gz");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), archive.display().to_string());
    let bundle = place.unpack(&archive);

    let read = |name: &str| fs::read_to_string(bundle.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for page in ["enis", "pods", "pool", "intents", "config"] {
        serde_json::from_str::<serde_json::Value>(&read(&format!("agent/v1-{page}.json"))).unwrap();
    }
    assert!(read("agent/metrics.txt").contains("awscni_eni_allocated 2\n"));
    assert!(read("agent/doctor.json").contains("healthy"), "what the doctor found, although it then ends with 1");
    assert_eq!(read("agent/ledger.journal"), "a record");
    assert_eq!(read("agent/del-queue/00000001"), "a deletion");
    assert_eq!(read("agent/found.json"), "settings as found");
    assert_eq!(read("agent/instance-type.json"), "what EC2 says");
    assert_eq!(read("agent/chained-plugins.json"), "what portmap says");
    assert_eq!(read("agent/wishes.json"), "what was asked for last");
    assert_eq!(read("logs/ipamd.log.2026-11-23-07"), "a line of the agent");
    assert!(read("kernel/rules.txt").contains("lookup main"));
    assert!(read("kernel/links.txt").contains("lo:"));
    assert!(read("cni/10-enipool.conflist").contains("enipool-cni"));
    assert!(read("cni/20-other.conf").contains(r#""mtu":1500"#));
    serde_json::from_str::<serde_json::Value>(&read("cni/20-other.conf")).unwrap();
    assert!(!bundle.join("logs/aws-cni-support.tar.gz").exists());

    let missing = fs::read_to_string(bundle.join("MISSING")).unwrap_or_default();
    assert!(!missing.contains("agent/"), "the script asks the agent for what it does not serve:\n{missing}");
    for file in files_below(&bundle) {
        let content = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        assert!(!content.contains("hush"), "a secret is in {}", file.display());
    }
    let left: Vec<_> = fs::read_dir(place.path("log")).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing but the log and the archive: {left:?}");
}

#[test]
fn without_an_agent_the_bundle_says_what_is_missing() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::remove_file(place.path("bin/crictl")).unwrap();
    let out = place.path("elsewhere.tar.gz");
    // Port 9 is nobody's.
    let mut script = place.script("http://127.0.0.1:9");
    script.arg("-o").arg(&out);
    let output = run(script);
    assert!(output.status.success(), "{output:?}");
    let bundle = place.unpack(&out);
    let missing = fs::read_to_string(bundle.join("MISSING")).unwrap();
    assert!(missing.contains("agent/v1-pool.json"), "{missing}");
    assert!(bundle.join("agent/ledger.journal").exists());
}

#[test]
fn an_argument_that_is_not_known_is_named() {
    let place = Place::new();
    let mut script = place.script("http://127.0.0.1:9");
    script.arg("--all");
    let output = run(script);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--all"), "{output:?}");
}
