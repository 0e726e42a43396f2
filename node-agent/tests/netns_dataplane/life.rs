//! Pods that come and go, restarts, other programs that interfere, and leaving the node.

use std::time::{Duration, Instant};

use enipool_agent::dataplane::layout::{POD_TABLE, eni_table};
use enipool_agent::dataplane::{
    AdoptedPod, DataplaneError, Drift, DriftKind, HostIfname, HostState, PodOwner, PodSpec, VethPrefix,
};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use crate::lab::can_run;
use crate::traffic::udp;
use crate::vpc::{Node, Pod, Vpc, difference, eni};

#[test]
fn a_pod_can_be_checked_and_every_missing_piece_is_named() {
    if !can_run("a_pod_can_be_checked_and_every_missing_piece_is_named") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 1);
    let spoilers = [
        ("ip addr flush dev eth0", "lacks the address"),
        ("ip route del default", "lacks its route to 0.0.0.0/0"),
        ("ip neigh del 169.254.1.1 dev eth0", "lacks the permanent neighbour"),
        ("ip link set eth0 mtu 1400", "MTU 1400"),
        ("ip link set eth0 down", "is down"),
        ("ip link del eth0", "no interface"),
    ];
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        for (script, complaint) in spoilers {
            let pod = Pod::new("a", node.state.primary.addresses[0]);
            let link = pod.plug(&dataplane).await;
            assert_eq!(dataplane.check_pod(&pod.spec()).await.unwrap(), link);
            pod.netns.sh(script);
            let error = dataplane.check_pod(&pod.spec()).await.unwrap_err();
            assert!(error.to_string().contains(complaint), "{script}: {error}");
            dataplane.del_pod(pod.address, &pod.spec().host_ifname).await.unwrap();
        }
    });
}

#[test]
fn whose_end_a_host_interface_is_can_be_asked() {
    if !can_run("whose_end_a_host_interface_is_can_be_asked") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 0);
    let (old, new) =
        (Pod::new("web-0", node.state.primary.addresses[0]), Pod::new("web-0", node.state.primary.addresses[1]));
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        old.plug(&dataplane).await;
        new.plug(&dataplane).await;
        let host_end = new.spec().host_ifname;
        let plugged = async |pod: &Pod| dataplane.is_pod_plugged(&pod.netns.path(), "eth0", &host_end).await.unwrap();
        assert!(plugged(&new).await);
        assert!(!plugged(&old).await, "its interface was moved out of the way");
        assert!(!plugged(&Pod::new("other", new.address)).await, "no interface at all");
        let nothing = HostIfname::new("eni00000000000").unwrap();
        assert!(!dataplane.is_pod_plugged(&new.netns.path(), "eth0", &nothing).await.unwrap());
        let gone = dataplane.is_pod_plugged("/run/netns/none-such".as_ref(), "eth0", &host_end).await;
        assert!(matches!(gone, Err(DataplaneError::NoNamespace { .. })), "{gone:?}");
    });
}

#[test]
fn a_pod_of_the_same_name_takes_over_while_the_old_ones_interface_still_stands() {
    if !can_run("a_pod_of_the_same_name_takes_over_while_the_old_ones_interface_still_stands") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 0);
    let (old, new) =
        (Pod::new("web-0", node.state.primary.addresses[0]), Pod::new("web-0", node.state.primary.addresses[1]));
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        old.plug(&dataplane).await;
        new.plug(&dataplane).await;
        // The old sandbox's DEL comes late.
        dataplane.del_pod(old.address, &old.spec().host_ifname).await.unwrap();
        dataplane.del_pod(old.address, &old.spec().host_ifname).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(udp(&node.netns, &new.netns, new.address).is_ok());
        dataplane.check_pod(&new.spec()).await.unwrap();
        let links = node.netns.sh("ip -brief link");
        assert_eq!(links.matches('@').count(), 2, "eth0 and one pod are left:\n{links}");
    });
}

