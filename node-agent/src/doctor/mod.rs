//! `enipool-agent doctor`: what EC2, the agent's ledger and the kernel say of this node, held against each other, with the
//! differences in words. Reads only.

pub mod compare;
mod look;
mod node;

use crate::args::DoctorArgs;
pub use compare::{Finding, Findings};
use enipool_pool::ec2::Ec2;
use enipool_pool::imds::Imds;
pub use look::DoctorError;

/// Looks at all three and compares them.
pub async fn examine<E: Ec2, I: Imds>(args: &DoctorArgs, ec2: &E, imds: &I) -> Result<Findings, DoctorError> {
    let ledger = look::ledger(args.introspection).await?;
    let cloud = look::cloud(ec2, imds).await?;
    let kernel = look::kernel(&args.paths, &cloud).await?;
    Ok(compare::compare(&cloud, &ledger, &kernel))
}
