//! `pool::ec2::Ec2` in this process: the model behind the same port that the AWS SDK adapter serves, for soak, crash and
//! fleet tests. Answers come after the model's latency; a lost answer comes as `NoAnswer`.

use std::net::Ipv4Addr;

use enipool_pool::ec2::{
    Action, Assigned, Attachment, CreateEni, Ec2, Ec2Error, Ec2ErrorKind, Eni, EniFilter, EniStatus, Instance,
    InstanceTypeLimits, SecurityGroup, Selector, Subnet, Supply, Tags,
};
use enipool_pool::{AttachmentId, EniId, InstanceId, InstanceType, Prefix, SecurityGroupId, SubnetId};

use crate::model::filter::Filter;
use crate::model::interface::status_name;
use crate::model::page::PageRequest;
use crate::model::request::{
    Assign, AttachInterface, CreateInterface, Describe, InterfaceChange, ModifyInterface, Unassign, Wanted,
};
use crate::model::resource::{AttachStatus, InstanceView, Interface};
use crate::model::{ApiError, Request, Response};
use crate::shared::SharedModel;

/// A caller of the model, by name (the name stands where the wire protocol has an access key).
#[derive(Debug, Clone)]
pub struct SimEc2 {
    shared: SharedModel,
    caller: String,
}

/// Pages that the port asks for.
const PAGE: u32 = 1000;

impl SimEc2 {
    pub fn new(shared: SharedModel, caller: impl Into<String>) -> Self {
        Self { shared, caller: caller.into() }
    }

    async fn call(&self, action: Action, request: Request) -> Result<Response, Ec2Error> {
        let reply = self.shared.with(|model| model.call(&self.caller, &request));
        self.shared.wait(reply.latency).await;
        if !reply.answered {
            return Err(Ec2Error::new(action, Ec2ErrorKind::NoAnswer));
        }
        reply.result.map_err(|error| {
            let prefixes = match &request {
                Request::CreateNetworkInterface(create) => create.secondary.prefix_count.is_some(),
                Request::AssignPrivateIpAddresses(assign) => assign.wanted.prefix_count.is_some(),
                _ => false,
            };
            to_port_error(action, &error, prefixes)
        })
    }

    /// All pages of a describe call.
    async fn pages<Id: Clone, T>(
        &self,
        action: Action,
        describe: Describe<Id>,
        request: impl Fn(Describe<Id>) -> Request,
        items: impl Fn(Response) -> Option<(Vec<T>, Option<String>)>,
    ) -> Result<Vec<T>, Ec2Error> {
        let mut all = Vec::new();
        let mut describe = describe;
        if describe.ids.is_empty() {
            describe.page.max_results = Some(PAGE);
        }
        loop {
            let response = self.call(action, request(describe.clone())).await?;
            let (page, next) = items(response).ok_or_else(|| unexpected(action))?;
            all.extend(page);
            match next {
                Some(token) => describe.page = PageRequest { next_token: Some(token), ..describe.page },
                None => return Ok(all),
            }
        }
    }

    async fn done(&self, action: Action, request: Request) -> Result<(), Ec2Error> {
        self.call(action, request).await.map(|_| ())
    }
}

fn unexpected(action: Action) -> Ec2Error {
    Ec2Error::new(action, Ec2ErrorKind::Unexpected)
}

