//! The fabric with the simulated EC2 in it, as a cluster uses it. Needs root; says so when left out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this file is tests")]

use std::process::Stdio;
use std::time::Duration;

use ec2_sim::model::request::{Assign, AttachInterface, CreateInterface, Wanted};
use ec2_sim::{Request, Response, SimConfig};
use enipool_e2e::fabric::{self, Fabric, FabricConfig, FabricError, Node, NodeSpec, RunId};
use enipool_pool::EniId;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

fn root() -> bool {
    let can = nix::unistd::geteuid().is_root() && std::env::var_os("ENIPOOL_NO_NETNS").is_none();
    if !can {
        eprintln!("left out: the fabric's tests need root, and a kernel that makes network namespaces");
    }
    can
}

async fn start() -> Fabric {
    Fabric::start(FabricConfig { sim: SimConfig::instant(), ..FabricConfig::default() }).await.unwrap()
}

async fn two_nodes(fabric: &Fabric) -> (Node, Node) {
    let zones = fabric.zones();
    let launch = |name, zone: usize| {
        let spec = NodeSpec::new(name, "m5.large").in_zone(zones[zone].clone());
        async move { fabric.launch_node(spec).await.unwrap() }
    };
    tokio::join!(launch("node-1", 0), launch("node-2", 1))
}

fn ec2(fabric: &Fabric, request: &Request) -> Response {
    fabric.sim().model().with(|model| model.call("test", request)).result.unwrap()
}

/// Creates an interface in the node's subnet and attaches it.
async fn attach(fabric: &Fabric, node: &Node, device_index: u32) -> (EniId, String) {
    let subnet = fabric
        .sim()
        .model()
        .with(|model| model.interfaces().find(|eni| eni.mac == node.primary_mac).map(|eni| eni.subnet.clone()));
    let create = CreateInterface { subnet, secondary: Wanted::addresses(1), ..CreateInterface::default() };
    let Response::Interface(eni) = ec2(fabric, &Request::CreateNetworkInterface(create)) else {
        panic!("an interface")
    };
    let attach = AttachInterface {
        interface: eni.id.clone(),
        instance: node.instance_id.clone(),
        device_index,
        network_card: 0,
    };
    ec2(fabric, &Request::AttachNetworkInterface(attach));
    fabric.settled().await.unwrap();
    (eni.id, eni.mac.to_string())
}

async fn sh(node: &Node, script: &str) -> Result<String, FabricError> {
    node.exec(&["sh", "-c", script]).await
}

const TOKEN: &str =
    "curl -sfm5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token";

