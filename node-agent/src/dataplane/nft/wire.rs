//! The bytes of nftables' messages: attributes, nesting, integers in network byte order. No I/O.
//!
//! Layout: `linux/netlink.h`. Attributes start at multiples of four bytes. Headers are the socket's.

use netlink_packet_core::{NLA_F_NESTED, NetlinkSerializable, NlasIterator};

use super::super::netlink::Batch;

const NLA_HEADER: usize = 4;

/// One message to the kernel.
#[derive(Debug)]
pub(super) struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

/// A message of that type, whose body `fill` writes.
pub(super) fn message(kind: u16, fill: impl FnOnce(&mut Body<'_>)) -> Message {
    let mut body = Vec::with_capacity(256);
    fill(&mut Body { buffer: &mut body });
    Message { kind, body }
}

/// Adds a message of that type to `batch`.
pub(super) fn push(batch: &mut Batch, kind: u16, flags: u16, fill: impl FnOnce(&mut Body<'_>)) {
    batch.push(message(kind, fill), flags);
}

/// Writes the body of one message: a fixed header, then attributes.
#[derive(Debug)]
pub(super) struct Body<'a> {
    buffer: &'a mut Vec<u8>,
}

impl Body<'_> {
    /// The family's fixed header, and nothing else.
    pub(super) fn fixed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        pad(self.buffer);
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(NLA_HEADER + value.len()).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(length), NLA_HEADER + value.len(), "an attribute holds at most 64 kB");
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        pad(self.buffer);
    }

    /// Network byte order.
    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// With the terminating zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let mut terminated = Vec::with_capacity(value.len() + 1);
        terminated.extend_from_slice(value.as_bytes());
        terminated.push(0);
        self.bytes(kind, &terminated);
    }

    /// Attributes inside an attribute.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Body<'_>)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(&mut Body { buffer: self.buffer });
        let inside = self.buffer.len() - start;
        let length = u16::try_from(inside).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(length), inside, "a nest holds at most 64 kB");
        if let Some(place) = self.buffer.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// The attributes in `bytes`, as (type without flags, value). Ends early on a length that does not fit.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|nla| {
        let nla = nla.ok()?;
        Some((nla.kind(), nla.into_inner().get(NLA_HEADER..usize::from(nla.length()))?))
    })
}

/// The attributes behind the family's fixed header.
pub(super) fn attributes_after_header(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(payload.get(super::NFGENMSG..).unwrap_or_default())
}

pub(super) fn read_be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// Text up to the first zero; characters that are not UTF-8 are replaced.
pub(super) fn read_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let message = message(0x0a00, |body| {
            body.fixed(&[2, 0, 0, 0]);
            body.text(3, "eth0");
            body.nest(18, |inside| inside.be32(1, 9));
        });
        assert_eq!(message.buffer_len(), message.body.len());
        let attributes: Vec<_> = attributes_after_header(&message.body).collect();
        assert_eq!(attributes[0].0, 3);
        assert_eq!(read_text(attributes[0].1), "eth0");
        assert_eq!(attributes[1].0, 18, "the flag of a nest is not part of its type");
        let inside: Vec<_> = super::attributes(attributes[1].1).collect();
        assert_eq!(inside, [(1, &[0, 0, 0, 9][..])]);
        assert_eq!(read_be32(inside[0].1), Some(9));
    }

    #[test]
    fn a_cut_attribute_ends_the_reading_instead_of_panicking() {
        let message = message(0x0a00, |body| body.be32(1, 2));
        for cut in 0..message.body.len() {
            assert_eq!(attributes(&message.body[..cut]).count(), 0, "cut at {cut}");
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0, "an attribute shorter than its header");
    }
}
