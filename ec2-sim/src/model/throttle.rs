//! EC2's request throttling: one token bucket per action, refilled every second, `RequestLimitExceeded` when empty.
//!
//! Sizes: [Request throttling for the Amazon EC2 API](https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html)
//! and [CloudWatch service quotas](https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html)
//! (transactions a second: a bucket that refills within one).

use std::collections::BTreeMap;

use enipool_pool::Timestamp;
use serde::{Deserialize, Serialize};

/// The size of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketSize {
    pub capacity: u32,
    pub refill_per_second: u32,
}

const fn size(capacity: u32, refill_per_second: u32) -> BucketSize {
    BucketSize { capacity, refill_per_second }
}

/// Which bucket a call draws from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Requests of one action.
    Action(&'static str),
    /// Describe calls with neither filters nor pagination have a smaller bucket of their own.
    Unfiltered(&'static str),
    /// Instances started or ended, counted one by one.
    Resource(&'static str),
}

impl Bucket {
    /// A name for configuration and reports: `X`, `X:unfiltered`, `X:resource`.
    pub fn name(&self) -> String {
        match self {
            Self::Action(action) => (*action).to_owned(),
            Self::Unfiltered(action) => format!("{action}:unfiltered"),
            Self::Resource(action) => format!("{action}:resource"),
        }
    }

    /// The bucket of the instances that these calls start or end one by one, if `action` is such a call.
    pub fn of_instances(action: &'static str) -> Option<Self> {
        matches!(action, "RunInstances" | "StartInstances" | "StopInstances" | "TerminateInstances")
            .then_some(Self::Resource(action))
    }

    /// The size that AWS publishes. Not held against its page yet: the rows of StartInstances and StopInstances.
    pub fn published(&self) -> BucketSize {
        match self {
            Self::Unfiltered(_) => size(50, 10),
            Self::Resource("RunInstances" | "StartInstances") => size(1000, 2),
            Self::Resource(_) => size(1000, 20),
            Self::Action(action) => match *action {
                "CreateNetworkInterface"
                | "DeleteNetworkInterface"
                | "ModifyNetworkInterfaceAttribute"
                | "AssignPrivateIpAddresses"
                | "UnassignPrivateIpAddresses"
                | "TerminateInstances" => size(100, 5),
                "CreateTags" => size(100, 10),
                "RunInstances" | "StartInstances" => size(5, 2),
                "PutMetricData" => size(500, 500),
                "GetMetricStatistics" => size(400, 400),
                "GetMetricData" => size(50, 50),
                "ListMetrics" => size(25, 25),
                read if read.starts_with("Describe") => size(100, 20),
                // AttachNetworkInterface and DetachNetworkInterface are not listed: other mutating actions.
                _ => size(50, 5),
            },
        }
    }
}

/// What limits the account has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThrottleConfig {
    /// No call is ever throttled.
    pub off: bool,
    /// Buckets that differ from the published sizes, by [`Bucket::name`].
    pub sizes: BTreeMap<String, BucketSize>,
}

/// Fill of every bucket that has been drawn from.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    config: ThrottleConfig,
    /// Thousandths of a token, and when they were counted.
    level: BTreeMap<Bucket, (u64, Timestamp)>,
}

impl Throttle {
    pub fn new(config: ThrottleConfig) -> Self {
        Self { config, level: BTreeMap::new() }
    }

    pub fn reconfigure(&mut self, config: ThrottleConfig) {
        self.config = config;
        self.level.clear();
    }

    pub fn config(&self) -> &ThrottleConfig {
        &self.config
    }

    /// Takes `tokens` from the bucket if it holds so many.
    pub fn draw(&mut self, bucket: Bucket, tokens: u32, now: Timestamp) -> bool {
        if self.config.off {
            return true;
        }
        let size = self.size_of(&bucket);
        let full = u64::from(size.capacity) * 1000;
        let (level, since) = self.level.get(&bucket).copied().unwrap_or((full, now));
        let passed = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        let level = level.saturating_add(passed.saturating_mul(u64::from(size.refill_per_second))).min(full);
        let wanted = u64::from(tokens) * 1000;
        let enough = level >= wanted;
        self.level.insert(bucket, (if enough { level - wanted } else { level }, now));
        enough
    }

    /// Whole tokens in each bucket that was drawn from, at its last draw.
    pub fn levels(&self) -> BTreeMap<String, u64> {
        self.level.iter().map(|(bucket, (level, _))| (bucket.name(), level / 1000)).collect()
    }

