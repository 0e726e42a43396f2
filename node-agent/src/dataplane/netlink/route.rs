//! IPv4 routes of the shapes that this dataplane makes and reads.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::libc;
use serde::{Deserialize, Serialize};

use super::super::DataplaneError;
use super::socket::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use super::wire::{self, Message};
use super::{Batch, Netlink};

const RTMSG: usize = 12;
/// Recorded as "kernel" because systemd-networkd removes routes and rules of protocols that it does not know when it
/// restarts, but leaves the kernel's own alone.
const PROTOCOL: u8 = libc::RTPROT_KERNEL;
const RTNH_F_ONLINK: u32 = 4;
pub(crate) const MAIN: u32 = 254;
const CLONED: u32 = libc::RTM_F_CLONED;
/// Attributes that are kept as they are: metrics (MTU, windows, …), realm, gateway of another family, encapsulation.
const KEPT: [u16; 5] = [libc::RTA_METRICS, libc::RTA_FLOW, 18, 21, 22];

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
    /// What else it had, by attribute, as the kernel said it.
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
    batch.push(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, |body| {
        let RouteAsFound { destination, gateway, source, metric, protocol, scope, onlink, more } = found;
        let flags = if *onlink { RTNH_F_ONLINK } else { 0 };
        let length = destination.prefix_len();
        header(body, table, length, *protocol, *scope, libc::RTN_UNICAST, flags);
        if length > 0 {
            body.address(libc::RTA_DST, destination.network());
        }
        body.u32(libc::RTA_TABLE, table);
        body.u32(libc::RTA_OIF, link);
        if let Some(gateway) = gateway {
            body.address(libc::RTA_GATEWAY, *gateway);
        }
        if let Some(source) = source {
            body.address(libc::RTA_PREFSRC, *source);
        }
        if let Some(metric) = metric {
            body.u32(libc::RTA_PRIORITY, *metric);
        }
        for (kind, value) in more {
            body.bytes(*kind, value);
        }
    });
}

/// Adds the route, or replaces the one to the same destination.
pub(crate) fn push_replace(batch: &mut Batch, route: Route) {
    batch.push(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, |body| {
        write(body, route, PROTOCOL);
    });
}

/// Deletes the route to that destination; a gateway or link that is given has to match.
pub(crate) fn push_delete(batch: &mut Batch, route: Route) {
    batch.push(libc::RTM_DELROUTE, 0, |body| {
        header(body, route.table, route.destination.prefix_len(), 0, libc::RT_SCOPE_NOWHERE, libc::RTN_UNSPEC, 0);
        destination(body, route);
        body.u32(libc::RTA_TABLE, route.table);
        if let Some(gateway) = route.gateway {
            body.address(libc::RTA_GATEWAY, gateway);
        }
        if route.link != 0 {
            body.u32(libc::RTA_OIF, route.link);
        }
    });
}

fn write(body: &mut wire::Body<'_>, route: Route, protocol: u8) {
    let (scope, flags) = match route.gateway {
        None => (libc::RT_SCOPE_LINK, 0),
        // On-link: the gateway needs no route of its own to be believed.
        Some(_) => (libc::RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
    };
    header(body, route.table, route.destination.prefix_len(), protocol, scope, libc::RTN_UNICAST, flags);
    destination(body, route);
    body.u32(libc::RTA_TABLE, route.table);
    if let Some(gateway) = route.gateway {
        body.address(libc::RTA_GATEWAY, gateway);
    }
    body.u32(libc::RTA_OIF, route.link);
}

fn destination(body: &mut wire::Body<'_>, route: Route) {
    if route.destination.prefix_len() > 0 {
        body.address(libc::RTA_DST, route.destination.network());
    }
}

fn header(body: &mut wire::Body<'_>, table: u32, length: u8, protocol: u8, scope: u8, kind: u8, flags: u32) {
    let mut header = [0; RTMSG];
    header[0] = wire::AF_INET;
    header[1] = length;
    header[4] = u8::try_from(table).unwrap_or(libc::RT_TABLE_UNSPEC);
    header[5] = protocol;
    header[6] = scope;
    header[7] = kind;
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    body.fixed(&header);
}

/// The unicast routes of one table, over one link if given.
pub(crate) fn in_table(netlink: &mut Netlink, table: u32, link: Option<u32>) -> Result<Vec<Route>, DataplaneError> {
    dump(netlink, table, link, parse)
}

/// The unicast routes of one table over one link, with all that is needed to make them again.
pub(crate) fn as_found(netlink: &mut Netlink, table: u32, link: u32) -> Result<Vec<RouteAsFound>, DataplaneError> {
    dump(netlink, table, Some(link), parse_whole)
}

fn dump<T>(
    netlink: &mut Netlink,
    table: u32,
    link: Option<u32>,
    read: impl Fn(Message<'_>) -> Option<T>,
) -> Result<Vec<T>, DataplaneError> {
    let listed = netlink.dump(
        "list routes",
        libc::RTM_GETROUTE,
        |body| {
            header(body, 0, 0, 0, 0, 0, 0);
            body.u32(libc::RTA_TABLE, table);
            if let Some(link) = link {
                body.u32(libc::RTA_OIF, link);
            }
        },
        // Kernels without strict checking do not filter.
        |message| {
            let route = parse(message)?;
            (route.table == table && link.is_none_or(|link| route.link == link)).then(|| read(message))?
        },
    );
    match listed {
        // A table that never held a route does not exist; kernels with strict checking say so.
        Err(DataplaneError::Kernel { code: libc::ENOENT | libc::ESRCH, .. }) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Reads an answer or a notification. None for other families, other kinds, and routes over several links.
pub(crate) fn parse(message: Message<'_>) -> Option<Route> {
    let body = message.body;
    if !matches!(message.kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE)
        || *body.first()? != wire::AF_INET
        || *body.get(7)? != libc::RTN_UNICAST
        || wire::read_u32(body, 8)? & CLONED != 0
    {
        return None;
    }
    let mut table = u32::from(*body.get(4)?);
    let (mut destination, mut gateway, mut link) = (Ipv4Addr::UNSPECIFIED, None, None);
    for (kind, value) in wire::attributes_after(body, RTMSG) {
        match kind {
            libc::RTA_TABLE => table = wire::read_u32(value, 0)?,
            libc::RTA_DST => destination = wire::read_address(value)?,
            libc::RTA_GATEWAY => gateway = wire::read_address(value),
            libc::RTA_OIF => link = wire::read_u32(value, 0),
            _ => {}
        }
    }
    Some(Route { table, destination: Ipv4Net::new(destination, *body.get(1)?).ok()?, gateway, link: link? })
}

/// Of a message that [`parse`] reads. None of a route for one type of service: we never remove it.
fn parse_whole(message: Message<'_>) -> Option<RouteAsFound> {
    let body = message.body;
    let plain = parse(message).filter(|_| body.get(3) == Some(&0))?;
    let mut found = RouteAsFound {
        destination: plain.destination,
        gateway: plain.gateway,
        source: None,
        metric: None,
        protocol: *body.get(5)?,
        scope: *body.get(6)?,
        onlink: wire::read_u32(body, 8)? & RTNH_F_ONLINK != 0,
        more: Vec::new(),
    };
    for (kind, value) in wire::attributes_after(body, RTMSG) {
        match kind {
            libc::RTA_PREFSRC => found.source = wire::read_address(value),
            libc::RTA_PRIORITY => found.metric = wire::read_u32(value, 0),
            kind if KEPT.contains(&kind) => found.more.push((kind, value.to_vec())),
            _ => {}
        }
    }
    Some(found)
}
