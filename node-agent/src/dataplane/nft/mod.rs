//! nftables over netlink, for one table of our own: encoding of a [`super::ruleset`], the transaction, and reading back.
//!
//! No `nft` binary is needed, so the agent's image holds nothing but the agent. Only the expressions that the ruleset
//! uses are here. Numbers: `linux/netfilter/nf_tables.h`; all integers go in network byte order.
//!
//! Written for this crate, unlike the routing family: the libraries for nftables either need a part in C (libnftnl, or the
//! `nft` program) or come under a licence that does not go with this project's.

mod expression;
mod readback;
mod table;
mod wire;

pub(super) use readback::{Fingerprint, NftEvent, chain_names, event, fingerprint, present, verdicts};

use super::DataplaneError;
use super::netlink::{Batch, Netlink};
use super::ruleset::{Change, Ruleset};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_IPV4: u8 = 2;
/// Bytes of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
/// Fits the ruleset of the largest instance (737 pods in single slots: 60 kB) many times over.
pub(super) const SEND_CAPACITY: usize = 4 << 20;

/// Message types.
mod message {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DEL_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const GET_CHAIN: u16 = 4;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const GET_RULE: u16 = 7;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const GET_SET: u16 = 10;
    pub(super) const NEW_ELEMENTS: u16 = 12;
    pub(super) const GET_ELEMENTS: u16 = 13;
    pub(super) const DEL_ELEMENTS: u16 = 14;
    pub(super) const NEW_GENERATION: u16 = 15;
}

const fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// `struct nfgenmsg`: family, version 0, resource.
const fn header(family: u8, resource: u16) -> [u8; NFGENMSG] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Carries out `change` towards `wanted`: all of it or nothing, without a moment in which packets see half of it.
pub(super) fn apply(netlink: &mut Netlink, change: &Change, wanted: &Ruleset) -> Result<(), DataplaneError> {
    let step = "change the nftables table";
    let batch = match change {
        Change::Nothing => return Ok(()),
        Change::Replace => transaction(|batch| {
            table::push_delete_if_present(batch);
            table::push(batch, wanted);
        }),
        Change::Elements(changes) => transaction(|batch| {
            for change in changes {
                table::push_element_change(batch, change);
            }
        }),
    };
    netlink.execute(step, batch)
}

/// Removes the table. Fine if it is not there.
pub(super) fn remove(netlink: &mut Netlink) -> Result<(), DataplaneError> {
    netlink.execute("remove the nftables table", transaction(table::push_delete_if_present))
}

fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::transaction();
    // The frame names no family, and as its resource the subsystem that the transaction is for.
    let frame = |kind| wire::message(kind, |body| body.fixed(&header(0, SUBSYSTEM)));
    batch.push(frame(BATCH_BEGIN), 0);
    fill(&mut batch);
    batch.push_unawaited(frame(BATCH_END), 0);
    batch
}
