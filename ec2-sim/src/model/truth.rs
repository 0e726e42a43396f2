//! What is effective in the region right now, as one piece of plain data: for a fabric that makes it so, and for checks.

use std::net::Ipv4Addr;

use enipool_pool::ec2::{InstanceState, Tags};
use enipool_pool::{EniId, InstanceId, InstanceType, MacAddress, Prefix, SubnetId};
use serde::Serialize;

use super::Model;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truth {
    pub instances: Vec<TruthInstance>,
    pub enis: Vec<TruthEni>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TruthInstance {
    pub id: InstanceId,
    pub state: InstanceState,
    pub instance_type: InstanceType,
    pub subnet: SubnetId,
    pub tags: Tags,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TruthEni {
    pub id: EniId,
    pub mac: MacAddress,
    pub subnet: SubnetId,
    pub primary_ip: Ipv4Addr,
    pub secondary_ips: Vec<Ipv4Addr>,
    pub prefixes: Vec<Prefix>,
    pub attachment: Option<TruthAttachment>,
    /// Describe calls show it as it is, as opposed to as it was a moment ago.
    pub shown: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TruthAttachment {
    pub instance: InstanceId,
    pub device_index: u32,
    /// The interface is in the instance: not yet while the attach is under way, still while the detach is.
    pub effective: bool,
    pub delete_on_termination: bool,
}

impl Model {
    /// Everything that exists now, whatever describe calls show of it.
    pub fn truth(&self) -> Truth {
        Truth {
            instances: self
                .instances
                .values()
                .map(|instance| TruthInstance {
                    id: instance.id.clone(),
                    state: instance.state,
                    instance_type: instance.instance_type().clone(),
                    subnet: instance.subnet.clone(),
                    tags: instance.tags.clone(),
                })
                .collect(),
            enis: self
                .enis
                .values()
                .filter_map(|record| Some((record.current()?, !record.unsettled(self.now))))
                .map(|(eni, shown)| TruthEni {
                    id: eni.id.clone(),
                    mac: eni.mac,
                    subnet: eni.subnet.clone(),
                    primary_ip: eni.primary_ip,
                    secondary_ips: eni.secondary_ips.clone(),
                    prefixes: eni.prefixes.clone(),
                    attachment: eni.attachment.as_ref().map(|attachment| TruthAttachment {
                        instance: attachment.instance.clone(),
                        device_index: attachment.device_index,
                        effective: attachment.plugged,
                        delete_on_termination: attachment.delete_on_termination,
                    }),
                    shown,
                })
                .collect(),
        }
    }
}
