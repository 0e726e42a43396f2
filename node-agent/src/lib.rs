//! The agent of one node: keeps the node's share of the pool, plumbs pods, reports.
//!
//! Decisions are made in `enipool-pool`; this crate carries them out. The library knows AWS only through the ports of
//! `enipool_pool`, so that its tests build without the EC2 SDK.

pub mod app;
pub mod args;
pub mod chained;
pub mod cleanup;
pub mod cni;
pub mod dataplane;
pub mod doctor;
pub mod engine;
pub mod events;
pub mod host;
pub mod install;
pub mod introspection;
pub mod metrics;
pub mod status;
#[cfg(test)]
mod support_bundle;
