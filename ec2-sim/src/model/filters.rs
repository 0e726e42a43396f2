//! Which filters each describe call takes, and what a resource answers to each: those that EC2 documents, as far as
//! there is something here that they could tell apart. All others are refused, so that none is silently without effect.

use enipool_pool::SubnetId;

use super::Model;
use super::filter::tag_values;
use super::interface::{interface_type_name, status_name};
use super::resource::{
    InstanceRecord, Interface, InterfaceAttachment, SecurityGroup, SubnetView, Vpc, state_code, time,
};
use super::types::TypeInfo;

/// [DescribeNetworkInterfaces](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html)
pub const INTERFACES: &[&str] = &[
    "addresses.primary",
    "addresses.private-ip-address",
    "attachment.attach-time",
    "attachment.attachment-id",
    "attachment.delete-on-termination",
    "attachment.device-index",
    "attachment.instance-id",
    "attachment.instance-owner-id",
    "attachment.status",
    "availability-zone",
    "availability-zone-id",
    "description",
    "group-id",
    "interface-type",
    "mac-address",
    "network-interface-id",
    "operator.managed",
    "operator.principal",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "requester-id",
    "requester-managed",
    "source-dest-check",
    "status",
    "subnet-id",
    "tag-key",
    "vpc-id",
];

/// [DescribeInstances](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html)
pub const INSTANCES: &[&str] = &[
    "availability-zone",
    "availability-zone-id",
    "client-token",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "instance.group-id",
    "instance.group-name",
    "launch-index",
    "launch-time",
    "network-interface.addresses.primary",
    "network-interface.addresses.private-dns-name",
    "network-interface.addresses.private-ip-address",
    "network-interface.attachment.attach-time",
    "network-interface.attachment.attachment-id",
    "network-interface.attachment.delete-on-termination",
    "network-interface.attachment.device-index",
    "network-interface.attachment.instance-id",
    "network-interface.attachment.instance-owner-id",
    "network-interface.attachment.network-card-index",
    "network-interface.attachment.status",
    "network-interface.availability-zone",
    "network-interface.description",
    "network-interface.group-id",
    "network-interface.group-name",
    "network-interface.ipv4-prefixes.ipv4-prefix",
    "network-interface.mac-address",
    "network-interface.network-interface-id",
    "network-interface.operator.managed",
    "network-interface.operator.principal",
    "network-interface.owner-id",
    "network-interface.private-dns-name",
    "network-interface.private-ip-address",
    "network-interface.requester-id",
    "network-interface.requester-managed",
    "network-interface.source-dest-check",
    "network-interface.status",
    "network-interface.subnet-id",
    "network-interface.tag-key",
    "network-interface.tag-value",
    "network-interface.vpc-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reservation-id",
    "source-dest-check",
    "subnet-id",
    "tag-key",
    "vpc-id",
];

/// [DescribeSubnets](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html), with the second
/// names that it gives some of them.
pub const SUBNETS: &[&str] = &[
    "availability-zone",
    "availabilityZone",
    "availability-zone-id",
    "availabilityZoneId",
    "available-ip-address-count",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "defaultForAz",
    "ipv6-native",
    "map-public-ip-on-launch",
    "owner-id",
    "state",
    "subnet-arn",
    "subnet-id",
    "tag-key",
    "vpc-id",
];

/// [DescribeVpcs](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVpcs.html)
pub const VPCS: &[&str] = &[
    "cidr",
    "cidr-block-association.association-id",
    "cidr-block-association.cidr-block",
    "cidr-block-association.state",
    "dhcp-options-id",
    "is-default",
    "owner-id",
    "state",
    "tag-key",
    "vpc-id",
];

/// [DescribeSecurityGroups](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html)
pub const GROUPS: &[&str] = &["description", "group-id", "group-name", "owner-id", "tag-key", "vpc-id"];

