//! IPv4 routes of the shapes that this dataplane makes and reads.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, ParseableParametrized};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::RouteMessageBuilder;
use serde::{Deserialize, Serialize};

use super::super::DataplaneError;
use super::{Batch, Frame, Netlink, attributes};

/// Recorded as "kernel" because systemd-networkd removes routes and rules of protocols that it does not know when it
/// restarts, but leaves the kernel's own alone.
const PROTOCOL: RouteProtocol = RouteProtocol::Kernel;
pub(crate) const MAIN: u32 = 254;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
/// Longest attribute that is put back. The kernel's own are shorter than a page.
const LONGEST: usize = 4096;

/// A unicast route over one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) destination: Ipv4Net,
    /// None: the destination is on the link itself.
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) link: u32,
}

/// A unicast route over one link with all that its maker said of it: enough to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteAsFound {
    pub(crate) destination: Ipv4Net,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Address with which the node itself sends by it.
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) metric: Option<u32>,
    /// Who made it, by the numbers of `rtnetlink`: 2 kernel, 4 static, 16 DHCP.
    pub(crate) protocol: u8,
    pub(crate) scope: u8,
    pub(crate) onlink: bool,
    /// What else it had, by attribute, as the kernel said it: metrics (MTU, windows, …), realm, gateway of another family,
    /// encapsulation.
    pub(crate) more: Vec<(u16, Vec<u8>)>,
}

impl fmt::Display for RouteAsFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
        self.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))
    }
}

/// Adds a route over `link` as it was, beside those to the same destination.
pub(crate) fn push_again(batch: &mut Batch, table: u32, link: u32, found: &RouteAsFound) {
    let RouteAsFound { destination, gateway, source, metric, protocol, scope, onlink, more } = found;
    let mut route = to(*destination, *gateway, table)
        .protocol(RouteProtocol::from(*protocol))
        .scope(RouteScope::from(*scope))
        .output_interface(link);
    if *onlink {
        route = route.onlink();
    }
    if let Some(source) = source {
        route = route.pref_source(*source);
    }
    if let Some(metric) = metric {
        route = route.priority(*metric);
    }
    let more = more.iter().filter(|(_, value)| value.len() <= LONGEST);
    let more = more.map(|(kind, value)| RouteAttribute::Other(DefaultNla::new(*kind, value.clone())));
    route.get_mut().attributes.extend(more);
    batch.push(RouteNetlinkMessage::NewRoute(route.build()), NLM_F_CREATE | NLM_F_APPEND);
}

/// Adds the route, or replaces the one to the same destination.
pub(crate) fn push_replace(batch: &mut Batch, route: Route) {
    let made = to(route.destination, route.gateway, route.table).protocol(PROTOCOL).output_interface(route.link);
    let made = match route.gateway {
        None => made.scope(RouteScope::Link),
        // On-link: the gateway needs no route of its own to be believed.
        Some(_) => made.scope(RouteScope::Universe).onlink(),
    };
    batch.push(RouteNetlinkMessage::NewRoute(made.build()), NLM_F_CREATE | NLM_F_REPLACE);
}

/// Deletes the route to that destination; a gateway or link that is given has to match.
pub(crate) fn push_delete(batch: &mut Batch, route: Route) {
    let mut unwanted = to(route.destination, route.gateway, route.table)
        .protocol(RouteProtocol::Unspec)
        .scope(RouteScope::NoWhere)
        .kind(RouteType::Unspec);
    if route.link != 0 {
        unwanted = unwanted.output_interface(route.link);
    }
    batch.push(RouteNetlinkMessage::DelRoute(unwanted.build()), 0);
}

/// A unicast route in `table`.
fn to(destination: Ipv4Net, gateway: Option<Ipv4Addr>, table: u32) -> RouteMessageBuilder<Ipv4Addr> {
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new().table_id(table);
    if destination.prefix_len() > 0 {
        route = route.destination_prefix(destination.network(), destination.prefix_len());
    }
    match gateway {
        Some(gateway) => route.gateway(gateway),
        None => route,
    }
}