/// EC2's codes as the pool's closed set. `prefixes`: the call asked for prefixes, so that single addresses may be left.
fn to_port_error(action: Action, error: &ApiError, prefixes: bool) -> Ec2Error {
    let message = error.message.as_str();
    let kind = match error.code.as_ref() {
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" => Ec2ErrorKind::Throttled,
        "InsufficientFreeAddressesInSubnet" => Ec2ErrorKind::SubnetExhausted,
        "InsufficientCidrBlocks" => Ec2ErrorKind::NoContiguousPrefix,
        "AttachmentLimitExceeded" => Ec2ErrorKind::AttachmentLimit,
        "PrivateIpAddressLimitExceeded" => Ec2ErrorKind::AddressLimit,
        "NetworkInterfaceLimitExceeded" => Ec2ErrorKind::AccountLimit,
        "IncorrectState" | "IncorrectInstanceState" => Ec2ErrorKind::InstanceNotRunning,
        "InvalidNetworkInterfaceID.NotFound" => Ec2ErrorKind::EniNotFound,
        "InvalidInstanceID.NotFound" => Ec2ErrorKind::InstanceNotFound,
        "InvalidAttachmentID.NotFound" => Ec2ErrorKind::AttachmentNotFound,
        "InvalidNetworkInterface.InUse" => Ec2ErrorKind::EniInUse,
        "InvalidParameterValue" if message.contains("sufficient free") && prefixes => Ec2ErrorKind::NoContiguousPrefix,
        "InvalidParameterValue" if message.contains("sufficient free") => Ec2ErrorKind::SubnetExhausted,
        "InvalidParameterValue" if message.contains("device index") => Ec2ErrorKind::DeviceIndexInUse,
        "InvalidParameterValue" if message.contains("currently in use") => Ec2ErrorKind::EniInUse,
        "InvalidParameterValue" if message.contains("are not assigned to interface") => {
            Ec2ErrorKind::AddressNotAssigned
        }
        "IdempotentParameterMismatch" => Ec2ErrorKind::TokenMismatch,
        "UnauthorizedOperation" | "AccessDenied" => Ec2ErrorKind::AccessDenied,
        "AuthFailure" | "ExpiredToken" | "RequestExpired" | "InvalidClientTokenId" => Ec2ErrorKind::Credentials,
        _ if error.status >= 500 => Ec2ErrorKind::Internal,
        _ => Ec2ErrorKind::Unexpected,
    };
    Ec2Error { action, kind, message: Some(error.to_string()) }
}

fn to_port_eni(eni: Interface) -> Eni {
    let status = match eni.attachment.as_ref().map(|attachment| attachment.status) {
        Some(AttachStatus::Attaching) => EniStatus::Attaching,
        Some(AttachStatus::Detaching) => EniStatus::Detaching,
        _ => eni.status(),
    };
    Eni {
        status,
        id: eni.id,
        interface_type: eni.interface_type,
        mac: eni.mac,
        vpc: eni.vpc,
        subnet: eni.subnet,
        zone: eni.zone,
        primary_ip: eni.primary_ip,
        secondary_ips: eni.secondary_ips,
        prefixes: eni.prefixes,
        security_groups: eni.security_groups,
        attachment: eni.attachment.map(|attachment| Attachment {
            id: attachment.id,
            instance: Some(attachment.instance),
            device_index: attachment.device_index,
            network_card: attachment.network_card,
            delete_on_termination: attachment.delete_on_termination,
        }),
        description: eni.description,
        tags: eni.tags,
    }
}

fn to_port_instance(instance: InstanceView) -> Instance {
    Instance {
        device_indexes: instance
            .interfaces
            .iter()
            .filter_map(|eni| eni.attachment.as_ref().map(|a| (a.device_index, a.network_card)))
            .collect(),
        id: instance.id,
        state: instance.state,
        instance_type: instance.instance_type,
        vpc: Some(instance.vpc),
        subnet: Some(instance.subnet),
        zone: instance.zone,
    }
}

fn selector_filters<Id>(selector: &Selector<Id>) -> Vec<Filter> {
    let mut filters = tag_filters(&selector.tags);
    filters.extend(selector.vpc.iter().map(|vpc| Filter::new("vpc-id", [vpc.as_str()])));
    filters.extend(selector.zone.iter().map(|zone| Filter::new("availability-zone", [zone.as_str()])));
    filters
}

fn tag_filters(tags: &Tags) -> Vec<Filter> {
    tags.iter().map(|(key, value)| Filter::new(format!("tag:{key}"), [value.as_str()])).collect()
}

