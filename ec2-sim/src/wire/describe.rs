//! The XML of single resources: interfaces, instances, instance types, subnets, VPCs.

use enipool_pool::ec2::InstanceState;

use super::answer::{group_set, instances_set, tag_set};
use super::xml::Xml;
use crate::model::Model;
use crate::model::filters::DHCP_OPTIONS;
use crate::model::interface::{interface_type_name, status_name};
use crate::model::resource::{InstanceView, Interface, SubnetView, Vpc, state_code, time};
use crate::model::types::TypeInfo;

fn empty(xml: &mut Xml, name: &str) {
    xml.nested(name, |_| ());
}

pub(super) fn interface_fields(xml: &mut Xml, model: &Model, eni: &Interface) {
    common_interface_fields(xml, model, eni);
    xml.text("availabilityZone", &eni.zone);
    xml.text("availabilityZoneId", model.zone_id(&eni.zone));
    xml.text("requesterId", model.requester_id());
    xml.text("requesterManaged", false);
    xml.text("denyAllIgwTraffic", false);
    xml.text("ipv6Native", false);
    xml.nested("operator", |xml| xml.text("managed", false));
    if let Some(attachment) = &eni.attachment {
        xml.nested("attachment", |xml| {
            xml.text("attachmentId", &attachment.id);
            xml.text("instanceId", &attachment.instance);
            xml.text("instanceOwnerId", &model.config().account);
            xml.text("deviceIndex", attachment.device_index);
            xml.text("networkCardIndex", attachment.network_card);
            xml.text("status", attachment.status.name());
            xml.text("attachTime", time(attachment.attach_time));
            xml.text("deleteOnTermination", attachment.delete_on_termination);
        });
    }
    tag_set(xml, &eni.tags);
}

fn common_interface_fields(xml: &mut Xml, model: &Model, eni: &Interface) {
    xml.text("networkInterfaceId", &eni.id);
    xml.text("subnetId", &eni.subnet);
    xml.text("vpcId", &eni.vpc);
    xml.text("description", &eni.description);
    xml.text("ownerId", &model.config().account);
    xml.text("status", status_name(eni.status()));
    xml.text("macAddress", eni.mac);
    xml.text("privateIpAddress", eni.primary_ip);
    xml.text("privateDnsName", model.private_dns_name(eni.primary_ip));
    xml.text("sourceDestCheck", eni.source_dest_check);
    xml.text("interfaceType", interface_type_name(eni.interface_type));
    group_set(xml, model, &eni.security_groups);
    xml.list("privateIpAddressesSet", eni.addresses(), |xml, address| {
        xml.text("privateIpAddress", address);
        xml.text("privateDnsName", model.private_dns_name(address));
        xml.text("primary", address == eni.primary_ip);
    });
    empty(xml, "ipv6AddressesSet");
    if !eni.prefixes.is_empty() {
        xml.list("ipv4PrefixSet", &eni.prefixes, |xml, prefix| xml.text("ipv4Prefix", prefix));
    }
}

pub(super) fn reservation(xml: &mut Xml, model: &Model, instances: &[&InstanceView]) {
    let id = instances.first().map(|instance| instance.reservation.as_str()).unwrap_or_default();
    xml.text("reservationId", id);
    xml.text("ownerId", &model.config().account);
    empty(xml, "groupSet");
    instances_set(xml, model, instances);
}

pub(super) fn instance_item(xml: &mut Xml, model: &Model, instance: &InstanceView) {
    let (code, name) = state_code(instance.state);
    xml.text("instanceId", &instance.id);
    xml.text("imageId", &instance.image);
    xml.nested("instanceState", |xml| {
        xml.text("code", code);
        xml.text("name", name);
    });
    let primary = instance.primary();
    xml.text("privateDnsName", primary.map(|eni| model.private_dns_name(eni.primary_ip)).unwrap_or_default());
    xml.text("dnsName", "");
    xml.text("reason", "");
    xml.text("amiLaunchIndex", instance.launch_index);
    empty(xml, "productCodes");
    xml.text("instanceType", &instance.instance_type);
    xml.text("launchTime", time(instance.launch_time));
    xml.nested("placement", |xml| {
        xml.text("availabilityZone", &instance.zone);
        xml.text("availabilityZoneId", model.zone_id(&instance.zone));
        xml.text("groupName", "");
        xml.text("tenancy", "default");
    });
    xml.nested("monitoring", |xml| xml.text("state", "disabled"));
    if let Some(primary) = primary {
        xml.text("subnetId", &instance.subnet);
        xml.text("vpcId", &instance.vpc);
        xml.text("privateIpAddress", primary.primary_ip);
        xml.text("sourceDestCheck", primary.source_dest_check);
        group_set(xml, model, &primary.security_groups);
    } else {
        empty(xml, "groupSet");
    }
    xml.text("architecture", "x86_64");
    xml.text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", "/dev/xvda");
    empty(xml, "blockDeviceMapping");
    xml.text("virtualizationType", "hvm");
    if let Some((code, message)) = state_reason(instance.state) {
        xml.nested("stateReason", |xml| {
            xml.text("code", code);
            xml.text("message", message);
        });
    }
    xml.text("clientToken", instance.client_token.as_deref().unwrap_or_default());
    tag_set(xml, &instance.tags);
    xml.text("hypervisor", "xen");
    xml.list("networkInterfaceSet", &instance.interfaces, |xml, eni| {
        common_interface_fields(xml, model, eni);
        if let Some(attachment) = &eni.attachment {
            xml.nested("attachment", |xml| {
                xml.text("attachmentId", &attachment.id);
                xml.text("deviceIndex", attachment.device_index);
                xml.text("networkCardIndex", attachment.network_card);
                xml.text("status", attachment.status.name());
                xml.text("attachTime", time(attachment.attach_time));
                xml.text("deleteOnTermination", attachment.delete_on_termination);
            });
        }
    });
    xml.text("ebsOptimized", true);
    xml.text("enaSupport", true);
    xml.nested("metadataOptions", |xml| {
        xml.text("state", "applied");
        xml.text("httpTokens", "required");
        xml.text("httpPutResponseHopLimit", 2);
        xml.text("httpEndpoint", "enabled");
        xml.text("httpProtocolIpv6", "disabled");
        xml.text("instanceMetadataTags", "disabled");
    });
}

