//! From the SDK's types, in which everything is optional, to the port's, in which what EC2 documents is there.

use std::net::Ipv4Addr;
use std::str::FromStr;

use aws_sdk_ec2::types as sdk;
use enipool_pool::ec2::{
    Attachment, Eni, EniStatus, Instance, InstanceState, InstanceTypeLimits, InterfaceType, SecurityGroup, Subnet, Tags,
};
use enipool_pool::{InstanceType, Prefix, SubnetCidr, Zone};

/// What an answer lacks, or has in a form that nobody documents: the field's name.
pub(super) type Missing = String;

fn required<T: FromStr>(field: &str, value: Option<&str>) -> Result<T, Missing> {
    let value = value.ok_or_else(|| format!("the answer has no {field}"))?;
    value.parse().map_err(|_| format!("the answer has {field} = {value:?}"))
}

fn optional<T: FromStr>(field: &str, value: Option<&str>) -> Result<Option<T>, Missing> {
    value.map(|value| required(field, Some(value))).transpose()
}

fn number(field: &str, value: Option<i32>) -> Result<u32, Missing> {
    value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| format!("the answer has no {field}"))
}

fn tags(tags: &[sdk::Tag]) -> Tags {
    let pair = |tag: &sdk::Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

fn zone(name: Option<&str>) -> Zone {
    Zone::new(name.unwrap_or_default())
}

pub(super) fn prefixes(list: &[sdk::Ipv4PrefixSpecification]) -> Result<Vec<Prefix>, Missing> {
    list.iter().map(|prefix| required("ipv4Prefix", prefix.ipv4_prefix())).collect()
}

pub(super) fn address(field: &str, value: Option<&str>) -> Result<Ipv4Addr, Missing> {
    required(field, value)
}

pub(super) fn eni(eni: &sdk::NetworkInterface) -> Result<Eni, Missing> {
    let secondary = eni.private_ip_addresses().iter().filter(|address| address.primary() != Some(true));
    Ok(Eni {
        id: required("networkInterfaceId", eni.network_interface_id())?,
        status: status(eni),
        interface_type: interface_type(eni.interface_type()),
        mac: required("macAddress", eni.mac_address())?,
        vpc: required("vpcId", eni.vpc_id())?,
        subnet: required("subnetId", eni.subnet_id())?,
        zone: zone(eni.availability_zone()),
        primary_ip: address("privateIpAddress", eni.private_ip_address())?,
        secondary_ips: secondary
            .map(|held| address("privateIpAddress", held.private_ip_address()))
            .collect::<Result<_, _>>()?,
        prefixes: prefixes(eni.ipv4_prefixes())?,
        security_groups: eni
            .groups()
            .iter()
            .map(|group| required("groupId", group.group_id()))
            .collect::<Result<_, _>>()?,
        attachment: eni.attachment().map(attachment).transpose()?,
        description: eni.description().unwrap_or_default().to_owned(),
        tags: tags(eni.tag_set()),
    })
}

fn attachment(attachment: &sdk::NetworkInterfaceAttachment) -> Result<Attachment, Missing> {
    Ok(Attachment {
        id: required("attachmentId", attachment.attachment_id())?,
        instance: optional("instanceId", attachment.instance_id())?,
        device_index: number("deviceIndex", attachment.device_index())?,
        network_card: attachment.network_card_index().map_or(Ok(0), |card| number("networkCardIndex", Some(card)))?,
        delete_on_termination: attachment.delete_on_termination().unwrap_or(false),
    })
}

/// The interface's own status says `in-use` from the attach call to the end of the detach: its attachment knows better.
fn status(eni: &sdk::NetworkInterface) -> EniStatus {
    match eni.attachment().and_then(sdk::NetworkInterfaceAttachment::status) {
        Some(sdk::AttachmentStatus::Attaching) => return EniStatus::Attaching,
        Some(sdk::AttachmentStatus::Detaching) => return EniStatus::Detaching,
        _ => {}
    }
    match eni.status() {
        Some(sdk::NetworkInterfaceStatus::Available) => EniStatus::Available,
        Some(sdk::NetworkInterfaceStatus::Associated) => EniStatus::Associated,
        Some(sdk::NetworkInterfaceStatus::Attaching) => EniStatus::Attaching,
        Some(sdk::NetworkInterfaceStatus::InUse) => EniStatus::InUse,
        Some(sdk::NetworkInterfaceStatus::Detaching) => EniStatus::Detaching,
        _ => EniStatus::Pending,
    }
}

fn interface_type(kind: Option<&sdk::NetworkInterfaceType>) -> InterfaceType {
    match kind {
        Some(sdk::NetworkInterfaceType::Interface) | None => InterfaceType::Interface,
        Some(sdk::NetworkInterfaceType::Trunk) => InterfaceType::Trunk,
        Some(sdk::NetworkInterfaceType::Efa | sdk::NetworkInterfaceType::EfaOnly) => InterfaceType::Efa,
        Some(_) => InterfaceType::Other,
    }
}

pub(super) fn instance(instance: &sdk::Instance) -> Result<Instance, Missing> {
    let place = |interface: &sdk::InstanceNetworkInterface| {
        let attachment = interface.attachment()?;
        let index = u32::try_from(attachment.device_index()?).ok()?;
        Some((index, u32::try_from(attachment.network_card_index().unwrap_or(0)).ok()?))
    };
    Ok(Instance {
        id: required("instanceId", instance.instance_id())?,
        state: state(instance.state().and_then(sdk::InstanceState::name))?,
        instance_type: InstanceType::new(instance.instance_type().map_or("", sdk::InstanceType::as_str)),
        vpc: optional("vpcId", instance.vpc_id())?,
        subnet: optional("subnetId", instance.subnet_id())?,
        zone: zone(instance.placement().and_then(sdk::Placement::availability_zone)),
        device_indexes: instance.network_interfaces().iter().filter_map(place).collect(),
    })
}

fn state(name: Option<&sdk::InstanceStateName>) -> Result<InstanceState, Missing> {
    match name {
        Some(sdk::InstanceStateName::Pending) => Ok(InstanceState::Pending),
        Some(sdk::InstanceStateName::Running) => Ok(InstanceState::Running),
        Some(sdk::InstanceStateName::Stopping) => Ok(InstanceState::Stopping),
        Some(sdk::InstanceStateName::Stopped) => Ok(InstanceState::Stopped),
        Some(sdk::InstanceStateName::ShuttingDown) => Ok(InstanceState::ShuttingDown),
        Some(sdk::InstanceStateName::Terminated) => Ok(InstanceState::Terminated),
        other => Err(format!("the answer has instanceState = {other:?}")),
    }
}

pub(super) fn limits(info: &sdk::InstanceTypeInfo) -> Result<InstanceTypeLimits, Missing> {
    let network = info.network_info().ok_or("the answer has no networkInfo")?;
    let card = network
        .network_cards()
        .iter()
        .find(|card| card.network_card_index().unwrap_or(0) == 0)
        .and_then(sdk::NetworkCardInfo::maximum_network_interfaces);
    Ok(InstanceTypeLimits {
        instance_type: InstanceType::new(info.instance_type().map_or("", sdk::InstanceType::as_str)),
        max_enis: number("maximumNetworkInterfaces", card.or_else(|| network.maximum_network_interfaces()))?,
        ipv4_per_eni: number("ipv4AddressesPerInterface", network.ipv4_addresses_per_interface())?,
        supports_prefixes: info.bare_metal() == Some(true)
            || info.hypervisor() == Some(&sdk::InstanceTypeHypervisor::Nitro),
        vcpus: number("defaultVCpus", info.v_cpu_info().and_then(sdk::VCpuInfo::default_v_cpus))?,
    })
}

pub(super) fn subnet(subnet: &sdk::Subnet) -> Result<Subnet, Missing> {
    Ok(Subnet {
        id: required("subnetId", subnet.subnet_id())?,
        vpc: required("vpcId", subnet.vpc_id())?,
        zone: zone(subnet.availability_zone()),
        cidr: SubnetCidr(required("cidrBlock", subnet.cidr_block())?),
        available_ips: number("availableIpAddressCount", subnet.available_ip_address_count())?,
        tags: tags(subnet.tags()),
    })
}

pub(super) fn security_group(group: &sdk::SecurityGroup) -> Result<SecurityGroup, Missing> {
    Ok(SecurityGroup {
        id: required("groupId", group.group_id())?,
        vpc: required("vpcId", group.vpc_id())?,
        name: group.group_name().unwrap_or_default().to_owned(),
        tags: tags(group.tags()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As DescribeInstanceTypes answers for a type with these interfaces on each of its network cards.
    fn described(name: &str, per_card: &[i32], addresses: i32, vcpus: i32) -> sdk::InstanceTypeInfo {
        let cards = per_card.iter().zip(0..).map(|(most, index)| {
            sdk::NetworkCardInfo::builder().network_card_index(index).maximum_network_interfaces(*most).build()
        });
        let network = sdk::NetworkInfo::builder()
            .maximum_network_interfaces(per_card.iter().sum())
            .ipv4_addresses_per_interface(addresses)
            .set_network_cards(Some(cards.collect()))
            .build();
        sdk::InstanceTypeInfo::builder()
            .instance_type(name.into())
            .hypervisor(sdk::InstanceTypeHypervisor::Nitro)
            .bare_metal(false)
            .v_cpu_info(sdk::VCpuInfo::builder().default_v_cpus(vcpus).build())
            .network_info(network)
            .build()
    }

    #[test]
    fn of_an_instance_with_many_network_cards_only_the_first_counts() {
        for (name, per_card, addresses, vcpus) in [
            ("m5.large", &[3][..], 10, 2),
            ("p4d.24xlarge", &[15; 4][..], 50, 96),
            // 64 interfaces in all.
            ("p5.48xlarge", &[2; 32][..], 50, 192),
        ] {
            let info = described(name, per_card, addresses, vcpus);
            let bundled = enipool_pool::capacity::bundled(&InstanceType::new(name));
            assert_eq!(limits(&info).ok(), bundled, "{name}");
        }
    }
}
