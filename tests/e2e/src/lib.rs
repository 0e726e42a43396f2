//! A real cluster on one machine: harness, VPC fabric, scenarios and the demo.

pub mod bare;
pub mod fabric;
