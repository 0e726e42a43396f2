use netlink_packet_core::Parseable;

use super::super::testing::{frame, sent, told, with_attribute};
use super::*;

pub(crate) fn found() -> RouteAsFound {
    RouteAsFound {
        destination: "192.0.2.0/24".parse().unwrap(),
        gateway: Some("10.0.0.1".parse().unwrap()),
        source: Some("10.0.1.20".parse().unwrap()),
        metric: Some(513),
        protocol: 16,
        scope: 0,
        onlink: true,
        more: vec![
            (libc::RTA_METRICS, vec![8, 0, 2, 0, 0x78, 5, 0, 0]),
            (libc::RTA_FLOW, vec![7, 0, 0, 0]),
            (RTA_ENCAP_TYPE, vec![2, 0]),
            (RTA_ENCAP, vec![12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 100]),
        ],
    }
}

pub(crate) fn as_found(frame: &Frame<'_>) -> Option<RouteAsFound> {
    read(frame)?.1
}

fn route() -> Route {
    Route { table: 20_001, destination: Ipv4Net::default(), gateway: Some([10, 0, 0, 1].into()), link: 7 }
}

#[test]
fn a_route_comes_back_as_it_was_found() {
    let via_another_family = RouteAsFound {
        gateway: None,
        source: None,
        metric: None,
        onlink: false,
        more: vec![(RTA_VIA, [&[10, 0][..], &[0xfe, 0x80], &[0; 13], &[1]].concat())],
        ..found()
    };
    let on_link = RouteAsFound { destination: "10.0.0.1/32".parse().unwrap(), gateway: None, scope: 253, ..found() };
    for found in [found(), via_another_family, on_link] {
        let mut batch = Batch::new();
        push_again(&mut batch, MAIN, 7, &found);
        let bytes = super::super::socket::tests::bytes(&batch);
        let frame = frame(bytes);
        assert_eq!(frame.flags() & (NLM_F_CREATE | NLM_F_APPEND | NLM_F_REPLACE), NLM_F_CREATE | NLM_F_APPEND);
        assert_eq!(as_found(&frame), Some(found.clone()));
        let RouteAsFound { destination, gateway, .. } = found;
        assert_eq!(parse(&frame), Some(Route { table: MAIN, destination, gateway, link: 7 }));
    }
}

#[test]
fn what_no_kernel_said_is_not_put_back() {
    let more = vec![(libc::RTA_FLOW, vec![0; LONGEST + 1]), (libc::RTA_METRICS, vec![0; 70_000])];
    let mut batch = Batch::new();
    push_again(&mut batch, MAIN, 7, &RouteAsFound { more, ..found() });
    let bytes = super::super::socket::tests::bytes(&batch);
    assert_eq!(as_found(&frame(bytes)), Some(RouteAsFound { more: Vec::new(), ..found() }));
}

#[test]
fn routes_of_ours_claim_to_be_the_kernels() {
    let on_link = Route { destination: "10.0.1.11/32".parse().unwrap(), gateway: None, ..route() };
    for (made, scope, onlink) in [(route(), RouteScope::Universe, true), (on_link, RouteScope::Link, false)] {
        let (request, flags) = sent(|batch| push_replace(batch, made));
        assert_eq!(flags & (NLM_F_CREATE | NLM_F_REPLACE), NLM_F_CREATE | NLM_F_REPLACE);
        let RouteNetlinkMessage::NewRoute(message) = &request else { panic!("{request:?}") };
        assert_eq!(message.header.protocol, RouteProtocol::Kernel);
        assert_eq!(message.header.scope, scope);
        assert_eq!(message.header.flags.contains(RouteFlags::Onlink), onlink);
        assert_eq!(parse(&frame(&told(request))), Some(made));
    }
}

#[test]
fn a_deletion_asks_for_destination_gateway_and_link_only() {
    let (request, _) = sent(|batch| push_delete(batch, route()));
    let RouteNetlinkMessage::DelRoute(message) = request else { panic!("{request:?}") };
    let RouteHeader { protocol, scope, kind, tos, .. } = message.header;
    assert_eq!((protocol, scope, kind, tos), (RouteProtocol::Unspec, RouteScope::NoWhere, RouteType::Unspec, 0));
    let (request, _) = sent(|batch| push_delete(batch, Route { link: 0, gateway: None, ..route() }));
    let RouteNetlinkMessage::DelRoute(message) = request else { panic!("{request:?}") };
    assert_eq!(message.attributes, [RouteAttribute::Table(20_001)], "any link, any gateway");
}

#[test]
fn a_route_that_would_look_like_another_is_left_out() {
    let plain = || told(sent(|batch| push_replace(batch, Route { gateway: None, ..route() })).0);
    assert!(parse(&frame(&plain())).is_some());
    let with_gateway = with_attribute(plain(), libc::RTA_GATEWAY, &[10, 0, 0]);
    assert_eq!(parse(&frame(&with_gateway)), None, "its gateway does not parse");
    // What is not used here may be what it wants.
    let with_more = with_attribute(plain(), libc::RTA_CACHEINFO, &[1]);
    assert!(RouteMessage::parse(frame(&with_more).payload()).is_err());
    assert!(parse(&frame(&with_more)).is_some());
}

#[test]
fn only_unicast_routes_of_ipv4_over_one_link_count() {
    let spoilers: [fn(&mut RouteMessage); 4] = [
        |message| message.header.address_family = AddressFamily::Inet6,
        |message| message.header.kind = RouteType::Local,
        |message| message.header.flags |= RouteFlags::Cloned,
        |message| message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_))),
    ];
    for spoil in spoilers {
        let on_link = Route { gateway: None, ..route() };
        let (request, _) = sent(|batch| push_replace(batch, on_link));
        let RouteNetlinkMessage::NewRoute(mut message) = request else { panic!("{request:?}") };
        spoil(&mut message);
        assert_eq!(parse(&frame(&told(RouteNetlinkMessage::NewRoute(message)))), None);
    }
}

#[test]
fn a_route_for_one_type_of_service_is_not_remembered() {
    let (request, _) = sent(|batch| push_replace(batch, route()));
    let RouteNetlinkMessage::NewRoute(mut message) = request else { panic!("{request:?}") };
    assert!(as_found(&frame(&told(RouteNetlinkMessage::NewRoute(message.clone())))).is_some());
    message.header.tos = 16;
    assert_eq!(as_found(&frame(&told(RouteNetlinkMessage::NewRoute(message)))), None);
}