#[test]
fn an_add_that_was_cut_short_can_be_repeated() {
    if !can_run("an_add_that_was_cut_short_can_be_repeated") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 0);
    let pod = Pod::new("a", node.state.primary.addresses[0]);
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        // Another process knows nothing of it.
        pod.plug(&dataplane).await;
        dataplane.check_pod(&pod.spec()).await.unwrap();
        // The same namespace under another host name.
        let renamed = PodSpec { host_ifname: VethPrefix::default().host_ifname("default", "b"), ..pod.spec() };
        dataplane.add_pod(&renamed).await.unwrap();
        dataplane.check_pod(&renamed).await.unwrap();
    });
}

#[test]
fn an_add_that_mends_a_pod_is_no_drift_and_its_new_route_is_kept() {
    if !can_run("an_add_that_mends_a_pod_is_no_drift_and_its_new_route_is_kept") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 0);
    let pod = Pod::new("a", node.state.primary.addresses[0]);
    node.with_dataplane(async |dataplane| {
        let mut drift = dataplane.drift();
        dataplane.ensure_host(&node.state).await.unwrap();
        // Each takes the interface of the one before away and makes a new one; the kernel's word of that comes when it comes.
        for _ in 0..5 {
            pod.plug(&dataplane).await;
        }
        let renamed = PodSpec { host_ifname: VethPrefix::default().host_ifname("default", "b"), ..pod.spec() };
        dataplane.add_pod(&renamed).await.unwrap();
        let nothing = timeout(Duration::from_millis(500), drift.recv()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        node.netns.sh(&format!("ip route del {}/32 table {POD_TABLE}", pod.address));
        repaired(&mut drift, DriftKind::PodRoute).await;
        dataplane.check_pod(&renamed).await.unwrap();
        // What somebody else takes away is one.
        node.netns.sh(&format!("ip link del {}", renamed.host_ifname));
        let told = timeout(Duration::from_secs(1), drift.recv()).await.unwrap().unwrap();
        assert_eq!((told.kind, told.repaired), (DriftKind::PodLink, false), "{}", told.detail);
    });
}

#[test]
fn an_interface_of_somebody_else_in_the_pod_is_left_alone() {
    if !can_run("an_interface_of_somebody_else_in_the_pod_is_left_alone") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 0);
    let pod = Pod::new("a", node.state.primary.addresses[0]);
    pod.netns.sh("ip link add eth0 type veth peer name other");
    let before = node.picture();
    node.with_dataplane(async |dataplane| {
        let error = dataplane.add_pod(&pod.spec()).await.unwrap_err();
        assert!(matches!(error, DataplaneError::InterfaceInTheWay { .. }), "{error}");
    });
    assert_eq!(difference(&node.picture(), &before), "");
}

/// A second interface as systemd-networkd and amazon-ec2-net-utils leave it: a lease of DHCP, an alias, and a table of its
/// own, whose number and priority are 10000 + device index.
const DHCP: &str = "
    ip link set eth1 up mtu 1480
    ip addr add 10.0.1.20/16 brd 10.0.255.255 dev eth1 metric 513
    ip addr add 10.0.1.21/32 dev eth1 noprefixroute
    ip route add 10.0.0.1 dev eth1 proto dhcp scope link src 10.0.1.20 metric 513
    ip route add default via 10.0.0.1 dev eth1 proto dhcp src 10.0.1.20 metric 513
    ip route add 192.0.2.0/24 via 10.0.0.1 dev eth1 proto static mtu 1400 advmss 1360
    ip route add default via 10.0.0.1 dev eth1 proto dhcp src 10.0.1.20 table 10001
    ip route add 10.0.0.0/16 dev eth1 proto static table 10001
    ip rule add from 10.0.1.20 lookup 10001 pref 10001";

#[test]
fn what_others_keep_beside_our_tables_stays() {
    if !can_run("what_others_keep_beside_our_tables_stays") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 1);
    node.netns.sh(DHCP);
    let theirs = || node.netns.sh("ip route show table 10001; ip rule show pref 10001");
    let before = theirs();
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        assert_eq!(difference(&theirs(), &before), "");
        dataplane.cleanup().await.unwrap();
        assert_eq!(difference(&theirs(), &before), "");
    });
}

