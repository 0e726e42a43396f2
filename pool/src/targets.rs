//! Warm targets: what a node keeps ready beyond what its pods use, and the words in which people say it.
//!
//! Every target is optional, and zero is a value: `Some(0)` asks for none, `None` leaves it to the others.

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
    /// `WARM_PREFIX_TARGET`: whole unused /28 prefixes. Counts only with [`Addressing::Prefix`], and only if neither
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
