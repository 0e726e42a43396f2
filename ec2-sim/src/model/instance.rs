//! Instances: run, stop, start, terminate, describe, and what their types can hold.

use std::collections::BTreeMap;

use enipool_pool::ec2::InstanceState;
use enipool_pool::{EniId, InstanceId, InstanceType, SubnetId};

use super::Model;
use super::addresses::{address_limit, has_prefixes, prefixes_unsupported};
use super::attach::in_use;
use super::error::ApiError;
use super::event::Event;
use super::filter::{check, passes};
use super::filters::{INSTANCES, TYPES, type_values};
use super::lifecycle::Due;
use super::page::MAX_TYPES;
use super::request::{CreateInterface, Describe, LaunchInterface, Response, RunInstances, StateChange};
use super::resource::{AttachStatus, InstanceRecord, InstanceView, Interface};
use super::tags::check_tags;
use super::types::{self, TypeInfo};

/// EC2 wants a launch of more than this many split up.
const MAX_LAUNCH: u32 = 1000;

impl Model {
    pub(super) fn run_instances(&mut self, run: &RunInstances) -> Result<Response, ApiError> {
        let action = "RunInstances";
        let parameters = format!("{:?}", RunInstances { client_token: None, ..run.clone() });
        if let Some(token) = run.client_token.as_deref()
            && let Some(made) = self.tokens.look_up(action, token, &parameters, self.now)?
        {
            let ids = made.iter().filter_map(|id| id.parse().ok());
            let views = ids.filter_map(|id: InstanceId| Some(self.view(self.instances.get(&id)?))).collect();
            return Ok(Response::Reservation(views));
        }
        let info = types::find(&run.instance_type).ok_or_else(|| {
            ApiError::invalid_value(format!("Invalid value '{}' for InstanceType.", run.instance_type))
        })?;
        if run.min_count == 0 || run.max_count < run.min_count || run.max_count > MAX_LAUNCH {
            return Err(ApiError::invalid_value(format!(
                "Invalid value for instance counts: MinCount {} and MaxCount {} must be between 1 and {MAX_LAUNCH}.",
                run.min_count, run.max_count
            )));
        }
        check_tags(&run.instance_tags)?;
        check_tags(&run.interface_tags)?;
        let launches = self.launch_interfaces(run, &info)?;
        let reservation = self.ids.text("r");
        let events_before = self.events.len();
        let mut made: Vec<InstanceId> = Vec::new();
        for index in 0..run.max_count {
            match self.launch(run, &info, &launches, &reservation, index) {
                Ok(id) => made.push(id),
                // EC2 launches as many as it can, if that is at least MinCount.
                Err(_) if index >= run.min_count => break,
                Err(error) => {
                    self.take_back(&made);
                    // None of it was ever effective.
                    self.events.truncate(events_before);
                    return Err(error);
                }
            }
        }
        for id in &made {
            self.events.push(Event::InstanceStateChanged { instance: id.clone(), state: InstanceState::Pending });
            self.schedule(|timing| timing.boot, Due::Running(id.clone()));
        }
        if let Some(token) = run.client_token.as_deref() {
            let ids = made.iter().map(ToString::to_string).collect();
            self.tokens.remember(action, token, parameters, ids, self.now);
        }
        Ok(Response::Reservation(made.iter().filter_map(|id| Some(self.view(self.instances.get(id)?))).collect()))
    }

    /// A launch that came to less than MinCount leaves nothing behind.
    fn take_back(&mut self, made: &[InstanceId]) {
        for id in made {
            let Some(gone) = self.instances.remove(id) else { continue };
            for eni in gone.interfaces {
                let delete =
                    self.interface(&eni).and_then(|eni| eni.attachment.as_ref()).map(|a| a.delete_on_termination);
                self.unplug(&eni);
                if delete == Some(true) {
                    self.remove_interface(&eni);
                }
            }
        }
    }

