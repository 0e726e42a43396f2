//! The domain of enipool, pure: what a node can hold, what it should hold, who holds which address, whose turn at the
//! EC2 API it is, and the ports through which the rest of the program reaches AWS.
//!
//! Nothing here does I/O, reads a clock, draws a random number or names an async runtime: time, seeds and snapshots
//! come in as arguments, decisions go out as data. `make check-boundaries` holds the crate to it.

pub mod address;
pub mod budget;
pub mod capacity;
pub mod cloudwatch;
pub mod ec2;
pub mod eni;
pub mod fleet;
pub mod id;
pub mod imds;
pub mod ledger;
pub mod node;
pub mod runway;
pub mod targets;
pub mod time;

pub use address::{Prefix, SubnetCidr};
pub use id::{
    AttachmentId, ClientToken, EniId, InstanceId, InstanceType, MacAddress, SecurityGroupId, SubnetId, VpcId, Zone,
};
pub use time::Timestamp;
