//! Network interfaces: create, delete, modify, describe.

use enipool_pool::ec2::{EniStatus, InterfaceType};
use enipool_pool::{EniId, SecurityGroupId, SubnetId, VpcId};

use super::Model;
use super::error::ApiError;
use super::event::Event;
use super::filter::{check, exact, passes};
use super::filters::INTERFACES;
use super::lifecycle::Due;
use super::replicated::Replicated;
use super::request::{CreateInterface, Describe, InterfaceChange, ModifyInterface, Response};
use super::resource::Interface;
use super::tags::check_tags;

/// Security groups of one interface (the default of an adjustable quota).
const MAX_GROUPS: usize = 5;

impl Model {
    pub(super) fn create_interface(&mut self, create: &CreateInterface) -> Result<Response, ApiError> {
        let Some(token) = create.client_token.as_deref() else {
            return self.make_interface(create).map(|eni| Response::Interface(Box::new(eni)));
        };
        let parameters = format!("{:?}", CreateInterface { client_token: None, ..create.clone() });
        let action = "CreateNetworkInterface";
        if let Some(made) = self.tokens.look_up(action, token, &parameters, self.now)? {
            // The interface as it is by now; EC2 says so when it has been deleted since.
            let id = made.first().and_then(|id| id.parse().ok()).ok_or_else(ApiError::internal)?;
            let interface = self.interface(&id).ok_or_else(|| ApiError::eni_not_found(id.as_str()))?;
            return Ok(Response::Interface(Box::new(interface.clone())));
        }
        let interface = self.make_interface(create)?;
        self.tokens.remember(action, token, parameters, vec![interface.id.to_string()], self.now);
        Ok(Response::Interface(Box::new(interface)))
    }

    pub(super) fn make_interface(&mut self, create: &CreateInterface) -> Result<Interface, ApiError> {
        let id = create.subnet.as_ref().ok_or_else(|| ApiError::missing("subnetId"))?;
        let subnet = self.subnets.get(id).ok_or_else(|| ApiError::subnet_not_found(id.as_str()))?;
        let info = subnet.info.clone();
        let security_groups = self.groups_or_default(&create.security_groups, &info.vpc)?;
        check_tags(&create.tags)?;
        if self.live_enis >= self.config.max_enis {
            return Err(ApiError::client(
                "NetworkInterfaceLimitExceeded",
                format!("The maximum number of network interfaces ({}) has been reached.", self.config.max_enis),
            ));
        }
        let taken = self.take_for_new_interface(id, create.primary_ip, &create.secondary)?;
        let interface = Interface {
            id: self.ids.id("eni")?,
            mac: self.ids.mac(),
            vpc: info.vpc,
            subnet: info.id,
            zone: info.zone,
            primary_ip: taken.primary,
            secondary_ips: taken.secondary.addresses,
            prefixes: taken.secondary.prefixes,
            security_groups,
            attachment: None,
            interface_type: create.interface_type.unwrap_or(InterfaceType::Interface),
            description: create.description.clone(),
            tags: create.tags.clone(),
            source_dest_check: true,
            created: self.now,
        };
        let visible_at = self.visible_at();
        let record = Replicated::created(interface.clone(), self.now, visible_at);
        self.enis.insert(interface.id.clone(), record);
        self.note_unsettled(&interface.id);
        self.live_enis += 1;
        self.publish_free_count(&interface.subnet);
        Ok(interface)
    }

    pub(super) fn delete_interface(&mut self, id: &EniId) -> Result<Response, ApiError> {
        let interface = self.found_interface(id)?;
        if interface.attachment.is_some() {
            return Err(ApiError::invalid_value(format!("Network interface '{id}' is currently in use.")));
        }
        self.remove_interface(id);
        Ok(Response::Done)
    }