fn wanted(supply: Supply) -> Wanted {
    match supply {
        Supply::Addresses(count) => Wanted::addresses(count),
        Supply::Prefixes(count) => Wanted::prefixes(count),
    }
}

impl Ec2 for SimEc2 {
    async fn describe_instances(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, Ec2Error> {
        self.pages(
            Action::DescribeInstances,
            Describe::ids(ids.iter().cloned()),
            Request::DescribeInstances,
            |response| match response {
                Response::Instances(page) => {
                    Some((page.items.into_iter().map(to_port_instance).collect(), page.next_token))
                }
                _ => None,
            },
        )
        .await
    }

    async fn describe_instance_type(&self, instance_type: &InstanceType) -> Result<InstanceTypeLimits, Ec2Error> {
        let action = Action::DescribeInstanceTypes;
        let request = Request::DescribeInstanceTypes(Describe::ids([instance_type.clone()]));
        match self.call(action, request).await? {
            Response::InstanceTypes(page) => {
                page.items.into_iter().next().map(|info| info.limits).ok_or_else(|| unexpected(action))
            }
            _ => Err(unexpected(action)),
        }
    }

    async fn describe_subnets(&self, selector: &Selector<SubnetId>) -> Result<Vec<Subnet>, Ec2Error> {
        let describe =
            Describe { ids: selector.ids.clone(), filters: selector_filters(selector), page: PageRequest::default() };
        self.pages(Action::DescribeSubnets, describe, Request::DescribeSubnets, |response| match response {
            Response::Subnets(page) => {
                let subnets = page.items.into_iter().map(|subnet| Subnet {
                    id: subnet.info.id,
                    vpc: subnet.info.vpc,
                    zone: subnet.info.zone,
                    cidr: subnet.info.cidr,
                    available_ips: subnet.available_ips,
                    tags: subnet.info.tags,
                });
                Some((subnets.collect(), page.next_token))
            }
            _ => None,
        })
        .await
    }

    async fn describe_security_groups(
        &self,
        selector: &Selector<SecurityGroupId>,
    ) -> Result<Vec<SecurityGroup>, Ec2Error> {
        let describe = Describe {
            ids: selector.ids.clone(),
            // Security groups have no zone.
            filters: selector_filters(&Selector { zone: None, ..selector.clone() }),
            page: PageRequest::default(),
        };
        self.pages(Action::DescribeSecurityGroups, describe, Request::DescribeSecurityGroups, |response| match response
        {
            Response::SecurityGroups(page) => {
                let groups = page.items.into_iter().map(|group| SecurityGroup {
                    id: group.id,
                    vpc: group.vpc,
                    name: group.name,
                    tags: group.tags,
                });
                Some((groups.collect(), page.next_token))
            }
            _ => None,
        })
        .await
    }

    async fn describe_network_interfaces(&self, filter: &EniFilter) -> Result<Vec<Eni>, Ec2Error> {
        let action = Action::DescribeNetworkInterfaces;
        let mut filters = tag_filters(&filter.tags);
        // Ids as a filter: those that do not exist are then left out, not an error.
        if !filter.ids.is_empty() {
            filters.push(Filter::new("network-interface-id", filter.ids.iter().map(EniId::as_str)));
        }
        filters.extend(filter.instance.iter().map(|id| Filter::new("attachment.instance-id", [id.as_str()])));
        filters.extend(filter.vpc.iter().map(|id| Filter::new("vpc-id", [id.as_str()])));
        filters.extend(filter.status.map(|status| Filter::new("status", [status_name(status)])));
        filters.extend(filter.tag_keys.iter().map(|key| Filter::new("tag-key", [key.as_str()])));
        if filters.is_empty() {
            let message = Some("a filter must name something".to_owned());
            return Err(Ec2Error { action, kind: Ec2ErrorKind::Unexpected, message });
        }
        self.pages(action, Describe::filtered(filters), Request::DescribeNetworkInterfaces, |response| match response {
            Response::Interfaces(page) => Some((page.items.into_iter().map(to_port_eni).collect(), page.next_token)),
            _ => None,
        })
        .await
    }

    async fn create_network_interface(&self, request: &CreateEni) -> Result<Eni, Ec2Error> {
        let action = Action::CreateNetworkInterface;
        let create = CreateInterface {
            subnet: Some(request.subnet.clone()),
            primary_ip: None,
            secondary: wanted(request.supply),
            security_groups: request.security_groups.clone(),
            description: request.description.clone(),
            interface_type: None,
            tags: request.tags.clone(),
            client_token: Some(request.client_token.to_string()),
        };
        match self.call(action, Request::CreateNetworkInterface(create)).await? {
            Response::Interface(interface) => Ok(to_port_eni(*interface)),
            _ => Err(unexpected(action)),
        }
    }

    async fn attach_network_interface(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: u32,
    ) -> Result<AttachmentId, Ec2Error> {
        let action = Action::AttachNetworkInterface;
        let attach =
            AttachInterface { interface: eni.clone(), instance: instance.clone(), device_index, network_card: 0 };
        match self.call(action, Request::AttachNetworkInterface(attach)).await? {
            Response::Attached { attachment, .. } => Ok(attachment),
            _ => Err(unexpected(action)),
        }
    }

    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
        delete: bool,
    ) -> Result<(), Ec2Error> {
        let change = InterfaceChange::DeleteOnTermination { attachment: attachment.clone(), delete };
        let modify = ModifyInterface { interface: eni.clone(), change };
        self.done(Action::ModifyNetworkInterfaceAttribute, Request::ModifyNetworkInterfaceAttribute(modify)).await
    }

