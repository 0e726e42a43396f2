//! Trees in CBOR, as [Smithy RPC v2](https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html) has them:
//! timestamps are numbers with tag 1.

use ciborium::Value;
use ciborium::value::Integer;

use super::tree::{Tree, seconds_of, time_of};
use crate::model::ApiError;
use crate::model::cloudwatch::error;

/// CBOR's tag of a time since 1970.
const EPOCH: u64 = 1;

pub(super) fn read(body: &[u8]) -> Result<Tree, ApiError> {
    if body.is_empty() {
        return Ok(Tree::Map(Vec::new()));
    }
    let mut rest = body;
    let value: Option<Value> = ciborium::from_reader(&mut rest).ok();
    let tree = value.filter(|_| rest.is_empty()).and_then(tree);
    tree.ok_or_else(|| error::validation("The request body is not in the CBOR format."))
}

fn tree(value: Value) -> Option<Tree> {
    Some(match value {
        Value::Null => Tree::Null,
        Value::Bool(flag) => Tree::Bool(flag),
        Value::Integer(number) => Tree::Number(float(number)),
        Value::Float(number) => Tree::Number(number),
        Value::Text(text) => Tree::Text(text),
        Value::Tag(EPOCH, seconds) => match *seconds {
            Value::Integer(number) => Tree::Time(time_of(float(number))?),
            Value::Float(number) => Tree::Time(time_of(number)?),
            _ => return None,
        },
        Value::Array(items) => Tree::List(items.into_iter().map(tree).collect::<Option<_>>()?),
        Value::Map(members) => {
            let member = |(name, value): (Value, Value)| Some((name.into_text().ok()?, tree(value)?));
            Tree::Map(members.into_iter().map(member).collect::<Option<_>>()?)
        }
        // Bytes and other tags: no member of CloudWatch's structures is of such a kind.
        _ => return None,
    })
}

fn float(number: Integer) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a double is what CloudWatch would store")]
    let float = i128::from(number) as f64;
    float
}

pub(super) fn write(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail, and the value has no type that CBOR lacks.
    let _ = ciborium::into_writer(&value(tree), &mut bytes);
    bytes
}

fn value(tree: &Tree) -> Value {
    match tree {
        Tree::Null => Value::Null,
        Tree::Bool(flag) => Value::Bool(*flag),
        Tree::Number(number) => Value::Float(*number),
        Tree::Text(text) | Tree::Raw(text) => Value::Text(text.clone()),
        Tree::Time(time) => Value::Tag(EPOCH, Box::new(Value::Float(seconds_of(*time)))),
        Tree::List(items) => Value::Array(items.iter().map(value).collect()),
        Tree::Map(members) => {
            let present = members.iter().filter(|(_, member)| *member != Tree::Null);
            Value::Map(present.map(|(name, member)| (Value::Text(name.clone()), value(member))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use enipool_pool::Timestamp;

    use super::*;

    #[test]
    fn a_tree_is_read_back_as_it_was_written() {
        let tree = Tree::map([
            ("Namespace", Tree::text("Kubernetes")),
            ("At", Tree::Time(Timestamp(1_767_225_600_123))),
            ("Values", Tree::list([1.0, 0.1, -2e300], Tree::Number)),
            ("Flag", Tree::Bool(true)),
        ]);
        assert_eq!(read(&write(&tree)).unwrap(), tree);
    }

    #[test]
    fn maps_of_no_declared_length_and_whole_numbers_are_read() {
        // {_ "Value": 5, "Timestamp": 1(1767225600)}
        let body = b"\xbf\x65Value\x05\x69Timestamp\xc1\x1a\x69\x55\xb9\x00\xff";
        let read = read(body).unwrap();
        let time = Tree::Time(Timestamp(1_767_225_600_000));
        assert_eq!(read, Tree::map([("Value", Tree::Number(5.0)), ("Timestamp", time)]));
    }

    #[test]
    fn what_is_not_cbor_is_refused() {
        for broken in [&b"\xa1"[..], b"\xa1\x61a\x05\x05", b"\x41a", b"\xa1\x05\x05", b"\xc0\x61a"] {
            assert_eq!(read(broken).unwrap_err().code, "ValidationError", "{broken:x?}");
        }
        assert!(read(&vec![0x81; 100_000]).is_err(), "nested too deeply to be read");
    }
}
