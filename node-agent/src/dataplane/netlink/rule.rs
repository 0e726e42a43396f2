//! IPv4 policy rules.
//!
//! The kernel ignores NLM_F_REPLACE for rules and adds a duplicate instead: rules are added with EXCL, and "exists" is
//! success.

use std::net::Ipv4Addr;

use nix::libc;

use super::super::DataplaneError;
use super::socket::{NLM_F_CREATE, NLM_F_EXCL};
use super::wire::{self, Message};
use super::{Batch, Netlink};

const FIB_RULE_HDR: usize = 12;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

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
    batch.push(libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, |body| {
        write(body, rule);
        // As with routes: what claims to be the kernel's own survives a restart of systemd-networkd.
        body.u8(FRA_PROTOCOL, libc::RTPROT_KERNEL);
    });
}

pub(crate) fn push_delete(batch: &mut Batch, rule: Rule) {
    batch.push(libc::RTM_DELRULE, 0, |body| write(body, rule));
}

fn write(body: &mut wire::Body<'_>, rule: Rule) {
    let mut header = [0; FIB_RULE_HDR];
    header[0] = wire::AF_INET;
    header[1] = if rule.destination.is_some() { 32 } else { 0 };
    header[2] = if rule.source.is_some() { 32 } else { 0 };
    header[4] = u8::try_from(rule.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    header[7] = FR_ACT_TO_TBL;
    body.fixed(&header);
    body.u32(FRA_PRIORITY, rule.priority);
    body.u32(FRA_TABLE, rule.table);
    if let Some((mark, mask)) = rule.mark {
        body.u32(FRA_FWMARK, mark);
        body.u32(FRA_FWMASK, mask);
    }
    if let Some(source) = rule.source {
        body.address(FRA_SRC, source);
    }
    if let Some(destination) = rule.destination {
        body.address(FRA_DST, destination);
    }
}

/// All rules of the forms that [`Rule`] can express.
pub(crate) fn all(netlink: &mut Netlink) -> Result<Vec<Rule>, DataplaneError> {
    netlink.dump(
        "list rules",
        libc::RTM_GETRULE,
        |body| {
            let mut header = [0; FIB_RULE_HDR];
            header[0] = wire::AF_INET;
            body.fixed(&header);
        },
        parse,
    )
}

/// Reads an answer or a notification. None for rules with conditions that [`Rule`] does not know.
pub(crate) fn parse(message: Message<'_>) -> Option<Rule> {
    let body = message.body;
    if !matches!(message.kind, libc::RTM_NEWRULE | libc::RTM_DELRULE)
        || *body.first()? != wire::AF_INET
        || *body.get(7)? != FR_ACT_TO_TBL
        || !matches!((*body.get(1)?, *body.get(2)?), (0 | 32, 0 | 32))
        || wire::read_u32(body, 8)? & INVERTED != 0
    {
        return None;
    }
    let mut rule = Rule { priority: 0, table: u32::from(*body.get(4)?), mark: None, source: None, destination: None };
    let (mut mark, mut bits) = (None, u32::MAX);
    for (kind, value) in wire::attributes_after(body, FIB_RULE_HDR) {
        match kind {
            FRA_PRIORITY => rule.priority = wire::read_u32(value, 0)?,
            FRA_TABLE => rule.table = wire::read_u32(value, 0)?,
            FRA_FWMARK => mark = wire::read_u32(value, 0),
            FRA_FWMASK => bits = wire::read_u32(value, 0)?,
            FRA_SRC => rule.source = wire::read_address(value),
            FRA_DST => rule.destination = wire::read_address(value),
            FRA_SUPPRESS_PREFIXLEN if wire::read_u32(value, 0)? != u32::MAX => return None,
            kind if CONDITIONS.contains(&kind) => return None,
            _ => {}
        }
    }
    rule.mark = mark.map(|mark| (mark, bits));
    Some(rule)
}

/// FIB_RULE_INVERT: "not".
const INVERTED: u32 = 2;
/// Interfaces, tunnel, users, protocol and ports: conditions that none of our rules has.
const CONDITIONS: [u16; 9] = [3, 12, 13, 17, 19, 20, 22, 23, 24];
