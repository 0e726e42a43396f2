//! A rule's terms as the kernel's expressions: small programs over registers.

use super::super::ruleset::{Term, Verdict};
use super::super::state::Randomization;
use super::wire::Body;

/// The first 16-byte register: all that these rules need.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

const META_MARK: u32 = 3;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;
/// Bit of "new" in the connection state.
const STATE_NEW: u32 = 8;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const ADDRESS_TYPE_LOCAL: u32 = 2;
const NETWORK_HEADER: u32 = 1;
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const LOOKUP_INVERTED: u32 = 1;
const NAT_SOURCE: u32 = 0;
const NAT_RANDOM: u32 = 1 << 2;
const NAT_FULLY_RANDOM: u32 = 1 << 4;
/// `IFNAMSIZ`: a whole name is compared with its padding.
const NAME_SIZE: usize = 16;

/// Writes the expressions of `terms` into a rule's list.
pub(super) fn write(list: &mut Body<'_>, terms: &[Term]) {
    for term in terms {
        write_term(list, term);
    }
}

fn write_term(list: &mut Body<'_>, term: &Term) {
    match term {
        Term::InputIs(name) => {
            load_meta(list, META_INPUT_NAME);
            compare(list, EQUAL, &padded(name));
        }
        // Fewer bytes than the register holds: the rest is not looked at.
        Term::InputStartsWith(prefix) => {
            load_meta(list, META_INPUT_NAME);
            compare(list, EQUAL, prefix.as_bytes());
        }
        Term::OutputDoesNotStartWith(prefix) => {
            load_meta(list, META_OUTPUT_NAME);
            compare(list, NOT_EQUAL, prefix.as_bytes());
        }
        Term::FlowIsNew => {
            load_ct(list, CT_STATE);
            bitwise(list, STATE_NEW.to_ne_bytes(), [0; 4]);
            compare(list, NOT_EQUAL, &[0; 4]);
        }
        Term::DestinationIsLocal => {
            expression(list, "fib", |data| {
                data.be32(1, REGISTER);
                data.be32(2, FIB_RESULT_ADDRESS_TYPE);
                data.be32(3, FIB_DESTINATION);
            });
            compare(list, EQUAL, &ADDRESS_TYPE_LOCAL.to_ne_bytes());
        }
        Term::DestinationIn(set) => {
            load_header(list, DESTINATION_OFFSET);
            look_up(list, set, None, false);
        }
        Term::DestinationNotIn(set) => {
            load_header(list, DESTINATION_OFFSET);
            look_up(list, set, None, true);
        }
        Term::FlowMarkHas(bits) => {
            load_ct(list, CT_MARK);
            bitwise(list, bits.to_ne_bytes(), [0; 4]);
            compare(list, EQUAL, &bits.to_ne_bytes());
        }
        Term::SetFlowMarkBits { clear, set } => {
            load_ct(list, CT_MARK);
            bitwise(list, (!(clear | set)).to_ne_bytes(), set.to_ne_bytes());
            expression(list, "ct", |data| {
                data.be32(2, CT_MARK);
                data.be32(4, REGISTER);
            });
        }
        Term::SetPacketMarkBits { clear, set } => {
            load_meta(list, META_MARK);
            bitwise(list, (!(clear | set)).to_ne_bytes(), set.to_ne_bytes());
            expression(list, "meta", |data| {
                data.be32(2, META_MARK);
                data.be32(3, REGISTER);
            });
        }
        Term::BySource { map, mask } => {
            load_header(list, SOURCE_OFFSET);
            if *mask != u32::MAX {
                bitwise(list, mask.to_be_bytes(), [0; 4]);
            }
            look_up(list, map, Some(VERDICT_REGISTER), false);
        }
        Term::ByFlowMark { map, mask } => {
            load_ct(list, CT_MARK);
            bitwise(list, mask.to_ne_bytes(), [0; 4]);
            look_up(list, map, Some(VERDICT_REGISTER), false);
        }
        Term::Verdict(verdict) => expression(list, "immediate", |data| {
            data.be32(1, VERDICT_REGISTER);
            data.nest(2, |value| write_verdict(value, verdict));
        }),
        Term::TranslateSource { to, randomization } => {
            expression(list, "immediate", |data| {
                data.be32(1, REGISTER);
                data.nest(2, |value| value.bytes(DATA_VALUE, &to.octets()));
            });
            expression(list, "nat", |data| {
                data.be32(1, NAT_SOURCE);
                data.be32(2, u32::from(super::FAMILY_IPV4));
                data.be32(3, REGISTER);
                match randomization {
                    Randomization::Prng => data.be32(7, NAT_FULLY_RANDOM),
                    Randomization::HashRandom => data.be32(7, NAT_RANDOM),
                    Randomization::None => {}
                }
            });
        }
    }
}

/// The value of an element, or of an "immediate".
pub(super) fn write_verdict(value: &mut Body<'_>, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Jump(chain) => (-3_i32, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    value.nest(DATA_VERDICT, |verdict| {
        verdict.be32(VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            verdict.text(VERDICT_CHAIN, chain);
        }
    });
}

fn expression(list: &mut Body<'_>, name: &str, data: impl FnOnce(&mut Body<'_>)) {
    list.nest(LIST_ELEMENT, |element| {
        element.text(EXPRESSION_NAME, name);
        element.nest(EXPRESSION_DATA, data);
    });
}

fn load_meta(list: &mut Body<'_>, key: u32) {
    expression(list, "meta", |data| {
        data.be32(1, REGISTER);
        data.be32(2, key);
    });
}

fn load_ct(list: &mut Body<'_>, key: u32) {
    expression(list, "ct", |data| {
        data.be32(1, REGISTER);
        data.be32(2, key);
    });
}

/// Four bytes of the IPv4 header.
fn load_header(list: &mut Body<'_>, offset: u32) {
    expression(list, "payload", |data| {
        data.be32(1, REGISTER);
        data.be32(2, NETWORK_HEADER);
        data.be32(3, offset);
        data.be32(4, 4);
    });
}

fn compare(list: &mut Body<'_>, operation: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.be32(1, REGISTER);
        data.be32(2, operation);
        data.nest(3, |nest| nest.bytes(DATA_VALUE, value));
    });
}

/// register = (register & mask) ^ xor
fn bitwise(list: &mut Body<'_>, mask: [u8; 4], xor: [u8; 4]) {
    expression(list, "bitwise", |data| {
        data.be32(1, REGISTER);
        data.be32(2, REGISTER);
        data.be32(3, 4);
        data.nest(4, |nest| nest.bytes(DATA_VALUE, &mask));
        data.nest(5, |nest| nest.bytes(DATA_VALUE, &xor));
    });
}

fn look_up(list: &mut Body<'_>, set: &str, destination: Option<u32>, inverted: bool) {
    expression(list, "lookup", |data| {
        data.text(1, set);
        data.be32(2, REGISTER);
        if let Some(register) = destination {
            data.be32(3, register);
        }
        if inverted {
            data.be32(5, LOOKUP_INVERTED);
        }
    });
}

fn padded(name: &str) -> [u8; NAME_SIZE] {
    let mut padded = [0; NAME_SIZE];
    // The last byte stays zero: names have at most 15 characters.
    for (place, byte) in padded.iter_mut().take(NAME_SIZE - 1).zip(name.bytes()) {
        *place = byte;
    }
    padded
}
