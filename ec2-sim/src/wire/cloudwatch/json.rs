//! Trees in JSON: timestamps are seconds since 1970, and what JSON's numbers cannot say is a string.

use serde_json::Value;

use super::tree::{Tree, seconds_of};
use crate::model::ApiError;

pub(super) fn read(body: &[u8]) -> Result<Tree, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::client("SerializationException", format!("The request body is not JSON: {error}"))
    })?;
    Ok(tree(value))
}

fn tree(value: Value) -> Tree {
    match value {
        Value::Null => Tree::Null,
        Value::Bool(flag) => Tree::Bool(flag),
        // Every number of JSON is one of CloudWatch's doubles; without serde_json's arbitrary precision this is total.
        Value::Number(number) => number.as_f64().map_or(Tree::Null, Tree::Number),
        Value::String(text) => Tree::Text(text),
        Value::Array(items) => Tree::List(items.into_iter().map(tree).collect()),
        Value::Object(members) => Tree::Map(members.into_iter().map(|(name, value)| (name, tree(value))).collect()),
    }
}

pub(super) fn write(tree: &Tree) -> Vec<u8> {
    value(tree).to_string().into_bytes()
}

fn value(tree: &Tree) -> Value {
    match tree {
        Tree::Null => Value::Null,
        Tree::Bool(flag) => Value::Bool(*flag),
        Tree::Number(number) => Value::from(*number),
        Tree::Text(text) | Tree::Raw(text) => Value::from(text.as_str()),
        Tree::Time(time) => Value::from(seconds_of(*time)),
        Tree::List(items) => items.iter().map(value).collect(),
        Tree::Map(members) => {
            let present = members.iter().filter(|(_, member)| *member != Tree::Null);
            present.map(|(name, member)| (name.clone(), value(member))).collect()
        }
    }
}
