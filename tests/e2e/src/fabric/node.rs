//! A node of the fabric: an instance of EC2 that is a network namespace.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use enipool_pool::{InstanceId, InstanceType, MacAddress, Zone};

use super::error::FabricError;
use super::netns::Netns;

/// A node: loopback and `eth0` are up, its primary address and default route are set, IMDS answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub instance_id: InstanceId,
    pub instance_type: InstanceType,
    pub zone: Zone,
    pub primary_ip: Ipv4Addr,
    pub primary_mac: MacAddress,
    /// What the machine's processes enter.
    pub netns: Netns,
}

impl Node {
    /// `program`, to be run on the node.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
        self.netns.command(program)
    }

    /// Runs a command on the node and returns what it printed; at most 30 s.
    pub async fn exec<S: AsRef<str>>(&self, command: &[S]) -> Result<String, FabricError> {
        self.netns.exec(command).await
    }
}

/// A node to be launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// The instance's `Name` tag, and part of its namespace's name: letters, digits, `-` and `.`, at most 63.
    pub name: String,
    pub instance_type: InstanceType,
    /// Any of the VPC's zones if absent: the one of the first subnet.
    pub zone: Option<Zone>,
    /// What its launch template gives it: interfaces by device index, each with so many secondary addresses. None: a
    /// primary interface with its own address alone.
    pub enis: BTreeMap<u32, u32>,
}

impl NodeSpec {
    pub fn new(name: impl Into<String>, instance_type: &str) -> Self {
        Self { name: name.into(), instance_type: InstanceType::new(instance_type), zone: None, enis: BTreeMap::new() }
    }

    /// As a launch template does.
    #[must_use]
    pub fn with_eni(mut self, device_index: u32, secondary_addresses: u32) -> Self {
        self.enis.insert(device_index, secondary_addresses);
        self
    }

    #[must_use]
    pub fn in_zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }
}

/// Whether text can name a node: it becomes the name of a file.
pub(super) fn is_node_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    (1..=63).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['.', '-'])
}
