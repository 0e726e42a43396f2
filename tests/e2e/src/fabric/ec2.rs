//! The simulated EC2 as the fabric uses it: its truth as a [`World`], its metadata service, and calls on nodes' behalf.

use std::collections::BTreeMap;

use ec2_sim::model::request::{LaunchInterface, RunInstances, Wanted};
use ec2_sim::model::{Event, Request, Response, SimConfig, Truth};
use ec2_sim::server;
use enipool_pool::ec2::{InstanceState, Tags};
use enipool_pool::{InstanceId, SubnetCidr, SubnetId, Zone};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::error::FabricError;
use super::node::{NodeSpec, is_node_name};
use super::router::{Cloud, ServedImds};
use super::world::{Machine, Plugged, World};

/// The tag that names an instance, as in the AWS console.
const NAME_TAG: &str = "Name";

/// What the fabric's own calls are in EC2's ledger, where others have an access key.
const CALLER: &str = "fabric";

/// The running simulator.
#[derive(Debug)]
pub(super) struct Simulator {
    handle: server::Handle,
}

impl Simulator {
    pub(super) fn start(region: SimConfig, listener: TcpListener) -> Result<Self, FabricError> {
        let handle = server::start_on(region, listener).map_err(|error| FabricError::Ec2(error.to_string()))?;
        Ok(Self { handle })
    }

    pub(super) fn handle(&self) -> &server::Handle {
        &self.handle
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.handle.events()
    }

    /// A call by the fabric itself, with EC2's latency.
    pub(super) async fn call(&self, request: Request) -> Result<Response, FabricError> {
        let model = self.handle.model();
        let reply = model.with(|model| model.call(CALLER, &request));
        model.wait(reply.latency).await;
        reply.result.map_err(|error| FabricError::Ec2(format!("{}: {error}", request.action())))
    }

    pub(super) async fn run_instance(&self, spec: &NodeSpec) -> Result<InstanceId, FabricError> {
        let subnet = self.subnet_in(spec.zone.as_ref())?;
        let interface = |(device_index, addresses): (&u32, &u32)| LaunchInterface {
            device_index: *device_index,
            subnet: Some(subnet.clone()),
            secondary: Wanted::addresses(*addresses),
            ..LaunchInterface::default()
        };
        let request = RunInstances {
            interfaces: spec.enis.iter().map(interface).collect(),
            // EC2 takes the subnet with the interfaces or without, not both.
            subnet: spec.enis.is_empty().then(|| subnet.clone()),
            instance_tags: Tags::from([(NAME_TAG.to_owned(), spec.name.clone())]),
            ..RunInstances::one(spec.instance_type.clone(), subnet.clone())
        };
        match self.call(Request::RunInstances(request)).await? {
            Response::Reservation(instances) => instances.into_iter().next().map(|instance| instance.id),
            _ => None,
        }
        .ok_or_else(|| FabricError::Ec2("RunInstances answered without an instance".into()))
    }

    fn subnet_in(&self, zone: Option<&Zone>) -> Result<SubnetId, FabricError> {
        self.handle.model().with(|model| {
            // In the order of the configuration; their ids are in no order.
            let mut subnets: Vec<_> = model.subnets().map(|subnet| &subnet.info).collect();
            subnets.sort_by_key(|subnet| subnet.cidr);
            let found = subnets.iter().find(|subnet| zone.is_none_or(|zone| subnet.zone == *zone));
            let missing = || FabricError::NoSubnet(zone.map_or_else(|| "any".to_owned(), ToString::to_string));
            found.map(|subnet| subnet.id.clone()).ok_or_else(missing)
        })
    }

    /// The instance of that name that is not terminated.
    pub(super) fn instance_named(&self, name: &str) -> Option<InstanceId> {
        let truth = self.truth();
        let gone = |state| matches!(state, InstanceState::ShuttingDown | InstanceState::Terminated);
        let mut alive = truth.instances.into_iter().filter(|instance| !gone(instance.state));
        alive.find(|instance| instance.tags.get(NAME_TAG).is_some_and(|tag| tag == name)).map(|instance| instance.id)
    }

    pub(super) fn all_instances(&self) -> Vec<InstanceId> {
        self.truth().instances.into_iter().map(|instance| instance.id).collect()
    }

    fn truth(&self) -> Truth {
        self.handle.truth()
    }
}

impl Cloud for Simulator {
    fn world(&self) -> World {
        let (truth, subnets) = self.handle.model().with(|model| {
            let subnets = model.subnets().map(|subnet| {
                let info = &subnet.info;
                (info.id.clone(), (info.cidr, info.zone.clone()))
            });
            (model.truth(), subnets.collect::<BTreeMap<_, _>>())
        });
        world(truth, &subnets)
    }

    fn serve_imds(&self, listener: TcpListener, instance: InstanceId) -> ServedImds {
        Box::new(self.handle.serve_imds(listener, instance))
    }
}

/// What of EC2's truth is plugged in: interfaces of instances that have power, once their attachment is effective.
fn world(truth: Truth, subnets: &BTreeMap<SubnetId, (SubnetCidr, Zone)>) -> World {
    let mut world = World::default();
    for instance in truth.instances {
        // While it stops or shuts down, its operating system still runs.
        let on =
            matches!(instance.state, InstanceState::Running | InstanceState::Stopping | InstanceState::ShuttingDown);
        if let (true, Some((_, zone))) = (on, subnets.get(&instance.subnet)) {
            let named = instance.tags.get(NAME_TAG).filter(|name| is_node_name(name));
            let name = named.cloned().unwrap_or_else(|| instance.id.to_string());
            let machine = Machine { name, instance_type: instance.instance_type, zone: zone.clone() };
            world.instances.insert(instance.id, machine);
        }
    }
    for eni in truth.enis {
        let attachment = eni.attachment.filter(|attachment| attachment.effective);
        if let (Some(attachment), Some((subnet, _))) = (attachment, subnets.get(&eni.subnet))
            && world.instances.contains_key(&attachment.instance)
        {
            let plugged = Plugged {
                instance: attachment.instance,
                device_index: attachment.device_index,
                mac: eni.mac,
                subnet: *subnet,
                primary_ip: eni.primary_ip,
                secondary_ips: eni.secondary_ips.into_iter().collect(),
                prefixes: eni.prefixes.into_iter().collect(),
            };
            world.plugged.insert(eni.id, plugged);
        }
    }
    world
}
