//! What an instance's metadata service knows: the truth, some time later.

use std::net::Ipv4Addr;

use enipool_pool::ec2::InstanceState;
use enipool_pool::{
    EniId, InstanceId, InstanceType, MacAddress, Prefix, SecurityGroupId, SubnetCidr, SubnetId, Timestamp, VpcId, Zone,
};
use ipnet::Ipv4Net;

use super::Model;
use super::replicated::Replicated;
use super::resource::Interface;

/// One interface under `network/interfaces/macs/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataInterface {
    pub id: EniId,
    pub mac: MacAddress,
    pub device_index: u32,
    pub network_card: u32,
    pub subnet: SubnetId,
    pub subnet_cidr: SubnetCidr,
    pub vpc: VpcId,
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// The primary address first.
    pub addresses: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
    pub security_groups: Vec<SecurityGroupId>,
    pub security_group_names: Vec<String>,
}

/// What an instance can read about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub instance: InstanceId,
    pub instance_type: InstanceType,
    pub image: String,
    pub zone: Zone,
    pub region: String,
    pub account: String,
    pub launch_time: Timestamp,
    pub iam_role: String,
    /// The access key of the role's credentials; tells the instance's calls in the ledger.
    pub access_key: String,
    /// Those that the service shows by now, by device index.
    pub interfaces: Vec<MetadataInterface>,
    pub now: Timestamp,
}

impl Metadata {
    pub fn primary(&self) -> Option<&MetadataInterface> {
        self.interfaces.iter().find(|eni| eni.device_index == 0)
    }
}

/// The access key with which an instance's role signs.
pub fn access_key(instance: &InstanceId) -> String {
    let tail: String = instance.as_str().trim_start_matches("i-").to_uppercase();
    format!("ASIA{tail:0>16}").chars().take(20).collect()
}

impl Model {
    /// What the metadata service of `instance` answers now; `None` when there is no such instance or it does not run.
    pub fn metadata(&self, instance: &InstanceId) -> Option<Metadata> {
        let record = self.instances.get(instance)?;
        if matches!(record.state, InstanceState::Stopped | InstanceState::Terminated) {
            return None;
        }
        let mut interfaces: Vec<_> = record.metadata.values().filter_map(|eni| eni.seen(self.now)).cloned().collect();
        interfaces.sort_by_key(|eni| (eni.network_card, eni.device_index));
        Some(Metadata {
            instance: record.id.clone(),
            instance_type: record.instance_type().clone(),
            image: record.image.clone(),
            zone: record.zone.clone(),
            region: self.config.region.clone(),
            account: self.config.account.clone(),
            launch_time: record.launch_time,
            iam_role: self.config.iam_role.clone(),
            access_key: access_key(&record.id),
            interfaces,
            now: self.now,
        })
    }

    /// Tells the instance's metadata service of the interface as it is now; it shows this after a lag. The interfaces
    /// of the launch are known at once.
    pub(super) fn publish_metadata(&mut self, eni: &EniId, at_launch: bool) {
        let Some(interface) = self.enis.get(eni).and_then(Replicated::current).cloned() else { return };
        let Some(attachment) = interface.attachment.as_ref() else { return };
        let shown = attachment.plugged.then(|| self.metadata_of(&interface)).flatten();
        let timing = &self.config.timing;
        let known = self.instances.get(&attachment.instance).and_then(|i| i.metadata.get(eni));
        let is_known = known.and_then(Replicated::current).is_some();
        let lag = match (&shown, is_known) {
            (Some(_), true) => timing.imds_addresses,
            _ => timing.imds_attach,
        };
        let visible_at = if at_launch { self.now } else { self.now.plus(lag.draw(&mut self.timing_rng)) };
        let now = self.now;
        if let Some(record) = self.instances.get_mut(&attachment.instance) {
            match record.metadata.get_mut(eni) {
                Some(known) => known.set(shown, now, visible_at),
                None => {
                    if let Some(new) = shown {
                        record.metadata.insert(eni.clone(), Replicated::created(new, now, visible_at));
                    }
                }
            }
        }
    }

    /// The interface has left: the metadata service forgets it after a lag.
    pub(super) fn retract_metadata(&mut self, eni: &EniId, instance: &InstanceId) {
        let now = self.now;
        let visible_at = now.plus(self.config.timing.imds_attach.draw(&mut self.timing_rng));
        if let Some(record) = self.instances.get_mut(instance) {
            record.metadata.retain(|_, known| known.current().is_some() || known.unsettled(now));
            if let Some(known) = record.metadata.get_mut(eni) {
                known.set(None, now, visible_at);
            }
        }
    }

    fn metadata_of(&self, interface: &Interface) -> Option<MetadataInterface> {
        let attachment = interface.attachment.as_ref()?;
        Some(MetadataInterface {
            id: interface.id.clone(),
            mac: interface.mac,
            device_index: attachment.device_index,
            network_card: attachment.network_card,
            subnet: interface.subnet.clone(),
            subnet_cidr: self.subnets.get(&interface.subnet)?.info.cidr,
            vpc: interface.vpc.clone(),
            vpc_cidrs: self.vpcs.get(&interface.vpc)?.cidrs.clone(),
            addresses: interface.addresses().collect(),
            prefixes: interface.prefixes.clone(),
            security_groups: interface.security_groups.clone(),
            security_group_names: interface
                .security_groups
                .iter()
                .filter_map(|id| self.groups.get(id).map(|group| group.name.clone()))
                .collect(),
        })
    }
}