    /// The interface goes, its addresses go back to the subnet.
    pub(super) fn remove_interface(&mut self, id: &EniId) {
        let visible_at = self.visible_at();
        let now = self.now;
        let Some(record) = self.enis.get_mut(id) else { return };
        let Some(gone) = record.current().cloned() else { return };
        record.set(None, now, visible_at);
        self.note_unsettled(id);
        self.live_enis -= 1;
        if let Some(subnet) = self.subnets.get_mut(&gone.subnet) {
            for address in gone.addresses() {
                subnet.map.give_back(address);
            }
            for prefix in &gone.prefixes {
                subnet.map.give_back_prefix(*prefix);
            }
        }
        self.publish_free_count(&gone.subnet);
        self.events.push(Event::EniDeleted { eni: id.clone() });
    }

    pub(super) fn modify_interface(&mut self, modify: &ModifyInterface) -> Result<Response, ApiError> {
        let interface = self.found_interface(&modify.interface)?;
        match &modify.change {
            InterfaceChange::DeleteOnTermination { attachment, delete } => {
                if interface.attachment.as_ref().is_none_or(|current| current.id != *attachment) {
                    return Err(ApiError::attachment_not_found(attachment.as_str()));
                }
                self.change_interface(&modify.interface, |interface| {
                    if let Some(current) = interface.attachment.as_mut() {
                        current.delete_on_termination = *delete;
                    }
                });
            }
            InterfaceChange::SecurityGroups(groups) => {
                let vpc = interface.vpc.clone();
                let groups = self.groups_or_default(groups, &vpc)?;
                self.change_interface(&modify.interface, |interface| interface.security_groups = groups);
                self.publish_metadata(&modify.interface, false);
            }
            InterfaceChange::Description(text) => {
                self.change_interface(&modify.interface, |interface| interface.description.clone_from(text));
            }
            InterfaceChange::SourceDestCheck(check) => {
                self.change_interface(&modify.interface, |interface| interface.source_dest_check = *check);
            }
        }
        Ok(Response::Done)
    }

    pub(super) fn groups_or_default(
        &self,
        wanted: &[SecurityGroupId],
        vpc: &VpcId,
    ) -> Result<Vec<SecurityGroupId>, ApiError> {
        if wanted.is_empty() {
            return Ok(self.default_group(vpc).map(|group| group.id.clone()).into_iter().collect());
        }
        if wanted.len() > MAX_GROUPS {
            return Err(ApiError::client(
                "SecurityGroupsPerInterfaceLimitExceeded",
                "The maximum number of security groups per interface has been reached.",
            ));
        }
        for id in wanted {
            let group = self.groups.get(id).ok_or_else(|| ApiError::group_not_found(id.as_str()))?;
            if group.vpc != *vpc {
                return Err(ApiError::invalid_value(format!(
                    "You have specified two resources that belong to different networks: '{id}' is not in '{vpc}'."
                )));
            }
        }
        Ok(wanted.to_vec())
    }

    /// The interface as calls that act on it find it: it must exist, and EC2 must have noticed that it does.
    pub(super) fn found_interface(&self, id: &EniId) -> Result<&Interface, ApiError> {
        self.enis
            .get(id)
            .filter(|record| record.seen(self.now).is_some())
            .and_then(Replicated::current)
            .ok_or_else(|| ApiError::eni_not_found(id.as_str()))
    }

    /// Changes an interface now; describe calls show it later.
    pub(super) fn change_interface<R: Default>(&mut self, id: &EniId, change: impl FnOnce(&mut Interface) -> R) -> R {
        let visible_at = self.visible_at();
        let now = self.now;
        let done = self.enis.get_mut(id).and_then(|record| record.modify(now, visible_at, change));
        self.note_unsettled(id);
        done.unwrap_or_default()
    }

    fn visible_at(&mut self) -> enipool_pool::Timestamp {
        self.now.plus(self.config.timing.visible.draw(&mut self.timing_rng))
    }

    fn note_unsettled(&mut self, id: &EniId) {
        let settled = self.enis.get(id).and_then(Replicated::settled_at).filter(|at| *at > self.now);
        match settled {
            Some(at) => {
                self.unsettled.insert(id.clone());
                self.schedule_at(at, Due::Settled(id.clone()));
            }
            None => self.settle(id),
        }
    }

