//! Where packets go: to pods of the node, out by the right ENI, out of the VPC.

use enipool_agent::dataplane::{PodSpec, Randomization, Snat};

use crate::lab::{Netns, can_run};
use crate::traffic::{datagram, tcp, udp};
use crate::vpc::{INTERNET, Node, PEERED, Pod, Vpc};

#[test]
fn pods_of_one_node_reach_each_other_over_all_its_interfaces() {
    if !can_run("pods_of_one_node_reach_each_other_over_all_its_interfaces") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 1);
    let (a, b) = (Pod::new("a", node.state.primary.addresses[0]), Pod::new("b", node.state.secondary[0].addresses[0]));
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        a.plug(&dataplane).await;
        b.plug(&dataplane).await;
        assert_eq!(udp(&a.netns, &b.netns, b.address), Ok(a.address));
        assert_eq!(udp(&b.netns, &a.netns, a.address), Ok(b.address));
        assert_eq!(udp(&node.netns, &b.netns, b.address), Ok(node.state.primary.primary_address));
        assert_eq!(udp(&b.netns, &node.netns, node.state.primary.primary_address), Ok(b.address));
        assert_eq!(vpc.dropped(), 0);
    });
}

#[test]
fn a_pod_on_a_secondary_interface_reaches_another_node_with_its_own_address() {
    if !can_run("a_pod_on_a_secondary_interface_reaches_another_node_with_its_own_address") {
        return;
    }
    let vpc = Vpc::new();
    let (one, two) = (Node::new(&vpc, 1, 2), Node::new(&vpc, 2, 1));
    let here = Pod::new("here", one.state.secondary[1].addresses[0]);
    let there = Pod::new("there", two.state.secondary[0].addresses[0]);
    one.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&one.state).await.unwrap();
        here.plug(&dataplane).await;
        two.with_dataplane(async |dataplane| {
            dataplane.ensure_host(&two.state).await.unwrap();
            there.plug(&dataplane).await;
            assert_eq!(udp(&here.netns, &there.netns, there.address), Ok(here.address));
            assert_eq!(udp(&there.netns, &here.netns, here.address), Ok(there.address));
            assert_eq!(udp(&one.netns, &there.netns, there.address), Ok(one.state.primary.primary_address));
        });
        assert_eq!(vpc.dropped(), 0);
    });
}

#[test]
fn what_leaves_the_vpc_has_the_nodes_address_except_towards_exclusions() {
    if !can_run("what_leaves_the_vpc_has_the_nodes_address_except_towards_exclusions") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 1);
    let pods =
        [&node.state.primary, &node.state.secondary[0]].map(|eni| Pod::new(&eni.eni.to_string(), eni.addresses[1]));
    let primary = node.state.primary.primary_address;
    for (randomization, words) in [
        (Randomization::Prng, &["fully-random"][..]),
        (Randomization::HashRandom, &["random"][..]),
        (Randomization::None, &[][..]),
    ] {
        node.state.snat = Snat::Primary { randomization, exclude: vec!["198.51.100.0/24".parse().unwrap()] };
        node.with_dataplane(async |dataplane| {
            dataplane.ensure_host(&node.state).await.unwrap();
            // How ports are drawn cannot be seen in a packet or two: the kernel is asked.
            let table = node.netns.sh("nft list table ip enipool");
            let said: Vec<_> = table.split_whitespace().filter(|word| word.ends_with("random")).collect();
            assert_eq!(said, words, "{randomization:?}: {table}");
            for pod in &pods {
                pod.plug(&dataplane).await;
                assert_eq!(udp(&pod.netns, &vpc.internet, INTERNET), Ok(primary), "{randomization:?}");
                assert_eq!(udp(&pod.netns, &vpc.internet, PEERED), Ok(pod.address), "{randomization:?}");
                // Who is let in from there gets his answers, too.
                assert_eq!(udp(&vpc.internet, &pod.netns, pod.address), Ok(INTERNET), "{randomization:?}");
            }
            assert_eq!(vpc.dropped(), 0, "{randomization:?}");
        });
    }
}

