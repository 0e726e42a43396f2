//! Reading our table back, to notice when somebody else changed it.
//!
//! The kernel's answers are not turned into a [`super::super::ruleset::Ruleset`] again. A digest of them, taken right
//! after our own change, is compared with one taken later: any difference is somebody else's doing.

use sha1::{Digest, Sha1};

use super::super::DataplaneError;
use super::super::layout::NFT_TABLE;
use super::super::netlink::{Frame, Netlink};
use super::table::TABLE;
use super::wire::{self, Body};
use super::{FAMILY_IPV4, SUBSYSTEM, header, kind, message};

/// What the kernel holds in our table: structure, rules and elements, without counters and handles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Fingerprint([u8; 20]);

/// Whether our table exists.
pub(in super::super) fn present(netlink: &mut Netlink) -> Result<bool, DataplaneError> {
    let tables = netlink.dump(
        "list nftables tables",
        wire::message(kind(message::GET_TABLE), |body| body.fixed(&header(FAMILY_IPV4, 0))),
        |found| ours(found).then_some(()),
    )?;
    Ok(!tables.is_empty())
}

/// None when our table does not exist.
pub(in super::super) fn fingerprint(netlink: &mut Netlink) -> Result<Option<Fingerprint>, DataplaneError> {
    if !present(netlink)? {
        return Ok(None);
    }
    let mut digest = Sha1::new();
    // name, hook, policy, type
    for part in list(netlink, message::GET_CHAIN, &[3, 4, 5, 7])? {
        digest.update(part);
    }
    // chain, expressions; rules come in their order
    for part in list(netlink, message::GET_RULE, &[2, 4])? {
        digest.update(part);
    }
    // name, flags, key type and length, data type and length
    for part in list(netlink, message::GET_SET, &[2, 3, 4, 5, 6, 7])? {
        digest.update(part);
    }
    for set in set_names(netlink)? {
        digest.update(set.as_bytes());
        for element in elements(netlink, &set)? {
            digest.update(element);
        }
    }
    Ok(Some(Fingerprint(digest.finalize().into())))
}

/// A question about our table.
fn of_our_table(get: u16, more: impl FnOnce(&mut Body<'_>)) -> wire::Message {
    wire::message(kind(get), |body| {
        body.fixed(&header(FAMILY_IPV4, 0));
        body.text(TABLE, NFT_TABLE);
        more(body);
    })
}

/// The attributes `kept` of all our objects of a kind, as bytes.
fn list(netlink: &mut Netlink, get: u16, kept: &[u16]) -> Result<Vec<Vec<u8>>, DataplaneError> {
    netlink.dump("read the nftables table", of_our_table(get, |_| {}), |found| {
        ours(found).then(|| {
            let mut bytes = Vec::new();
            for (kind, value) in wire::attributes_after_header(found.payload()) {
                if kept.contains(&kind) {
                    bytes.extend_from_slice(&kind.to_be_bytes());
                    bytes.extend_from_slice(value);
                }
            }
            bytes
        })
    })
}

fn set_names(netlink: &mut Netlink) -> Result<Vec<String>, DataplaneError> {
    let mut names = names(netlink, message::GET_SET, 2)?;
    names.sort();
    Ok(names)
}

/// The chains of our table.
pub(in super::super) fn chain_names(netlink: &mut Netlink) -> Result<Vec<String>, DataplaneError> {
    names(netlink, message::GET_CHAIN, 3)
}

/// Attribute `name` of all our objects of a kind.
fn names(netlink: &mut Netlink, get: u16, name: u16) -> Result<Vec<String>, DataplaneError> {
    netlink.dump("read the nftables table", of_our_table(get, |_| {}), |found| {
        let name = wire::attributes_after_header(found.payload()).find(|(kind, _)| *kind == name)?;
        ours(found).then(|| wire::read_text(name.1))
    })
}

/// Keys of a map of ours, and the chains that they lead to. Of a map that is not there: none.
pub(in super::super) fn verdicts(netlink: &mut Netlink, map: &str) -> Result<Vec<(u32, String)>, DataplaneError> {
    let elements = match elements(netlink, map) {
        Err(DataplaneError::Kernel { code: nix::libc::ENOENT, .. }) => Vec::new(),
        listed => listed?,
    };
    Ok(elements.iter().filter_map(|element| verdict(element)).collect())
}

/// Of an element: its key (NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE), and the chain that its data names (NFTA_SET_ELEM_DATA,
/// NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN).
fn verdict(element: &[u8]) -> Option<(u32, String)> {
    let inside = |bytes, wanted| wire::attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let key = wire::read_be32(inside(inside(element, 1)?, 1)?)?;
    let chain = inside(inside(inside(element, 2)?, 2)?, 2)?;
    Some((key, wire::read_text(chain)))
}

/// Keys and data of a set's elements, sorted: hash tables list them in any order.
fn elements(netlink: &mut Netlink, set: &str) -> Result<Vec<Vec<u8>>, DataplaneError> {
    let listed = netlink.dump(
        "read the nftables table",
        of_our_table(message::GET_ELEMENTS, |body| body.text(2, set)),
        |found| {
            let list = wire::attributes_after_header(found.payload()).find(|(kind, _)| *kind == 3)?;
            Some(wire::attributes(list.1).map(|(_, element)| element.to_vec()).collect::<Vec<_>>())
        },
    )?;
    let mut elements: Vec<Vec<u8>> = listed.into_iter().flatten().collect();
    elements.sort();
    Ok(elements)
}

fn ours(found: &Frame<'_>) -> bool {
    found.payload().first() == Some(&FAMILY_IPV4)
        && wire::attributes_after_header(found.payload())
            .any(|(kind, value)| kind == TABLE && value.strip_suffix(&[0]) == Some(NFT_TABLE.as_bytes()))
}

/// What a notification of the netfilter family tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum NftEvent {
    /// Something in our table changed.
    OurTable,
    /// A transaction has ended; who made it. Comes behind the changes of that transaction.
    Transaction { process: String, pid: u32 },
}

/// None for what does not concern us.
pub(in super::super) fn event(heard: &Frame<'_>) -> Option<NftEvent> {
    if heard.message_type() >> 8 != SUBSYSTEM {
        return None;
    }
    if heard.message_type() == kind(message::NEW_GENERATION) {
        let (mut process, mut pid) = (String::new(), 0);
        for (kind, value) in wire::attributes_after_header(heard.payload()) {
            match kind {
                2 => pid = wire::read_be32(value)?,
                3 => process = wire::read_text(value),
                _ => {}
            }
        }
        return Some(NftEvent::Transaction { process, pid });
    }
    ours(heard).then_some(NftEvent::OurTable)
}
