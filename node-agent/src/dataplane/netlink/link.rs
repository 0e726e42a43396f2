//! Links: veth pairs, and what is read and set of a link.

use std::os::fd::{AsRawFd, BorrowedFd};

use enipool_pool::id::MacAddress;
use nix::libc;

use super::super::DataplaneError;
use super::socket::{NLM_F_CREATE, NLM_F_EXCL};
use super::wire::{self, Body, Message};
use super::{Batch, Netlink};

const IFINFOMSG: usize = 16;
const IFF_UP: u32 = 0x1;
const VETH_INFO_PEER: u16 = 1;
/// Inside IFLA_AF_SPEC / AF_INET: per-link values of `net.ipv4.conf`.
const IFLA_INET_CONF: u16 = 1;
/// Position of `rp_filter` in those values (`linux/ip.h`).
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// What this dataplane wants to know of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// None for links without Ethernet addresses.
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: u32,
    /// Administratively up.
    pub(crate) up: bool,
    /// Driver kind, `veth`; empty for hardware.
    pub(crate) kind: String,
    /// The interface index of a veth's other end, in that end's namespace.
    pub(crate) peer: Option<u32>,
    /// `net.ipv4.conf.<name>.rp_filter`, where the kernel says it.
    pub(crate) rp_filter: Option<u32>,
}

/// The two ends of a pod's veth pair.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: MacAddress,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: MacAddress,
    pub(crate) pod_namespace: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

/// Creates both ends where they belong, down. Three things here would each cost an RCU grace period (5 to 60 ms on a busy
/// machine) if done otherwise:
/// - moving an end into its namespace after its creation;
/// - leaving the number of queues to the kernel, which makes one for each CPU and then switches all but one off;
/// - an end that is up while the other is not, when its state is asked for. (Up on the peer fails anyway, ENOTCONN.)
///
/// The MACs are given because udev rewrites those that the kernel chose.
pub(crate) fn push_create_veth(batch: &mut Batch, veth: &VethPair<'_>) {
    batch.push(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |body| {
        write_veth_end(body, veth.host_name, veth.host_mac, veth.mtu);
        body.nest(libc::IFLA_LINKINFO, |info| {
            info.bytes(libc::IFLA_INFO_KIND, b"veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    write_veth_end(peer, veth.pod_name, veth.pod_mac, veth.mtu);
                    peer.u32(libc::IFLA_NET_NS_FD, veth.pod_namespace.as_raw_fd().cast_unsigned());
                });
            });
        });
    });
}

fn write_veth_end(body: &mut Body<'_>, name: &str, mac: MacAddress, mtu: u32) {
    ifinfo(body, 0, 0, 0);
    body.text(libc::IFLA_IFNAME, name);
    body.u32(libc::IFLA_MTU, mtu);
    body.bytes(libc::IFLA_ADDRESS, &mac.0);
    body.u32(libc::IFLA_NUM_TX_QUEUES, 1);
    body.u32(libc::IFLA_NUM_RX_QUEUES, 1);
}

