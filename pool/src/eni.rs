//! The life of a network interface: what a creation writes down before it calls, what an interface is to the pool, and
//! how an answer of EC2 is merged into what we know.
//!
//! Pure. EC2's Describe answers lag behind its own mutations, so an answer is proof of absence only when nothing of
//! ours has changed the interface for [`SETTLING`] before it was asked for.

mod merge;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Prefix;
use crate::ec2::{CreateEni, Eni, InterfaceType, Tags};
use crate::id::{ClientToken, EniId, InstanceId, MacAddress, SubnetId};
use crate::time::Timestamp;
pub use merge::{Merge, merge};

/// For so long after a mutation a Describe may not show it yet. EC2 promises no bound
/// ([Eventual consistency](https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html)); seconds are
/// usual, so this is generous.
pub const SETTLING: Duration = Duration::from_secs(30);

/// Whose interface it is: the instance that it was made for. The AWS plugin writes the same tag.
pub const TAG_INSTANCE: &str = "node.k8s.amazonaws.com/instance_id";
/// When it was made, RFC 3339. The AWS plugin writes the same tag.
pub const TAG_CREATED_AT: &str = "node.k8s.amazonaws.com/createdAt";
/// Name of the cluster. The AWS plugin writes the same tag.
pub const TAG_CLUSTER: &str = "cluster.k8s.amazonaws.com/name";
/// `true`: hands off. People set it, as for the AWS plugin.
pub const TAG_NO_MANAGE: &str = "node.k8s.amazonaws.com/no_manage";
/// The intent that made it.
pub const TAG_INTENT: &str = "enipool.dev/intent";
/// Name of the node that it was made for.
pub const TAG_NODE: &str = "enipool.dev/node";

/// The will to create one interface, written down before EC2 is asked. Its id is the request's ClientToken and the
/// interface's tag: asking again with the same intent yields the same interface, never a second one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub id: ClientToken,
    pub request: CreateEni,
    pub device_index: u32,
    pub at: Timestamp,
}

/// What an interface is and holds, as far as it must be known after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    pub mac: MacAddress,
    pub subnet: SubnetId,
    pub primary_ip: Ipv4Addr,
    /// `None`: not attached.
    pub device_index: Option<u32>,
    pub addresses: BTreeSet<Ipv4Addr>,
    pub prefixes: BTreeSet<Prefix>,
}

impl Holdings {
    pub fn of(eni: &Eni) -> Self {
        Self {
            mac: eni.mac,
            subnet: eni.subnet.clone(),
            primary_ip: eni.primary_ip,
            device_index: eni.attachment.as_ref().map(|attachment| attachment.device_index),
            addresses: eni.secondary_ips.iter().copied().collect(),
            prefixes: eni.prefixes.iter().copied().collect(),
        }
    }

    /// Whether a pod of ours can have `address` through this interface.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address) || self.prefixes.contains(&Prefix::containing(address))
    }
}

/// What an attached interface is to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Ours: its addresses are for pods.
    Pods,
    /// Not ours to touch, and why.
    Foreign(&'static str),
}

/// Decides whether an interface attached to `instance` is ours.
///
/// The primary always is. Of the others those with our tag, and, if `manage_untagged`, those that carry nobody's. Never
/// ours: what a person marked `no_manage`, trunks, EFA, interfaces of other services, other network cards.
pub fn role(eni: &Eni, instance: &InstanceId, manage_untagged: bool) -> Role {
    let Some(attachment) = &eni.attachment else { return Role::Foreign("it is not attached") };
    if attachment.network_card != 0 {
        return Role::Foreign("it is on another network card");
    }
    if attachment.device_index == 0 {
        return Role::Pods;
    }
    match eni.interface_type {
        InterfaceType::Interface => {}
        InterfaceType::Trunk => return Role::Foreign("it is a trunk"),
        InterfaceType::Efa => return Role::Foreign("it is an Elastic Fabric Adapter"),
        InterfaceType::Other => return Role::Foreign("another AWS service made it"),
    }
    if eni.tags.get(TAG_NO_MANAGE).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Role::Foreign("its tag no_manage says so");
    }
    match eni.tags.get(TAG_INSTANCE) {
        Some(owner) if owner == instance.as_str() => Role::Pods,
        Some(_) => Role::Foreign("its tag names another instance"),
        None if manage_untagged => Role::Pods,
        None => Role::Foreign("it has no tag of the pool"),
    }
}

/// Tags of a new interface. `extra` cannot replace those that the pool lives by.
pub fn tags(
    extra: &Tags,
    cluster: &str,
    node: &str,
    instance: &InstanceId,
    intent: &ClientToken,
    created_at: &str,
) -> Tags {
    let mut tags = extra.clone();
    let own = [
        (TAG_INSTANCE, instance.as_str()),
        (TAG_CREATED_AT, created_at),
        (TAG_CLUSTER, cluster),
        (TAG_INTENT, intent.as_str()),
        (TAG_NODE, node),
    ];
    for (key, value) in own {
        if !value.is_empty() {
            tags.insert(key.to_owned(), value.to_owned());
        }
    }
    tags
}

/// Whether an unattached interface is a leftover of this instance: made for it, by an intent that nobody remembers.
pub fn is_orphan(eni: &Eni, instance: &InstanceId, remembered: impl Fn(&EniId) -> bool) -> bool {
    eni.attachment.is_none()
        && eni.tags.get(TAG_INSTANCE).is_some_and(|owner| owner == instance.as_str())
        && eni.tags.contains_key(TAG_INTENT)
        && !remembered(&eni.id)
}
