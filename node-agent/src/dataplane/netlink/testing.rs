//! Messages as bytes, for the tests: what a request looks like to the kernel, what an answer looks like to us. And what
//! becomes of bytes that are no messages.

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use proptest::prelude::*;

use super::socket::frames;
use super::{Batch, Frame, address, link, route, rule, socket};

/// The one request that `push` adds, and its flags, read back by the crate's own parser.
pub(super) fn sent(push: impl FnOnce(&mut Batch)) -> (RouteNetlinkMessage, u16) {
    let mut batch = Batch::new();
    push(&mut batch);
    let bytes = socket::tests::bytes(&batch);
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).unwrap();
    assert_eq!(usize::try_from(message.header.length).unwrap(), bytes.len(), "one message and no more");
    let NetlinkPayload::InnerMessage(request) = message.payload else { panic!("{message:?}") };
    (request, message.header.flags)
}

/// The kernel says `message`.
pub(super) fn told(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Adds an attribute to a message; length of the message corrected.
pub(super) fn with_attribute(mut message: Vec<u8>, kind: u16, value: &[u8]) -> Vec<u8> {
    message.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

pub(super) fn frame(bytes: &[u8]) -> Frame<'_> {
    frames(bytes).next().unwrap()
}

/// All readers of this module, one after the other.
fn read_all(datagram: &[u8]) {
    for frame in frames(datagram) {
        link::parse(&frame);
        address::parse(&frame);
        address::tests::neighbour(&frame);
        address::tests::as_found(&frame);
        route::parse(&frame);
        route::tests::as_found(&frame);
        rule::parse(&frame);
    }
}

proptest! {
    #[test]
    fn garbage_is_read_without_a_panic(
        kind in 0_u16..100,
        length in 0_u32..200,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut datagram = Vec::new();
        datagram.extend((16 + length).to_ne_bytes());
        datagram.extend(kind.to_ne_bytes());
        datagram.extend([0; 10]);
        datagram.extend(body);
        read_all(&datagram);
    }

    #[test]
    fn spoilt_messages_are_read_without_a_panic(
        which in 0_usize..5,
        cut in 0_usize..300,
        spoilt in proptest::collection::vec((0_usize..300, any::<u8>()), 0..8),
    ) {
        let mut datagram = samples()[which].clone();
        for (at, byte) in spoilt {
            let at = at % datagram.len();
            datagram[at] = byte;
        }
        read_all(&datagram);
        datagram.truncate(cut);
        read_all(&datagram);
    }
}

/// A message of each kind that is read here.
fn samples() -> [Vec<u8>; 5] {
    let (index, gateway) = (7, [169, 254, 1, 1].into());
    let mac = "e2:01:0a:00:01:0b".parse().unwrap();
    let pushed = |push: &dyn Fn(&mut Batch)| told(sent(|batch| push(batch)).0);
    [
        told(link::tests::veth_as_told()),
        pushed(&|batch| address::push_again(batch, index, &address::tests::found())),
        pushed(&|batch| address::push_permanent_neighbour(batch, index, gateway, mac)),
        pushed(&|batch| route::push_again(batch, route::MAIN, index, &route::tests::found())),
        pushed(&|batch| rule::push_add(batch, rule::tests::by_mark())),
    ]
}