#[test]
fn a_second_range_of_the_vpc_is_inside_as_soon_as_the_host_is_told() {
    if !can_run("a_second_range_of_the_vpc_is_inside_as_soon_as_the_host_is_told") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 1);
    let pod = Pod::new("a", node.state.secondary[0].addresses[0]);
    let primary = node.state.primary.primary_address;
    let one = node.state.clone();
    node.state.vpc_cidrs.push(ipnet::Ipv4Net::new(INTERNET, 24).unwrap().trunc());
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&one).await.unwrap();
        pod.plug(&dataplane).await;
        for (state, seen) in [(&one, primary), (&node.state, pod.address), (&one, primary)] {
            dataplane.ensure_host(state).await.unwrap();
            assert_eq!(udp(&pod.netns, &vpc.internet, INTERNET), Ok(seen), "{:?}", state.vpc_cidrs);
        }
        assert_eq!(vpc.dropped(), 0);
    });
}

#[test]
fn with_external_snat_pods_leave_by_their_own_interface_untouched() {
    if !can_run("with_external_snat_pods_leave_by_their_own_interface_untouched") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 1);
    node.state.snat = Snat::External;
    let pod = Pod::new("a", node.state.secondary[0].addresses[0]);
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        assert_eq!(udp(&pod.netns, &vpc.internet, INTERNET), Ok(pod.address));
        assert_eq!(vpc.dropped(), 0);
    });
}

#[test]
fn pods_with_addresses_of_a_delegated_prefix_leave_by_its_interface() {
    if !can_run("pods_with_addresses_of_a_delegated_prefix_leave_by_its_interface") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 0);
    let mut eni = crate::vpc::eni(1, 1);
    eni.prefixes = vec!["10.0.1.64/28".parse().unwrap(), "10.0.1.224/28".parse().unwrap()];
    vpc.attach(&node.netns, "eth1", &eni);
    let pods: Vec<Pod> = eni
        .prefixes
        .iter()
        .enumerate()
        .map(|(index, prefix)| Pod::new(&index.to_string(), prefix.addresses().nth(7).unwrap()))
        .collect();
    node.state.secondary.push(eni);
    let other = Node::new(&vpc, 2, 0);
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        for pod in &pods {
            pod.plug(&dataplane).await;
            assert_eq!(udp(&pod.netns, &other.netns, other.state.primary.primary_address), Ok(pod.address));
        }
        assert_eq!(vpc.dropped(), 0);
    });
}

/// Both ways in which kube-proxy makes a NodePort.
const NODE_PORTS: [(&str, &str); 2] = [
    (
        "nftables",
        "nft add table ip kube-proxy
        nft 'add chain ip kube-proxy nat { type nat hook prerouting priority dstnat; }'
        nft 'add rule ip kube-proxy nat fib daddr type local tcp dport 30080 dnat to POD:8080'",
    ),
    (
        "iptables",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 30080 -j DNAT --to-destination POD:8080",
    ),
];

#[test]
fn replies_of_a_node_port_go_back_over_the_interface_that_was_asked() {
    if !can_run("replies_of_a_node_port_go_back_over_the_interface_that_was_asked") {
        return;
    }
    for (mode, script) in NODE_PORTS {
        let vpc = Vpc::new();
        let node = Node::new(&vpc, 1, 2);
        let pod = Pod::new("web", node.state.secondary[1].addresses[0]);
        node.netns.sh(&script.replace("POD", &pod.address.to_string()));
        node.with_dataplane(async |dataplane| {
            dataplane.ensure_host(&node.state).await.unwrap();
            pod.plug(&dataplane).await;
            for asked in [&node.state.primary, &node.state.secondary[0]] {
                let seen = tcp(&vpc.internet, (asked.primary_address, 30080), &pod.netns, 8080);
                assert_eq!(seen, Ok(INTERNET), "{mode}, {}", asked.primary_address);
            }
            assert_eq!(vpc.dropped(), 0, "{mode}");
        });
    }
}

