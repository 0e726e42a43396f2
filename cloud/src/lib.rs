//! AWS behind the ports of `enipool-pool`: [`AwsEc2`], [`AwsImds`] and [`AwsCloudWatch`]. The only crate that names `aws-*`, because the EC2
//! SDK costs minutes and gigabytes to compile.
//!
//! It translates and times out, nothing else: no retries (the planner decides when to call again), no rate limit (the
//! budget is the pool's), no state. Endpoint, region and credentials come from the SDK's own environment variables and
//! from the instance metadata service.

mod cloudwatch;
mod connect;
mod ec2;
mod failure;
mod imds;

pub use cloudwatch::AwsCloudWatch;
pub use connect::{Aws, ConnectError, Options, connect};
pub use ec2::AwsEc2;
pub use imds::AwsImds;