    /// The interfaces of one instance of the launch, each complete and checked against the type.
    fn launch_interfaces(&self, run: &RunInstances, info: &TypeInfo) -> Result<Vec<LaunchInterface>, ApiError> {
        let in_zone = || self.subnets.values().find(|s| run.zone.as_ref().is_none_or(|zone| s.info.zone == *zone));
        let fallback = run.subnet.clone().or_else(|| in_zone().map(|subnet| subnet.info.id.clone()));
        let mut launches = run.interfaces.clone();
        if launches.is_empty() {
            launches.push(LaunchInterface {
                primary_ip: run.private_ip,
                security_groups: run.security_groups.clone(),
                ..LaunchInterface::default()
            });
        } else if run.subnet.is_some() || !run.security_groups.is_empty() {
            return Err(ApiError::invalid_combination(
                "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request",
            ));
        }
        for launch in &mut launches {
            if launch.existing.is_none() && launch.subnet.is_none() {
                launch.subnet.clone_from(&fallback);
            }
            let named = launch.secondary.addresses.len() + launch.secondary.prefixes.len();
            let slots = u32::try_from(named).unwrap_or(u32::MAX)
                + launch.secondary.address_count.unwrap_or(0)
                + launch.secondary.prefix_count.unwrap_or(0);
            if slots >= info.limits.ipv4_per_eni {
                return Err(address_limit());
            }
            if has_prefixes(&launch.secondary) && !info.limits.supports_prefixes {
                return Err(prefixes_unsupported());
            }
        }
        launches.sort_by_key(|launch| (launch.network_card, launch.device_index));
        if launches.first().is_none_or(|first| (first.network_card, first.device_index) != (0, 0)) {
            return Err(ApiError::invalid_value("The network interface at device index 0 is missing."));
        }
        if run.max_count > 1 && launches.iter().any(|launch| launch.existing.is_some() || launch.primary_ip.is_some()) {
            return Err(ApiError::invalid_combination(
                "An existing network interface or address cannot be used for more than one instance.",
            ));
        }
        Ok(launches)
    }

    fn launch(
        &mut self,
        run: &RunInstances,
        info: &TypeInfo,
        launches: &[LaunchInterface],
        reservation: &str,
        index: u32,
    ) -> Result<InstanceId, ApiError> {
        let id: InstanceId = self.ids.id("i")?;
        let first = launches.first().ok_or_else(ApiError::internal)?;
        let subnet_id = self.subnet_of_launch(first)?;
        let subnet = &self.subnets.get(&subnet_id).ok_or_else(ApiError::internal)?.info;
        let record = InstanceRecord {
            id: id.clone(),
            reservation: reservation.to_owned(),
            state: InstanceState::Pending,
            info: info.clone(),
            image: run.image.clone(),
            vpc: subnet.vpc.clone(),
            zone: subnet.zone.clone(),
            subnet: subnet_id,
            launch_time: self.now,
            launch_index: index,
            client_token: run.client_token.clone(),
            tags: run.instance_tags.clone(),
            interfaces: Vec::new(),
            visible_at: self.now.plus(self.config.timing.visible.draw(&mut self.timing_rng)),
            metadata: BTreeMap::new(),
        };
        self.instances.insert(id.clone(), record);
        for launch in launches {
            if let Err(error) = self.launch_interface(&id, run, launch) {
                let events_before = self.events.len();
                self.take_back(std::slice::from_ref(&id));
                self.events.truncate(events_before);
                return Err(error);
            }
        }
        Ok(id)
    }

    fn subnet_of_launch(&self, launch: &LaunchInterface) -> Result<SubnetId, ApiError> {
        match (&launch.existing, &launch.subnet) {
            (Some(eni), _) => Ok(self.found_interface(eni)?.subnet.clone()),
            (None, Some(subnet)) if self.subnets.contains_key(subnet) => Ok(subnet.clone()),
            (None, Some(subnet)) => Err(ApiError::subnet_not_found(subnet.as_str())),
            (None, None) => Err(ApiError::client(
                "VPCIdNotSpecified",
                "No default VPC for this user. Specify a subnet for the instance.",
            )),
        }
    }