#[test]
fn cleanup_leaves_the_node_as_found() {
    if !can_run("cleanup_leaves_the_node_as_found") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 2);
    // What a distribution's network scripts may have done to a second interface.
    node.netns.sh(DHCP);
    node.netns.sh("ip link set eth2 mtu 1450; sysctl -qw net.ipv4.ip_forward=0");
    let before = node.picture();
    let pods = [Pod::new("a", node.state.primary.addresses[0]), Pod::new("b", node.state.secondary[1].addresses[0])];
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        for pod in &pods {
            pod.plug(&dataplane).await;
        }
        assert_ne!(node.picture(), before);
        let main = node.netns.sh("ip route show table main");
        assert!(!main.contains("eth1"), "{main}");
    });
    // By another process, which has not set up anything.
    node.with_dataplane(async |dataplane| {
        let report = dataplane.cleanup().await.unwrap();
        assert_eq!(report.left, Vec::<String>::new());
        assert!(report.removed.len() > 10, "{report:#?}");
        assert_eq!(dataplane.cleanup().await.unwrap().removed, Vec::<String>::new(), "a second time there is nothing");
    });
    assert_eq!(difference(&node.picture(), &before), "");
}

#[test]
fn setting_up_twice_changes_nothing_the_second_time() {
    if !can_run("setting_up_twice_changes_nothing_the_second_time") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 2);
    let mut grown = node.state.clone();
    grown.secondary[0].addresses.push("10.0.1.99".parse().unwrap());
    // One moves over to the other interface, the rest goes.
    let moved = grown.secondary[1].addresses[0];
    grown.secondary[0].addresses.push(moved);
    grown.secondary[1].addresses.clear();
    let state = node.state.clone();
    node.with_dataplane(async |dataplane| {
        assert_ne!(dataplane.ensure_host(&state).await.unwrap().changed, Vec::<String>::new());
        assert_eq!(dataplane.ensure_host(&state).await.unwrap().changed, Vec::<String>::new());
        let changed = dataplane.ensure_host(&grown).await.unwrap().changed;
        assert_eq!(changed, ["nftables table enipool addresses changed"]);
        let map = node.netns.sh("nft list map ip enipool addresses");
        assert!(map.contains("10.0.1.99 : goto eni-1") && !map.contains("eni-2"), "{map}");
        assert!(map.contains(&format!("{moved} : goto eni-1")), "{map}");
        // An interface goes: nothing of it stays.
        grown.secondary.pop();
        dataplane.ensure_host(&grown).await.unwrap();
        let rules = node.netns.sh("ip rule; ip -4 route show table all; nft list ruleset");
        assert!(!rules.contains(&eni_table(2).to_string()) && !rules.contains("eni-2"), "{rules}");
    });
}

