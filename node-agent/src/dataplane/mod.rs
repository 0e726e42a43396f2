//! The kernel's side of the pool: veth pairs of pods, routes, policy rules, sysctls and one nftables table.
//!
//! Everything here is split in two. What the kernel *should* hold is computed by pure functions
//! from plain data; thin effects carry the difference out over netlink. This module knows no
//! EC2, no Kubernetes and no ledger, and decides nothing about who gets which address.
//!
//! Every object created on a host is listed in `docs/dataplane.md`.

mod error;
pub mod layout;
mod state;

pub use error::{DataplaneError, Retry};
pub use layout::{HostIfname, VethPrefix};
pub use state::{
    AdoptedPod, DataplaneConfig, Drift, DriftKind, EniLink, HostObservation, HostReport, HostState, LinkSeen, ObservedPod, PodOwner,
    PodLink, PodSpec, Randomization, Report, Snat,
};
