//! IPv4 routes of the shapes that this dataplane makes and reads.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::libc;

use super::super::DataplaneError;
use super::socket::{NLM_F_CREATE, NLM_F_REPLACE};
use super::wire::{self, Message};
use super::{Batch, Netlink};

const RTMSG: usize = 12;
/// Recorded as "kernel" because systemd-networkd removes routes and rules of protocols that it does not know when it
/// restarts, but leaves the kernel's own alone.
const PROTOCOL: u8 = libc::RTPROT_KERNEL;
const RTNH_F_ONLINK: u32 = 4;
pub(crate) const MAIN: u32 = 254;
const CLONED: u32 = libc::RTM_F_CLONED;

/// A unicast route over one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) destination: Ipv4Net,
    /// None: the destination is on the link itself.
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) link: u32,
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
        parse,
    );
    match listed {
        // A table that never held a route does not exist; kernels with strict checking say so.
        Err(DataplaneError::Kernel { code: libc::ENOENT | libc::ESRCH, .. }) => Ok(Vec::new()),
        listed => Ok(listed?
            .into_iter()
            .filter(|route| route.table == table && link.is_none_or(|link| route.link == link))
            .collect()),
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