    fn size_of(&self, bucket: &Bucket) -> BucketSize {
        self.config.sizes.get(&bucket.name()).copied().unwrap_or_else(|| bucket.published())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(throttle: &mut Throttle, action: &'static str, at: u64) -> u32 {
        (0..1000).map(|_| u32::from(throttle.draw(Bucket::Action(action), 1, Timestamp(at)))).sum()
    }

    #[test]
    fn buckets_have_the_sizes_that_aws_publishes() {
        for (bucket, published) in [
            (Bucket::Action("AssignPrivateIpAddresses"), size(100, 5)),
            (Bucket::Action("UnassignPrivateIpAddresses"), size(100, 5)),
            (Bucket::Action("CreateNetworkInterface"), size(100, 5)),
            (Bucket::Action("DeleteNetworkInterface"), size(100, 5)),
            (Bucket::Action("ModifyNetworkInterfaceAttribute"), size(100, 5)),
            (Bucket::Action("TerminateInstances"), size(100, 5)),
            (Bucket::Action("CreateTags"), size(100, 10)),
            (Bucket::Action("RunInstances"), size(5, 2)),
            (Bucket::Action("StartInstances"), size(5, 2)),
            // The category of all mutating actions without a row of their own.
            (Bucket::Action("AttachNetworkInterface"), size(50, 5)),
            (Bucket::Action("DetachNetworkInterface"), size(50, 5)),
            (Bucket::Action("StopInstances"), size(50, 5)),
            (Bucket::Action("CreateVpc"), size(50, 5)),
            (Bucket::Action("CreateSubnet"), size(50, 5)),
            (Bucket::Action("CreateSecurityGroup"), size(50, 5)),
            (Bucket::Action("DescribeInstances"), size(100, 20)),
            (Bucket::Action("DescribeInstanceTypes"), size(100, 20)),
            (Bucket::Action("DescribeNetworkInterfaces"), size(100, 20)),
            (Bucket::Action("DescribeSecurityGroups"), size(100, 20)),
            (Bucket::Action("DescribeSubnets"), size(100, 20)),
            (Bucket::Action("DescribeVpcs"), size(100, 20)),
            (Bucket::Action("PutMetricData"), size(500, 500)),
            (Bucket::Action("GetMetricStatistics"), size(400, 400)),
            (Bucket::Action("GetMetricData"), size(50, 50)),
            (Bucket::Action("ListMetrics"), size(25, 25)),
            (Bucket::Unfiltered("DescribeInstances"), size(50, 10)),
            (Bucket::Unfiltered("DescribeNetworkInterfaces"), size(50, 10)),
            (Bucket::Unfiltered("DescribeSecurityGroups"), size(50, 10)),
            (Bucket::Resource("RunInstances"), size(1000, 2)),
            (Bucket::Resource("StartInstances"), size(1000, 2)),
            (Bucket::Resource("StopInstances"), size(1000, 20)),
            (Bucket::Resource("TerminateInstances"), size(1000, 20)),
        ] {
            assert_eq!(bucket.published(), published, "{}", bucket.name());
        }
    }

    #[test]
    fn a_burst_gets_the_published_capacity_and_then_the_refill_rate() {
        let mut throttle = Throttle::default();
        assert_eq!(burst(&mut throttle, "CreateNetworkInterface", 0), 100);
        assert_eq!(burst(&mut throttle, "AttachNetworkInterface", 0), 50, "each action has a bucket of its own");
        assert_eq!(burst(&mut throttle, "CreateNetworkInterface", 1000), 5);
        assert_eq!(burst(&mut throttle, "CreateNetworkInterface", 1199), 0);
        assert_eq!(burst(&mut throttle, "CreateNetworkInterface", 1200), 1);
        assert_eq!(burst(&mut throttle, "CreateNetworkInterface", 1_000_000), 100, "never fuller than full");
    }

    #[test]
    fn a_clock_that_steps_back_gives_no_tokens() {
        let mut throttle = Throttle::default();
        assert_eq!(burst(&mut throttle, "RunInstances", 10_000), 5);
        assert_eq!(burst(&mut throttle, "RunInstances", 0), 0);
    }

    #[test]
    fn sizes_can_be_raised_and_the_limiter_switched_off() {
        let raised = BTreeMap::from([("CreateTags".to_owned(), size(300, 30))]);
        let mut throttle = Throttle::new(ThrottleConfig { off: false, sizes: raised });
        assert_eq!(burst(&mut throttle, "CreateTags", 0), 300);
        throttle.reconfigure(ThrottleConfig { off: true, ..ThrottleConfig::default() });
        assert_eq!(burst(&mut throttle, "CreateTags", 0), 1000);
    }
}