/// [DescribeInstanceTypes](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html)
pub const TYPES: &[&str] = &[
    "bare-metal",
    "hypervisor",
    "instance-type",
    "network-info.ipv4-addresses-per-interface",
    "network-info.maximum-network-cards",
    "network-info.maximum-network-interfaces",
    "vcpu-info.default-vcpus",
];

/// Every VPC's `dhcpOptionsId`; the options themselves are not simulated.
pub const DHCP_OPTIONS: &str = "dopt-default";

fn one(value: impl ToString) -> Vec<String> {
    all([value])
}

fn all(values: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

impl Model {
    /// `requesterId`: who made the interface.
    pub fn requester_id(&self) -> String {
        format!("AROAENIPOOLSIMULATED0:{}", self.config.iam_role)
    }

    pub fn subnet_arn(&self, id: &SubnetId) -> String {
        format!("arn:aws:ec2:{}:{}:subnet/{id}", self.config.region, self.config.account)
    }

    /// What the interface answers to a filter, in DescribeNetworkInterfaces and (after `network-interface.`) in
    /// DescribeInstances.
    pub(super) fn interface_values(&self, eni: &Interface, name: &str) -> Vec<String> {
        if let Some(name) = name.strip_prefix("attachment.") {
            return self.attachment_values(eni.attachment.as_ref(), name);
        }
        match name {
            "addresses.primary" => all(eni.addresses().map(|address| address == eni.primary_ip)),
            "addresses.private-dns-name" => all(eni.addresses().map(|address| self.private_dns_name(address))),
            // "The private IPv4 address or addresses of the network interface".
            "addresses.private-ip-address" | "private-ip-address" => all(eni.addresses()),
            "availability-zone" => one(&eni.zone),
            "availability-zone-id" => one(self.zone_id(&eni.zone)),
            "description" => one(&eni.description),
            "group-id" => all(&eni.security_groups),
            "group-name" => all(eni.security_groups.iter().filter_map(|id| Some(&self.groups.get(id)?.name))),
            "interface-type" => one(interface_type_name(eni.interface_type)),
            "ipv4-prefixes.ipv4-prefix" => all(&eni.prefixes),
            "mac-address" => one(eni.mac),
            "network-interface-id" => one(&eni.id),
            "operator.managed" | "requester-managed" => one(false),
            "owner-id" => one(&self.config.account),
            "private-dns-name" => one(self.private_dns_name(eni.primary_ip)),
            "requester-id" => one(self.requester_id()),
            "source-dest-check" => one(eni.source_dest_check),
            "status" => one(status_name(eni.status())),
            "subnet-id" => one(&eni.subnet),
            "tag-value" => all(eni.tags.values()),
            "vpc-id" => one(&eni.vpc),
            // `operator.principal` among others: only managed interfaces have one.
            other => tag_values(other, &eni.tags).unwrap_or_default(),
        }
    }

    fn attachment_values(&self, attachment: Option<&InterfaceAttachment>, name: &str) -> Vec<String> {
        let Some(attachment) = attachment else {
            return if name == "status" { one("detached") } else { Vec::new() };
        };
        match name {
            "attach-time" => one(time(attachment.attach_time)),
            "attachment-id" => one(&attachment.id),
            "delete-on-termination" => one(attachment.delete_on_termination),
            "device-index" => one(attachment.device_index),
            "instance-id" => one(&attachment.instance),
            "instance-owner-id" => one(&self.config.account),
            "network-card-index" => one(attachment.network_card),
            "status" => one(attachment.status.name()),
            _ => Vec::new(),
        }
    }

    pub(super) fn instance_values(&self, instance: &InstanceRecord, name: &str) -> Vec<String> {
        let interfaces = || instance.interfaces.iter().filter_map(|id| self.interface(id));
        if let Some(name) = name.strip_prefix("network-interface.") {
            return interfaces().flat_map(|eni| self.interface_values(eni, name)).collect();
        }
        let is_primary = |eni: &&Interface| eni.attachment.as_ref().is_some_and(|a| a.device_index == 0);
        let of_primary =
            |name: &str| interfaces().find(is_primary).map(|eni| self.interface_values(eni, name)).unwrap_or_default();
        match name {
            "availability-zone" => one(&instance.zone),
            "availability-zone-id" => one(self.zone_id(&instance.zone)),
            "client-token" => all(&instance.client_token),
            "image-id" => one(&instance.image),
            "instance-id" => one(&instance.id),
            "instance-state-code" => one(state_code(instance.state).0),
            "instance-state-name" => one(state_code(instance.state).1),
            "instance-type" => one(instance.instance_type()),
            "instance.group-id" => of_primary("group-id"),
            "instance.group-name" => of_primary("group-name"),
            "launch-index" => one(instance.launch_index),
            "launch-time" => one(time(instance.launch_time)),
            "owner-id" => one(&self.config.account),
            "private-dns-name" => of_primary("private-dns-name"),
            // "can only be used to filter by the primary IP address".
            "private-ip-address" => all(interfaces().find(is_primary).map(|eni| eni.primary_ip)),
            "reservation-id" => one(&instance.reservation),
            "source-dest-check" => of_primary("source-dest-check"),
            "subnet-id" => one(&instance.subnet),
            "vpc-id" => one(&instance.vpc),
            other => tag_values(other, &instance.tags).unwrap_or_default(),
        }
    }

    pub(super) fn subnet_values(&self, subnet: &SubnetView, name: &str) -> Vec<String> {
        let info = &subnet.info;
        match name {
            "availability-zone" | "availabilityZone" => one(&info.zone),
            "availability-zone-id" | "availabilityZoneId" => one(self.zone_id(&info.zone)),
            "available-ip-address-count" => one(subnet.available_ips),
            "cidr" | "cidr-block" | "cidrBlock" => one(info.cidr.0),
            "default-for-az" | "defaultForAz" | "ipv6-native" | "map-public-ip-on-launch" => one(false),
            "owner-id" => one(&self.config.account),
            "state" => one("available"),
            "subnet-arn" => one(self.subnet_arn(&info.id)),
            "subnet-id" => one(&info.id),
            "vpc-id" => one(&info.vpc),
            other => tag_values(other, &info.tags).unwrap_or_default(),
        }
    }

    pub(super) fn vpc_values(&self, vpc: &Vpc, name: &str) -> Vec<String> {
        match name {
            "cidr" => all(vpc.cidrs.first()),
            "cidr-block-association.association-id" => all(vpc.associations().map(|(id, _)| id)),
            "cidr-block-association.cidr-block" => all(&vpc.cidrs),
            "cidr-block-association.state" => one("associated"),
            "dhcp-options-id" => one(DHCP_OPTIONS),
            "is-default" => one(false),
            "owner-id" => one(&self.config.account),
            "state" => one("available"),
            "vpc-id" => one(&vpc.id),
            other => tag_values(other, &vpc.tags).unwrap_or_default(),
        }
    }

    pub(super) fn group_values(&self, group: &SecurityGroup, name: &str) -> Vec<String> {
        match name {
            "description" => one(&group.description),
            "group-id" => one(&group.id),
            "group-name" => one(&group.name),
            "owner-id" => one(&self.config.account),
            "vpc-id" => one(&group.vpc),
            other => tag_values(other, &group.tags).unwrap_or_default(),
        }
    }
}

pub(super) fn type_values(info: &TypeInfo, name: &str) -> Vec<String> {
    match name {
        "bare-metal" => one(info.is_bare_metal()),
        "hypervisor" => all(info.hypervisor()),
        "instance-type" => one(&info.name),
        "network-info.ipv4-addresses-per-interface" => one(info.limits.ipv4_per_eni),
        "network-info.maximum-network-cards" => one(info.enis_per_card.len()),
        "network-info.maximum-network-interfaces" => one(info.max_enis()),
        "vcpu-info.default-vcpus" => one(info.limits.vcpus),
        _ => Vec::new(),
    }
}
