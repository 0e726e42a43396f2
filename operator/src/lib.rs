//! The operator: one ENIPool per node, what each node should hold, whose turn at the EC2 API it is, and the end of ENIs
//! whose node is gone.
//!
//! Watches fill [`world`]; [`planning`] turns it into the fleet planner's snapshot and its answer into server-side
//! applies; [`farewell`] and [`leaks`] delete ENIs; [`cluster_metrics`] sums up for Prometheus and CloudWatch. Only the leader does any of this. Decisions are `enipool-pool`'s;
//! EC2 is reached through its port only, so nothing here names AWS.

pub mod args;
pub mod class;
pub mod class_status;
pub mod cluster_metrics;
pub mod default_class;
pub mod farewell;
pub mod kubernetes;
pub mod leaks;
pub mod metrics;
pub mod network;
pub mod planning;
pub mod run;
pub mod snapshot;
pub mod watches;
pub mod world;

pub use args::Args;
pub use run::{Aws, run};
