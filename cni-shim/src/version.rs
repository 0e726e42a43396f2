//! Versions of the CNI specification that the plugin speaks.

use std::fmt;
use std::str::FromStr;

/// A version of the [CNI specification](https://github.com/containernetworking/cni/blob/main/SPEC.md), oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    V0_3_1,
    /// Brought CHECK.
    V0_4_0,
    /// Dropped the `version` of each address of a result.
    V1_0_0,
    /// Brought GC and STATUS.
    V1_1_0,
}

impl SpecVersion {
    pub const SUPPORTED: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub const NEWEST: Self = Self::V1_1_0;

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// All supported versions as one text for a person: `0.3.1, 0.4.0, …`.
    pub fn list() -> String {
        Self::SUPPORTED.map(Self::as_str).join(", ")
    }
}

/// The text names no version that the plugin speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedVersion(pub String);

impl fmt::Display for UnsupportedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CNI version {:?} is not supported; this plugin speaks {}", self.0, SpecVersion::list())
    }
}

impl FromStr for SpecVersion {
    type Err = UnsupportedVersion;
    fn from_str(text: &str) -> Result<Self, UnsupportedVersion> {
        Self::SUPPORTED.into_iter().find(|v| v.as_str() == text).ok_or_else(|| UnsupportedVersion(text.to_owned()))
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_version_is_read_back_and_ordered_by_age() {
        for version in SpecVersion::SUPPORTED {
            assert_eq!(version.as_str().parse(), Ok(version));
        }
        assert!(SpecVersion::SUPPORTED.is_sorted());
    }

    #[test]
    fn an_unknown_version_is_refused_with_the_list_of_known_ones() {
        let error = "0.2.0".parse::<SpecVersion>().unwrap_err().to_string();
        assert!(error.contains("\"0.2.0\"") && error.contains("0.3.1") && error.contains("1.1.0"), "{error}");
    }
}
