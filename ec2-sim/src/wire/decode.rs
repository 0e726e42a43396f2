//! From Query parameters to requests.

use enipool_pool::ec2::{InterfaceType, Tags};
use enipool_pool::{InstanceType, SubnetCidr, Zone};

use super::query::Params;
use crate::model::filter::Filter;
use crate::model::page::PageRequest;
use crate::model::request::{
    Assign, AttachInterface, CreateInterface, Describe, InterfaceChange, LaunchInterface, ModifyInterface,
    RunInstances, Unassign, Wanted,
};
use crate::model::{ApiError, Request};

const ENI: &str = "NetworkInterfaceId";
const INSTANCE: &str = "InstanceID";

/// The request that the parameters make, and whether it is a dry run.
pub fn decode(params: &Params) -> Result<(Request, bool), ApiError> {
    params.required("Version").map_err(|_| ApiError::missing("Version"))?;
    let action = params
        .text("Action")
        .ok_or_else(|| ApiError::client("MissingAction", "No action was supplied with this request."))?;
    let dry_run = params.flag("DryRun")?.unwrap_or(false);
    let request = match action {
        "RunInstances" => Request::RunInstances(run_instances(params)?),
        "TerminateInstances" => {
            params.ignore("Force");
            params.ignore("SkipOsShutdown");
            Request::TerminateInstances(params.ids("InstanceId", INSTANCE)?)
        }
        "StopInstances" => {
            params.ignore("Force");
            params.ignore("SkipOsShutdown");
            Request::StopInstances(params.ids("InstanceId", INSTANCE)?)
        }
        "StartInstances" => Request::StartInstances(params.ids("InstanceId", INSTANCE)?),
        "DescribeInstances" => Request::DescribeInstances(describe(params, params.ids("InstanceId", INSTANCE)?)?),
        "DescribeInstanceTypes" => {
            let names = params.list("InstanceType").map(InstanceType::new).collect();
            Request::DescribeInstanceTypes(describe(params, names)?)
        }
        "DescribeVpcs" => Request::DescribeVpcs(describe(params, params.ids("VpcId", "VpcID")?)?),
        "DescribeSubnets" => Request::DescribeSubnets(describe(params, params.ids("SubnetId", "SubnetID")?)?),
        "DescribeSecurityGroups" => {
            Request::DescribeSecurityGroups(describe(params, params.ids("GroupId", "GroupId")?)?)
        }
        "DescribeNetworkInterfaces" => {
            params.ignore("IncludeManagedResources");
            Request::DescribeNetworkInterfaces(describe(params, params.ids("NetworkInterfaceId", ENI)?)?)
        }
        "CreateNetworkInterface" => Request::CreateNetworkInterface(create_interface(params)?),
        "AttachNetworkInterface" => Request::AttachNetworkInterface(AttachInterface {
            interface: params.required_id("NetworkInterfaceId", ENI)?,
            instance: params.required_id("InstanceId", INSTANCE)?,
            device_index: params.parsed("DeviceIndex")?.ok_or_else(|| ApiError::missing("deviceIndex"))?,
            network_card: params.parsed("NetworkCardIndex")?.unwrap_or(0),
        }),
        "DetachNetworkInterface" => Request::DetachNetworkInterface {
            attachment: params.required_id("AttachmentId", "AttachmentId")?,
            force: params.flag("Force")?.unwrap_or(false),
        },
        "DeleteNetworkInterface" => Request::DeleteNetworkInterface(params.required_id("NetworkInterfaceId", ENI)?),
        "ModifyNetworkInterfaceAttribute" => Request::ModifyNetworkInterfaceAttribute(modify_interface(params)?),
        "AssignPrivateIpAddresses" => Request::AssignPrivateIpAddresses(Assign {
            interface: params.required_id("NetworkInterfaceId", ENI)?,
            wanted: Wanted {
                addresses: params.parsed_list("PrivateIpAddress")?,
                address_count: params.parsed("SecondaryPrivateIpAddressCount")?,
                prefixes: params.parsed_list("Ipv4Prefix")?,
                prefix_count: params.parsed("Ipv4PrefixCount")?,
            },
            allow_reassignment: params.flag("AllowReassignment")?.unwrap_or(false),
        }),
        "UnassignPrivateIpAddresses" => Request::UnassignPrivateIpAddresses(Unassign {
            interface: params.required_id("NetworkInterfaceId", ENI)?,
            addresses: params.parsed_list("PrivateIpAddress")?,
            prefixes: params.parsed_list("Ipv4Prefix")?,
        }),
        "CreateTags" => Request::CreateTags {
            resources: params.list("ResourceId").map(str::to_owned).collect(),
            tags: tags(params, "Tag")?,
        },
        "CreateVpc" => Request::CreateVpc {
            cidr: params.parsed("CidrBlock")?.ok_or_else(|| ApiError::missing("cidrBlock"))?,
            tags: tag_specification(params, "vpc")?,
        },
        "CreateSubnet" => Request::CreateSubnet {
            vpc: params.required_id("VpcId", "VpcID")?,
            zone: params.text("AvailabilityZone").map(Zone::new),
            cidr: SubnetCidr(params.parsed("CidrBlock")?.ok_or_else(|| ApiError::missing("cidrBlock"))?),
            tags: tag_specification(params, "subnet")?,
        },
        "CreateSecurityGroup" => Request::CreateSecurityGroup {
            vpc: params.required_id("VpcId", "VpcID")?,
            name: params.required("GroupName")?.to_owned(),
            description: params.required("GroupDescription")?.to_owned(),
            tags: tag_specification(params, "security-group")?,
        },
        other => {
            let message = format!("The action {other} is not valid for this web service.");
            return Err(ApiError::client("InvalidAction", message));
        }
    };
    params.all_understood()?;
    Ok((request, dry_run))
}

