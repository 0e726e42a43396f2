//! IPv4 policy rules.
//!
//! The kernel ignores NLM_F_REPLACE for rules and adds a duplicate instead: rules are added with EXCL, and "exists" is
//! success.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;

use super::super::DataplaneError;
use super::{Batch, Frame, Netlink};

/// A rule that looks up a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    pub(crate) table: u32,
    /// Mark and mask.
    pub(crate) mark: Option<(u32, u32)>,
    /// One source address.
    pub(crate) source: Option<Ipv4Addr>,
    /// One destination address.
    pub(crate) destination: Option<Ipv4Addr>,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.priority)?;
        match self.source {
            Some(source) => write!(f, " from {source}")?,
            None => write!(f, " from all")?,
        }
        if let Some(destination) = self.destination {
            write!(f, " to {destination}")?;
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}/{mask:#x}")?;
        }
        write!(f, " lookup {}", self.table)
    }
}

pub(crate) fn push_add(batch: &mut Batch, rule: Rule) {
    let mut message = message(rule);
    // As with routes: what claims to be the kernel's own survives a restart of systemd-networkd.
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Kernel));
    batch.push(RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL);
}

pub(crate) fn push_delete(batch: &mut Batch, rule: Rule) {
    batch.push(RouteNetlinkMessage::DelRule(message(rule)), 0);
}

/// Not by rtnetlink: it builds rules only on a connection of its own.
fn message(rule: Rule) -> RuleMessage {
    let Rule { priority, table, mark, source, destination } = rule;
    let bits = |address: Option<Ipv4Addr>| if address.is_some() { 32 } else { 0 };
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.dst_len = bits(destination);
    message.header.src_len = bits(source);
    message.header.table = u8::try_from(table).unwrap_or(libc::RT_TABLE_UNSPEC);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Table(table)];
    message.attributes.extend(mark.map(|(mark, _)| RuleAttribute::FwMark(mark)));
    message.attributes.extend(mark.map(|(_, mask)| RuleAttribute::FwMask(mask)));
    message.attributes.extend(source.map(|source| RuleAttribute::Source(source.into())));
    message.attributes.extend(destination.map(|destination| RuleAttribute::Destination(destination.into())));
    message
}

/// All rules of the forms that [`Rule`] can express.
pub(crate) fn all(netlink: &mut Netlink) -> Result<Vec<Rule>, DataplaneError> {
    let mut request = RuleMessage::default();
    request.header.family = AddressFamily::Inet;
    netlink.dump("list rules", RouteNetlinkMessage::GetRule(request), parse)
}

/// Reads an answer or a notification. None for rules with conditions that [`Rule`] does not know: so they are parsed
/// whole, and one that does not parse is no rule of ours.
pub(crate) fn parse(frame: &Frame<'_>) -> Option<Rule> {
    if !matches!(frame.message_type(), libc::RTM_NEWRULE | libc::RTM_DELRULE)
        || RuleHeader::parse(frame.payload()).ok()?.family != AddressFamily::Inet
    {
        return None;
    }
    let message = RuleMessage::parse(frame.payload()).ok()?;
    let header = &message.header;
    if header.action != RuleAction::ToTable
        || !matches!((header.dst_len, header.src_len), (0 | 32, 0 | 32))
        || header.tos != 0
        || header.flags.contains(RuleFlags::Invert)
    {
        return None;
    }
    let mut rule = Rule { priority: 0, table: u32::from(header.table), mark: None, source: None, destination: None };
    let (mut mark, mut bits) = (None, None);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::FwMark(value) => mark = Some(value),
            RuleAttribute::FwMask(value) => bits = Some(value),
            RuleAttribute::Source(IpAddr::V4(source)) => rule.source = Some(source),
            RuleAttribute::Destination(IpAddr::V4(destination)) => rule.destination = Some(destination),
            // No conditions: who made it, which realm its packets count for, and "suppresses nothing".
            RuleAttribute::Protocol(_)
            | RuleAttribute::Realm(_)
            | RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            // Interfaces, tunnels, users, protocols, ports, and whatever a newer kernel can ask for.
            _ => return None,
        }
    }
    // The kernel does not say a mark of zero.
    if mark.is_some() || bits.is_some() {
        rule.mark = Some((mark.unwrap_or(0), bits.unwrap_or(u32::MAX)));
    }
    Some(rule)
}

#[cfg(test)]
pub(super) mod tests;
