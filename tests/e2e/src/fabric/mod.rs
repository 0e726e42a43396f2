//! A VPC on one machine, made of network namespaces, with the simulated EC2 that decides what is plugged in where.
//!
//! - The *router* namespace is the VPC: it routes every address to the interface that owns it, answers ARP for all, and
//!   drops and counts packets whose source address the sending interface does not own. Wrong routing on a node shows.
//! - Each instance is a *node* namespace. An attach plugs a real `ethN` with the ENI's MAC into it once it is effective.
//!   IMDS answers at 169.254.169.254 behind `eth0`.
//! - The *internet* namespace holds a host outside the VPC that tells its clients which address it saw.
//! - The *control* namespace is where a control plane runs: its address is reached from the machine, from nodes and from
//!   pods, and from it all of the VPC is. The EC2 endpoint listens there.
//!
//! Runs do not see each other: names carry the run's id, and addresses on the machine's side its slot. Security groups
//! and bandwidth are not modelled.

mod drops;
mod ec2;
mod error;
mod internet;
mod names;
mod netns;
mod node;
mod plan;
mod registry;
mod router;
mod topology;
mod underlay;
mod vpc;
mod world;

pub use drops::{Drops, Offender};
pub use error::FabricError;
pub use names::{RunId, RunIdError};
pub use netns::Netns;
pub use node::{Node, NodeSpec};
pub use registry::{RunInfo, cleanup, list, sweep_stale};
pub use vpc::{Control, Fabric, FabricConfig, InternetAccess};

#[cfg(test)]
mod tests;