    fn launch_interface(
        &mut self,
        instance: &InstanceId,
        run: &RunInstances,
        launch: &LaunchInterface,
    ) -> Result<(), ApiError> {
        let zone = self.instances.get(instance).map(|record| record.zone.clone());
        let subnet = self.subnet_of_launch(launch)?;
        if self.subnets.get(&subnet).map(|subnet| &subnet.info.zone) != zone.as_ref() {
            return Err(ApiError::invalid_combination(
                "Network interfaces of an instance must be in one availability zone",
            ));
        }
        let record = self.instances.get(instance).ok_or_else(ApiError::internal)?;
        let card = self.check_room(record, launch.device_index, launch.network_card)?;
        let eni: EniId = if let Some(existing) = &launch.existing {
            if self.found_interface(existing)?.attachment.is_some() {
                return Err(in_use(existing));
            }
            existing.clone()
        } else {
            let create = CreateInterface {
                subnet: Some(subnet.clone()),
                primary_ip: launch.primary_ip,
                secondary: launch.secondary.clone(),
                security_groups: launch.security_groups.clone(),
                description: launch.description.clone(),
                interface_type: None,
                tags: run.interface_tags.clone(),
                client_token: None,
            };
            let made = self.make_interface(&create).map_err(|error| {
                if error == ApiError::more_than_free() {
                    ApiError::no_room_for_instances(subnet.as_str())
                } else {
                    error
                }
            });
            made?.id
        };
        let delete = launch.delete_on_termination.unwrap_or_else(|| launch.existing.is_none());
        self.plug(&eni, instance, launch.device_index, card, delete)?;
        // The interfaces of a launch are in the instance from its first moment.
        self.change_interface(&eni, |interface| {
            if let Some(attachment) = interface.attachment.as_mut() {
                attachment.status = AttachStatus::Attached;
                attachment.plugged = true;
            }
        });
        self.publish_metadata(&eni, true);
        Ok(())
    }

    pub(super) fn terminate_instances(&mut self, ids: &[InstanceId]) -> Result<Response, ApiError> {
        self.change_states(ids, |model, id, state| match state {
            InstanceState::ShuttingDown | InstanceState::Terminated => Ok(state),
            _ => {
                model.set_state(id, InstanceState::ShuttingDown);
                model.schedule(|timing| timing.shutdown, Due::Terminated(id.clone()));
                Ok(InstanceState::ShuttingDown)
            }
        })
    }

    pub(super) fn stop_instances(&mut self, ids: &[InstanceId]) -> Result<Response, ApiError> {
        self.change_states(ids, |model, id, state| match state {
            InstanceState::Running => {
                model.set_state(id, InstanceState::Stopping);
                model.schedule(|timing| timing.shutdown, Due::Stopped(id.clone()));
                Ok(InstanceState::Stopping)
            }
            InstanceState::Stopping | InstanceState::Stopped => Ok(state),
            _ => Err(incorrect_instance_state(id, "stopped")),
        })
    }

    pub(super) fn start_instances(&mut self, ids: &[InstanceId]) -> Result<Response, ApiError> {
        self.change_states(ids, |model, id, state| match state {
            InstanceState::Stopped => {
                model.set_state(id, InstanceState::Pending);
                model.schedule(|timing| timing.boot, Due::Running(id.clone()));
                Ok(InstanceState::Pending)
            }
            InstanceState::Pending | InstanceState::Running => Ok(state),
            _ => Err(incorrect_instance_state(id, "started")),
        })
    }

