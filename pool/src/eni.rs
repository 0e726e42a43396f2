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
    if is_no_manage(eni) {
        return Role::Foreign("its tag no_manage says so");
    }
    match eni.tags.get(TAG_INSTANCE) {
        Some(owner) if owner == instance.as_str() => Role::Pods,
        Some(_) => Role::Foreign("its tag names another instance"),
        None if manage_untagged => Role::Pods,
        None => Role::Foreign("it has no tag of the pool"),
    }
}

/// Whether a person said: hands off.
pub fn is_no_manage(eni: &Eni) -> bool {
    eni.tags.get(TAG_NO_MANAGE).is_some_and(|value| value.eq_ignore_ascii_case("true"))
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
        && !is_no_manage(eni)
        && eni.tags.get(TAG_INSTANCE).is_some_and(|owner| owner == instance.as_str())
        && eni.tags.contains_key(TAG_INTENT)
        && !remembered(&eni.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::{Attachment, EniStatus};
    use crate::id::Zone;

    fn me() -> InstanceId {
        "i-1".parse().unwrap()
    }

    /// One that the pool made, at device index 2.
    fn ours() -> Eni {
        let attachment = Attachment {
            id: "eni-attach-1".parse().unwrap(),
            instance: Some(me()),
            device_index: 2,
            network_card: 0,
            delete_on_termination: true,
        };
        Eni {
            id: "eni-1".parse().unwrap(),
            status: EniStatus::InUse,
            interface_type: InterfaceType::Interface,
            mac: "0a:00:00:00:00:01".parse().unwrap(),
            vpc: "vpc-1".parse().unwrap(),
            subnet: "subnet-1".parse().unwrap(),
            zone: Zone::new("eu-west-1a"),
            primary_ip: [10, 0, 0, 4].into(),
            secondary_ips: Vec::new(),
            prefixes: Vec::new(),
            security_groups: Vec::new(),
            attachment: Some(attachment),
            description: String::new(),
            tags: tags(&Tags::new(), "prod", "node-1", &me(), &ClientToken::new("intent-1"), "2026-01-01T00:00:00Z"),
        }
    }

    /// What it is after `change`: `None` for ours, or why it is left alone.
    fn after(change: impl FnOnce(&mut Eni)) -> Option<&'static str> {
        let mut eni = ours();
        change(&mut eni);
        match role(&eni, &me(), false) {
            Role::Pods => None,
            Role::Foreign(why) => Some(why),
        }
    }

    #[test]
    fn what_is_not_the_pools_is_left_alone_and_the_reason_is_said() {
        assert_eq!(after(|_| {}), None);
        let because = |change: fn(&mut Eni), word: &str| {
            let why = after(change).unwrap_or_else(|| panic!("taken for ours, although: {word}"));
            assert!(why.contains(word), "{why}");
        };
        because(|eni| eni.interface_type = InterfaceType::Trunk, "trunk");
        because(|eni| eni.interface_type = InterfaceType::Efa, "Elastic Fabric Adapter");
        because(|eni| eni.interface_type = InterfaceType::Other, "another AWS service");
        because(|eni| eni.attachment.as_mut().unwrap().network_card = 1, "network card");
        because(|eni| eni.attachment = None, "not attached");
        because(|eni| drop(eni.tags.insert(TAG_NO_MANAGE.into(), "True".into())), "no_manage");
        because(|eni| drop(eni.tags.insert(TAG_INSTANCE.into(), "i-2".into())), "another instance");
        because(|eni| eni.tags.clear(), "no tag of the pool");
    }

    #[test]
    fn the_primary_is_always_ours_and_has_no_tags() {
        assert_eq!(
            after(|eni| {
                eni.tags.clear();
                eni.attachment.as_mut().unwrap().device_index = 0;
            }),
            None
        );
    }

    #[test]
    fn untagged_interfaces_are_used_only_when_asked_for_and_other_peoples_never() {
        let mut eni = ours();
        eni.tags.clear();
        assert_eq!(role(&eni, &me(), true), Role::Pods);
        eni.tags.insert(TAG_NO_MANAGE.into(), "true".into());
        assert!(matches!(role(&eni, &me(), true), Role::Foreign(_)));
        eni.tags = [(TAG_INSTANCE.to_owned(), "i-2".to_owned())].into();
        assert!(matches!(role(&eni, &me(), true), Role::Foreign(_)));
    }

    #[test]
    fn tags_of_people_do_not_replace_those_that_the_pool_lives_by() {
        let extra: Tags = [(TAG_INSTANCE.to_owned(), "i-2".to_owned()), ("team".to_owned(), "net".to_owned())].into();
        let tags = tags(&extra, "", "node-1", &me(), &ClientToken::new("intent-1"), "2026-01-01T00:00:00Z");
        assert_eq!(tags.get(TAG_INSTANCE).map(String::as_str), Some("i-1"));
        assert_eq!(tags.get("team").map(String::as_str), Some("net"));
        assert!(!tags.contains_key(TAG_CLUSTER), "an empty value says nothing");
    }

    #[test]
    fn only_what_this_instance_made_and_forgot_is_an_orphan() {
        let unattached = |change: fn(&mut Eni)| {
            let mut eni = ours();
            eni.attachment = None;
            change(&mut eni);
            eni
        };
        let orphan = |eni: &Eni| is_orphan(eni, &me(), |_| false);
        assert!(orphan(&unattached(|_| {})));
        assert!(!is_orphan(&unattached(|_| {}), &me(), |_| true), "one that is remembered is under way");
        assert!(!orphan(&ours()), "it is attached");
        assert!(!orphan(&unattached(|eni| drop(eni.tags.insert(TAG_NO_MANAGE.into(), "true".into())))), "hands off");
        assert!(!orphan(&unattached(|eni| drop(eni.tags.remove(TAG_INTENT)))), "made by something else");
        assert!(!orphan(&unattached(|eni| drop(eni.tags.insert(TAG_INSTANCE.into(), "i-2".into())))));
    }
}
