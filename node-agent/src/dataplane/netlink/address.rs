//! IPv4 addresses of links, and permanent neighbours.

use std::net::Ipv4Addr;

use enipool_pool::id::MacAddress;
use ipnet::Ipv4Net;
use nix::libc;
use serde::{Deserialize, Serialize};

use super::super::DataplaneError;
use super::socket::{NLM_F_CREATE, NLM_F_REPLACE};
use super::wire::{self, Message};
use super::{Batch, Netlink};

const IFADDRMSG: usize = 8;
const NDMSG: usize = 12;
/// Flags beyond the eight bits of the header, and the metric of the subnet's route (`linux/if_addr.h`).
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// An IPv4 address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkAddress {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) scope: u8,
}

pub(crate) const SCOPE_GLOBAL: u8 = 0;

/// A global address with all that its maker said of it: enough to make it again. Only not how long it was to live: who
/// had it from DHCP renews it, and one that nobody renews is not ours to take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddressAsFound {
    pub(crate) net: Ipv4Net,
    pub(crate) broadcast: Option<Ipv4Addr>,
    pub(crate) label: Option<String>,
    /// The kernel made no route to its subnet.
    pub(crate) no_prefix_route: bool,
    /// Metric of the route to its subnet.
    pub(crate) metric: Option<u32>,
}

impl AddressAsFound {
    pub(crate) fn on_link(&self, index: u32) -> LinkAddress {
        LinkAddress { index, address: self.net.addr(), prefix_len: self.net.prefix_len(), scope: SCOPE_GLOBAL }
    }
}

/// Adds or refreshes; an address with all 32 bits brings no route to a subnet with it.
pub(crate) fn push_add(batch: &mut Batch, address: LinkAddress) {
    batch.push(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, |body| write(body, address));
}

pub(crate) fn push_delete(batch: &mut Batch, address: LinkAddress) {
    batch.push(libc::RTM_DELADDR, 0, |body| write(body, address));
}

/// Adds an address as it was.
pub(crate) fn push_again(batch: &mut Batch, index: u32, found: &AddressAsFound) {
    batch.push(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, |body| {
        write(body, found.on_link(index));
        if let Some(broadcast) = found.broadcast {
            body.address(libc::IFA_BROADCAST, broadcast);
        }
        if let Some(label) = &found.label {
            body.text(libc::IFA_LABEL, label);
        }
        if found.no_prefix_route {
            body.u32(IFA_FLAGS, IFA_F_NOPREFIXROUTE);
        }
        if let Some(metric) = found.metric {
            body.u32(IFA_RT_PRIORITY, metric);
        }
    });
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

/// The IPv4 addresses of a link.
pub(crate) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<LinkAddress>, DataplaneError> {
    dump(netlink, index, |message| parse(message).filter(|address| address.index == index))
}

/// The global IPv4 addresses of a link, with all that is needed to make them again.
pub(crate) fn as_found(netlink: &mut Netlink, index: u32) -> Result<Vec<AddressAsFound>, DataplaneError> {
    dump(netlink, index, |message| {
        parse(message).filter(|address| address.index == index && address.scope == SCOPE_GLOBAL)?;
        parse_whole(message)
    })
}

/// Of all links when the kernel cannot filter.
fn dump<T>(
    netlink: &mut Netlink,
    index: u32,
    read: impl FnMut(Message<'_>) -> Option<T>,
) -> Result<Vec<T>, DataplaneError> {
    let header = || {
        let mut header = [0; IFADDRMSG];
        header[0] = wire::AF_INET;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header
    };
    netlink.dump("list addresses", libc::RTM_GETADDR, |body| body.fixed(&header()), read)
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

fn parse_whole(message: Message<'_>) -> Option<AddressAsFound> {
    let plain = parse(message)?;
    let mut found = AddressAsFound {
        net: Ipv4Net::new(plain.address, plain.prefix_len).ok()?,
        broadcast: None,
        label: None,
        no_prefix_route: false,
        metric: None,
    };
    for (kind, value) in wire::attributes_after(message.body, IFADDRMSG) {
        match kind {
            libc::IFA_BROADCAST => found.broadcast = wire::read_address(value),
            libc::IFA_LABEL => found.label = Some(wire::read_text(value)),
            IFA_FLAGS => found.no_prefix_route = wire::read_u32(value, 0)? & IFA_F_NOPREFIXROUTE != 0,
            IFA_RT_PRIORITY => found.metric = wire::read_u32(value, 0),
            _ => {}
        }
    }
    Some(found)
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
