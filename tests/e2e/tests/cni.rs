//! The plugin and the real agent on a node of the fabric, judged by `cnitool`: the reference runtime library. Needs root,
//! the built binaries and the programs of `make tools`, so it is left to `make test-harness`, and fails where they are
//! missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this file is tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ec2_sim::SimConfig;
use enipool_e2e::bare::agent::{Agent, AgentSpec};
use enipool_e2e::bare::plugin::Attachment;
use enipool_e2e::bare::pods::{self, PodNetns};
use enipool_e2e::bare::{agent_executable, plugin_executable, tools};
use enipool_e2e::fabric::{Fabric, FabricConfig, NodeSpec};

/// A node with its agent, and a folder in which `cnitool` finds all plugins.
struct Stage {
    fabric: Fabric,
    agent: Option<Agent>,
    netns: PathBuf,
    root: PathBuf,
    prefix: String,
}

impl Stage {
    async fn set() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces are made: this needs root");
        let tools = tools().unwrap();
        assert!(tools.join("cnitool").exists(), "{} has no cnitool; `make tools` builds it", tools.display());
        let fabric =
            Fabric::start(FabricConfig { sim: SimConfig::instant(), ..FabricConfig::default() }).await.unwrap();
        let node = fabric.launch_node(NodeSpec::new("node", "m5.large")).await.unwrap();
        let root = PathBuf::from("/run").join(format!("enipool-cni-test-{}", fabric.run_id()));
        let plugins = root.join("bin");
        std::fs::create_dir_all(&plugins).unwrap();
        std::os::unix::fs::symlink(plugin_executable(), plugins.join("enipool-cni")).unwrap();
        std::os::unix::fs::symlink(tools.join("portmap"), plugins.join("portmap")).unwrap();
        let spec = AgentSpec {
            executable: agent_executable(),
            plugin: plugins.join("enipool-cni"),
            node: node.name.clone(),
            netns: node.netns.path().to_owned(),
            state: root.join("state"),
            ec2_endpoint: fabric.ec2_endpoint(),
            region: fabric.region().to_owned(),
            kubeconfig: None,
            env: vec![("IP_COOLDOWN_PERIOD", "1")],
        };
        let prefix = format!("enp-cni-{}", fabric.run_id());
        let agent = tokio::task::block_in_place(|| spec.start()).unwrap();
        Self { fabric, agent: Some(agent), netns: node.netns.path().to_owned(), root, prefix }
    }

    /// Ends the agent without a word; returns what starts it again.
    fn kill_agent(&mut self) -> AgentSpec {
        self.agent.take().unwrap().kill().unwrap()
    }

    fn start_agent(&mut self, spec: AgentSpec) {
        self.agent = Some(tokio::task::block_in_place(|| spec.start()).unwrap());
    }

    fn pod(&self, name: &str) -> PodNetns {
        PodNetns::new(&format!("{}-{name}", self.prefix)).unwrap()
    }

    /// `cnitool VERB enipool NETNS` as the node's runtime would call it, with the agent's own configuration.
    fn cnitool(&self, verb: &str, pod: &PodNetns) -> Output {
        self.cnitool_by(&self.root.join("state"), verb, pod)
    }

    /// The same with the configuration in another folder.
    fn cnitool_by(&self, configurations: &Path, verb: &str, pod: &PodNetns) -> Output {
        let container = pod.path().file_name().unwrap().to_str().unwrap().to_owned();
        let cache = self.cache();
        std::fs::create_dir_all(&cache).unwrap();
        // The tool always caches below /var/lib/cni: that place is made this stage's own.
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-ec", "mkdir -p /var/lib/cni; mount --bind \"$0\" /var/lib/cni; exec \"$@\""])
            .arg(cache)
            .arg(tools().unwrap().join("cnitool"))
            .args([verb, "enipool", pod.path().to_str().unwrap()])
            .env("NETCONFPATH", configurations)
            .env("CNI_PATH", self.root.join("bin"))
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME={container}"))
            .env("CAP_ARGS", r#"{"portMappings":[{"hostPort":18080,"containerPort":80,"protocol":"tcp"}]}"#);
        pods::inside(&self.netns, || Ok(command.output()?)).unwrap()
    }

    fn succeed(&self, verb: &str, pod: &PodNetns) -> serde_json::Value {
        self.succeed_by(&self.root.join("state"), verb, pod)
    }

    fn succeed_by(&self, configurations: &Path, verb: &str, pod: &PodNetns) -> serde_json::Value {
        let output = self.cnitool_by(configurations, verb, pod);
        assert!(output.status.success(), "{verb}: {}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// A folder with the agent's configuration as a runtime sees it that speaks `version` and no other: the reference
    /// library takes the newest of `cniVersions` that it knows, and without that list `cniVersion`.
    fn configuration_in(&self, version: &str) -> PathBuf {
        let written = std::fs::read(self.root.join("state/10-enipool.conflist")).unwrap();
        let mut list: serde_json::Value = serde_json::from_slice(&written).unwrap();
        list.as_object_mut().unwrap().remove("cniVersions");
        list["cniVersion"] = version.into();
        assert!(list["plugins"].as_array().unwrap().iter().any(|plugin| plugin["type"] == "portmap"), "{list}");
        let folder = self.root.join(format!("conf-{version}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("10-enipool.conflist"), list.to_string()).unwrap();
        folder
    }

    fn fail(&self, verb: &str, pod: &PodNetns) -> String {
        let output = self.cnitool(verb, pod);
        assert!(!output.status.success(), "{verb} succeeded: {}", text(&output.stdout));
        text(&output.stdout) + &text(&output.stderr)
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The runtime's memory of a pod.
    fn cached(&self, pod: &PodNetns) -> PathBuf {
        let of_pod = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).unwrap();
            text.contains(&format!("\"{}\"", pod.path().display()))
        };
        let files = std::fs::read_dir(self.cache().join("results")).unwrap();
        files.map(|file| file.unwrap().path()).find(of_pod).unwrap()
    }

    /// Introspection shows a picture that is renewed a moment after each change.
    fn expect_assigned(&mut self, count: u64) {
        self.agent.as_mut().unwrap().wait_for_assigned(count).unwrap();
    }

    async fn strike(mut self) {
        tokio::task::block_in_place(|| drop(self.agent.take()));
        self.fabric.stop().await.unwrap();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn in_pod(pod: &PodNetns, command: &str) -> String {
    let output = pods::inside(pod.path(), || Ok(Command::new("sh").args(["-c", command]).output()?)).unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

fn address(result: &serde_json::Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `make tools` builds: make test-harness"]
async fn the_reference_runtime_adds_checks_and_deletes_a_pod_with_a_host_port() {
    let mut stage = Stage::set().await;
    let pod = stage.pod("one");
    let result = stage.succeed("add", &pod);
    assert_eq!(result["cniVersion"], "1.1.0", "the runtime picked the newest version");
    let address = address(&result);
    let shown = in_pod(&pod, "ip -4 addr show eth0; ip route");
    assert!(shown.contains(&address) && shown.contains("default via 169.254.1.1"), "{shown}");
    assert_eq!(stage.succeed("add", &pod)["ips"], result["ips"], "the same ADD again");
    stage.succeed("check", &pod);
    stage.expect_assigned(1);
    stage.succeed("status", &pod);

    in_pod(&pod, "ip link set eth0 down");
    let said = stage.fail("check", &pod);
    assert!(said.contains("down"), "CHECK says what is wrong: {said}");

    stage.succeed("del", &pod);
    stage.succeed("del", &pod);
    stage.expect_assigned(0);
    assert!(stage.fail("check", &pod).contains("prevResult"), "nothing is cached any more");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `make tools` builds: make test-harness"]
async fn every_version_of_the_specification_is_spoken_with_portmap_behind() {
    let mut stage = Stage::set().await;
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let configuration = stage.configuration_in(version);
        let pod = stage.pod(&format!("v{}", version.replace('.', "")));
        let result = stage.succeed_by(&configuration, "add", &pod);
        assert_eq!(result["cniVersion"], version, "{result}");
        // The address's family was a field of its own before 1.0.0.
        assert_eq!(result["ips"][0]["version"].as_str(), version.starts_with('0').then_some("4"), "{result}");
        let address = address(&result);
        let shown = in_pod(&pod, "ip -4 addr show eth0");
        assert!(shown.contains(&address), "{version}: {shown}");
        assert_eq!(
            stage.succeed_by(&configuration, "add", &pod)["ips"],
            result["ips"],
            "{version}: the same ADD again"
        );
        stage.expect_assigned(1);

        // CHECK came with 0.4.0.
        if version == "0.3.1" {
            let refused = stage.cnitool_by(&configuration, "check", &pod);
            assert!(!refused.status.success(), "{version} has no CHECK: {}", text(&refused.stdout));
        } else {
            stage.succeed_by(&configuration, "check", &pod);
        }
        stage.succeed_by(&configuration, "del", &pod);
        stage.succeed_by(&configuration, "del", &pod);
        stage.expect_assigned(0);
    }
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `make tools` builds: make test-harness"]
async fn gc_takes_down_what_the_runtime_does_not_know() {
    let mut stage = Stage::set().await;
    let (kept, forgotten) = (stage.pod("kept"), stage.pod("forgotten"));
    stage.succeed("add", &kept);
    stage.succeed("add", &forgotten);
    std::fs::remove_file(stage.cached(&forgotten)).unwrap();
    let file = stage.cached(&kept).file_name().unwrap().to_str().unwrap().to_owned();
    let container = file.strip_prefix("enipool-").unwrap().strip_suffix("-eth0").unwrap();

    let mut plugin = stage.agent.as_ref().unwrap().plugin.clone();
    plugin.config["cni.dev/valid-attachments"] = serde_json::json!([{"containerID": container, "ifname": "eth0"}]);
    let nobody = Attachment { container: String::new(), netns: PathBuf::new(), result: None };
    let run = pods::inside(&stage.netns, || plugin.run("GC", &nobody)).unwrap();
    assert!(run.success, "{}", run.stdout);
    stage.expect_assigned(1);
    stage.succeed("check", &kept);

    stage.succeed("gc", &kept);
    // the tool gives no list and deletes all that it knows
    stage.expect_assigned(0);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs what `make tools` builds: make test-harness"]
async fn pods_go_while_the_agent_is_away_and_those_that_stay_are_found_again() {
    let mut stage = Stage::set().await;
    let (going, staying) = (stage.pod("going"), stage.pod("staying"));
    stage.succeed("add", &going);
    let result = stage.succeed("add", &staying);

    let spec = stage.kill_agent();
    let said = stage.fail("add", &stage.pod("coming"));
    assert!(said.contains("not running on this node"), "{said}");
    assert!(stage.fail("status", &going).contains("not running"));
    stage.succeed("del", &going);
    stage.start_agent(spec);

    // the queued deletion was carried out before the agent served
    stage.expect_assigned(1);
    assert_eq!(stage.succeed("add", &staying)["ips"], result["ips"], "the same ADD after a restart");
    stage.succeed("check", &staying);
    stage.strike().await;
}
