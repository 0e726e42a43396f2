//! Errors as the CNI specification writes them on standard output.

use serde::{Deserialize, Serialize};

use crate::version::SpecVersion;

/// The well-known codes (CNI specification, "Error codes") and our own from 100 up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The configuration's version is one that we do not speak, or it has no such verb.
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    /// The runtime need not clean up after this container.
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    /// Standard input is no JSON of the expected shape.
    Decode = 6,
    InvalidConfig = 7,
    /// Nothing is wrong with the request: the runtime should repeat it.
    TryAgainLater = 11,
    /// STATUS: no ADD can be served now.
    NotAvailable = 50,
    /// STATUS: no ADD can be served, and containers that run may have limited connectivity.
    LimitedConnectivity = 51,
    /// The kernel refused a link, an address or a route.
    Dataplane = 100,
    /// CHECK found the container's network different from what ADD left.
    CheckFailed = 101,
}

/// One error, for the runtime to read and for a person to act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniError {
    pub cni_version: String,
    pub code: u32,
    /// One sentence: what is wrong.
    pub msg: String,
    /// What it means and what to do. Empty: nothing to add.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self {
            cni_version: SpecVersion::NEWEST.as_str().to_owned(),
            code: code as u32,
            msg: msg.into(),
            details: String::new(),
        }
    }

    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// In the version that the caller spoke; errors before that is known carry the newest.
    #[must_use]
    pub fn in_version(mut self, version: SpecVersion) -> Self {
        version.as_str().clone_into(&mut self.cni_version);
        self
    }

    pub fn to_json(&self) -> String {
        // A struct of strings and a number always serializes; the fallback is still a valid CNI error.
        serde_json::to_string(self).unwrap_or_else(|_| format!("{{\"code\":{},\"msg\":\"error\"}}", self.code))
    }
}

impl std::fmt::Display for CniError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (CNI code {})", self.msg, self.code)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

impl std::error::Error for CniError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_written_as_the_specification_says() {
        let error = CniError::new(Code::TryAgainLater, "no address").details("wait").in_version(SpecVersion::V1_0_0);
        assert_eq!(error.to_json(), r#"{"cniVersion":"1.0.0","code":11,"msg":"no address","details":"wait"}"#);
    }

    #[test]
    fn details_are_left_out_when_there_are_none() {
        assert!(!CniError::new(Code::Decode, "x").to_json().contains("details"));
    }
}