    fn change_states(
        &mut self,
        ids: &[InstanceId],
        mut change: impl FnMut(&mut Self, &InstanceId, InstanceState) -> Result<InstanceState, ApiError>,
    ) -> Result<Response, ApiError> {
        if ids.is_empty() {
            return Err(ApiError::missing("InstanceId"));
        }
        self.all_found(ids)?;
        let mut changes = Vec::new();
        for id in ids {
            let previous = self.found_instance(id)?.state;
            let current = change(self, id, previous)?;
            changes.push(StateChange { instance: id.clone(), previous, current });
        }
        Ok(Response::StateChanges(changes))
    }

    /// The instance as calls find it.
    pub(super) fn found_instance(&self, id: &InstanceId) -> Result<&InstanceRecord, ApiError> {
        self.instances
            .get(id)
            .filter(|instance| instance.visible_at <= self.now)
            .ok_or_else(|| ApiError::instance_not_found(id.as_str()))
    }

    fn all_found(&self, ids: &[InstanceId]) -> Result<(), ApiError> {
        let missing: Vec<&str> =
            ids.iter().filter(|id| self.found_instance(id).is_err()).map(InstanceId::as_str).collect();
        if missing.is_empty() { Ok(()) } else { Err(ApiError::instances_not_found(&missing)) }
    }

    pub(super) fn describe_instances(&self, describe: &Describe<InstanceId>) -> Result<Response, ApiError> {
        check(&describe.filters, INSTANCES)?;
        describe.page.check(!describe.ids.is_empty(), "instancesSet")?;
        self.all_found(&describe.ids)?;
        let named: Box<dyn Iterator<Item = &InstanceRecord>> = if describe.ids.is_empty() {
            Box::new(self.instances.values())
        } else {
            Box::new(describe.ids.iter().filter_map(|id| self.instances.get(id)))
        };
        let found = named
            .filter(|instance| instance.visible_at <= self.now)
            .filter(|instance| passes(&describe.filters, |name| self.instance_values(instance, name)))
            .map(|instance| self.view(instance));
        describe.page.cut(found, |instance| instance.id.as_str()).map(Response::Instances)
    }

    pub(super) fn view(&self, instance: &InstanceRecord) -> InstanceView {
        let mut interfaces: Vec<Interface> =
            instance.interfaces.iter().filter_map(|id| self.interface(id)).cloned().collect();
        interfaces.sort_by_key(|eni| eni.attachment.as_ref().map(|a| (a.network_card, a.device_index)));
        InstanceView {
            id: instance.id.clone(),
            reservation: instance.reservation.clone(),
            state: instance.state,
            instance_type: instance.instance_type().clone(),
            image: instance.image.clone(),
            vpc: instance.vpc.clone(),
            subnet: instance.subnet.clone(),
            zone: instance.zone.clone(),
            launch_time: instance.launch_time,
            launch_index: instance.launch_index,
            client_token: instance.client_token.clone(),
            tags: instance.tags.clone(),
            interfaces,
        }
    }

    pub(super) fn describe_instance_types(describe: &Describe<InstanceType>) -> Result<Response, ApiError> {
        check(&describe.filters, TYPES)?;
        describe.page.check_within(&MAX_TYPES, !describe.ids.is_empty(), "instanceTypes")?;
        let unknown: Vec<&str> =
            describe.ids.iter().filter(|name| types::find(name).is_none()).map(InstanceType::as_str).collect();
        if !unknown.is_empty() {
            let message = format!("The following supplied instance types do not exist: [{}]", unknown.join(", "));
            return Err(ApiError::client("InvalidInstanceType", message));
        }
        let mut found: Vec<TypeInfo> = if describe.ids.is_empty() {
            types::all().collect()
        } else {
            describe.ids.iter().filter_map(types::find).collect()
        };
        found.retain(|info| passes(&describe.filters, |name| type_values(info, name)));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        describe.page.cut(found, |info| info.name.as_str()).map(Response::InstanceTypes)
    }
}

fn incorrect_instance_state(id: &InstanceId, wanted: &str) -> ApiError {
    let message = format!("The instance '{id}' is not in a state from which it can be {wanted}.");
    ApiError::client("IncorrectInstanceState", message)
}
