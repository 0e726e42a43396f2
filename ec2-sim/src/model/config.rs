//! What a simulated region looks like at the start.

use std::collections::BTreeMap;

use enipool_pool::{SubnetCidr, Timestamp};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::subnet::Pick;
use super::throttle::ThrottleConfig;
use super::timing::Timing;

/// The start of a model. `Default` is a usable small region: one VPC, 10.0.0.0/16, with a /20 in each of three zones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimConfig {
    /// The same seed and the same calls give the same ids, addresses and delays.
    pub seed: u64,
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// The virtual clock's start.
    pub start: Timestamp,
    pub vpc: VpcConfig,
    pub subnets: Vec<SubnetConfig>,
    /// Security groups besides the VPC's own `default`, by name.
    pub security_groups: Vec<String>,
    pub timing: Timing,
    pub throttle: ThrottleConfig,
    pub pick: Pick,
    /// Quota "Network interfaces per Region".
    pub max_enis: u32,
    /// More interfaces than this in the account, and DescribeNetworkInterfaces without pages or filters fails.
    pub max_unpaged: u32,
    /// Name of the IAM role whose credentials the metadata service hands out.
    pub iam_role: String,
    /// Calls kept one by one in the ledger.
    pub keep_calls: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VpcConfig {
    /// The first is the primary range.
    pub cidrs: Vec<Ipv4Net>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetConfig {
    /// `eu-west-1a`.
    pub zone: String,
    pub cidr: SubnetCidr,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Default for SimConfig {
    fn default() -> Self {
        let subnet = |zone: &str, third: u8| SubnetConfig {
            zone: format!("eu-west-1{zone}"),
            cidr: SubnetCidr(Ipv4Net::new_assert([10, 0, third, 0].into(), 20)),
            tags: BTreeMap::from([("Name".to_owned(), format!("nodes-{zone}"))]),
        };
        Self {
            seed: 1,
            region: "eu-west-1".to_owned(),
            account: "123456789012".to_owned(),
            // 2026-01-01T00:00:00Z
            start: Timestamp(1_767_225_600_000),
            vpc: VpcConfig {
                cidrs: vec![Ipv4Net::new_assert([10, 0, 0, 0].into(), 16)],
                tags: BTreeMap::from([("Name".to_owned(), "enipool".to_owned())]),
            },
            subnets: vec![subnet("a", 0), subnet("b", 16), subnet("c", 32)],
            security_groups: vec!["nodes".to_owned()],
            timing: Timing::realistic(),
            throttle: ThrottleConfig::default(),
            pick: Pick::Random,
            max_enis: 5000,
            max_unpaged: 1000,
            iam_role: "enipool-node".to_owned(),
            keep_calls: 10_000,
        }
    }
}

impl SimConfig {
    /// No delays, no throttling, reads always up to date: for tests of other things.
    pub fn instant() -> Self {
        Self {
            timing: Timing::none(),
            throttle: ThrottleConfig { off: true, ..ThrottleConfig::default() },
            ..Self::default()
        }
    }
}
