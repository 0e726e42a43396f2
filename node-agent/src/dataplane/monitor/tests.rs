use std::sync::mpsc::Receiver;
use std::time::Duration;

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::Socket;
use rtnetlink::LinkUnspec;

use super::super::layout::HostIfname;
use super::*;

const UPLINK: u32 = 3;
const POD: u32 = 77;
const OWN_PORT: u32 = 4711;

/// A listener that knows one ENI and one pod, and where its signals go.
fn listener() -> (Listener, Receiver<Signal>) {
    let (controller, signals) = Controller::for_tests();
    let pods = Arc::new(Pods::default());
    pods.insert([10, 0, 1, 11].into(), PodEntry { host_ifname: HostIfname::new("enia").unwrap(), ifindex: POD });
    let watch = SharedWatch::default();
    watch.lock().unwrap().uplinks.insert(UPLINK, 1);
    let (links, _) = broadcast::channel(8);
    (Listener { watch, pods, own_ports: [OWN_PORT].into(), controller, links }, signals)
}

/// A notification: a message of the kernel, caused by the socket at `port`.
fn told(message: RouteNetlinkMessage, port: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.port_number = port;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn netconf(index: i32) -> Vec<u8> {
    let mut bytes = [28_u32.to_ne_bytes(), [80, 0, 0, 0], [0; 4], [0; 4], [2, 0, 0, 0], [8, 0, 1, 0]].concat();
    bytes.extend(index.to_ne_bytes());
    bytes
}

fn uplink() -> LinkMessage {
    LinkUnspec::new_with_index(UPLINK).name("eth1").address(vec![2, 0, 0, 0, 0, 1]).build()
}

/// What the listener makes of a datagram.
fn signals_of(datagram: &[u8]) -> Vec<String> {
    let (listener, signals) = listener();
    let mut table_touched = false;
    for frame in frames(datagram) {
        listener.hear(&frame, &mut table_touched);
    }
    signals.try_iter().map(|signal| format!("{signal:?}")).collect()
}

#[test]
fn a_changed_setting_of_an_interface_is_compared() {
    assert_eq!(signals_of(&netconf(UPLINK.cast_signed())), ["CompareObjects"]);
    assert_eq!(signals_of(&netconf(-1)), ["CompareObjects"], "of all interfaces");
    assert_eq!(signals_of(&netconf(POD.cast_signed())), [""; 0]);
    assert_eq!(signals_of(&netconf(-2)), [""; 0], "the setting for interfaces to come");
    let cut = [&20_u32.to_ne_bytes()[..], &netconf(-1)[4..20]].concat();
    assert_eq!(signals_of(&cut), [""; 0]);
}

#[test]
fn an_interface_of_which_one_part_does_not_parse_is_heard() {
    let mut strange = uplink();
    strange.attributes.push(LinkAttribute::Other(netlink_packet_core::DefaultNla::new(43, vec![1])));
    let datagram = told(RouteNetlinkMessage::NewLink(strange), 0);
    assert!(NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram).is_err(), "the library gives it up");
    assert_eq!(signals_of(&datagram), ["CompareObjects"]);
}

#[test]
fn a_message_that_does_not_parse_hides_none_behind_it() {
    let header_cut = [20_u32.to_ne_bytes(), [16, 0, 0, 0], [0; 4], [0; 4], [0; 4]].concat();
    let unknown = [16_u32.to_ne_bytes(), [99, 0, 0, 0], [0; 4], [0; 4]].concat();
    let datagram = [header_cut, unknown, netconf(-1)].concat();
    assert_eq!(signals_of(&datagram), ["CompareObjects"]);
}

#[test]
fn the_echo_of_our_own_work_is_no_change() {
    let rule = || {
        let mut rule = netlink_packet_route::rule::RuleMessage::default();
        rule.header.family = netlink_packet_route::AddressFamily::Inet;
        rule.header.action = netlink_packet_route::rule::RuleAction::ToTable;
        let of = netlink_packet_route::rule::RuleAttribute::Priority;
        let table = netlink_packet_route::rule::RuleAttribute::Table;
        rule.attributes = vec![of(layout::POD_RULE_PRIORITY), table(layout::POD_TABLE)];
        RouteNetlinkMessage::DelRule(rule)
    };
    assert_eq!(signals_of(&told(rule(), OWN_PORT + 1)), ["CompareObjects"]);
    assert_eq!(signals_of(&told(rule(), OWN_PORT)), [""; 0]);
}

#[test]
fn a_pods_interface_that_leaves_a_bridge_has_not_gone() {
    let gone = |family| {
        let link = LinkUnspec::new_with_index(POD).name("enia").interface_family(family).build();
        signals_of(&told(RouteNetlinkMessage::DelLink(link), 0))
    };
    assert_eq!(gone(netlink_packet_route::AddressFamily::Bridge), [""; 0]);
    assert_eq!(gone(netlink_packet_route::AddressFamily::Unspec), ["PodLinkGone enia"]);
}

#[tokio::test]
async fn what_other_processes_send_is_not_heard() {
    // A family in which processes may send to each other without any rights.
    let usersock = isize::try_from(libc::NETLINK_USERSOCK).unwrap();
    let mut ours = TokioSocket::new(usersock).unwrap();
    let port = ours.socket_mut().bind_auto().unwrap().port_number();
    let mut other = Socket::new(usersock).unwrap();
    other.bind_auto().unwrap();
    let forged = told(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(POD).build()), 0);
    other.send_to(&forged, &SocketAddr::new(port, 0), 0).unwrap();
    let mut buffer = Vec::with_capacity(DATAGRAM);
    let heard = tokio::time::timeout(Duration::from_millis(100), hear_kernel(&ours, &mut buffer)).await;
    assert!(heard.is_err(), "{heard:?}");
    let nothing_waits = ours.socket_ref().recv(&mut buffer, libc::MSG_DONTWAIT).unwrap_err();
    assert_eq!(nothing_waits.raw_os_error(), Some(libc::EAGAIN), "it had come, and was thrown away");
}