#[tokio::test(flavor = "multi_thread")]
async fn launched_nodes_talk_to_each_other_to_their_metadata_and_to_ec2() {
    if !root() {
        return;
    }
    let mut fabric = start().await;
    let (one, two) = two_nodes(&fabric).await;
    one.exec(&["ping", "-c1", "-W2", &two.primary_ip.to_string()]).await.unwrap();
    for node in [&one, &two] {
        let metadata = "http://169.254.169.254/latest/meta-data/instance-id";
        let seen = sh(node, &format!("curl -sfm5 -H \"X-aws-ec2-metadata-token: $({TOKEN})\" {metadata}")).await;
        assert_eq!(seen.unwrap(), node.instance_id.to_string(), "each node has metadata of its own");
        sh(node, &format!("curl -sm5 -o /dev/null {}", fabric.ec2_endpoint())).await.expect("EC2 is reached");
    }
    let from_here = Command::new("curl").args(["-sm5", "-o/dev/null", &fabric.ec2_endpoint()]).status().await.unwrap();
    assert!(from_here.success(), "EC2 is reached from the machine itself");
    assert!(matches!(fabric.launch_node(NodeSpec::new("node-1", "m5.large")).await, Err(FabricError::NodeExists(_))));
    assert!(matches!(fabric.launch_node(NodeSpec::new("../x", "m5.large")).await, Err(FabricError::NodeName(_))));
    assert_eq!(fabric.drops().await.unwrap().spoofed_total(), 0);
    fabric.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_comes_with_attach_and_goes_with_detach() {
    if !root() {
        return;
    }
    let mut fabric = start().await;
    let (one, two) = two_nodes(&fabric).await;
    let (eni, mac) = attach(&fabric, &one, 1).await;
    let link = one.exec(&["ip", "link", "show", "eth1"]).await.unwrap();
    assert!(link.contains(&mac) && link.contains("state DOWN"), "{link}");

    let assign = Assign { interface: eni.clone(), wanted: Wanted::addresses(1), allow_reassignment: false };
    let Response::Assigned { assigned, .. } = ec2(&fabric, &Request::AssignPrivateIpAddresses(assign)) else {
        panic!("an address")
    };
    fabric.settled().await.unwrap();
    let address = assigned.addresses[0];
    let gateway = enipool_pool::SubnetCidr("10.0.0.0/20".parse().unwrap()).gateway();
    let setup = format!(
        "ip link set eth1 up; ip addr add {address}/32 dev lo; ip rule add from {address} lookup 100;
         ip route add default via {gateway} dev eth1 onlink table 100"
    );
    sh(&one, &setup).await.unwrap();
    two.exec(&["ping", "-c2", "-W2", &address.to_string()]).await.expect("the new address is reached");

    let attachment = fabric.sim().model().with(|model| model.interface(&eni).unwrap().attachment.clone().unwrap().id);
    ec2(&fabric, &Request::DetachNetworkInterface { attachment, force: false });
    fabric.settled().await.unwrap();
    one.exec(&["ip", "link", "show", "eth1"]).await.expect_err("a detached interface is gone");
    assert_eq!(fabric.drops().await.unwrap().spoofed_total(), 0);
    fabric.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_node_is_gone_and_a_stopped_one_comes_back() {
    if !root() {
        return;
    }
    let mut fabric = start().await;
    let (one, two) = two_nodes(&fabric).await;
    let mut running = two.command("sleep").arg("1000").spawn().unwrap();
    fabric.stop_node("node-2").await.unwrap();
    running.wait().await.expect("what ran on it ended with it");
    assert!(!two.netns.path().exists() && fabric.node("node-2").is_none());
    let back = fabric.start_node("node-2").await.unwrap();
    assert_eq!(back, two, "the same instance with the same primary interface");

    fabric.terminate_node("node-2").await.unwrap();
    assert!(!two.netns.path().exists());
    one.exec(&["ping", "-c1", "-W1", &two.primary_ip.to_string()]).await.expect_err("nobody has that address");
    assert!(matches!(fabric.terminate_node("node-2").await, Err(FabricError::UnknownNode(_))));
    let again = fabric.launch_node(NodeSpec::new("node-2", "m5.large")).await.expect("the name is free again");
    assert_ne!(again.instance_id, two.instance_id);
    fabric.stop().await.unwrap();
}

/// Starts the program and waits until its nodes are up.
async fn start_program(run: &RunId) -> tokio::process::Child {
    let mut program = Command::new(env!("CARGO_BIN_EXE_vpc-fabric"))
        .args(["up", "--nodes", "1", "--instant", "--run", run.as_str()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let started = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("Ctrl-C") {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), started).await.unwrap(), "the program came up");
    program
}

async fn traces(run: &RunId) -> Vec<String> {
    let look = "ip netns; ip -o link; ip -o addr; ls /run/enipool-fabric; cat /run/enipool-fabric/slots/*";
    let output = Command::new("sh").args(["-c", look]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.contains(run.as_str())).map(str::to_owned).collect()
}

fn signal(program: &tokio::process::Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(program.id().unwrap().cast_signed());
    nix::sys::signal::kill(pid, signal).unwrap();
}

#[tokio::test]
async fn the_program_leaves_nothing_when_it_is_interrupted() {
    if !root() {
        return;
    }
    let run = RunId::random();
    let mut program = start_program(&run).await;
    assert!(!traces(&run).await.is_empty());
    signal(&program, nix::sys::signal::Signal::SIGINT);
    assert!(program.wait().await.unwrap().success());
    assert_eq!(traces(&run).await, [""; 0]);
}

#[tokio::test]
async fn what_a_killed_program_left_is_swept_away() {
    if !root() {
        return;
    }
    let run = RunId::random();
    let mut program = start_program(&run).await;
    assert!(!fabric::sweep_stale().await.unwrap().contains(&run), "it lives");
    assert!(!traces(&run).await.is_empty());
    signal(&program, nix::sys::signal::Signal::SIGKILL);
    program.wait().await.unwrap();
    // Another test's start may have swept it already.
    fabric::sweep_stale().await.unwrap();
    assert_eq!(traces(&run).await, [""; 0]);
    fabric::cleanup(&run).await.expect("nothing left is no error");
}
