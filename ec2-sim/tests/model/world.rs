//! A model with a few words for what the tests do all the time.

use std::time::Duration;

use ec2_sim::model::request::{Assign, AttachInterface, CreateInterface, Describe, RunInstances, Wanted};
use ec2_sim::model::resource::{InstanceView, Interface};
use ec2_sim::model::{ApiError, SubnetConfig};
use ec2_sim::{Model, Request, Response, SimConfig, Timing};
use enipool_pool::{AttachmentId, EniId, InstanceId, InstanceType, SubnetId};

/// A model, and what tests ask of it.
pub(crate) struct World(pub(crate) Model);

impl World {
    pub(crate) fn instant() -> Self {
        Self(Model::new(SimConfig::instant()).unwrap())
    }

    pub(crate) fn with_timing(timing: Timing) -> Self {
        Self(Model::new(SimConfig { timing, ..SimConfig::instant() }).unwrap())
    }

    /// One subnet of this range in zone a.
    pub(crate) fn with_subnet(cidr: &str) -> Self {
        let subnet = SubnetConfig {
            zone: "eu-west-1a".into(),
            cidr: enipool_pool::SubnetCidr(cidr.parse().unwrap()),
            tags: std::collections::BTreeMap::new(),
        };
        Self(Model::new(SimConfig { subnets: vec![subnet], ..SimConfig::instant() }).unwrap())
    }

    pub(crate) fn call(&mut self, request: Request) -> Result<Response, ApiError> {
        self.0.call("test", &request).result
    }

    pub(crate) fn code(&mut self, request: Request) -> String {
        self.call(request).unwrap_err().code.into_owned()
    }

    pub(crate) fn subnet(&self) -> SubnetId {
        self.0.subnets().find(|subnet| subnet.info.zone.as_str().ends_with('a')).unwrap().info.id.clone()
    }

    pub(crate) fn run(&mut self, instance_type: &str) -> InstanceView {
        let run = RunInstances::one(InstanceType::new(instance_type), self.subnet());
        match self.call(Request::RunInstances(run)).unwrap() {
            Response::Reservation(mut instances) => instances.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create(&mut self, secondary: Wanted) -> Result<Interface, ApiError> {
        let create = CreateInterface { subnet: Some(self.subnet()), secondary, ..CreateInterface::default() };
        match self.call(Request::CreateNetworkInterface(create))? {
            Response::Interface(interface) => Ok(*interface),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn attach(
        &mut self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: u32,
    ) -> Result<AttachmentId, ApiError> {
        let attach =
            AttachInterface { interface: eni.clone(), instance: instance.clone(), device_index, network_card: 0 };
        match self.call(Request::AttachNetworkInterface(attach))? {
            Response::Attached { attachment, .. } => Ok(attachment),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn assign(&mut self, eni: &EniId, wanted: Wanted) -> Result<Response, ApiError> {
        let assign = Assign { interface: eni.clone(), wanted, allow_reassignment: false };
        self.call(Request::AssignPrivateIpAddresses(assign))
    }

    pub(crate) fn describe(&mut self, describe: Describe<EniId>) -> Result<Vec<Interface>, ApiError> {
        match self.call(Request::DescribeNetworkInterfaces(describe))? {
            Response::Interfaces(page) => Ok(page.items),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn seen(&mut self, eni: &EniId) -> Result<Interface, ApiError> {
        self.describe(Describe::ids([eni.clone()])).map(|mut enis| enis.remove(0))
    }

    pub(crate) fn after(&mut self, time: Duration) -> &mut Self {
        let to = self.0.now().plus(time);
        self.0.advance(to);
        self
    }

    pub(crate) fn free(&self) -> u32 {
        let subnet = self.subnet();
        self.0.subnets().find(|record| record.info.id == subnet).unwrap().map.free()
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
