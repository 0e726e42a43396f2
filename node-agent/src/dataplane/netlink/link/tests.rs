use std::os::fd::AsFd;

use netlink_packet_core::Parseable;
use netlink_packet_route::link::{InetDevConf, LinkInfo, LinkMessage};

use super::super::testing::{frame, sent, told, with_attribute};
use super::*;

const IFLA_XDP: u16 = 43;
const IFLA_INFO_DATA: u16 = 2;

/// A pod's host end as the kernel tells of it.
pub(crate) fn veth_as_told() -> RouteNetlinkMessage {
    let mut settings = InetDevConf::default();
    settings.rp_filter = 2;
    let mac = vec![0xe2, 0x01, 10, 0, 1, 11];
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .index(7)
        .name("eni0d7763386da")
        .mtu(9001)
        .address(mac)
        .link(3)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![AfSpecInet::DevConf(
            settings,
        )])]))
        .up()
        .build();
    RouteNetlinkMessage::NewLink(message)
}

fn veth() -> Link {
    Link {
        index: 7,
        name: "eni0d7763386da".into(),
        mac: Some(MacAddress([0xe2, 0x01, 10, 0, 1, 11])),
        mtu: 9001,
        up: true,
        kind: "veth".into(),
        peer: Some(3),
        rp_filter: Some(2),
    }
}

/// What netlink-packet-route's own parser thinks of the message.
fn parses_whole(message: &[u8]) -> bool {
    LinkMessage::parse(frame(message).payload()).is_ok()
}

#[test]
fn a_link_is_read() {
    let message = told(veth_as_told());
    assert!(parses_whole(&message));
    assert_eq!(parse(&frame(&message)), Some(veth()));
}

#[test]
fn a_link_of_which_one_part_does_not_parse_is_seen_all_the_same() {
    let message = with_attribute(told(veth_as_told()), IFLA_XDP, &[1]);
    assert!(!parses_whole(&message), "the library gives the whole link up");
    assert_eq!(parse(&frame(&message)), Some(veth()));
    // Even when it is a part that is used here.
    let plain = told(RouteNetlinkMessage::NewLink(LinkUnspec::new_with_index(9).name("eth1").build()));
    let message = with_attribute(plain, libc::IFLA_MTU, &[1, 2, 3]);
    assert!(!parses_whole(&message));
    let seen = parse(&frame(&message)).unwrap();
    assert_eq!((seen.index, seen.name.as_str(), seen.mtu), (9, "eth1", 0));
}

#[test]
fn a_link_whose_drivers_settings_do_not_parse_keeps_its_kind() {
    let kind = with_attribute(Vec::from([0; 4]), libc::IFLA_INFO_KIND, b"bond\0");
    let info = with_attribute(kind, IFLA_INFO_DATA, &[3, 0, 1]);
    let plain = told(RouteNetlinkMessage::NewLink(LinkUnspec::new_with_index(9).name("bond0").build()));
    let message = with_attribute(plain, libc::IFLA_LINKINFO, &info[4..]);
    assert!(!parses_whole(&message));
    assert_eq!(parse(&frame(&message)).unwrap().kind, "bond");
}

#[test]
fn a_bridge_that_tells_of_a_port_tells_nothing_of_the_link() {
    let mut port = LinkUnspec::new_with_index(7).name("eni0d7763386da").interface_family(AddressFamily::Bridge).build();
    let gone = told(RouteNetlinkMessage::DelLink(port.clone()));
    assert_eq!(parse(&frame(&gone)), None, "it left the bridge and is still there");
    port.header.interface_family = AddressFamily::Unspec;
    assert!(parse(&frame(&told(RouteNetlinkMessage::DelLink(port)))).is_some());
}

#[test]
fn both_ends_are_made_in_place_with_one_queue_each() {
    let namespace = std::fs::File::open("/proc/self/ns/net").unwrap();
    let pair = VethPair {
        host_name: "enia",
        host_mac: MacAddress([0xe2, 1, 0, 0, 0, 1]),
        pod_name: "eth0",
        pod_mac: MacAddress([0xe2, 2, 0, 0, 0, 1]),
        pod_namespace: namespace.as_fd(),
        mtu: 9001,
    };
    let (request, flags) = sent(|batch| push_create_veth(batch, &pair));
    let RouteNetlinkMessage::NewLink(host) = request else { panic!("{request:?}") };
    assert_eq!(flags & (NLM_F_CREATE | NLM_F_EXCL), NLM_F_CREATE | NLM_F_EXCL);
    let end = |name: &str, mac: MacAddress| {
        [
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(9001),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ]
    };
    for attribute in end("enia", pair.host_mac) {
        assert!(host.attributes.contains(&attribute), "{attribute:?}");
    }
    assert!(!host.header.flags.contains(LinkFlags::Up));
    let Some(LinkAttribute::LinkInfo(info)) = host.attributes.last() else { panic!("{host:?}") };
    let [LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(pod)))] = &info[..] else {
        panic!("{info:?}")
    };
    let inside = LinkAttribute::NetNsFd(namespace.as_raw_fd());
    for attribute in end("eth0", pair.pod_mac).into_iter().chain([inside]) {
        assert!(pod.attributes.contains(&attribute), "{attribute:?}");
    }
    assert!(!pod.header.flags.contains(LinkFlags::Up));
}

#[test]
fn questions_about_links_leave_the_counters_out() {
    let without_counters = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    for (request, _) in [sent(|batch| push_get(batch, 7)), sent(|batch| push_get_by_name(batch, "eth0"))] {
        let RouteNetlinkMessage::GetLink(question) = request else { panic!("{request:?}") };
        assert!(question.attributes.contains(&without_counters));
        // Kernels that check strictly take nothing else in the header.
        assert_eq!(question.header, LinkHeader { index: question.header.index, ..LinkHeader::default() });
    }
}

#[test]
fn up_and_down_touch_no_other_flag() {
    for up in [true, false] {
        let (request, _) = sent(|batch| push_up(batch, 7, up));
        let RouteNetlinkMessage::NewLink(link) = request else { panic!("{request:?}") };
        assert_eq!((link.header.index, link.header.change_mask), (7, LinkFlags::Up));
        assert_eq!(link.header.flags.contains(LinkFlags::Up), up);
    }
}

#[test]
fn a_reverse_path_filter_of_zero_is_sent_like_any_other() {
    for value in [0_u32, 1, 2] {
        let mut batch = Batch::new();
        push_rp_filter(&mut batch, 7, value);
        let bytes = super::super::socket::tests::bytes(&batch);
        // IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF (nested), position and value.
        let settings = [[20, 0, 26, 0], [16, 0, 2, 0], [12, 0, 1, 0x80], [8, 0, 8, 0], value.to_ne_bytes()].concat();
        assert_eq!(bytes[16 + 16..], settings, "{value}");
    }
}
