//! IPv4 addresses of links, and permanent neighbours.

use std::net::Ipv4Addr;

use enipool_pool::id::MacAddress;
use nix::libc;

use super::super::DataplaneError;
use super::socket::{NLM_F_CREATE, NLM_F_REPLACE};
use super::wire::{self, Message};
use super::{Batch, Netlink};

const IFADDRMSG: usize = 8;
const NDMSG: usize = 12;

/// An IPv4 address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkAddress {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) scope: u8,
}

pub(crate) const SCOPE_GLOBAL: u8 = 0;

/// Adds or refreshes; an address with all 32 bits brings no route to a subnet with it.
pub(crate) fn push_add(batch: &mut Batch, address: LinkAddress) {
    batch.push(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, |body| write(body, address));
}

pub(crate) fn push_delete(batch: &mut Batch, address: LinkAddress) {
    batch.push(libc::RTM_DELADDR, 0, |body| write(body, address));
}

fn write(body: &mut wire::Body<'_>, address: LinkAddress) {
    let mut header = [0; IFADDRMSG];
    header[0] = wire::AF_INET;
    header[1] = address.prefix_len;
    header[3] = address.scope;
    header[4..8].copy_from_slice(&address.index.to_ne_bytes());
    body.fixed(&header);
    body.address(libc::IFA_LOCAL, address.address);
    body.address(libc::IFA_ADDRESS, address.address);
}

/// The IPv4 addresses of the links in `indexes` (of all links when the kernel cannot filter; filtered here then).
pub(crate) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<LinkAddress>, DataplaneError> {
    let header = || {
        let mut header = [0; IFADDRMSG];
        header[0] = wire::AF_INET;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header
    };
    netlink.dump(
        "list addresses",
        libc::RTM_GETADDR,
        |body| body.fixed(&header()),
        |message| parse(message).filter(|address| address.index == index),
    )
}

/// Reads an answer or a notification.
pub(crate) fn parse(message: Message<'_>) -> Option<LinkAddress> {
    if !matches!(message.kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) || *message.body.first()? != wire::AF_INET {
        return None;
    }
    let local = wire::attributes_after(message.body, IFADDRMSG).find(|(kind, _)| *kind == libc::IFA_LOCAL)?;
    Some(LinkAddress {
        index: wire::read_u32(message.body, 4)?,
        address: wire::read_address(local.1)?,
        prefix_len: *message.body.get(1)?,
        scope: *message.body.get(3)?,
    })
}

/// A neighbour that is never asked for and never ages.
pub(crate) fn push_permanent_neighbour(batch: &mut Batch, index: u32, address: Ipv4Addr, mac: MacAddress) {
    batch.push(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, |body| {
        let mut header = [0; NDMSG];
        header[0] = wire::AF_INET;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        body.fixed(&header);
        body.address(libc::NDA_DST, address);
        body.bytes(libc::NDA_LLADDR, &mac.0);
    });
}

/// The permanent neighbours of a link.
pub(crate) fn permanent_neighbours(
    netlink: &mut Netlink,
    index: u32,
) -> Result<Vec<(Ipv4Addr, MacAddress)>, DataplaneError> {
    netlink.dump(
        "list neighbours",
        libc::RTM_GETNEIGH,
        |body| {
            let mut header = [0; NDMSG];
            header[0] = wire::AF_INET;
            body.fixed(&header);
            body.u32(libc::NDA_IFINDEX, index);
        },
        |message| {
            let state = wire::read_u16(message.body, 8)?;
            if wire::read_u32(message.body, 4)? != index || state & libc::NUD_PERMANENT == 0 {
                return None;
            }
            let (mut address, mut mac) = (None, None);
            for (kind, value) in wire::attributes_after(message.body, NDMSG) {
                match kind {
                    libc::NDA_DST => address = wire::read_address(value),
                    libc::NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok().map(MacAddress),
                    _ => {}
                }
            }
            Some((address?, mac?))
        },
    )
}
