//! IPv4 addresses of links, and permanent neighbours.

use std::net::{IpAddr, Ipv4Addr};

use enipool_pool::id::MacAddress;
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, Parseable, ParseableParametrized};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::super::DataplaneError;
use super::{Batch, Frame, Netlink, attributes};

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
    batch.push(RouteNetlinkMessage::NewAddress(message(address)), NLM_F_CREATE | NLM_F_REPLACE);
}

pub(crate) fn push_delete(batch: &mut Batch, address: LinkAddress) {
    batch.push(RouteNetlinkMessage::DelAddress(message(address)), 0);
}

/// Adds an address as it was.
pub(crate) fn push_again(batch: &mut Batch, index: u32, found: &AddressAsFound) {
    let mut message = message(found.on_link(index));
    message.attributes.extend(found.broadcast.map(AddressAttribute::Broadcast));
    message.attributes.extend(found.label.clone().map(AddressAttribute::Label));
    message.attributes.extend(found.no_prefix_route.then_some(AddressAttribute::Flags(AddressFlags::Noprefixroute)));
    message.attributes.extend(found.metric.map(AddressAttribute::RoutePriority));
    batch.push(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE);
}

/// Not by rtnetlink's builder: it gives subnets a broadcast address that they need not have had, and leaves a multicast
/// address out of the message. A deletion without an address takes the link's first one away.
fn message(address: LinkAddress) -> AddressMessage {
    let LinkAddress { index, address, prefix_len, scope } = address;
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: AddressFamily::Inet,
        prefix_len,
        scope: scope.into(),
        index,
        ..AddressHeader::default()
    };
    message.attributes = vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    message
}

/// The IPv4 addresses of a link.
pub(crate) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<LinkAddress>, DataplaneError> {
    Ok(dump(netlink, index)?.into_iter().map(|(address, _)| address).collect())
}

/// The global IPv4 addresses of a link, with all that is needed to make them again.
pub(crate) fn as_found(netlink: &mut Netlink, index: u32) -> Result<Vec<AddressAsFound>, DataplaneError> {
    let global = dump(netlink, index)?.into_iter().filter(|(address, _)| address.scope == SCOPE_GLOBAL);
    Ok(global.map(|(_, found)| found).collect())
}

fn dump(netlink: &mut Netlink, index: u32) -> Result<Vec<(LinkAddress, AddressAsFound)>, DataplaneError> {
    let mut request = AddressMessage::default();
    request.header = AddressHeader { family: AddressFamily::Inet, index, ..AddressHeader::default() };
    // Kernels without strict checking send those of all links.
    let of_link = |answer: &Frame<'_>| read(answer).filter(|(address, _)| address.index == index);
    match netlink.dump("list addresses", RouteNetlinkMessage::GetAddress(request), of_link) {
        // The link is gone, and its addresses with it.
        Err(DataplaneError::Kernel { code: libc::ENODEV, .. }) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Reads an answer or a notification.
pub(crate) fn parse(frame: &Frame<'_>) -> Option<LinkAddress> {
    read(frame).map(|(address, _)| address)
}

/// What a message says of an address, in both forms. A part that does not parse is left out. None for other messages and
/// families.
fn read(frame: &Frame<'_>) -> Option<(LinkAddress, AddressAsFound)> {
    if !matches!(frame.message_type(), libc::RTM_NEWADDR | libc::RTM_DELADDR) {
        return None;
    }
    let header = AddressHeader::parse(frame.payload()).ok().filter(|it| it.family == AddressFamily::Inet)?;
    let mut address = None;
    let mut found =
        AddressAsFound { net: Ipv4Net::default(), broadcast: None, label: None, no_prefix_route: false, metric: None };
    for nla in attributes(frame.payload(), &header) {
        match AddressAttribute::parse(&nla) {
            Ok(AddressAttribute::Local(IpAddr::V4(local))) => address = Some(local),
            Ok(AddressAttribute::Broadcast(broadcast)) => found.broadcast = Some(broadcast),
            Ok(AddressAttribute::Label(label)) => found.label = Some(label),
            Ok(AddressAttribute::Flags(flags)) => found.no_prefix_route = flags.contains(AddressFlags::Noprefixroute),
            Ok(AddressAttribute::RoutePriority(metric)) => found.metric = Some(metric),
            _ => {}
        }
    }
    let AddressHeader { index, prefix_len, scope, .. } = header;
    found.net = Ipv4Net::new(address?, prefix_len).ok()?;
    Some((LinkAddress { index, address: address?, prefix_len, scope: scope.into() }, found))
}

/// A neighbour that is never asked for and never ages. Not by rtnetlink: it builds neighbours only on a connection of its
/// own.
pub(crate) fn push_permanent_neighbour(batch: &mut Batch, index: u32, address: Ipv4Addr, mac: MacAddress) {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes =
        vec![NeighbourAttribute::Destination(address.into()), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    batch.push(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE);
}

/// The permanent neighbours of a link.
pub(crate) fn permanent_neighbours(
    netlink: &mut Netlink,
    index: u32,
) -> Result<Vec<(Ipv4Addr, MacAddress)>, DataplaneError> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Inet;
    request.attributes = vec![NeighbourAttribute::IfIndex(index)];
    let listed = netlink.dump("list neighbours", RouteNetlinkMessage::GetNeighbour(request), permanent_neighbour)?;
    Ok(listed.into_iter().filter(|(found, ..)| *found == index).map(|(_, address, mac)| (address, mac)).collect())
}

/// Link, address and MAC.
fn permanent_neighbour(frame: &Frame<'_>) -> Option<(u32, Ipv4Addr, MacAddress)> {
    if frame.message_type() != libc::RTM_NEWNEIGH {
        return None;
    }
    let header = NeighbourHeader::parse(frame.payload()).ok()?;
    if header.family != AddressFamily::Inet || header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for nla in attributes(frame.payload(), &header) {
        match NeighbourAttribute::parse_with_param(&nla, header.family) {
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet(found))) => address = Some(found),
            Ok(NeighbourAttribute::LinkLayerAddress(found)) => mac = found.try_into().ok().map(MacAddress),
            _ => {}
        }
    }
    Some((header.ifindex, address?, mac?))
}

#[cfg(test)]
pub(super) mod tests;
