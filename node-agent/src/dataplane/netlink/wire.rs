//! The bytes of netlink messages: headers, attributes, nesting. No I/O.
//!
//! Layout: `linux/netlink.h`. Messages and attributes start at multiples of four bytes.

use std::net::Ipv4Addr;

/// The address family IPv4, as headers carry it.
pub(crate) const AF_INET: u8 = 2;
/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
const NLA_HEADER: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;
/// Attribute type without its two flag bits.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Writes the body of one message: a fixed header, then attributes.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    buffer: &'a mut Vec<u8>,
}

impl Body<'_> {
    /// The family's fixed header, and nothing else.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        pad(self.buffer);
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(NLA_HEADER + value.len()).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(length), NLA_HEADER + value.len(), "an attribute holds at most 64 kB");
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        pad(self.buffer);
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// Host byte order, as the routing family wants it.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Network byte order, as nftables wants it.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn address(&mut self, kind: u16, value: Ipv4Addr) {
        self.bytes(kind, &value.octets());
    }

    /// With the terminating zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut terminated = Vec::with_capacity(value.len() + 1);
        terminated.extend_from_slice(value.as_bytes());
        terminated.push(0);
        self.bytes(kind, &terminated);
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Body<'_>)) {
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

/// Appends one message to `buffer`.
pub(crate) fn message(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, fill: impl FnOnce(&mut Body<'_>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&[0; 4]); // the kernel fills in who we are
    fill(&mut Body { buffer });
    let length = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = buffer.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// In notifications: the socket whose request caused it (0 = the kernel itself).
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

/// The messages of one datagram. Ends early on a length that does not fit.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(datagram, 0)?).ok()?;
        let body = datagram.get(HEADER..length)?;
        let message = Message {
            kind: read_u16(datagram, 4)?,
            flags: read_u16(datagram, 6)?,
            sequence: read_u32(datagram, 8)?,
            port: read_u32(datagram, 12)?,
            body,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, as (type without flags, value). Ends early on a length that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(NLA_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attributes behind a fixed header of `fixed` bytes.
pub(crate) fn attributes_after(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(body.get(fixed..).unwrap_or_default())
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn read_be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

pub(crate) fn read_address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?))
}

/// Text up to the first zero; characters that are not UTF-8 are replaced.
pub(crate) fn read_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut buffer = Vec::new();
        message(&mut buffer, 16, 5, 7, |body| {
            body.fixed(&[1, 2, 3, 4]);
            body.text(3, "eth0");
            body.nest(18, |inside| inside.u8(1, 9));
        });
        message(&mut buffer, 17, 0, 8, |_| {});
        let read: Vec<_> = messages(&buffer).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].flags, read[0].sequence), (16, 5, 7));
        let attributes: Vec<_> = attributes_after(read[0].body, 4).collect();
        assert_eq!(attributes[0].0, 3);
        assert_eq!(read_text(attributes[0].1), "eth0");
        assert_eq!(attributes[1].0, 18, "the flag of a nest is not part of its type");
        assert_eq!(super::attributes(attributes[1].1).next(), Some((1, &[9][..])));
        assert_eq!(read[1].body.len(), 0);
    }

    #[test]
    fn a_cut_message_ends_the_reading_instead_of_panicking() {
        let mut buffer = Vec::new();
        message(&mut buffer, 16, 5, 7, |body| body.u32(1, 2));
        for cut in 0..buffer.len() {
            assert_eq!(messages(&buffer[..cut]).count(), 0, "cut at {cut}");
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0, "an attribute shorter than its header");
    }
}