/// Why an instance that does not run is in its state; this simulator's callers are the only reason.
fn state_reason(state: InstanceState) -> Option<(&'static str, &'static str)> {
    match state {
        InstanceState::Pending => Some(("pending", "pending")),
        InstanceState::Running => None,
        InstanceState::Stopping | InstanceState::Stopped | InstanceState::ShuttingDown | InstanceState::Terminated => {
            Some(("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"))
        }
    }
}

pub(super) fn instance_types(xml: &mut Xml, types: &[TypeInfo]) {
    xml.list("instanceTypeSet", types, |xml, info| {
        xml.text("instanceType", &info.name);
        xml.text("bareMetal", info.is_bare_metal());
        xml.optional("hypervisor", info.hypervisor());
        xml.nested("vCpuInfo", |xml| xml.text("defaultVCpus", info.limits.vcpus));
        xml.nested("networkInfo", |xml| {
            xml.text("maximumNetworkInterfaces", info.max_enis());
            xml.text("maximumNetworkCards", info.enis_per_card.len());
            xml.text("defaultNetworkCardIndex", info.default_card);
            xml.list("networkCards", info.enis_per_card.iter().enumerate(), |xml, (index, enis)| {
                xml.text("networkCardIndex", index);
                xml.text("maximumNetworkInterfaces", enis);
            });
            xml.text("ipv4AddressesPerInterface", info.limits.ipv4_per_eni);
            xml.text("ipv6AddressesPerInterface", info.limits.ipv4_per_eni);
            xml.text("ipv6Supported", true);
            xml.text("enaSupport", if info.limits.supports_prefixes { "required" } else { "unsupported" });
            xml.text("efaSupported", info.enis_per_card.len() > 1);
        });
    });
}

pub(super) fn subnet_fields(xml: &mut Xml, model: &Model, subnet: &SubnetView) {
    let info = &subnet.info;
    let config = model.config();
    xml.text("subnetId", &info.id);
    xml.text("subnetArn", model.subnet_arn(&info.id));
    xml.text("state", "available");
    xml.text("ownerId", &config.account);
    xml.text("vpcId", &info.vpc);
    xml.text("cidrBlock", info.cidr.0);
    empty(xml, "ipv6CidrBlockAssociationSet");
    xml.text("availableIpAddressCount", subnet.available_ips);
    xml.text("availabilityZone", &info.zone);
    xml.text("availabilityZoneId", model.zone_id(&info.zone));
    xml.text("defaultForAz", false);
    xml.text("mapPublicIpOnLaunch", false);
    xml.text("assignIpv6AddressOnCreation", false);
    xml.text("ipv6Native", false);
    tag_set(xml, &info.tags);
}

pub(super) fn vpc_fields(xml: &mut Xml, model: &Model, vpc: &Vpc) {
    xml.text("vpcId", &vpc.id);
    xml.text("ownerId", &model.config().account);
    xml.text("state", "available");
    xml.optional("cidrBlock", vpc.cidrs.first());
    xml.list("cidrBlockAssociationSet", vpc.associations(), |xml, (association, cidr)| {
        xml.text("associationId", association);
        xml.text("cidrBlock", cidr);
        xml.nested("cidrBlockState", |xml| xml.text("state", "associated"));
    });
    empty(xml, "ipv6CidrBlockAssociationSet");
    xml.text("dhcpOptionsId", DHCP_OPTIONS);
    xml.text("instanceTenancy", "default");
    xml.text("isDefault", false);
    tag_set(xml, &vpc.tags);
}
