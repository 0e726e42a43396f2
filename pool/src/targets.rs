//! Warm targets: what a node keeps ready beyond what its pods use, and the words in which people say it.
//!
//! Every target is optional, and zero is a value: `Some(0)` asks for none, `None` leaves it to the others.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a node keeps ready. The names and meanings are those of the AWS plugin's variables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Targets {
    /// `WARM_ENI_TARGET`: whole ENIs' worth of free addresses. Counts only if neither `warm_ips` nor `minimum_ips` is
    /// set, and not with [`Addressing::Prefix`].
    #[serde(rename = "warmENITarget")]
    pub warm_enis: Option<u32>,
    /// `WARM_IP_TARGET`: free addresses.
    #[serde(rename = "warmIPTarget")]
    pub warm_ips: Option<u32>,
    /// `MINIMUM_IP_TARGET`: addresses that the node holds even if no pod uses them. A floor, never a cap.
    #[serde(rename = "minimumIPTarget")]
    pub minimum_ips: Option<u32>,
    /// `WARM_PREFIX_TARGET`: whole unused /28 prefixes. Counts only with prefixes, and only if neither
    /// `warm_ips` nor `minimum_ips` is set.
    #[serde(rename = "warmPrefixTarget")]
    pub warm_prefixes: Option<u32>,
    /// `MAX_ENI`: interfaces that the instance may have, the primary and foreign ones included; at least 1.
    #[serde(rename = "maxENIs")]
    pub max_enis: Option<u32>,
}

/// What fills an ENI's slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Addressing {
    /// One secondary address a slot.
    #[default]
    Secondary,
    /// One /28 a slot; single addresses only while the subnet has no /28 left.
    Prefix,
    /// A /28 where it serves faster or slots are scarce, single addresses otherwise.
    Mixed,
}

/// How much the pool may do on its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operations {
    #[default]
    Normal,
    /// Grow, but give nothing back.
    NoRelease,
    /// No EC2 call that changes anything: live with what is attached.
    NoCloud,
}

/// All that people decide about a node's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    pub targets: Targets,
    pub addressing: Addressing,
    pub operations: Operations,
    /// Whether pods may use addresses of the primary ENI. `false` is custom networking: pods live in other subnets.
    pub use_primary_eni: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            targets: Targets::default(),
            addressing: Addressing::default(),
            operations: Operations::default(),
            use_primary_eni: true,
        }
    }
}

impl Policy {
    /// The same for as long as nobody has said whether it is meant: what pods need is fetched, in the units in which the
    /// targets are (so that it takes no more calls), nothing is kept ahead of them, and nothing is given back.
    #[must_use]
    pub fn for_demand_alone(self) -> Self {
        let Targets { warm_ips, minimum_ips, max_enis, .. } = self.targets;
        let by_address = warm_ips.is_some() || minimum_ips.is_some();
        let targets = Targets {
            warm_enis: Some(0),
            warm_ips: by_address.then_some(0),
            minimum_ips: None,
            warm_prefixes: Some(0),
            max_enis,
        };
        let operations = match self.operations {
            Operations::Normal => Operations::NoRelease,
            other => other,
        };
        Self { targets, operations, ..self }
    }
}

/// A target that makes no sense. Its text names the setting and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("{setting} is {value:?}: expected a whole number from {least} to {most}, or leave it out")]
    NotANumber { setting: &'static str, value: String, least: u32, most: u32 },
    #[error("{setting} is {value:?}: expected {expected}")]
    NotAWord { setting: &'static str, value: String, expected: &'static str },
}

/// A variable of the AWS plugin, its range, and the target that it sets.
struct Variable {
    name: &'static str,
    least: u32,
    most: u32,
    field: fn(&mut Targets) -> &mut Option<u32>,
}

/// More than any instance holds: 15 interfaces x 49 slots x 16, rounded up.
const MOST_ADDRESSES: u32 = 16_384;
const MOST_PREFIXES: u32 = MOST_ADDRESSES / 16;
/// More than any network card takes (24).
const MOST_ENIS: u32 = 128;

const VARIABLES: [Variable; 5] = [
    Variable { name: "WARM_ENI_TARGET", least: 0, most: MOST_ENIS, field: |targets| &mut targets.warm_enis },
    Variable { name: "WARM_IP_TARGET", least: 0, most: MOST_ADDRESSES, field: |targets| &mut targets.warm_ips },
    Variable { name: "MINIMUM_IP_TARGET", least: 0, most: MOST_ADDRESSES, field: |targets| &mut targets.minimum_ips },
    Variable { name: "WARM_PREFIX_TARGET", least: 0, most: MOST_PREFIXES, field: |targets| &mut targets.warm_prefixes },
    Variable { name: "MAX_ENI", least: 1, most: MOST_ENIS, field: |targets| &mut targets.max_enis },
];

impl Targets {
    /// Reads the AWS plugin's variables from wherever `lookup` finds them. An empty value is as good as none; anything
    /// but a number in range is an error, never a silent default.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, TargetError> {
        let mut targets = Self::default();
        for variable in &VARIABLES {
            let Some(value) = lookup(variable.name) else { continue };
            let value = value.trim();
            if !value.is_empty() {
                *(variable.field)(&mut targets) = Some(variable.parse(value)?);
            }
        }
        Ok(targets)
    }

    /// Refuses what is out of range, naming the variable of that meaning.
    pub fn validate(mut self) -> Result<(), TargetError> {
        for variable in &VARIABLES {
            if let Some(value) = *(variable.field)(&mut self) {
                variable.in_range(value).ok_or_else(|| variable.error(&value.to_string()))?;
            }
        }
        Ok(())
    }

    /// These targets, and where they say nothing, those of `fallback`. Each target is inherited by itself.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        Self {
            warm_enis: self.warm_enis.or(fallback.warm_enis),
            warm_ips: self.warm_ips.or(fallback.warm_ips),
            minimum_ips: self.minimum_ips.or(fallback.minimum_ips),
            warm_prefixes: self.warm_prefixes.or(fallback.warm_prefixes),
            max_enis: self.max_enis.or(fallback.max_enis),
        }
    }
}

