//! EC2 behind [`Ec2`]: one SDK call for each method (one for each page of a describe), translated both ways.

mod convert;
mod errors;

use std::fmt;
use std::net::Ipv4Addr;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, NetworkInterfaceAttachmentChanges, ResourceType, Tag, TagSpecification};
use enipool_pool::ec2::{
    Action, Assigned, CreateEni, Ec2, Ec2Error, Eni, EniFilter, EniStatus, Instance, InstanceTypeLimits, SecurityGroup,
    Selector, Subnet, Supply, Tags,
};
use enipool_pool::{AttachmentId, EniId, InstanceId, InstanceType, Prefix, SecurityGroupId, SubnetId};

use self::convert::Missing;
use self::errors::{failed, for_supply, unreadable};

/// Entries of a page: EC2's greatest. Paginated calls draw on a larger bucket than unpaginated ones.
const PAGE: i32 = 1000;
/// Values that EC2 takes in one filter.
const FILTER_VALUES_MAX: usize = 200;

/// EC2 in one region, with one set of credentials. Cheap to clone.
#[derive(Clone)]
pub struct AwsEc2(Client);

impl AwsEc2 {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    async fn describe_enis(&self, filters: Vec<Filter>) -> Result<Vec<Eni>, Ec2Error> {
        const ACTION: Action = Action::DescribeNetworkInterfaces;
        let request = self.0.describe_network_interfaces().set_filters(Some(filters)).max_results(PAGE);
        let mut pages = request.into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(ACTION, &error))?;
            for eni in page.network_interfaces() {
                all.push(read(ACTION, convert::eni(eni))?);
            }
        }
        Ok(all)
    }
}

impl fmt::Debug for AwsEc2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsEc2")
    }
}

