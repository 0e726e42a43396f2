//! What EC2 says is plugged in where: plain data, read from the simulator, from which the fabric's links and routes follow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use enipool_pool::{EniId, InstanceId, InstanceType, MacAddress, Prefix, SubnetCidr, Zone};

/// The truth at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct World {
    /// Instances that are switched on.
    pub(super) instances: BTreeMap<InstanceId, Machine>,
    /// Interfaces whose attachment to one of them is effective.
    pub(super) plugged: BTreeMap<EniId, Plugged>,
}

/// An instance that is switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    /// Its `Name` tag, else its id.
    pub(super) name: String,
    pub(super) instance_type: InstanceType,
    pub(super) zone: Zone,
}

/// An attached interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plugged {
    pub(super) instance: InstanceId,
    pub(super) device_index: u32,
    pub(super) mac: MacAddress,
    pub(super) subnet: SubnetCidr,
    pub(super) primary_ip: Ipv4Addr,
    pub(super) secondary_ips: BTreeSet<Ipv4Addr>,
    pub(super) prefixes: BTreeSet<Prefix>,
}

impl Plugged {
    /// Every address that packets of this interface may carry as their source.
    pub(super) fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        let delegated = self.prefixes.iter().flat_map(|prefix| prefix.addresses());
        std::iter::once(self.primary_ip).chain(self.secondary_ips.iter().copied()).chain(delegated).collect()
    }

    /// What the router sends to it besides its primary address: `address/length`.
    pub(super) fn routes(&self) -> BTreeSet<String> {
        let singles = self.secondary_ips.iter().map(|address| format!("{address}/32"));
        singles.chain(self.prefixes.iter().map(ToString::to_string)).collect()
    }

    /// The interface's name inside the instance.
    pub(super) fn device(&self) -> String {
        format!("eth{}", self.device_index)
    }
}
