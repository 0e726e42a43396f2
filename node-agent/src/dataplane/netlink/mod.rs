//! Netlink: requests to the routing family ([`link`], [`address`], [`route`], [`rule`]) and their answers as plain data,
//! and the socket for them ([`socket`]), which serves nftables as well.
//!
//! Messages are those of netlink-packet-route, built with rtnetlink's builders where it has some that need no connection.
//! Nothing here decides what should be; it says one thing to the kernel or reads one thing from it.
//!
//! The socket is synchronous and not rtnetlink's `Handle`. A pod's whole set-up is a handful of messages that go out in two
//! sends; `Handle` sends each alone. It also has no time-outs, hides that a dump was torn, and leaves out, without a word
//! to the caller, a message of which one attribute does not parse. The control thread needs all of that as much as pods do.
//!
//! Answers are therefore not parsed whole: netlink-packet-route gives a message up for one attribute that it does not
//! understand, and kernels and drivers have more kinds of links than it knows. Of each message only the attributes that
//! are used here are parsed, by its types, and each alone ([`attributes`]). That is also the fastest way: a link says some
//! fifty things about itself.

pub(super) mod address;
pub(super) mod link;
pub(super) mod namespace;
pub(super) mod route;
pub(super) mod rule;
pub(super) mod socket;

pub(super) use socket::{Batch, Frame, Netlink};

use netlink_packet_core::{Emitable, NlaBuffer, NlasIterator};

/// The attributes behind the fixed header of a message. Ends early on a length that does not fit.
fn attributes<'a>(payload: &'a [u8], header: &impl Emitable) -> impl Iterator<Item = NlaBuffer<&'a [u8]>> {
    nested(payload.get(header.buffer_len()..).unwrap_or_default())
}

/// The attributes inside an attribute. Ends early on a length that does not fit.
fn nested(value: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(value).map_while(Result::ok)
}

#[cfg(test)]
mod testing;