impl Ec2 for AwsEc2 {
    async fn describe_instances(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, Ec2Error> {
        const ACTION: Action = Action::DescribeInstances;
        let ids = ids.iter().map(InstanceId::to_string).collect();
        let mut pages = self.0.describe_instances().set_instance_ids(Some(ids)).into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(ACTION, &error))?;
            for instance in page.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances) {
                all.push(read(ACTION, convert::instance(instance))?);
            }
        }
        Ok(all)
    }

    async fn describe_instance_type(&self, instance_type: &InstanceType) -> Result<InstanceTypeLimits, Ec2Error> {
        const ACTION: Action = Action::DescribeInstanceTypes;
        let name = aws_sdk_ec2::types::InstanceType::from(instance_type.as_str());
        let answer = self.0.describe_instance_types().instance_types(name).send().await;
        let answer = answer.map_err(|error| failed(ACTION, &error))?;
        let info = answer.instance_types().first();
        let info = info.ok_or_else(|| unreadable(ACTION, format!("EC2 does not know {instance_type}")))?;
        read(ACTION, convert::limits(info))
    }

    async fn describe_subnets(&self, selector: &Selector<SubnetId>) -> Result<Vec<Subnet>, Ec2Error> {
        const ACTION: Action = Action::DescribeSubnets;
        let filters = selection("subnet-id", selector, SubnetId::as_str);
        let mut pages = self.0.describe_subnets().set_filters(Some(filters)).max_results(PAGE).into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(ACTION, &error))?;
            for subnet in page.subnets() {
                all.push(read(ACTION, convert::subnet(subnet))?);
            }
        }
        Ok(all)
    }

    async fn describe_security_groups(
        &self,
        selector: &Selector<SecurityGroupId>,
    ) -> Result<Vec<SecurityGroup>, Ec2Error> {
        const ACTION: Action = Action::DescribeSecurityGroups;
        let filters = selection("group-id", selector, SecurityGroupId::as_str);
        let mut pages =
            self.0.describe_security_groups().set_filters(Some(filters)).max_results(PAGE).into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(ACTION, &error))?;
            for group in page.security_groups() {
                all.push(read(ACTION, convert::security_group(group))?);
            }
        }
        Ok(all)
    }

    async fn describe_network_interfaces(&self, filter: &EniFilter) -> Result<Vec<Eni>, Ec2Error> {
        let filters = interface_filters(filter);
        if filters.is_empty() && filter.ids.is_empty() {
            // Every interface of the account: nobody of ours means that.
            return Err(unreadable(Action::DescribeNetworkInterfaces, "refused to describe without a filter"));
        }
        if filter.ids.is_empty() {
            return self.describe_enis(filters).await;
        }
        // By filter, not by id: one id that is gone would fail the call for all.
        let mut all = Vec::new();
        for ids in filter.ids.chunks(FILTER_VALUES_MAX) {
            let mut filters = filters.clone();
            filters.push(by("network-interface-id", ids.iter().map(EniId::as_str)));
            all.extend(self.describe_enis(filters).await?);
        }
        Ok(all)
    }

    async fn create_network_interface(&self, request: &CreateEni) -> Result<Eni, Ec2Error> {
        const ACTION: Action = Action::CreateNetworkInterface;
        let mut call = self
            .0
            .create_network_interface()
            .subnet_id(request.subnet.as_str())
            .description(&request.description)
            .client_token(request.client_token.as_str())
            .set_groups(Some(request.security_groups.iter().map(SecurityGroupId::to_string).collect()));
        call = match request.supply {
            Supply::Addresses(0) | Supply::Prefixes(0) => call,
            Supply::Addresses(count) => call.secondary_private_ip_address_count(clamped(count)),
            Supply::Prefixes(count) => call.ipv4_prefix_count(clamped(count)),
        };
        if !request.tags.is_empty() {
            let resource = TagSpecification::builder().resource_type(ResourceType::NetworkInterface);
            call = call.tag_specifications(resource.set_tags(Some(tag_list(&request.tags))).build());
        }
        let answer = call.send().await.map_err(|error| for_supply(failed(ACTION, &error), request.supply))?;
        let eni = answer.network_interface().ok_or_else(|| unreadable(ACTION, "the answer has no networkInterface"))?;
        read(ACTION, convert::eni(eni))
    }

    async fn attach_network_interface(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: u32,
    ) -> Result<AttachmentId, Ec2Error> {
        const ACTION: Action = Action::AttachNetworkInterface;
        let call = self.0.attach_network_interface().network_interface_id(eni.as_str()).instance_id(instance.as_str());
        let answer = call.device_index(clamped(device_index)).send().await.map_err(|error| failed(ACTION, &error))?;
        let id = answer.attachment_id().and_then(|id| id.parse().ok());
        id.ok_or_else(|| unreadable(ACTION, "the answer has no attachmentId"))
    }

    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
        delete: bool,
    ) -> Result<(), Ec2Error> {
        let changes = NetworkInterfaceAttachmentChanges::builder()
            .attachment_id(attachment.as_str())
            .delete_on_termination(delete)
            .build();
        let call = self.0.modify_network_interface_attribute().network_interface_id(eni.as_str()).attachment(changes);
        done(call.send().await.map_err(|error| failed(Action::ModifyNetworkInterfaceAttribute, &error)))
    }

    async fn set_security_groups(&self, eni: &EniId, groups: &[SecurityGroupId]) -> Result<(), Ec2Error> {
        let groups = groups.iter().map(SecurityGroupId::to_string).collect();
        let call = self.0.modify_network_interface_attribute().network_interface_id(eni.as_str());
        let call = call.set_groups(Some(groups));
        done(call.send().await.map_err(|error| failed(Action::ModifyNetworkInterfaceAttribute, &error)))
    }

    async fn detach_network_interface(&self, attachment: &AttachmentId, force: bool) -> Result<(), Ec2Error> {
        let call = self.0.detach_network_interface().attachment_id(attachment.as_str()).force(force);
        done(call.send().await.map_err(|error| failed(Action::DetachNetworkInterface, &error)))
    }

    async fn delete_network_interface(&self, eni: &EniId) -> Result<(), Ec2Error> {
        let call = self.0.delete_network_interface().network_interface_id(eni.as_str());
        done(call.send().await.map_err(|error| failed(Action::DeleteNetworkInterface, &error)))
    }

    async fn assign(&self, eni: &EniId, supply: Supply) -> Result<Assigned, Ec2Error> {
        const ACTION: Action = Action::AssignPrivateIpAddresses;
        let call = self.0.assign_private_ip_addresses().network_interface_id(eni.as_str());
        let call = match supply {
            Supply::Addresses(count) => call.secondary_private_ip_address_count(clamped(count)),
            Supply::Prefixes(count) => call.ipv4_prefix_count(clamped(count)),
        };
        let answer = call.send().await.map_err(|error| for_supply(failed(ACTION, &error), supply))?;
        let addresses: Result<Vec<Ipv4Addr>, Missing> = answer
            .assigned_private_ip_addresses()
            .iter()
            .map(|assigned| convert::address("privateIpAddress", assigned.private_ip_address()))
            .collect();
        Ok(Assigned {
            addresses: read(ACTION, addresses)?,
            prefixes: read(ACTION, convert::prefixes(answer.assigned_ipv4_prefixes()))?,
        })
    }

    async fn unassign(&self, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Prefix]) -> Result<(), Ec2Error> {
        let texts = |texts: Vec<String>| if texts.is_empty() { None } else { Some(texts) };
        let call = self
            .0
            .unassign_private_ip_addresses()
            .network_interface_id(eni.as_str())
            .set_private_ip_addresses(texts(addresses.iter().map(Ipv4Addr::to_string).collect()))
            .set_ipv4_prefixes(texts(prefixes.iter().map(Prefix::to_string).collect()));
        done(call.send().await.map_err(|error| failed(Action::UnassignPrivateIpAddresses, &error)))
    }

    async fn create_tags(&self, eni: &EniId, tags: &Tags) -> Result<(), Ec2Error> {
        let call = self.0.create_tags().resources(eni.as_str()).set_tags(Some(tag_list(tags)));
        done(call.send().await.map_err(|error| failed(Action::CreateTags, &error)))
    }
}

