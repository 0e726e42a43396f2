//! The warm targets as people write them, in the spec of an ENIPool and of a class, and which level wins.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct in a scope of its own")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How pods get their addresses from an ENI. `Secondary`: one slot per address. `Prefix`: a /28 (16 addresses) per slot,
/// single addresses only while the subnet has no free /28. `Mixed`: prefixes where they serve faster or slots are
/// scarce, single addresses otherwise. A switch drains what is in use; it never breaks a running pod. Absent in pool and
/// class: `Secondary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Addressing {
    Secondary,
    Prefix,
    Mixed,
}

/// Warm targets. All optional: what is absent is decided one level up (the class, then the built-in defaults).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetFields {
    /// Full ENIs' worth of free addresses to keep ready for pods to come. 0 keeps none. Absent in pool and class: 1.
    /// Counts only while neither `warmIPTarget` nor `minimumIPTarget` is set, and not with addressing `Prefix`.
    #[serde(rename = "warmENITarget", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub warm_eni_target: Option<i32>,

    /// Free addresses to keep ready for pods to come, whatever ENI they are on. 0 keeps none. Saves addresses against
    /// `warmENITarget`, and costs more EC2 calls. Absent in pool and class: none beyond `minimumIPTarget` where that is
    /// set, what `warmENITarget` or `warmPrefixTarget` asks for otherwise.
    #[serde(rename = "warmIPTarget", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384))]
    pub warm_ip_target: Option<i32>,

    /// Addresses that the node holds at least, used or free. Set it to the pods that a node usually runs: a new node
    /// then takes them with its first EC2 calls. It never limits growth. Absent in pool and class: no such minimum.
    #[serde(rename = "minimumIPTarget", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384))]
    pub minimum_ip_target: Option<i32>,

    /// Free /28 prefixes to keep ready. Only with addressing `Prefix` or `Mixed`, and only while neither `warmIPTarget`
    /// nor `minimumIPTarget` is set. Absent in pool and class: 1 with `Prefix`; with `Mixed`, `warmENITarget` counts.
    #[serde(rename = "warmPrefixTarget", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub warm_prefix_target: Option<i32>,

    /// The most ENIs that the node may have, its primary one included; never more than its instance type can hold.
    /// Absent in pool and class: that many.
    #[serde(rename = "maxENIs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub max_enis: Option<i32>,

    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressing: Option<Addressing>,
}

impl TargetFields {
    /// These targets where they are given, `defaults` elsewhere.
    ///
    /// The nearest level also chooses the form: a pool that asks for `warmENITarget` means it, although its class names
    /// `warmIPTarget`, which would otherwise override it.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        let by_address = self.warm_ip_target.is_some() || self.minimum_ip_target.is_some();
        let by_block = self.warm_eni_target.is_some() || self.warm_prefix_target.is_some();
        let inherited = if by_block && !by_address {
            Self { warm_ip_target: None, minimum_ip_target: None, ..defaults.clone() }
        } else {
            defaults.clone()
        };
        Self {
            warm_eni_target: self.warm_eni_target.or(inherited.warm_eni_target),
            warm_ip_target: self.warm_ip_target.or(inherited.warm_ip_target),
            minimum_ip_target: self.minimum_ip_target.or(inherited.minimum_ip_target),
            warm_prefix_target: self.warm_prefix_target.or(inherited.warm_prefix_target),
            max_enis: self.max_enis.or(inherited.max_enis),
            addressing: self.addressing.or(inherited.addressing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pool_leaves_out_comes_from_its_class() {
        let class = TargetFields { warm_eni_target: Some(1), max_enis: Some(4), ..TargetFields::default() };
        let pool = TargetFields { warm_eni_target: Some(2), ..TargetFields::default() };
        assert_eq!(pool.or(&class), TargetFields { warm_eni_target: Some(2), max_enis: Some(4), ..class });
    }

    #[test]
    fn a_pool_that_asks_for_warm_enis_is_not_overruled_by_its_classs_address_targets() {
        let class = TargetFields { warm_ip_target: Some(3), minimum_ip_target: Some(10), ..TargetFields::default() };
        let pool = TargetFields { warm_eni_target: Some(2), ..TargetFields::default() };
        assert_eq!(pool.or(&class), pool);
    }

    #[test]
    fn an_address_target_of_a_pool_keeps_the_other_address_target_of_its_class() {
        let class = TargetFields { minimum_ip_target: Some(10), ..TargetFields::default() };
        let pool = TargetFields { warm_ip_target: Some(0), ..TargetFields::default() };
        let both = pool.or(&class);
        assert_eq!((both.warm_ip_target, both.minimum_ip_target), (Some(0), Some(10)));
    }
}