/// The unicast routes of one table, over one link if given.
pub(crate) fn in_table(netlink: &mut Netlink, table: u32, link: Option<u32>) -> Result<Vec<Route>, DataplaneError> {
    Ok(dump(netlink, table, link)?.into_iter().map(|(route, _)| route).collect())
}

/// The unicast routes of one table over one link, with all that is needed to make them again. Without those for one type
/// of service: we never remove them.
pub(crate) fn as_found(netlink: &mut Netlink, table: u32, link: u32) -> Result<Vec<RouteAsFound>, DataplaneError> {
    Ok(dump(netlink, table, Some(link))?.into_iter().filter_map(|(_, found)| found).collect())
}

fn dump(
    netlink: &mut Netlink,
    table: u32,
    link: Option<u32>,
) -> Result<Vec<(Route, Option<RouteAsFound>)>, DataplaneError> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    request.attributes.push(RouteAttribute::Table(table));
    request.attributes.extend(link.map(RouteAttribute::Oif));
    // Kernels without strict checking do not filter.
    let wanted = |route: &Route| route.table == table && link.is_none_or(|link| route.link == link);
    let read = |answer: &Frame<'_>| read(answer).filter(|(route, _)| wanted(route));
    match netlink.dump("list routes", RouteNetlinkMessage::GetRoute(request), read) {
        // A table that never held a route does not exist, and a link that has gone has none. Kernels that check strictly
        // say so.
        Err(DataplaneError::Kernel { code: libc::ENOENT | libc::ESRCH | libc::ENODEV, .. }) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Reads an answer or a notification. None for other families, other kinds, and routes over several links.
pub(crate) fn parse(frame: &Frame<'_>) -> Option<Route> {
    read(frame).map(|(route, _)| route)
}

/// What a message says of a route, in both forms. None also if a part that is used here does not parse: without it the
/// route would look like another.
fn read(frame: &Frame<'_>) -> Option<(Route, Option<RouteAsFound>)> {
    if !matches!(frame.message_type(), libc::RTM_NEWROUTE | libc::RTM_DELROUTE) {
        return None;
    }
    let header = RouteHeader::parse(frame.payload()).ok()?;
    let RouteHeader { address_family, kind, flags, .. } = header;
    if (address_family, kind) != (AddressFamily::Inet, RouteType::Unicast) || flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let (mut table, mut destination) = (u32::from(header.table), Ipv4Addr::UNSPECIFIED);
    let (mut gateway, mut link, mut source, mut metric, mut more) = (None, None, None, None, Vec::new());
    for nla in attributes(frame.payload(), &header) {
        match nla.kind() {
            libc::RTA_METRICS | libc::RTA_FLOW | RTA_VIA | RTA_ENCAP_TYPE | RTA_ENCAP => {
                more.push((nla.kind(), nla.value().to_vec()));
            }
            libc::RTA_DST
            | libc::RTA_GATEWAY
            | libc::RTA_OIF
            | libc::RTA_TABLE
            | libc::RTA_PREFSRC
            | libc::RTA_PRIORITY => {
                match RouteAttribute::parse_with_param(&nla, (address_family, kind, RouteLwEnCapType::None)).ok()? {
                    RouteAttribute::Table(number) => table = number,
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = address,
                    RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(address),
                    RouteAttribute::Oif(index) => link = Some(index),
                    RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(address),
                    RouteAttribute::Priority(number) => metric = Some(number),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let destination = Ipv4Net::new(destination, header.destination_prefix_length).ok()?;
    let (protocol, scope, onlink) = (header.protocol.into(), header.scope.into(), flags.contains(RouteFlags::Onlink));
    let found = RouteAsFound { destination, gateway, source, metric, protocol, scope, onlink, more };
    Some((Route { table, destination, gateway, link: link? }, (header.tos == 0).then_some(found)))
}

#[cfg(test)]
pub(super) mod tests;
