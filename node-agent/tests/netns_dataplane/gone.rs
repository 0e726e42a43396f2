//! When a pod counts as gone: what leases that only the kernel knew of are ended by.

use std::net::Ipv4Addr;

use enipool_agent::dataplane::{Randomization, Snat, VethPrefix};
use enipool_agent::engine::{HostPod, Kernel};
use enipool_agent::host::{Host, HostSettings};
use enipool_agent::status::wishes::HostWishes;
use tokio::sync::watch;

use crate::lab::can_run;
use crate::vpc::{Node, Pod, Vpc};

#[test]
fn a_pod_is_gone_when_neither_its_route_nor_its_interface_is_left() {
    if !can_run("a_pod_is_gone_when_neither_its_route_nor_its_interface_is_left") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 0);
    let pod = Pod::new("a", node.state.primary.addresses[0]);
    let of = |address, host_ifname: &str| HostPod { address, host_ifname: host_ifname.to_owned() };
    let running = of(pod.address, pod.spec().host_ifname.as_str());
    let elsewhere = Ipv4Addr::new(10, 0, 1, 200);
    node.netns.sh("ip link add enideadbeef001 type veth peer name other");
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        let snat = Snat::Primary { randomization: Randomization::Prng, exclude: Vec::new() };
        let (_wishes, seen) = watch::channel(HostWishes { snat, mtu: 9001 });
        let settings =
            HostSettings { node_ports: true, external_service_cidrs: Vec::new(), veth_prefix: VethPrefix::default() };
        let host = Host::new(dataplane.clone(), settings, seen);

        let by_address = of(pod.address, "enideadbeef002");
        let by_interface = of(elsewhere, "enideadbeef001");
        let by_nothing = of(elsewhere, "enideadbeef002");
        let asked = [running.clone(), by_address, by_interface, by_nothing.clone()];
        assert_eq!(host.gone(&asked).await.unwrap(), [by_nothing]);

        node.netns.sh(&format!("ip link del {}", running.host_ifname));
        assert_eq!(host.gone(std::slice::from_ref(&running)).await.unwrap(), std::slice::from_ref(&running));
    });
}