    pub(super) fn settle(&mut self, id: &EniId) {
        let Some(record) = self.enis.get(id) else { return };
        if record.unsettled(self.now) {
            return;
        }
        self.unsettled.remove(id);
        if record.current().is_none() {
            self.enis.remove(id);
        }
    }

    pub(super) fn describe_interfaces(&self, describe: &Describe<EniId>) -> Result<Response, ApiError> {
        check(&describe.filters, INTERFACES)?;
        describe.page.check(!describe.ids.is_empty(), "networkInterfaceIds")?;
        let narrowed = describe.filters.iter().any(|filter| NARROWING_FILTERS.contains(&filter.name.as_str()));
        if describe.ids.is_empty() && !describe.page.is_paged() && !narrowed && self.live_enis > self.config.max_unpaged
        {
            return Err(ApiError::client(
                "OperationNotPermitted",
                "You have too many network interfaces for a request without pagination. Specify MaxResults.",
            ));
        }
        if describe.ids.is_empty() {
            let shown = self.candidates(describe).filter(|eni| self.passes_interface_filters(eni, describe));
            return describe.page.cut(shown.cloned(), |eni| eni.id.as_str()).map(Response::Interfaces);
        }
        let seen = |id: &EniId| self.enis.get(id).and_then(|record| record.seen(self.now));
        let missing: Vec<&str> = describe.ids.iter().filter(|id| seen(id).is_none()).map(EniId::as_str).collect();
        if !missing.is_empty() {
            return Err(ApiError::enis_not_found(&missing));
        }
        let shown =
            describe.ids.iter().filter_map(seen).filter(|eni| self.passes_interface_filters(eni, describe)).cloned();
        describe.page.cut(shown, |eni| eni.id.as_str()).map(Response::Interfaces)
    }

    /// Interfaces that the filters can match at all: those of the named instances, or everything.
    fn candidates<'a>(&'a self, describe: &'a Describe<EniId>) -> Box<dyn Iterator<Item = &'a Interface> + 'a> {
        let seen = |id: &EniId| self.enis.get(id).and_then(|record| record.seen(self.now));
        match exact(&describe.filters, "attachment.instance-id") {
            Some(instances) => {
                let mut ids: std::collections::BTreeSet<&EniId> = self.unsettled.iter().collect();
                for instance in instances {
                    let record = instance.parse().ok().and_then(|id| self.instances.get(&id));
                    ids.extend(record.into_iter().flat_map(|record| &record.interfaces));
                }
                Box::new(ids.into_iter().filter_map(seen))
            }
            None => Box::new(self.enis.values().filter_map(|record| record.seen(self.now))),
        }
    }

    fn passes_interface_filters(&self, eni: &Interface, describe: &Describe<EniId>) -> bool {
        passes(&describe.filters, |name| self.interface_values(eni, name))
    }

    /// `ip-10-0-1-7.eu-west-1.compute.internal`.
    pub fn private_dns_name(&self, address: std::net::Ipv4Addr) -> String {
        let [a, b, c, d] = address.octets();
        format!("ip-{a}-{b}-{c}-{d}.{}.compute.internal", self.config.region)
    }

    pub(super) fn subnet_of(&self, id: &EniId) -> Option<&SubnetId> {
        self.interface(id).map(|interface| &interface.subnet)
    }
}

/// With one of these, a large account needs no pages
/// ([DescribeNetworkInterfaces](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html)).
const NARROWING_FILTERS: &[&str] =
    &["group-id", "mac-address", "private-dns-name", "private-ip-address", "subnet-id", "vpc-id"];

/// EC2's spelling of an interface's status.
pub fn status_name(status: EniStatus) -> &'static str {
    match status {
        EniStatus::Available => "available",
        EniStatus::Associated => "associated",
        EniStatus::Attaching => "attaching",
        EniStatus::InUse => "in-use",
        EniStatus::Detaching => "detaching",
        EniStatus::Pending => "pending",
    }
}

/// EC2's spelling of an interface's type.
pub fn interface_type_name(kind: InterfaceType) -> &'static str {
    match kind {
        InterfaceType::Interface | InterfaceType::Other => "interface",
        InterfaceType::Trunk => "trunk",
        InterfaceType::Efa => "efa",
    }
}
