//! What the three protocols have in common: a tree of structures, lists and values, and a reader that must understand
//! all of it.

use std::collections::BTreeMap;

use enipool_pool::Timestamp;

use crate::model::ApiError;
use crate::model::cloudwatch::error;

/// A value of a request or an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Time(Timestamp),
    /// A value of the Query protocol: the action's definition says what it is.
    Raw(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// A structure of an answer.
    pub(super) fn map<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Map(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn list<T>(items: impl IntoIterator<Item = T>, each: impl Fn(T) -> Self) -> Self {
        Self::List(items.into_iter().map(each).collect())
    }

    /// Nothing at all where there is nothing to say.
    pub(super) fn optional(value: Option<String>) -> Self {
        value.map_or(Self::Null, Self::Text)
    }
}

/// A structure that is being read. What is left in the end was not understood.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// With a full stop, or empty for the request itself.
    prefix: String,
    left: BTreeMap<&'a str, &'a Tree>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(tree: &'a Tree, path: &str) -> Result<Self, ApiError> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        match tree {
            Tree::Map(members) => {
                let members = members.iter().filter(|(_, value)| *value != Tree::Null);
                Ok(Self { prefix, left: members.map(|(name, value)| (name.as_str(), value)).collect() })
            }
            _ => Err(malformed(path, "a structure")),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.read(name, "a string", |tree| match tree {
            Tree::Text(text) | Tree::Raw(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        self.read(name, "a number", number)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "a boolean", |tree| match tree {
            Tree::Bool(flag) => Some(*flag),
            Tree::Raw(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub(super) fn time(&mut self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.read(name, "a timestamp", |tree| match tree {
            Tree::Time(time) => Some(*time),
            Tree::Number(seconds) => time_of(*seconds),
            Tree::Raw(text) => {
                let millis = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
                Some(Timestamp(u64::try_from(millis).unwrap_or(0)))
            }
            _ => None,
        })
    }

    pub(super) fn numbers(&mut self, name: &str) -> Result<Vec<f64>, ApiError> {
        self.items(name, |item, path| number(item).ok_or_else(|| malformed(path, "a number")))
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        self.items(name, |item, path| match item {
            Tree::Text(text) | Tree::Raw(text) => Ok(text.clone()),
            _ => Err(malformed(path, "a string")),
        })
    }

    /// A list of structures.
    pub(super) fn structures<T>(
        &mut self,
        name: &str,
        read: impl Fn(&mut Fields<'a>) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        self.items(name, |item, path| Self::of(item, path)?.whole(&read))
    }

    pub(super) fn structure<T>(
        &mut self,
        name: &str,
        read: impl Fn(&mut Fields<'a>) -> Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let path = self.path(name);
        self.left.remove(name).map(|tree| Self::of(tree, &path)?.whole(&read)).transpose()
    }

    /// Reads this structure, all of which must be understood.
    pub(super) fn whole<T>(mut self, read: impl Fn(&mut Fields<'a>) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let value = read(&mut self)?;
        match self.left.keys().next() {
            None => Ok(value),
            Some(name) => Err(error::not_simulated(&format!("The parameter {}", self.path(name)))),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn read<T>(&mut self, name: &str, kind: &str, read: impl Fn(&Tree) -> Option<T>) -> Result<Option<T>, ApiError> {
        let Some(tree) = self.left.remove(name) else { return Ok(None) };
        read(tree).map(Some).ok_or_else(|| malformed(&self.path(name), kind))
    }

    fn items<T>(
        &mut self,
        name: &str,
        read: impl Fn(&'a Tree, &str) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let path = self.path(name);
        match self.left.remove(name) {
            None => Ok(Vec::new()),
            // The Query protocol's empty list.
            Some(Tree::Raw(text)) if text.is_empty() => Ok(Vec::new()),
            Some(Tree::List(items)) => {
                items.iter().enumerate().map(|(at, item)| read(item, &format!("{path}.member.{}", at + 1))).collect()
            }
            Some(_) => Err(malformed(&path, "a list")),
        }
    }
}

fn number(tree: &Tree) -> Option<f64> {
    match tree {
        Tree::Number(number) => Some(*number),
        Tree::Raw(text) => text.parse().ok(),
        // JSON has no other way to say these.
        Tree::Text(text) if matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") => text.parse().ok(),
        _ => None,
    }
}

/// Seconds since 1970 as the JSON and CBOR protocols have them. What lies before 1970 is as much too old as 1970.
pub(super) fn time_of(seconds: f64) -> Option<Timestamp> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
    seconds.is_finite().then(|| Timestamp((seconds * 1000.0).round() as u64))
}

/// Seconds since 1970, to the millisecond.
pub(super) fn seconds_of(time: Timestamp) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact for the next 280,000 years")]
    let millis = time.0 as f64;
    millis / 1000.0
}

fn malformed(path: &str, kind: &str) -> ApiError {
    let whole = if path.is_empty() { "The request" } else { path };
    ApiError::client("MalformedInput", format!("{whole} is not {kind}."))
}
