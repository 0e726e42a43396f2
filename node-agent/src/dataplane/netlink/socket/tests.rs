use netlink_packet_core::NLM_F_MULTIPART;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::LinkUnspec;

use super::*;

/// What would be sent.
pub(crate) fn bytes(batch: &Batch) -> &[u8] {
    &batch.bytes
}

fn link(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build())
}

/// A message as it comes from the kernel.
fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([7, 0, 0, 0, 9, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

fn code_of(message: &[u8]) -> Option<i32> {
    error_code(&frames(message).next().unwrap())
}

fn words_of(message: &[u8]) -> Option<String> {
    words(&frames(message).next().unwrap())
}

#[test]
fn a_datagram_is_read_message_by_message() {
    let datagram = [message(16, 5, &[1, 2, 3, 4]), message(17, 0, &[])].concat();
    let read: Vec<_> = frames(&datagram).collect();
    assert_eq!(read.len(), 2);
    assert_eq!((read[0].message_type(), read[0].flags()), (16, 5));
    assert_eq!((read[0].sequence_number(), read[0].port_number()), (7, 9));
    assert_eq!(read[0].payload(), [1, 2, 3, 4]);
    assert!(read[1].payload().is_empty());
}

#[test]
fn a_cut_message_ends_the_reading_instead_of_panicking() {
    let whole = message(16, 0, &[1, 2, 3, 4]);
    for cut in 0..whole.len() {
        assert_eq!(frames(&whole[..cut]).count(), 0, "cut at {cut}");
    }
    let endless = [u32::MAX.to_ne_bytes().as_slice(), &[0; 12]].concat();
    assert_eq!(frames(&endless).count(), 0);
}

#[test]
fn errors_are_positive_numbers_whatever_the_kernel_says() {
    let error = |code: i32| code_of(&message(NLMSG_ERROR, 0, &code.to_ne_bytes()));
    assert_eq!(error(0), Some(0));
    assert_eq!(error(-libc::ENODEV), Some(libc::ENODEV));
    assert_eq!(error(i32::MIN), Some(i32::MAX));
    assert_eq!(error(i32::MAX), Some(i32::MAX));
}

#[test]
fn an_error_that_is_cut_off_is_no_acknowledgement() {
    assert_eq!(code_of(&message(NLMSG_ERROR, 0, &[0, 0, 0])), None);
    assert_eq!(code_of(&message(NLMSG_DONE, NLM_F_MULTIPART, &[0, 0])), None);
}

#[test]
fn a_dump_that_fails_half_way_says_so_in_its_end() {
    let end = |code: i32| code_of(&message(NLMSG_DONE, NLM_F_MULTIPART, &code.to_ne_bytes()));
    assert_eq!(code_of(&message(NLMSG_DONE, NLM_F_MULTIPART, &[])), Some(0));
    assert_eq!(end(0), Some(0));
    assert_eq!(end(52), Some(0), "old kernels say a length");
    assert_eq!(end(-libc::EINVAL), Some(libc::EINVAL));
    assert_eq!(end(i32::MIN), Some(i32::MAX));
}

#[test]
fn the_kernels_own_words_are_found_behind_whatever_comes_first() {
    let said = [11, 0, 1, 0, b'n', b'o', b' ', b'w', b'a', b'y', 0, 0];
    let refused = message(24, 0, &[1, 2, 3, 4]);
    let minus_one = (-1_i32).to_ne_bytes();
    let capped = [&minus_one[..], &refused[..HEADER], &said[..]].concat();
    let whole = [&minus_one[..], &refused[..], &said[..]].concat();
    let end = [&minus_one[..], &said[..]].concat();
    let no_way = Some("no way".to_owned());
    assert_eq!(words_of(&message(NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, &capped)), no_way);
    assert_eq!(words_of(&message(NLMSG_ERROR, NLM_F_ACK_TLVS, &whole)), no_way);
    assert_eq!(words_of(&message(NLMSG_DONE, NLM_F_ACK_TLVS, &end)), no_way);
    assert_eq!(words_of(&message(NLMSG_ERROR, NLM_F_CAPPED, &capped)), None, "nothing is announced");
    for cut in 0..whole.len() {
        words_of(&message(NLMSG_ERROR, NLM_F_ACK_TLVS, &whole[..cut]));
        words_of(&message(NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, &capped[..cut.min(capped.len())]));
    }
}

#[test]
fn a_batch_is_numbered_and_its_last_message_acknowledged() {
    let mut batch = Batch::new();
    batch.push(link("a"), 0);
    batch.push(link("some-name"), 0);
    batch.push_unawaited(link("c"), 0);
    // A dump that was torn is sent again.
    for first in [3, u32::MAX] {
        batch.seal(first, NLM_F_ACK);
        let sent: Vec<_> = frames(&batch.bytes).map(|frame| (frame.sequence_number(), frame.flags())).collect();
        let number = |index| first.wrapping_add(index);
        let acknowledged = NLM_F_REQUEST | NLM_F_ACK;
        assert_eq!(sent, [(number(0), NLM_F_REQUEST), (number(1), acknowledged), (number(2), NLM_F_REQUEST)]);
    }
}

#[test]
fn a_message_too_long_for_netlink_is_an_error_and_no_panic() {
    let mut netlink = Netlink::route(Duration::from_secs(1)).unwrap();
    for length in [65_480, 65_531, 65_532, 70_000, 200_000] {
        let mut batch = Batch::new();
        batch.push(link(&"x".repeat(length)), 0);
        batch.push(RouteNetlinkMessage::GetLink(LinkMessage::default()), 0);
        if !batch.too_long {
            continue; // the kernel's turn to refuse it
        }
        let error = netlink.execute("create something", batch).unwrap_err();
        assert!(
            matches!(&error, DataplaneError::Io { source, .. } if source.raw_os_error() == Some(libc::EMSGSIZE)),
            "{error:?}"
        );
    }
}

#[test]
fn what_other_processes_send_is_no_answer() {
    // A family in which processes may send to each other without any rights. Not connected: the kernel would refuse it.
    let mut ours = Netlink::bound(libc::NETLINK_USERSOCK, Duration::from_millis(50)).unwrap();
    let mut other = Socket::new(isize::try_from(libc::NETLINK_USERSOCK).unwrap()).unwrap();
    other.bind_auto().unwrap();
    let forged = message(NLMSG_ERROR, 0, &[0; 4]);
    other.send_to(&forged, &SocketAddr::new(ours.port(), 0), 0).unwrap();
    let error = ours.receive("hear the kernel").unwrap_err();
    assert!(matches!(error, DataplaneError::Timeout { .. }), "{error:?}");
    let nothing_waits = ours.socket.recv(&mut ours.buffer, libc::MSG_DONTWAIT).unwrap_err();
    assert_eq!(nothing_waits.raw_os_error(), Some(libc::EAGAIN), "it had come, and was thrown away");
}