impl Variable {
    fn parse(&self, value: &str) -> Result<u32, TargetError> {
        value.parse().ok().and_then(|number| self.in_range(number)).ok_or_else(|| self.error(value))
    }

    fn in_range(&self, value: u32) -> Option<u32> {
        (self.least..=self.most).contains(&value).then_some(value)
    }

    fn error(&self, value: &str) -> TargetError {
        TargetError::NotANumber { setting: self.name, value: value.into(), least: self.least, most: self.most }
    }
}

impl FromStr for Addressing {
    type Err = TargetError;
    fn from_str(value: &str) -> Result<Self, TargetError> {
        match value {
            "Secondary" => Ok(Self::Secondary),
            "Prefix" => Ok(Self::Prefix),
            "Mixed" => Ok(Self::Mixed),
            _ => Err(TargetError::NotAWord {
                setting: "addressing",
                value: value.into(),
                expected: "Secondary, Prefix or Mixed",
            }),
        }
    }
}

impl fmt::Display for Addressing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secondary => "Secondary",
            Self::Prefix => "Prefix",
            Self::Mixed => "Mixed",
        })
    }
}

impl FromStr for Operations {
    type Err = TargetError;
    fn from_str(value: &str) -> Result<Self, TargetError> {
        match value {
            "Normal" => Ok(Self::Normal),
            "NoRelease" => Ok(Self::NoRelease),
            "NoCloud" => Ok(Self::NoCloud),
            _ => Err(TargetError::NotAWord {
                setting: "operations",
                value: value.into(),
                expected: "Normal, NoRelease or NoCloud",
            }),
        }
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "Normal",
            Self::NoRelease => "NoRelease",
            Self::NoCloud => "NoCloud",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Targets, TargetError> {
        Targets::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn zero_is_a_value_and_absence_is_not_zero() {
        let targets = read(&[("WARM_IP_TARGET", "0"), ("WARM_ENI_TARGET", ""), ("MAX_ENI", " 4 ")]).unwrap();
        assert_eq!(targets, Targets { warm_ips: Some(0), max_enis: Some(4), ..Targets::default() });
        assert_eq!(read(&[]).unwrap(), Targets::default());
    }

    #[test]
    fn nonsense_is_refused_with_the_name_of_the_variable() {
        for (name, value) in [
            ("WARM_ENI_TARGET", "-1"),
            ("WARM_IP_TARGET", "five"),
            ("MINIMUM_IP_TARGET", "1.5"),
            ("WARM_PREFIX_TARGET", "99999999999"),
            ("WARM_IP_TARGET", "16385"),
            ("MAX_ENI", "0"),
            ("MAX_ENI", "-1"),
            ("WARM_IP_TARGET", "0x10"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is {value:?}: expected a whole number from ")), "{error}");
        }
    }

    #[test]
    fn targets_from_elsewhere_obey_the_same_ranges() {
        assert_eq!(Targets { warm_ips: Some(5), ..Targets::default() }.validate(), Ok(()));
        let error = Targets { max_enis: Some(0), ..Targets::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "MAX_ENI is \"0\": expected a whole number from 1 to 128, or leave it out");
    }

    #[test]
    fn what_a_node_leaves_open_its_class_decides() {
        let node = Targets { warm_ips: Some(0), ..Targets::default() };
        let class = Targets { warm_ips: Some(8), minimum_ips: Some(3), ..Targets::default() };
        let both = node.or(class);
        assert_eq!((both.warm_ips, both.minimum_ips), (Some(0), Some(3)));
    }

    #[test]
    fn for_demand_alone_nothing_is_kept_ahead_nor_given_back_and_the_unit_stays() {
        let policy = |targets, operations| Policy { targets, operations, ..Policy::default() };
        let units = Targets { warm_enis: Some(1), max_enis: Some(2), ..Targets::default() };
        let alone = policy(units, Operations::Normal).for_demand_alone();
        assert_eq!((alone.targets.warm_enis, alone.targets.warm_ips, alone.targets.max_enis), (Some(0), None, Some(2)));
        assert_eq!(alone.operations, Operations::NoRelease);
        let addresses = Targets { minimum_ips: Some(5), ..Targets::default() };
        let alone = policy(addresses, Operations::NoCloud).for_demand_alone();
        assert_eq!((alone.targets.warm_ips, alone.targets.minimum_ips), (Some(0), None));
        assert_eq!(alone.operations, Operations::NoCloud);
    }

    #[test]
    fn words_survive_a_round_trip() {
        for addressing in [Addressing::Secondary, Addressing::Prefix, Addressing::Mixed] {
            assert_eq!(addressing.to_string().parse(), Ok(addressing));
        }
        for operations in [Operations::Normal, Operations::NoRelease, Operations::NoCloud] {
            assert_eq!(operations.to_string().parse(), Ok(operations));
        }
        let error = "prefix".parse::<Addressing>().unwrap_err().to_string();
        assert_eq!(error, "addressing is \"prefix\": expected Secondary, Prefix or Mixed");
    }
}
