//! The fleet planner: allocations for all nodes from one snapshot.
//!
//! [`plan()`] reckons what each node needs by the node planner's own rules, shares what the subnets have left (demand
//! first, then minimums, then warm addresses, evenly), hands out turns within the EC2 budget (nodes whose pods wait
//! first), and lowers nothing before a minute of less need. It knows counts and subnets, no Kubernetes objects.

mod plan;
mod share;
mod types;

pub use plan::plan;
pub use types::{FleetEni, FleetMemory, FleetPlan, Given, NodeAllocation, NodeView, SubnetPlan, SubnetStock};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;