fn read<T>(action: Action, value: Result<T, Missing>) -> Result<T, Ec2Error> {
    value.map_err(|missing| unreadable(action, missing))
}

fn done<T>(answer: Result<T, Ec2Error>) -> Result<(), Ec2Error> {
    answer.map(|_| ())
}

/// EC2 takes signed numbers; ours are counts of slots and indexes, far below the bound.
fn clamped(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn by<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.map(str::to_owned).collect())).build()
}

fn tag_list(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

fn tag_filters(tags: &Tags) -> impl Iterator<Item = Filter> {
    tags.iter().map(|(key, value)| by(&format!("tag:{key}"), [value.as_str()].into_iter()))
}

fn selection<Id>(id_filter: &str, selector: &Selector<Id>, text: impl Fn(&Id) -> &str) -> Vec<Filter> {
    let mut filters = Vec::new();
    if !selector.ids.is_empty() {
        filters.push(by(id_filter, selector.ids.iter().map(text)));
    }
    if let Some(vpc) = &selector.vpc {
        filters.push(by("vpc-id", [vpc.as_str()].into_iter()));
    }
    if let Some(zone) = &selector.zone {
        filters.push(by("availability-zone", [zone.as_str()].into_iter()));
    }
    filters.extend(tag_filters(&selector.tags));
    filters
}

fn interface_filters(filter: &EniFilter) -> Vec<Filter> {
    let mut filters = Vec::new();
    if let Some(instance) = &filter.instance {
        filters.push(by("attachment.instance-id", [instance.as_str()].into_iter()));
    }
    if let Some(vpc) = &filter.vpc {
        filters.push(by("vpc-id", [vpc.as_str()].into_iter()));
    }
    match filter.status {
        Some(EniStatus::Available) => filters.push(by("status", ["available"].into_iter())),
        // EC2's filter knows the interface's own status only, which is in-use from the attach call on.
        Some(EniStatus::InUse | EniStatus::Attaching | EniStatus::Detaching) => {
            filters.push(by("status", ["in-use"].into_iter()));
        }
        Some(EniStatus::Associated) => filters.push(by("status", ["associated"].into_iter())),
        Some(EniStatus::Pending) => filters.push(by("status", ["pending"].into_iter())),
        None => {}
    }
    filters.extend(tag_filters(&filter.tags));
    if !filter.tag_keys.is_empty() {
        // Filters of one name are ORed by EC2, so each key has to be a filter of its own.
        filters.extend(filter.tag_keys.iter().map(|key| by("tag-key", [key.as_str()].into_iter())));
    }
    filters
}