pub(crate) fn push_get_by_name(batch: &mut Batch, name: &str) {
    batch.push(libc::RTM_GETLINK, 0, |body| {
        ifinfo(body, 0, 0, 0);
        body.text(libc::IFLA_IFNAME, name);
        body.u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
}

pub(crate) fn push_get(batch: &mut Batch, index: u32) {
    batch.push(libc::RTM_GETLINK, 0, |body| {
        ifinfo(body, index, 0, 0);
        body.u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
}

/// None when there is no such link.
pub(crate) fn by_name(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, DataplaneError> {
    get(netlink, |batch| push_get_by_name(batch, name))
}

/// None when there is no such link.
pub(crate) fn by_index(netlink: &mut Netlink, index: u32) -> Result<Option<Link>, DataplaneError> {
    get(netlink, |batch| push_get(batch, index))
}

fn get(netlink: &mut Netlink, ask: impl FnOnce(&mut Batch)) -> Result<Option<Link>, DataplaneError> {
    let step = "look up a link";
    let mut batch = Batch::new();
    ask(&mut batch);
    let mut link = None;
    let refusals = netlink.exchange(step, batch, |_, message| link = parse(message))?;
    match refusals.into_iter().find(|refusal| refusal.code != libc::ENODEV) {
        Some(refusal) => Err(refusal.into_error(step)),
        None => Ok(link),
    }
}

/// All links. 8 µs for each: never on the path of a pod.
pub(crate) fn all(netlink: &mut Netlink) -> Result<Vec<Link>, DataplaneError> {
    netlink.dump(
        "list links",
        libc::RTM_GETLINK,
        |body| {
            ifinfo(body, 0, 0, 0);
            body.u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        },
        parse,
    )
}

pub(crate) fn push_up(batch: &mut Batch, index: u32, up: bool) {
    batch.push(libc::RTM_NEWLINK, 0, |body| ifinfo(body, index, if up { IFF_UP } else { 0 }, IFF_UP));
}

pub(crate) fn push_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.push(libc::RTM_NEWLINK, 0, |body| {
        ifinfo(body, index, 0, 0);
        body.u32(libc::IFLA_MTU, mtu);
    });
}

/// Sets `net.ipv4.conf.<link>.rp_filter` without a file.
pub(crate) fn push_rp_filter(batch: &mut Batch, index: u32, value: u32) {
    batch.push(libc::RTM_SETLINK, 0, |body| {
        ifinfo(body, index, 0, 0);
        body.nest(libc::IFLA_AF_SPEC, |families| {
            families.nest(u16::from(wire::AF_INET), |inet| {
                inet.nest(IFLA_INET_CONF, |conf| conf.u32(IPV4_DEVCONF_RP_FILTER, value));
            });
        });
    });
}

pub(crate) fn push_rename(batch: &mut Batch, index: u32, name: &str) {
    batch.push(libc::RTM_NEWLINK, 0, |body| {
        ifinfo(body, index, 0, 0);
        body.text(libc::IFLA_IFNAME, name);
    });
}

/// The kernel answers when the link is gone, 15 ms and more later.
pub(crate) fn push_delete(batch: &mut Batch, index: u32) {
    batch.push(libc::RTM_DELLINK, 0, |body| ifinfo(body, index, 0, 0));
}

fn ifinfo(body: &mut Body<'_>, index: u32, flags: u32, change: u32) {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    body.fixed(&header);
}

/// Reads an answer or a notification. None for messages about something else than links.
pub(crate) fn parse(message: Message<'_>) -> Option<Link> {
    if message.kind != libc::RTM_NEWLINK && message.kind != libc::RTM_DELLINK {
        return None;
    }
    let mut link = Link {
        index: wire::read_u32(message.body, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: wire::read_u32(message.body, 8)? & IFF_UP != 0,
        kind: String::new(),
        peer: None,
        rp_filter: None,
    };
    for (kind, value) in wire::attributes_after(message.body, IFINFOMSG) {
        match kind {
            libc::IFLA_IFNAME => link.name = wire::read_text(value),
            libc::IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().map(MacAddress),
            libc::IFLA_MTU => link.mtu = wire::read_u32(value, 0)?,
            libc::IFLA_LINK => link.peer = wire::read_u32(value, 0),
            libc::IFLA_LINKINFO => {
                let name = wire::attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = name.map(|(_, name)| wire::read_text(name)).unwrap_or_default();
            }
            libc::IFLA_AF_SPEC => link.rp_filter = rp_filter(value),
            _ => {}
        }
    }
    Some(link)
}

/// In answers the per-link values are a plain array, in order of their positions (from 1).
fn rp_filter(families: &[u8]) -> Option<u32> {
    let (_, inet) = wire::attributes(families).find(|(kind, _)| *kind == u16::from(wire::AF_INET))?;
    let (_, values) = wire::attributes(inet).find(|(kind, _)| *kind == IFLA_INET_CONF)?;
    wire::read_u32(values, (usize::from(IPV4_DEVCONF_RP_FILTER) - 1) * 4)
}