    async fn set_security_groups(&self, eni: &EniId, groups: &[SecurityGroupId]) -> Result<(), Ec2Error> {
        let change = InterfaceChange::SecurityGroups(groups.to_vec());
        let modify = ModifyInterface { interface: eni.clone(), change };
        self.done(Action::ModifyNetworkInterfaceAttribute, Request::ModifyNetworkInterfaceAttribute(modify)).await
    }

    async fn detach_network_interface(&self, attachment: &AttachmentId, force: bool) -> Result<(), Ec2Error> {
        let request = Request::DetachNetworkInterface { attachment: attachment.clone(), force };
        self.done(Action::DetachNetworkInterface, request).await
    }

    async fn delete_network_interface(&self, eni: &EniId) -> Result<(), Ec2Error> {
        self.done(Action::DeleteNetworkInterface, Request::DeleteNetworkInterface(eni.clone())).await
    }

    async fn assign(&self, eni: &EniId, supply: Supply) -> Result<Assigned, Ec2Error> {
        let action = Action::AssignPrivateIpAddresses;
        let assign = Assign { interface: eni.clone(), wanted: wanted(supply), allow_reassignment: false };
        match self.call(action, Request::AssignPrivateIpAddresses(assign)).await? {
            Response::Assigned { assigned, .. } => {
                Ok(Assigned { addresses: assigned.addresses, prefixes: assigned.prefixes })
            }
            _ => Err(unexpected(action)),
        }
    }

    async fn unassign(&self, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Prefix]) -> Result<(), Ec2Error> {
        let unassign = Unassign { interface: eni.clone(), addresses: addresses.to_vec(), prefixes: prefixes.to_vec() };
        self.done(Action::UnassignPrivateIpAddresses, Request::UnassignPrivateIpAddresses(unassign)).await
    }

    async fn create_tags(&self, eni: &EniId, tags: &Tags) -> Result<(), Ec2Error> {
        let request = Request::CreateTags { resources: vec![eni.to_string()], tags: tags.clone() };
        self.done(Action::CreateTags, request).await
    }
}