fn describe<Id>(params: &Params, ids: Vec<Id>) -> Result<Describe<Id>, ApiError> {
    let mut filters = Vec::new();
    for index in params.indexes("Filter") {
        let name = params.required(&format!("Filter.{index}.Name"))?.to_owned();
        filters.push(Filter::new(name, params.list(&format!("Filter.{index}.Value"))));
    }
    let page = PageRequest {
        max_results: params.parsed("MaxResults")?,
        next_token: params.text("NextToken").filter(|token| !token.is_empty()).map(str::to_owned),
    };
    Ok(Describe { ids, filters, page })
}

fn create_interface(params: &Params) -> Result<CreateInterface, ApiError> {
    let (primary, secondary) = addresses(params, "")?;
    let interface_type = match params.text("InterfaceType") {
        None | Some("interface") => None,
        Some("trunk") => Some(InterfaceType::Trunk),
        Some("efa" | "efa-only") => Some(InterfaceType::Efa),
        Some(other) => {
            return Err(ApiError::invalid_value(format!("Value ({other}) for parameter interfaceType is invalid.")));
        }
    };
    params.ignore("ConnectionTrackingSpecification");
    Ok(CreateInterface {
        subnet: params.id("SubnetId", "SubnetID")?,
        primary_ip: primary,
        secondary,
        security_groups: params.ids("SecurityGroupId", "GroupId")?,
        description: params.text("Description").unwrap_or_default().to_owned(),
        interface_type,
        tags: tag_specification(params, "network-interface")?,
        client_token: params.text("ClientToken").filter(|token| !token.is_empty()).map(str::to_owned),
    })
}

/// Primary and secondary addresses and prefixes of a new interface, under `prefix`.
fn addresses(params: &Params, prefix: &str) -> Result<(Option<std::net::Ipv4Addr>, Wanted), ApiError> {
    let at = |name: &str| format!("{prefix}{name}");
    let mut primary = params.parsed(&at("PrivateIpAddress"))?;
    let mut wanted = Wanted {
        addresses: Vec::new(),
        address_count: params.parsed(&at("SecondaryPrivateIpAddressCount"))?,
        prefixes: Vec::new(),
        prefix_count: params.parsed(&at("Ipv4PrefixCount"))?,
    };
    for index in params.indexes(&at("PrivateIpAddresses")) {
        let item = at(&format!("PrivateIpAddresses.{index}"));
        let address =
            params.parsed(&format!("{item}.PrivateIpAddress"))?.ok_or_else(|| ApiError::missing("privateIpAddress"))?;
        if params.flag(&format!("{item}.Primary"))? == Some(true) {
            if primary.is_some() {
                return Err(ApiError::invalid_combination("Only one primary private IP address can be specified"));
            }
            primary = Some(address);
        } else {
            wanted.addresses.push(address);
        }
    }
    for index in params.indexes(&at("Ipv4Prefix")) {
        let name = at(&format!("Ipv4Prefix.{index}.Ipv4Prefix"));
        wanted.prefixes.extend(params.parsed::<enipool_pool::Prefix>(&name)?);
    }
    Ok((primary, wanted))
}

fn modify_interface(params: &Params) -> Result<ModifyInterface, ApiError> {
    let mut changes = Vec::new();
    if let Some(delete) = params.flag("Attachment.DeleteOnTermination")? {
        let attachment = params.required_id("Attachment.AttachmentId", "AttachmentId")?;
        changes.push(InterfaceChange::DeleteOnTermination { attachment, delete });
    }
    let groups: Vec<_> = params.ids("SecurityGroupId", "GroupId")?;
    if !groups.is_empty() {
        changes.push(InterfaceChange::SecurityGroups(groups));
    }
    if let Some(text) = params.text("Description.Value") {
        changes.push(InterfaceChange::Description(text.to_owned()));
    }
    if let Some(check) = params.flag("SourceDestCheck.Value")? {
        changes.push(InterfaceChange::SourceDestCheck(check));
    }
    let change = match (changes.pop(), changes.is_empty()) {
        (Some(change), true) => change,
        (None, _) => return Err(ApiError::missing("attribute")),
        (Some(_), false) => {
            return Err(ApiError::invalid_combination("Only one attribute can be modified at a time"));
        }
    };
    Ok(ModifyInterface { interface: params.required_id("NetworkInterfaceId", ENI)?, change })
}

