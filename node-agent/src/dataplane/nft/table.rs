//! The messages that make up our table: itself, chains, sets and maps, elements, rules.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::super::layout::NFT_TABLE;
use super::super::netlink::Batch;
use super::super::ruleset::{Chain, ElementChange, HookPoint, Key, RangeSet, Rule, Ruleset, Verdict, VerdictMap};
use super::wire::{self, Body};
use super::{FAMILY_IPV4, expression, header, kind, message};

/// Attribute 1 of every message: the table's name.
pub(super) const TABLE: u16 = 1;
const ACCEPT: u32 = 1;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const VERDICT_DATA: u32 = 0xffff_ff00;
const INTERVAL_END: u32 = 1;
/// The user space's numbers of key types, by which `nft list` knows how to print.
const TYPE_IPV4_ADDRESS: u32 = 7;
const TYPE_MARK: u32 = 19;
const USER_KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;
const USER_COMMENT: u8 = 0;
/// Elements in one message: an attribute holds 64 kB, an element takes at most 64 bytes.
const ELEMENTS_PER_MESSAGE: usize = 512;

/// Deleting needs the thing to exist: it is made first, in the same transaction.
pub(super) fn push_delete_if_present(batch: &mut Batch) {
    push_table(batch);
    wire::push(batch, kind(message::DEL_TABLE), 0, |body| {
        body.fixed(&header(FAMILY_IPV4, 0));
        body.text(TABLE, NFT_TABLE);
    });
}

fn push_table(batch: &mut Batch) {
    wire::push(batch, kind(message::NEW_TABLE), NLM_F_CREATE, |body| {
        body.fixed(&header(FAMILY_IPV4, 0));
        body.text(TABLE, NFT_TABLE);
    });
}

/// The whole table. Chains first, because verdicts name them; rules last, because they name maps and sets.
pub(super) fn push(batch: &mut Batch, ruleset: &Ruleset) {
    push_table(batch);
    for chain in &ruleset.chains {
        push_chain(batch, chain);
    }
    for (id, map) in (1..).zip(&ruleset.maps) {
        push_map(batch, map, id);
        push_elements(batch, message::NEW_ELEMENTS, map.name, map.key, map.elements.iter());
    }
    for (id, set) in (101..).zip(&ruleset.sets) {
        push_range_set(batch, set, id);
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            push_rule(batch, &chain.name, rule);
        }
    }
}

/// Removals first: a key that moves to another verdict is in both.
pub(super) fn push_element_change(batch: &mut Batch, change: &ElementChange) {
    push_elements(batch, message::DEL_ELEMENTS, change.map, change.key, change.remove.iter());
    push_elements(batch, message::NEW_ELEMENTS, change.map, change.key, change.add.iter());
}

fn push_chain(batch: &mut Batch, chain: &Chain) {
    wire::push(batch, kind(message::NEW_CHAIN), NLM_F_CREATE, |body| {
        body.fixed(&header(FAMILY_IPV4, 0));
        body.text(TABLE, NFT_TABLE);
        body.text(3, &chain.name);
        if let Some(hook) = chain.hook {
            body.nest(4, |place| {
                place.be32(
                    1,
                    match hook.point {
                        HookPoint::Prerouting => 0,
                        HookPoint::Postrouting => 4,
                    },
                );
                place.be32(2, hook.priority.cast_unsigned());
            });
            body.be32(5, ACCEPT);
            body.text(7, hook.kind);
        }
    });
}

fn push_map(batch: &mut Batch, map: &VerdictMap, id: u32) {
    let (type_, order) = match map.key {
        Key::Address => (TYPE_IPV4_ADDRESS, NETWORK_ORDER),
        Key::Mark => (TYPE_MARK, HOST_ORDER),
    };
    push_set(batch, map.name, id, |body| {
        body.be32(3, SET_MAP);
        body.be32(4, type_);
        body.be32(5, 4);
        body.be32(6, VERDICT_DATA);
        body.be32(7, 0);
        user_data(body, order);
    });
}

fn push_range_set(batch: &mut Batch, set: &RangeSet, id: u32) {
    push_set(batch, set.name, id, |body| {
        body.be32(3, SET_INTERVAL);
        body.be32(4, TYPE_IPV4_ADDRESS);
        body.be32(5, 4);
        user_data(body, NETWORK_ORDER);
    });
    let bounds = bounds(set);
    for some in bounds.chunks(ELEMENTS_PER_MESSAGE) {
        push_element_list(batch, message::NEW_ELEMENTS, set.name, |list| {
            for (bound, is_end) in some {
                list.nest(1, |element| {
                    element.nest(1, |key| key.bytes(1, &bound.to_be_bytes()));
                    if *is_end {
                        element.be32(3, INTERVAL_END);
                    }
                });
            }
        });
    }
}

