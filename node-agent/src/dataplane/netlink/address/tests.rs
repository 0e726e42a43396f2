use super::super::testing::{frame, sent, told, with_attribute};
use super::*;

pub(crate) fn found() -> AddressAsFound {
    AddressAsFound {
        net: "10.0.1.20/16".parse().unwrap(),
        broadcast: Some("10.0.255.255".parse().unwrap()),
        label: Some("eth1:1".into()),
        no_prefix_route: true,
        metric: Some(513),
    }
}

pub(crate) fn as_found(frame: &Frame<'_>) -> Option<AddressAsFound> {
    read(frame).map(|(_, found)| found)
}

pub(crate) fn neighbour(frame: &Frame<'_>) -> Option<(u32, Ipv4Addr, MacAddress)> {
    permanent_neighbour(frame)
}

#[test]
fn an_address_comes_back_as_it_was_found() {
    let bare = AddressAsFound { broadcast: None, label: None, no_prefix_route: false, metric: None, ..found() };
    for found in [found(), bare] {
        let (request, flags) = sent(|batch| push_again(batch, 7, &found));
        assert_eq!(flags & (NLM_F_CREATE | NLM_F_REPLACE), NLM_F_CREATE | NLM_F_REPLACE);
        let message = told(request);
        assert_eq!(as_found(&frame(&message)), Some(found.clone()), "no broadcast address is invented");
        assert_eq!(parse(&frame(&message)), Some(found.on_link(7)));
    }
}

#[test]
fn a_deletion_names_its_address_whatever_it_is() {
    for address in ["10.0.1.20", "224.0.0.9", "127.0.0.2"] {
        let address_to_go = LinkAddress { index: 7, address: address.parse().unwrap(), prefix_len: 24, scope: 253 };
        let (request, _) = sent(|batch| push_delete(batch, address_to_go));
        assert!(matches!(request, RouteNetlinkMessage::DelAddress(_)));
        assert_eq!(parse(&frame(&told(request))), Some(address_to_go));
    }
}

#[test]
fn an_address_of_which_one_part_does_not_parse_is_seen() {
    let (request, _) = sent(|batch| push_again(batch, 7, &AddressAsFound { metric: None, ..found() }));
    for (kind, value) in [(libc::IFA_CACHEINFO, &[1, 2][..]), (9, &[1, 2, 3]), (11, &[1, 2])] {
        let message = with_attribute(told(request.clone()), kind, value);
        assert!(AddressMessage::parse(frame(&message).payload()).is_err(), "{kind}: the library gives it up");
        assert_eq!(parse(&frame(&message)), Some(found().on_link(7)));
        assert_eq!(as_found(&frame(&message)), Some(AddressAsFound { metric: None, ..found() }));
    }
}

#[test]
fn only_permanent_neighbours_count() {
    let (gateway, mac) = (Ipv4Addr::new(169, 254, 1, 1), MacAddress([0xe2, 1, 10, 0, 1, 11]));
    let (request, flags) = sent(|batch| push_permanent_neighbour(batch, 7, gateway, mac));
    assert_eq!(flags & (NLM_F_CREATE | NLM_F_REPLACE), NLM_F_CREATE | NLM_F_REPLACE);
    let RouteNetlinkMessage::NewNeighbour(mut message) = request else { panic!("{request:?}") };
    let seen =
        |message: &NeighbourMessage| neighbour(&frame(&told(RouteNetlinkMessage::NewNeighbour(message.clone()))));
    assert_eq!(seen(&message), Some((7, gateway, mac)));
    message.header.state = NeighbourState::Reachable;
    assert_eq!(seen(&message), None);
}