/// How soon what others change is put right.
const PROMISE: Duration = Duration::from_secs(1);
/// A machine that does other things may keep us from it once, but not each time.
const TRIES: usize = 4;
/// How long it may take on such a machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for a repaired drift of that kind.
async fn repaired(drift: &mut Receiver<Drift>, kind: DriftKind) -> Drift {
    let found = async {
        loop {
            let drift = drift.recv().await.unwrap();
            if drift.kind == kind {
                return drift;
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no drift of kind {kind:?} within {PATIENCE:?}"))
}

/// Waits until the node looks as wanted, and returns how long that took. The look itself, which takes half a dozen
/// programs, does not count.
async fn pictured(node: &Node, wanted: &str, since: Instant) -> Duration {
    loop {
        let took = since.elapsed();
        if node.picture() == wanted || took > PATIENCE {
            return took;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_others_change_is_put_right_within_a_second_and_reported() {
    if !can_run("what_others_change_is_put_right_within_a_second_and_reported") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 1);
    let other = Node::new(&vpc, 2, 0);
    let pod = Pod::new("a", node.state.secondary[0].addresses[0]);
    let host_end = pod.spec().host_ifname;
    let changes = [
        ("nft flush ruleset".to_owned(), DriftKind::NftTable),
        ("nft delete element ip enipool addresses '{ 10.0.1.21 }'".to_owned(), DriftKind::NftTable),
        (
            "ip rule flush; ip rule add lookup main pref 32766; ip rule add lookup default pref 32767".to_owned(),
            DriftKind::Rule,
        ),
        (format!("ip rule add pref 1200 fwmark 0x1/0xbf lookup {}", eni_table(2)), DriftKind::Rule),
        (format!("ip route del {}/32 table {POD_TABLE}", pod.address), DriftKind::PodRoute),
        (format!("ip link set {host_end} down"), DriftKind::PodLink),
        (format!("ip route flush table {}", eni_table(1)), DriftKind::EniRoute),
        ("ip addr flush dev eth1".to_owned(), DriftKind::EniAddress),
        ("ip addr add 10.0.1.20/16 dev eth1".to_owned(), DriftKind::EniAddress),
        ("ip link set eth1 down".to_owned(), DriftKind::EniLink),
        ("ip link set eth1 mtu 1400".to_owned(), DriftKind::EniLink),
        ("sysctl -qw net.ipv4.ip_forward=0".to_owned(), DriftKind::Sysctl),
        ("sysctl -qw net.ipv4.conf.eth1.rp_filter=1".to_owned(), DriftKind::Sysctl),
    ];
    node.with_dataplane(async |dataplane| {
        let mut drift = dataplane.drift();
        dataplane.ensure_host(&node.state).await.unwrap();
        pod.plug(&dataplane).await;
        let wanted = node.picture();
        for (script, kind) in changes {
            let mut took = Vec::new();
            while took.len() < TRIES && took.last().is_none_or(|last| *last >= PROMISE) {
                node.netns.sh(&script);
                let since = Instant::now();
                let seen = repaired(&mut drift, kind).await;
                assert!(seen.repaired, "{script}: {}", seen.detail);
                if kind == DriftKind::NftTable {
                    assert!(seen.detail.contains("nft (pid "), "who did it is said: {}", seen.detail);
                }
                took.push(pictured(&node, &wanted, since).await);
                assert_eq!(difference(&node.picture(), &wanted), "", "{script}");
                let target = other.state.primary.primary_address;
                assert_eq!(udp(&pod.netns, &other.netns, target), Ok(pod.address), "{script}");
                while drift.try_recv().is_ok() {}
            }
            assert!(took.last().is_some_and(|last| *last < PROMISE), "{script}: put right after {took:?}");
        }
        // Our own work is not taken for somebody else's.
        let quiet = Pod::new("b", node.state.secondary[0].addresses[1]);
        quiet.plug(&dataplane).await;
        dataplane.del_pod(quiet.address, &quiet.spec().host_ifname).await.unwrap();
        let nothing = timeout(Duration::from_millis(700), drift.recv()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    });
}

#[test]
fn an_interface_that_is_plugged_in_later_is_set_up_when_it_appears() {
    if !can_run("an_interface_that_is_plugged_in_later_is_set_up_when_it_appears") {
        return;
    }
    let vpc = Vpc::new();
    let mut node = Node::new(&vpc, 1, 0);
    let other = Node::new(&vpc, 2, 0);
    let late = eni(1, 3);
    node.state.secondary.push(late.clone());
    let pod = Pod::new("a", late.addresses[0]);
    node.with_dataplane(async |dataplane| {
        assert_eq!(dataplane.ensure_host(&node.state).await.unwrap().missing, [late.mac]);
        let plugged = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            vpc.attach(&node.netns, "ens7", &late);
        };
        let (link, ()) = tokio::join!(dataplane.wait_link(late.mac, Duration::from_secs(2)), plugged);
        assert_eq!(link.unwrap().mac, late.mac);
        pod.plug(&dataplane).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(udp(&pod.netns, &other.netns, other.state.primary.primary_address), Ok(pod.address));
        assert_eq!(dataplane.ensure_host(&node.state).await.unwrap().missing, []);
    });
}

/// As the AWS plugin leaves a pod: a /32 in main and two rules.
fn plug_as_aws_plugin(node: &Node, state: &HostState, pod: &Pod) {
    let host_end = pod.spec().host_ifname;
    node.netns.sh(&format!("ip link add {host_end} type veth peer name ceth0; ip link set {host_end} up"));
    pod.netns.take_link(&node.netns, "ceth0");
    pod.netns.sh(&format!(
        "ip link set ceth0 name eth0; ip link set eth0 up; ip addr add {}/32 dev eth0
         ip route add 169.254.1.1 dev eth0 scope link; ip route add default via 169.254.1.1",
        pod.address
    ));
    let mac = node.netns.sh(&format!("cat /proc/net/dev > /dev/null; ip -o link show {host_end}"));
    let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    pod.netns.sh(&format!("ip neigh add 169.254.1.1 lladdr {mac} dev eth0 nud permanent"));
    let eth1 = &state.secondary[0];
    node.netns.sh(&format!(
        "ip route add {pod} dev {host_end} scope link; ip rule add to {pod} pref 512 lookup main
         ip rule add from {pod} pref 1536 lookup 2
         ip link set eth1 up; ip route replace default via {gateway} dev eth1 onlink table 2",
        pod = pod.address,
        gateway = eth1.subnet.gateway()
    ));
}

#[test]
fn pods_outlive_a_restart_and_the_aws_plugins_pods_are_taken_over() {
    if !can_run("pods_outlive_a_restart_and_the_aws_plugins_pods_are_taken_over") {
        return;
    }
    let vpc = Vpc::new();
    let node = Node::new(&vpc, 1, 1);
    let other = Node::new(&vpc, 2, 0);
    let target = other.state.primary.primary_address;
    let (ours, theirs) = (
        Pod::new("ours", node.state.secondary[0].addresses[0]),
        Pod::new("theirs", node.state.secondary[0].addresses[1]),
    );
    node.with_dataplane(async |dataplane| {
        dataplane.ensure_host(&node.state).await.unwrap();
        ours.plug(&dataplane).await;
    });
    plug_as_aws_plugin(&node, &node.state, &theirs);
    node.netns.sh("ip link add eni00000000000 type veth peer name left");
    node.with_dataplane(async |dataplane| {
        let seen = dataplane.observe().await.unwrap();
        let owners: Vec<_> = seen.pods.iter().map(|pod| (pod.address, pod.owner)).collect();
        assert_eq!(owners, [(ours.address, PodOwner::Enipool), (theirs.address, PodOwner::AwsPlugin)]);
        assert!(seen.table_present);
        let orphans: Vec<_> = seen.orphans.iter().map(HostIfname::as_str).collect();
        assert_eq!(orphans, ["eni00000000000"]);
        let adopted: Vec<AdoptedPod> = seen
            .pods
            .into_iter()
            .map(|pod| AdoptedPod { address: pod.address, host_ifname: pod.host_ifname })
            .collect();
        dataplane.adopt(&adopted).await.unwrap();
        dataplane.ensure_host(&node.state).await.unwrap();
        for pod in [&ours, &theirs] {
            assert_eq!(udp(&pod.netns, &other.netns, target), Ok(pod.address));
            assert_eq!(udp(&other.netns, &pod.netns, pod.address), Ok(target));
        }
        let rules = node.netns.sh("ip rule; ip route show table main");
        assert!(!rules.contains(&theirs.address.to_string()), "{rules}");
        dataplane.del_pod(theirs.address, &theirs.spec().host_ifname).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let links = node.netns.sh("ip -brief link");
        assert!(!links.contains(theirs.spec().host_ifname.as_str()), "{links}");
        assert_eq!(vpc.dropped(), 0);
    });
}