/// Where ranges begin, and the first address behind each. A range up to the last address has no end.
fn bounds(set: &RangeSet) -> Vec<(u32, bool)> {
    let mut bounds: Vec<(u32, bool)> = Vec::new();
    let mut ranges: Vec<_> = set.ranges.iter().map(|range| (range.network(), range.broadcast())).collect();
    ranges.sort_unstable();
    for (first, last) in ranges {
        if bounds.last() == Some(&(first.to_bits(), true)) {
            bounds.pop(); // adjacent: one range
        } else {
            bounds.push((first.to_bits(), false));
        }
        bounds.extend(last.to_bits().checked_add(1).map(|behind| (behind, true)));
    }
    bounds
}

fn push_set(batch: &mut Batch, name: &str, id: u32, rest: impl FnOnce(&mut Body<'_>)) {
    wire::push(batch, kind(message::NEW_SET), NLM_F_CREATE, |body| {
        body.fixed(&header(FAMILY_IPV4, 0));
        body.text(TABLE, NFT_TABLE);
        body.text(2, name);
        body.be32(10, id);
        rest(body);
    });
}

/// What `nft list` needs to print keys in the right byte order: type, length, value.
fn user_data(body: &mut Body<'_>, order: u32) {
    let mut data = vec![USER_KEY_BYTE_ORDER, 4];
    data.extend_from_slice(&order.to_ne_bytes());
    body.bytes(13, &data);
}

fn push_elements<'a>(
    batch: &mut Batch,
    kind_of_change: u16,
    map: &str,
    key: Key,
    elements: impl Iterator<Item = (&'a u32, &'a Verdict)>,
) {
    let elements: Vec<_> = elements.collect();
    for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
        push_element_list(batch, kind_of_change, map, |list| {
            for (value, verdict) in some {
                list.nest(1, |element| {
                    let bytes = match key {
                        Key::Address => value.to_be_bytes(),
                        Key::Mark => value.to_ne_bytes(),
                    };
                    element.nest(1, |key| key.bytes(1, &bytes));
                    element.nest(2, |data| expression::write_verdict(data, verdict));
                });
            }
        });
    }
}

fn push_element_list(batch: &mut Batch, kind_of_change: u16, set: &str, fill: impl FnOnce(&mut Body<'_>)) {
    let flags = if kind_of_change == message::NEW_ELEMENTS { NLM_F_CREATE } else { 0 };
    wire::push(batch, kind(kind_of_change), flags, |body| {
        body.fixed(&header(FAMILY_IPV4, 0));
        body.text(TABLE, NFT_TABLE);
        body.text(2, set);
        body.nest(3, fill);
    });
}

fn push_rule(batch: &mut Batch, chain: &str, rule: &Rule) {
    wire::push(batch, kind(message::NEW_RULE), NLM_F_CREATE | NLM_F_APPEND, |body| {
        body.fixed(&header(FAMILY_IPV4, 0));
        body.text(TABLE, NFT_TABLE);
        body.text(2, chain);
        body.nest(4, |list| expression::write(list, &rule.terms));
        let mut comment = vec![USER_COMMENT, u8::try_from(rule.comment.len() + 1).unwrap_or(u8::MAX)];
        comment.extend(rule.comment.bytes().take(usize::from(u8::MAX) - 1));
        comment.push(0);
        body.bytes(7, &comment);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[&str]) -> Vec<(u32, bool)> {
        bounds(&RangeSet { name: "test", ranges: ranges.iter().map(|range| range.parse().unwrap()).collect() })
    }

    #[test]
    fn adjacent_ranges_become_one_and_the_last_address_has_no_end() {
        assert_eq!(set(&["10.0.0.0/24", "10.0.1.0/24"]), [(0x0a00_0000, false), (0x0a00_0200, true)]);
        assert_eq!(set(&["0.0.0.0/0"]), [(0, false)]);
        assert_eq!(set(&["255.0.0.0/8", "10.0.0.0/8"]).last(), Some(&(0xff00_0000, false)));
    }
}
