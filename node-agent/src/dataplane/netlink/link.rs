//! Links: veth pairs, and what is read and set of a link.

use std::os::fd::{AsRawFd, BorrowedFd};

use enipool_pool::id::MacAddress;
use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL, Parseable, ParseableParametrized,
};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::super::DataplaneError;
use super::{Batch, Frame, Netlink, attributes, nested};

/// Inside IFLA_AF_SPEC: what IPv4 says of the link, and in that the per-link values of `net.ipv4.conf`.
const AF_INET: u16 = 2;
const IFLA_INET_CONF: u16 = 1;
/// Position of `rp_filter` in those values (`linux/ip.h`).
const IPV4_DEVCONF_RP_FILTER: u16 = 8;

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
    let pod = LinkMessageBuilder::<LinkUnspec>::new().setns_by_fd(veth.pod_namespace.as_raw_fd());
    let pod = veth_end(pod, veth.pod_name, veth.pod_mac, veth.mtu).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(pod)));
    let pair = veth_end(pair, veth.host_name, veth.host_mac, veth.mtu).build();
    batch.push(RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL);
}

fn veth_end<T>(end: LinkMessageBuilder<T>, name: &str, mac: MacAddress, mtu: u32) -> LinkMessageBuilder<T> {
    end.name(name)
        .mtu(mtu)
        .address(mac.0.to_vec())
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1))
}

pub(crate) fn push_get_by_name(batch: &mut Batch, name: &str) {
    batch.push(query(LinkUnspec::new_with_name(name)), 0);
}

pub(crate) fn push_get(batch: &mut Batch, index: u32) {
    batch.push(query(LinkUnspec::new_with_index(index)), 0);
}

fn query(which: LinkMessageBuilder<LinkUnspec>) -> RouteNetlinkMessage {
    let without_counters = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    RouteNetlinkMessage::GetLink(which.append_extra_attribute(without_counters).build())
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
    let refusals = netlink.exchange(step, batch, |_, answer| link = parse(answer))?;
    match refusals.into_iter().find(|refusal| refusal.code != libc::ENODEV) {
        Some(refusal) => Err(refusal.into_error(step)),
        None => Ok(link),
    }
}

/// All links. 8 µs for each: never on the path of a pod.
pub(crate) fn all(netlink: &mut Netlink) -> Result<Vec<Link>, DataplaneError> {
    netlink.dump("list links", query(LinkMessageBuilder::<LinkUnspec>::new()), parse)
}

pub(crate) fn push_up(batch: &mut Batch, index: u32, up: bool) {
    let link = LinkUnspec::new_with_index(index);
    let link = if up { link.up() } else { link.down() };
    batch.push(RouteNetlinkMessage::NewLink(link.build()), 0);
}

pub(crate) fn push_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.push(RouteNetlinkMessage::NewLink(LinkUnspec::new_with_index(index).mtu(mtu).build()), 0);
}

/// Sets `net.ipv4.conf.<link>.rp_filter` without a file.
pub(crate) fn push_rp_filter(batch: &mut Batch, index: u32, value: u32) {
    // Not `AfSpecInet::DevConfRequest`: it leaves zeros out, and zero is a value that a link may get back.
    let setting = DefaultNla::new(IPV4_DEVCONF_RP_FILTER, value.to_ne_bytes().to_vec());
    let mut bytes = vec![0; setting.buffer_len()];
    setting.emit(&mut bytes);
    let settings = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, bytes));
    let families = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![settings])]);
    let link = LinkUnspec::new_with_index(index).append_extra_attribute(families).build();
    batch.push(RouteNetlinkMessage::SetLink(link), 0);
}

pub(crate) fn push_rename(batch: &mut Batch, index: u32, name: &str) {
    batch.push(RouteNetlinkMessage::NewLink(LinkUnspec::new_with_index(index).name(name).build()), 0);
}

/// The kernel answers when the link is gone, 15 ms and more later.
pub(crate) fn push_delete(batch: &mut Batch, index: u32) {
    batch.push(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()), 0);
}

/// Reads an answer or a notification. None for messages about something else than links, and for what other families say
/// of a link: a bridge's word that a port has left it is no end of that link. A part that does not parse is left out: the
/// link is there nevertheless.
pub(crate) fn parse(frame: &Frame<'_>) -> Option<Link> {
    if !matches!(frame.message_type(), libc::RTM_NEWLINK | libc::RTM_DELLINK) {
        return None;
    }
    let header = LinkHeader::parse(frame.payload()).ok().filter(|it| it.interface_family == AddressFamily::Unspec)?;
    let (index, up) = (header.index, header.flags.contains(LinkFlags::Up));
    let (name, kind) = (String::new(), String::new());
    let mut link = Link { index, name, mac: None, mtu: 0, up, kind, peer: None, rp_filter: None };
    for nla in attributes(frame.payload(), &header) {
        match nla.kind() {
            // Of these two only one part each: the rest is the driver's and IPv6's.
            libc::IFLA_LINKINFO => link.kind = kind_of(nla.value()).unwrap_or_default(),
            libc::IFLA_AF_SPEC => link.rp_filter = rp_filter(nla.value()),
            libc::IFLA_IFNAME | libc::IFLA_ADDRESS | libc::IFLA_MTU | libc::IFLA_LINK => {
                match LinkAttribute::parse_with_param(&nla, header.interface_family) {
                    Ok(LinkAttribute::IfName(name)) => link.name = name,
                    Ok(LinkAttribute::Address(mac)) => link.mac = mac.try_into().ok().map(MacAddress),
                    Ok(LinkAttribute::Mtu(mtu)) => link.mtu = mtu,
                    Ok(LinkAttribute::Link(peer)) => link.peer = Some(peer),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn kind_of(info: &[u8]) -> Option<String> {
    let kind = nested(info).find(|part| part.kind() == libc::IFLA_INFO_KIND)?;
    Some(InfoKind::parse(&kind).ok()?.to_string())
}

fn rp_filter(families: &[u8]) -> Option<u32> {
    let inet = nested(families).find(|family| family.kind() == AF_INET)?;
    let settings = nested(inet.value()).find(|part| part.kind() == IFLA_INET_CONF)?;
    match AfSpecInet::parse(&settings) {
        Ok(AfSpecInet::DevConf(settings)) => Some(settings.rp_filter.cast_unsigned()),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
