//! What the node sees outside itself: IMDS, and the links that EC2 has plugged in.

use std::collections::BTreeSet;

use ec2_sim::SimEc2;
use enipool_agent::engine::machine::Me;
use enipool_pool::capacity::{self, Capacity};
use enipool_pool::ec2::{CreateEni, Ec2, Supply, Tags};
use enipool_pool::imds::ImdsEni;
use enipool_pool::{ClientToken, MacAddress};
use futures::executor::block_on;

use crate::sim;
use crate::world::World;

impl World {
    pub(crate) fn me(&self) -> Me {
        let metadata = self.shared.with(|model| model.metadata(&self.instance)).unwrap();
        let primary = metadata.primary().unwrap().clone();
        let limits = capacity::bundled(&self.instance_type).unwrap();
        Me {
            node: "node".into(),
            cluster: "soak".into(),
            instance: self.instance.clone(),
            instance_type: self.instance_type.clone(),
            zone: metadata.zone,
            region: metadata.region,
            primary_ip: primary.addresses[0],
            primary_mac: primary.mac,
            vpc_cidrs: primary.vpc_cidrs,
            subnet: primary.subnet,
            subnet_cidr: primary.subnet_cidr,
            security_groups: primary.security_groups,
            capacity: Capacity::new(&limits),
        }
    }

    pub(crate) fn hints(&self) -> Vec<ImdsEni> {
        sim::imds_enis(&self.shared, &self.instance).unwrap()
    }

    pub(crate) fn links(&self) -> BTreeSet<MacAddress> {
        sim::links(&self.shared, &self.instance)
    }

    /// A person attaches an interface that is none of ours.
    pub(crate) fn stranger_comes(&mut self, device_index: u32) {
        let person = SimEc2::new(self.shared.clone(), "person");
        let request = CreateEni {
            subnet: self.subnet.clone(),
            security_groups: Vec::new(),
            supply: Supply::Addresses(0),
            description: "by hand".into(),
            tags: Tags::new(),
            client_token: ClientToken::new(format!("person-{}", self.strangers.len())),
        };
        let Ok(eni) = block_on(person.create_network_interface(&request)) else { return };
        self.strangers.push(eni.id.clone());
        if block_on(person.attach_network_interface(&eni.id, &self.instance, device_index)).is_err() {
            // No room: gone again.
            let _ = block_on(person.delete_network_interface(&eni.id));
        }
    }

    /// A person gives one of the node's interfaces an address.
    pub(crate) fn address_comes(&mut self) {
        let id = self.shared.with(|model| {
            let ours = model.interfaces().find(|eni| {
                eni.attachment.as_ref().is_some_and(|a| a.instance == self.instance)
                    && !self.strangers.contains(&eni.id)
            });
            ours.map(|eni| eni.id.clone())
        });
        if let Some(id) = id {
            let person = SimEc2::new(self.shared.clone(), "person");
            // A full interface or subnet: then not.
            let _ = block_on(person.assign(&id, Supply::Addresses(1)));
        }
    }
}