#[test]
fn a_masqueraded_node_port_leads_to_pods_here_and_on_another_node() {
    if !can_run("a_masqueraded_node_port_leads_to_pods_here_and_on_another_node") {
        return;
    }
    let vpc = Vpc::new();
    let (one, two) = (Node::new(&vpc, 1, 1), Node::new(&vpc, 2, 1));
    let here = Pod::new("here", one.state.secondary[0].addresses[0]);
    let there = Pod::new("there", two.state.secondary[0].addresses[0]);
    // externalTrafficPolicy: Cluster, as kube-proxy does it.
    one.netns.sh(&format!(
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 30080 -j MARK --or-mark 0x4000
         iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 30081 -j MARK --or-mark 0x4000
         iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 30080 -j DNAT --to-destination {}:8080
         iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 30081 -j DNAT --to-destination {}:8080
         iptables -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully",
        here.address, there.address
    ));
    one.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&one.state).await.unwrap();
        here.plug(&dataplane).await;
        two.with_dataplane(async |dataplane| {
            dataplane.ensure_host(&two.state).await.unwrap();
            there.plug(&dataplane).await;
            let asked = one.state.primary.primary_address;
            for (port, pod) in [(30080, &here), (30081, &there)] {
                assert_eq!(tcp(&vpc.internet, (asked, port), &pod.netns, 8080), Ok(asked), "{port}");
                // A pod on a secondary interface asks its own node's port.
                assert!(tcp(&here.netns, (asked, port), &pod.netns, 8080).is_ok(), "{port}");
            }
        });
        assert_eq!(vpc.dropped(), 0);
    });
}

#[test]
fn external_services_are_reached_as_the_main_table_says() {
    if !can_run("external_services_are_reached_as_the_main_table_says") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 1);
    node.state.snat = Snat::External;
    node.state.external_service_cidrs = vec!["192.0.2.0/24".parse().unwrap()];
    let service = Netns::new();
    let address = "192.0.2.9".parse().unwrap();
    node.netns.sh("ip link add svc type veth peer name in; ip link set svc up; ip route add 192.0.2.0/24 dev svc");
    service.take_link(&node.netns, "in");
    service.sh(&format!("ip link set in up; ip addr add {address}/24 dev in; ip route add default dev in"));
    node.netns.sh("sysctl -qw net.ipv4.conf.svc.proxy_arp=1");
    let pod = Pod::new("a", node.state.secondary[0].addresses[0]);
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        assert_eq!(udp(&pod.netns, &service, address), Ok(pod.address));
    });
}

#[test]
fn a_pod_cannot_become_the_nodes_ipv6_router() {
    if !can_run("a_pod_cannot_become_the_nodes_ipv6_router") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 0);
    let pod = Pod::new("a", node.state.primary.addresses[0]);
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        let name = pod.spec().host_ifname;
        assert_eq!(node.netns.sh(&format!("sysctl -n net.ipv6.conf.{name}.disable_ipv6")).trim(), "1");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    if !can_run("a_pod_reaches_itself_through_its_own_service") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 1);
    let pod = Pod::new("web", node.state.secondary[0].addresses[0]);
    // As kube-proxy does it: DNAT, and masquerade for those whose packets would come back to themselves.
    node.netns.sh(&format!(
        "nft add table ip kube-proxy
         nft 'add chain ip kube-proxy services {{ type nat hook prerouting priority dstnat; }}'
         nft 'add chain ip kube-proxy sources {{ type nat hook postrouting priority srcnat; }}'
         nft 'add rule ip kube-proxy services ip daddr 172.20.0.10 tcp dport 80 meta mark set meta mark or 0x4000 dnat to {address}:8080'
         nft 'add rule ip kube-proxy sources meta mark and 0x4000 != 0 masquerade'",
        address = pod.address
    ));
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        let seen = tcp(&pod.netns, ("172.20.0.10".parse().unwrap(), 80), &pod.netns, 8080).unwrap();
        assert_eq!(seen, node.state.primary.primary_address);
    });
}

