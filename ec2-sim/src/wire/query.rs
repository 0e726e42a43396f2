//! Parameters of a Query request: `Name.Part.1=value`, every one of which must be understood.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use crate::model::ApiError;

/// The decoded parameters, and which of them have been asked for.
#[derive(Debug)]
pub struct Params {
    values: BTreeMap<String, String>,
    used: RefCell<BTreeSet<String>>,
}

/// Most parameters that one request may have: 200 filter values and ids of 1000 resources fit.
const MAX_PARAMS: usize = 5000;

impl Params {
    /// Reads a form-encoded body (or query string).
    pub fn parse(form: &str) -> Result<Self, ApiError> {
        let mut values = BTreeMap::new();
        for pair in form.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.insert(unescape(name)?, unescape(value)?);
            if values.len() > MAX_PARAMS {
                return Err(ApiError::client("RequestTooLarge", "The request has too many parameters."));
            }
        }
        Ok(Self { values, used: RefCell::new(BTreeSet::new()) })
    }

    /// The value of one parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.values.get(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        Some(value)
    }

    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name).filter(|value| !value.is_empty()).ok_or_else(|| ApiError::missing(name))
    }

    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(|value| parse_value(name, value)).transpose()
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(bad_value(name, other)),
        }
    }

    /// An id in EC2's form. `kind` stands in the error code: `Invalid{kind}.Malformed`.
    pub fn id<T: FromStr>(&self, name: &str, kind: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(|value| value.parse().map_err(|_| ApiError::malformed_id(kind, value))).transpose()
    }

    pub fn required_id<T: FromStr>(&self, name: &str, kind: &str) -> Result<T, ApiError> {
        let value = self.required(name)?;
        value.parse().map_err(|_| ApiError::malformed_id(kind, value))
    }

    pub fn ids<T: FromStr>(&self, name: &str, kind: &str) -> Result<Vec<T>, ApiError> {
        self.list(name).map(|value| value.parse().map_err(|_| ApiError::malformed_id(kind, value))).collect()
    }

    /// The values of `name.1`, `name.2`, …
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let keys: Vec<String> = self.indexes(name).into_iter().map(|index| format!("{name}.{index}")).collect();
        keys.into_iter().filter_map(|key| self.text(&key))
    }

    pub fn parsed_list<T: FromStr>(&self, name: &str) -> Result<Vec<T>, ApiError> {
        self.list(name).map(|value| parse_value(name, value)).collect()
    }

    /// The numbers N for which there is a parameter `name.N` or `name.N.…`, in order.
    pub fn indexes(&self, name: &str) -> Vec<u32> {
        let prefix = format!("{name}.");
        let numbers: BTreeSet<u32> = self
            .values
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(key, _)| key[prefix.len()..].split('.').next()?.parse().ok())
            .collect();
        numbers.into_iter().collect()
    }

    /// Parameters that do not matter here, but that clients may send.
    pub fn ignore(&self, prefix: &str) {
        let mut used = self.used.borrow_mut();
        for key in self.values.keys().filter(|key| key.starts_with(prefix)) {
            used.insert(key.clone());
        }
    }

    /// Refuses a request with a parameter that nothing has asked for.
    pub fn all_understood(&self) -> Result<(), ApiError> {
        let used = self.used.borrow();
        match self.values.keys().find(|key| !used.contains(*key)) {
            None => Ok(()),
            Some(key) => {
                let message = format!("The parameter {key} is not recognized");
                Err(ApiError::client("UnknownParameter", message))
            }
        }
    }
}

fn parse_value<T: FromStr>(name: &str, value: &str) -> Result<T, ApiError> {
    value.parse().map_err(|_| bad_value(name, value))
}

fn bad_value(name: &str, value: impl Display) -> ApiError {
    ApiError::invalid_value(format!("Value ({value}) for parameter {name} is invalid."))
}

pub(super) fn unescape(text: &str) -> Result<String, ApiError> {
    let malformed = || ApiError::client("MalformedQueryString", "The query string contains a syntax error");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (hex, tail) = rest.split_at_checked(2).ok_or_else(malformed)?;
                rest = tail;
                let hex = std::str::from_utf8(hex).map_err(|_| malformed())?;
                u8::from_str_radix(hex, 16).map_err(|_| malformed())?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_the_order_of_their_numbers() {
        let params = Params::parse("Id.10=j&Id.2=b&Id.1=a&IdOther.1=x").unwrap();
        assert_eq!(params.list("Id").collect::<Vec<_>>(), ["a", "b", "j"]);
        let left = params.all_understood().unwrap_err();
        assert_eq!((left.code.as_ref(), left.message.contains("IdOther.1")), ("UnknownParameter", true));
    }

    #[test]
    fn values_are_unescaped() {
        let params = Params::parse("Tag=a%2Fb+c%3D%C3%BC&Empty=&Bare").unwrap();
        assert_eq!(params.text("Tag"), Some("a/b c=ü"));
        assert_eq!((params.text("Empty"), params.text("Bare")), (Some(""), Some("")));
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert_eq!(Params::parse(broken).unwrap_err().code, "MalformedQueryString", "{broken}");
        }
    }
}
