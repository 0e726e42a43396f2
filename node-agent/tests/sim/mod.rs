//! What a node sees outside itself, out of the model of EC2: IMDS's words, and the links that EC2 has plugged in. For the
//! tests of the engine and the soak alike; it decides nothing.

use std::collections::BTreeSet;

use ec2_sim::SharedModel;
use ec2_sim::model::resource::AttachStatus;
use enipool_pool::imds::ImdsEni;
use enipool_pool::{InstanceId, MacAddress};

/// The instance's interfaces as IMDS tells them; `None` while the instance is down.
pub(crate) fn imds_enis(shared: &SharedModel, instance: &InstanceId) -> Option<Vec<ImdsEni>> {
    let metadata = shared.with(|model| model.metadata(instance))?;
    let interfaces = metadata.interfaces.into_iter().map(|eni| ImdsEni {
        id: eni.id,
        mac: eni.mac,
        device_index: eni.device_index,
        network_card: eni.network_card,
        subnet: eni.subnet,
        subnet_cidr: eni.subnet_cidr,
        vpc: eni.vpc,
        vpc_cidrs: eni.vpc_cidrs,
        addresses: eni.addresses,
        prefixes: eni.prefixes,
        security_groups: eni.security_groups,
    });
    Some(interfaces.collect())
}

/// MACs of the links that the kernel of the instance shows: of interfaces that are attached, or still being detached.
pub(crate) fn links(shared: &SharedModel, instance: &InstanceId) -> BTreeSet<MacAddress> {
    shared.with(|model| {
        let plugged = model.interfaces().filter(|eni| {
            let attachment = eni.attachment.as_ref().filter(|attachment| attachment.instance == *instance);
            attachment.is_some_and(|attachment| attachment.status != AttachStatus::Attaching)
        });
        plugged.map(|eni| eni.mac).collect()
    })
}