#[test]
fn a_service_on_another_node_is_reached_by_the_pods_own_interface() {
    if !can_run("a_service_on_another_node_is_reached_by_the_pods_own_interface") {
        return;
    }
    let vpc = Vpc::new();
    let (node, other) = (Node::new(&vpc, 1, 1), Node::new(&vpc, 2, 0));
    let pod = Pod::new("client", node.state.secondary[0].addresses[0]);
    // The service's address is outside the VPC: it must not make the flow one of the primary interface.
    node.netns.sh(&format!(
        "iptables -t nat -A PREROUTING -d 172.20.0.10 -p tcp --dport 80 -j DNAT --to-destination {}:8080",
        other.state.primary.primary_address
    ));
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        let seen = tcp(&pod.netns, ("172.20.0.10".parse().unwrap(), 80), &other.netns, 8080);
        assert_eq!(seen, Ok(pod.address));
        assert_eq!(vpc.dropped(), 0);
    });
}

#[test]
fn host_routes_that_dhcp_leaves_in_the_main_table_do_not_catch_pods_of_other_interfaces() {
    if !can_run("host_routes_that_dhcp_leaves_in_the_main_table_do_not_catch_pods_of_other_interfaces") {
        return;
    }
    let vpc = Vpc::new();
    let (node, resolver) = (Node::new(&vpc, 1, 1), Node::new(&vpc, 2, 0));
    let name_server = resolver.state.primary.primary_address;
    node.netns.sh(&format!("ip route add {name_server} via 10.0.0.1 dev eth0 proto dhcp metric 512"));
    let pod = Pod::new("dns", node.state.secondary[0].addresses[0]);
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        assert_eq!(udp(&pod.netns, &resolver.netns, name_server), Ok(pod.address));
        assert_eq!(vpc.dropped(), 0);
    });
}

#[test]
fn jumbo_frames_travel_whole_between_pods_of_different_nodes() {
    const MTU: u32 = 9001;
    if !can_run("jumbo_frames_travel_whole_between_pods_of_different_nodes") {
        return;
    }
    let vpc = Vpc::new();
    let (mut one, mut two) = (Node::new(&vpc, 1, 1), Node::new(&vpc, 2, 1));
    vpc.router.sh("for link in $(ip -o link | grep -o 'port[0-9]*'); do ip link set $link mtu 9001; done");
    (one.state.mtu, two.state.mtu) = (MTU, MTU);
    let here = Pod::new("here", one.state.secondary[0].addresses[0]);
    let there = Pod::new("there", two.state.secondary[0].addresses[0]);
    one.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&one.state).await.unwrap();
        dataplane.add_pod(&PodSpec { mtu: MTU, ..here.spec() }).await.unwrap();
        two.with_dataplane(async |dataplane| {
            dataplane.ensure_host(&two.state).await.unwrap();
            dataplane.add_pod(&PodSpec { mtu: MTU, ..there.spec() }).await.unwrap();
            // Less the headers of IP and UDP.
            assert_eq!(datagram(&here.netns, &there.netns, there.address, 9001 - 28), Ok(here.address));
            assert_eq!(fragments_received(&there.netns), 0);
            assert_eq!(datagram(&here.netns, &there.netns, there.address, 9001 - 27), Ok(here.address));
            assert_eq!(fragments_received(&there.netns), 2, "one byte more takes two");
        });
        assert_eq!(vpc.dropped(), 0);
    });
}

/// Fragments that reached the namespace.
fn fragments_received(netns: &Netns) -> u64 {
    let counters = netns.sh("grep ^Ip: /proc/self/net/snmp");
    let mut lines = counters.lines().map(|line| line.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let found = names.zip(values).find(|(name, _)| *name == "ReasmReqds");
    found.map(|(_, value)| value.parse().unwrap()).unwrap()
}