fn run_instances(params: &Params) -> Result<RunInstances, ApiError> {
    // What a node's boot needs beyond its network is not simulated.
    for ignored in [
        "BlockDeviceMapping.",
        "UserData",
        "KeyName",
        "Monitoring.",
        "MetadataOptions.",
        "IamInstanceProfile.",
        "EbsOptimized",
        "Placement.Tenancy",
        "InstanceInitiatedShutdownBehavior",
    ] {
        params.ignore(ignored);
    }
    let mut interfaces = Vec::new();
    for index in params.indexes("NetworkInterface") {
        let item = format!("NetworkInterface.{index}.");
        let (primary_ip, secondary) = addresses(params, &item)?;
        params.ignore(&format!("{item}AssociatePublicIpAddress"));
        params.ignore(&format!("{item}InterfaceType"));
        interfaces.push(LaunchInterface {
            device_index: params.parsed(&format!("{item}DeviceIndex"))?.unwrap_or(0),
            network_card: params.parsed(&format!("{item}NetworkCardIndex"))?.unwrap_or(0),
            existing: params.id(&format!("{item}NetworkInterfaceId"), ENI)?,
            subnet: params.id(&format!("{item}SubnetId"), "SubnetID")?,
            primary_ip,
            secondary,
            security_groups: params.ids(&format!("{item}SecurityGroupId"), "GroupId")?,
            description: params.text(&format!("{item}Description")).unwrap_or_default().to_owned(),
            delete_on_termination: params.flag(&format!("{item}DeleteOnTermination"))?,
        });
    }
    Ok(RunInstances {
        image: params.required("ImageId")?.to_owned(),
        // EC2's default since its first day.
        instance_type: InstanceType::new(params.text("InstanceType").unwrap_or("m1.small")),
        min_count: params.parsed("MinCount")?.ok_or_else(|| ApiError::missing("MinCount"))?,
        max_count: params.parsed("MaxCount")?.ok_or_else(|| ApiError::missing("MaxCount"))?,
        subnet: params.id("SubnetId", "SubnetID")?,
        zone: params.text("Placement.AvailabilityZone").map(Zone::new),
        private_ip: params.parsed("PrivateIpAddress")?,
        security_groups: params.ids("SecurityGroupId", "GroupId")?,
        interfaces,
        instance_tags: tag_specification(params, "instance")?,
        interface_tags: tag_specification(params, "network-interface")?,
        client_token: params.text("ClientToken").filter(|token| !token.is_empty()).map(str::to_owned),
    })
}

fn tags(params: &Params, name: &str) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for index in params.indexes(name) {
        let key = params.required(&format!("{name}.{index}.Key"))?.to_owned();
        let value = params.text(&format!("{name}.{index}.Value")).unwrap_or_default().to_owned();
        if tags.insert(key.clone(), value).is_some() {
            return Err(ApiError::invalid_value(format!("Tag keys must be unique: '{key}'")));
        }
    }
    Ok(tags)
}

/// Tags of the new resources of this type. Those of other types are for other parts of the same request.
fn tag_specification(params: &Params, resource_type: &str) -> Result<Tags, ApiError> {
    const KNOWN: [&str; 6] = ["instance", "network-interface", "security-group", "subnet", "volume", "vpc"];
    let mut found = Tags::new();
    for index in params.indexes("TagSpecification") {
        let specification = format!("TagSpecification.{index}");
        let of = params.required(&format!("{specification}.ResourceType"))?;
        let tags = tags(params, &format!("{specification}.Tag"))?;
        if of == resource_type {
            found.extend(tags);
        } else if !KNOWN.contains(&of) {
            return Err(ApiError::invalid_value(format!("'{of}' is not a valid taggable resource type")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::ACTIONS;

    #[test]
    fn every_action_of_the_list_is_understood_and_no_other() {
        let code = |action: &str| {
            let params = Params::parse(&format!("Action={action}&Version=2016-11-15")).unwrap();
            decode(&params).map(|(request, _)| request.action()).map_err(|error| error.code.into_owned())
        };
        for action in ACTIONS {
            match code(action) {
                Ok(decoded) => assert_eq!(decoded, action),
                Err(refusal) => assert_eq!(refusal, "MissingParameter", "{action}"),
            }
        }
        assert_eq!(code("DescribeVolumes"), Err("InvalidAction".to_owned()));
    }
}
