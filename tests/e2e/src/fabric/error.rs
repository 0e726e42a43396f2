//! Why building or changing the fabric failed.

use std::io;
use std::time::Duration;

use super::names::RunId;

/// Why building or changing the fabric failed.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    #[error("the fabric makes network namespaces: run as root")]
    NotRoot,
    #[error("{0} is missing: install Debian's packages iproute2, nftables and util-linux")]
    MissingTool(&'static str),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    /// A command that failed, with all that it said.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command { command: String, status: String, stderr: String },
    #[error("{what}: nothing after {after:?}")]
    Timeout { what: String, after: Duration },
    #[error("a run {0} exists and its owner lives: choose another id, or stop it first")]
    RunExists(RunId),
    #[error("all 256 places for runs on this machine are taken: `vpc-fabric list` shows them")]
    NoSlot,
    #[error("no node is named {0}")]
    UnknownNode(String),
    #[error("a node is named {0} already")]
    NodeExists(String),
    #[error("{0:?} cannot name a node: expected letters, digits, '-' and '.', at most 63")]
    NodeName(String),
    #[error("the VPC has no subnet in zone {0}")]
    NoSubnet(String),
    /// The simulator's answer to a call on a node's behalf.
    #[error("EC2: {0}")]
    Ec2(String),
    /// The router could not follow EC2, or has ended.
    #[error("the router: {0}")]
    Router(String),
    /// What `nft --json` printed is not what this program understands.
    #[error("cannot read the counters: {0}")]
    Counters(String),
}

impl FabricError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
