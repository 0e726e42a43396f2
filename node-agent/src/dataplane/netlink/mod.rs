//! Netlink, small and synchronous: messages as bytes ([`wire`]), a socket that waits for answers ([`socket`]), the
//! requests to the routing family ([`link`], [`route`], [`rule`]) and their answers as plain data.
//!
//! Nothing here decides what should be; it says one thing to the kernel or reads one thing from it. Written for this
//! crate because a pod's whole set-up is a handful of messages that go out in two sends, and because nftables needs the
//! same encoding anyway.

pub(super) mod address;
pub(super) mod link;
pub(super) mod namespace;
pub(super) mod route;
pub(super) mod rule;
pub(super) mod socket;
pub(super) mod wire;

pub(super) use socket::{Batch, Netlink};
