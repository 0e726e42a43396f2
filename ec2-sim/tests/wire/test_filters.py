"""Filters: asked for the value that an answer shows, a describe call finds the resource, and asked for another it does not.

EC2's API model (botocore's copy) names the filters that are documented. Each of them is either in a table here or
refused: none is accepted without effect.
"""
import re

import pytest
from conftest import REGION, error_code, launch, subnet_a


def instant(time):
    """A time as EC2 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z"


def flag(value):
    return str(value).lower()


def field(path):
    """Reads `Placement.AvailabilityZone` or `Groups.0.GroupId` from an answer."""

    def read(resource):
        for part in path.split("."):
            resource = resource[int(part)] if part.isdigit() else resource[part]
        if isinstance(resource, bool):
            return flag(resource)
        return instant(resource) if hasattr(resource, "strftime") else str(resource)

    return read


# What both DescribeNetworkInterfaces and, after `network-interface.`, DescribeInstances filter interfaces by.
OF_AN_INTERFACE = {
    "addresses.primary": field("PrivateIpAddresses.1.Primary"),
    "addresses.private-ip-address": field("PrivateIpAddresses.1.PrivateIpAddress"),
    "attachment.attach-time": field("Attachment.AttachTime"),
    "attachment.attachment-id": field("Attachment.AttachmentId"),
    "attachment.delete-on-termination": field("Attachment.DeleteOnTermination"),
    "attachment.device-index": field("Attachment.DeviceIndex"),
    "attachment.status": field("Attachment.Status"),
    "description": field("Description"),
    "group-id": field("Groups.0.GroupId"),
    "mac-address": field("MacAddress"),
    "network-interface-id": field("NetworkInterfaceId"),
    "owner-id": field("OwnerId"),
    "private-dns-name": field("PrivateDnsName"),
    "private-ip-address": field("PrivateIpAddresses.1.PrivateIpAddress"),
    "source-dest-check": field("SourceDestCheck"),
    "status": field("Status"),
    "subnet-id": field("SubnetId"),
    "vpc-id": field("VpcId"),
}
INTERFACES = OF_AN_INTERFACE | {
    "attachment.instance-id": field("Attachment.InstanceId"),
    "attachment.instance-owner-id": field("Attachment.InstanceOwnerId"),
    "availability-zone": field("AvailabilityZone"),
    "availability-zone-id": field("AvailabilityZoneId"),
    "interface-type": field("InterfaceType"),
    "operator.managed": field("Operator.Managed"),
    "requester-id": field("RequesterId"),
    "requester-managed": field("RequesterManaged"),
    "tag-key": field("TagSet.0.Key"),
}


def of_the_second(read):
    return lambda instance: read(instance["NetworkInterfaces"][1])


INSTANCES = {f"network-interface.{name}": of_the_second(read) for name, read in OF_AN_INTERFACE.items()} | {
    "availability-zone": field("Placement.AvailabilityZone"),
    "availability-zone-id": field("Placement.AvailabilityZoneId"),
    "client-token": field("ClientToken"),
    "image-id": field("ImageId"),
    "instance-id": field("InstanceId"),
    "instance-state-code": field("State.Code"),
    "instance-state-name": field("State.Name"),
    "instance-type": field("InstanceType"),
    "instance.group-id": field("SecurityGroups.0.GroupId"),
    "instance.group-name": field("SecurityGroups.0.GroupName"),
    "launch-index": field("AmiLaunchIndex"),
    "launch-time": field("LaunchTime"),
    "network-interface.addresses.private-dns-name": field("NetworkInterfaces.1.PrivateIpAddresses.1.PrivateDnsName"),
    "network-interface.attachment.instance-id": field("InstanceId"),
    "network-interface.attachment.instance-owner-id": field("NetworkInterfaces.1.OwnerId"),
    "network-interface.attachment.network-card-index": field("NetworkInterfaces.1.Attachment.NetworkCardIndex"),
    "network-interface.availability-zone": field("Placement.AvailabilityZone"),
    "network-interface.group-name": field("NetworkInterfaces.1.Groups.0.GroupName"),
    "network-interface.ipv4-prefixes.ipv4-prefix": field("NetworkInterfaces.0.Ipv4Prefixes.0.Ipv4Prefix"),
    # Shown by DescribeNetworkInterfaces only.
    "network-interface.operator.managed": lambda _: "false",
    "network-interface.requester-id": lambda _: "AROA*:enipool-node",
    "network-interface.requester-managed": lambda _: "false",
    "network-interface.tag-key": lambda _: "role",
    "network-interface.tag-value": lambda _: "pods",
    "owner-id": field("NetworkInterfaces.0.OwnerId"),
    "private-dns-name": field("PrivateDnsName"),
    "private-ip-address": field("PrivateIpAddress"),
    "source-dest-check": field("SourceDestCheck"),
    "subnet-id": field("SubnetId"),
    "tag-key": field("Tags.0.Key"),
    "vpc-id": field("VpcId"),
}
SUBNETS = {
    "availability-zone": field("AvailabilityZone"),
    "availabilityZone": field("AvailabilityZone"),
    "availability-zone-id": field("AvailabilityZoneId"),
    "availabilityZoneId": field("AvailabilityZoneId"),
    "available-ip-address-count": field("AvailableIpAddressCount"),
    "cidr": field("CidrBlock"),
    "cidr-block": field("CidrBlock"),
    "cidrBlock": field("CidrBlock"),
    "default-for-az": field("DefaultForAz"),
    "defaultForAz": field("DefaultForAz"),
    "ipv6-native": field("Ipv6Native"),
    "map-public-ip-on-launch": field("MapPublicIpOnLaunch"),
    "owner-id": field("OwnerId"),
    "state": field("State"),
    "subnet-arn": field("SubnetArn"),
    "subnet-id": field("SubnetId"),
    "tag-key": field("Tags.0.Key"),
    "vpc-id": field("VpcId"),
}
VPCS = {
    "cidr": field("CidrBlock"),
    "cidr-block-association.association-id": field("CidrBlockAssociationSet.0.AssociationId"),
    "cidr-block-association.cidr-block": field("CidrBlockAssociationSet.0.CidrBlock"),
    "cidr-block-association.state": field("CidrBlockAssociationSet.0.CidrBlockState.State"),
    "dhcp-options-id": field("DhcpOptionsId"),
    "is-default": field("IsDefault"),
    "owner-id": field("OwnerId"),
    "state": field("State"),
    "tag-key": field("Tags.0.Key"),
    "vpc-id": field("VpcId"),
}
GROUPS = {
    "description": field("Description"),
    "group-id": field("GroupId"),
    "group-name": field("GroupName"),
    "owner-id": field("OwnerId"),
    "tag-key": field("Tags.0.Key"),
    "vpc-id": field("VpcId"),
}
TYPES = {
    "bare-metal": field("BareMetal"),
    "hypervisor": field("Hypervisor"),
    "instance-type": field("InstanceType"),
    "network-info.ipv4-addresses-per-interface": field("NetworkInfo.Ipv4AddressesPerInterface"),
    "network-info.maximum-network-cards": field("NetworkInfo.MaximumNetworkCards"),
    "network-info.maximum-network-interfaces": field("NetworkInfo.MaximumNetworkInterfaces"),
    "vcpu-info.default-vcpus": field("VCpuInfo.DefaultVCpus"),
}
CALLS = {
    "interfaces": ("DescribeNetworkInterfaces", "NetworkInterfaceId", INTERFACES),
    "instances": ("DescribeInstances", "InstanceId", INSTANCES),
    "subnets": ("DescribeSubnets", "SubnetId", SUBNETS),
    "vpcs": ("DescribeVpcs", "VpcId", VPCS),
    "groups": ("DescribeSecurityGroups", "GroupId", GROUPS),
    "types": ("DescribeInstanceTypes", "InstanceType", TYPES),
}
# Accepted, but with tests of their own: managed interfaces have a principal, and there are none; the reservation is
# around the instance and not in it.
APART = {
    "interfaces": {"operator.principal"},
    "instances": {"network-interface.operator.principal", "reservation-id"},
}


@pytest.fixture(scope="module")
def region():
    """A simulator with one resource of each kind that has something in every field, and others beside it."""
    from conftest import start_sim, stop

    sim = start_sim("--timing", "none", "--no-throttle")
    ec2 = sim.client()
    tags = [{"Key": "role", "Value": "pods"}]
    found = subnet_a(ec2)
    vpc, subnet = found["VpcId"], found["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="pods", Description="of pods")["GroupId"]
    other = ec2.create_vpc(CidrBlock="172.30.0.0/16")["Vpc"]["VpcId"]
    node = ec2.run_instances(
        ImageId="ami-0123456789abcdef0",
        InstanceType="m5.large",
        MinCount=1,
        MaxCount=1,
        ClientToken="node-1",
        NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group], "Ipv4PrefixCount": 1}],
    )["Instances"][0]["InstanceId"]
    launch(ec2, "m5.xlarge", name="beside")
    eni = ec2.create_network_interface(
        SubnetId=subnet,
        Groups=[group],
        Description="of node-1",
        SecondaryPrivateIpAddressCount=1,
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )["NetworkInterface"]["NetworkInterfaceId"]
    ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=node, DeviceIndex=1)
    ec2.create_network_interface(SubnetId=subnet)
    ec2.create_tags(Resources=[vpc, subnet, group, node], Tags=tags)
    yield ec2, {"interfaces": eni, "instances": node, "subnets": subnet, "vpcs": vpc, "groups": group, "other": other}
    stop(sim.process)


def describe(ec2, kind, **parameters):
    """The resources that the call answers, by their ids."""
    call, key, _ = CALLS[kind]
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", call).lower()
    answer = getattr(ec2, name)(**parameters)
    if kind == "instances":
        resources = [i for r in answer["Reservations"] for i in r["Instances"]]
    else:
        (resources,) = (value for field, value in answer.items() if field not in ("ResponseMetadata", "NextToken"))
    return {resource[key]: resource for resource in resources}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, (_, _, table) in CALLS.items() for name in table])
def test_a_filter_by_the_value_shown_finds_it_and_by_another_does_not(region, kind, name):
    ec2, ids = region
    specimen = ids.get(kind, "m5.large")
    value = CALLS[kind][2][name](describe(ec2, kind)[specimen])
    assert specimen in describe(ec2, kind, Filters=[{"Name": name, "Values": [value]}]), value
    assert describe(ec2, kind, Filters=[{"Name": name, "Values": [value.replace("*", "") + "-not"]}]) == {}


@pytest.mark.parametrize("kind", CALLS)
def test_a_documented_filter_is_in_the_table_or_refused(region, kind):
    ec2, _ = region
    call, _, table = CALLS[kind]
    documentation = ec2.meta.service_model.operation_model(call).input_shape.members["Filters"].documentation
    documented = set(re.findall(r"<code>([A-Za-z0-9.-]+)</code> -", documentation)) - {"tag"}
    documented |= set(re.findall(r"also use <code>(\w+)</code>", documentation))
    assert len(documented) >= len(table) / 2, "the names could not be read from the documentation"
    for name in sorted(documented - set(table) - APART.get(kind, set())):
        refusal = error_code(describe, ec2, kind, Filters=[{"Name": name, "Values": ["x"]}])
        assert refusal == "InvalidParameterValue", f"{name} is accepted, and no test says what it does"
    # The documentation gives `cidr-block` two more names in one sentence.
    assert set(table) - documented - {"cidr", "cidrBlock"} == set(), "filters that EC2 does not document"


def test_managed_interfaces_are_asked_for_in_vain(region):
    ec2, _ = region
    assert describe(ec2, "interfaces", Filters=[{"Name": "operator.principal", "Values": ["*"]}]) == {}
    of_interfaces = [{"Name": "network-interface.operator.principal", "Values": ["*"]}]
    assert describe(ec2, "instances", Filters=of_interfaces) == {}
    assert describe(ec2, "interfaces", Filters=[{"Name": "operator.managed", "Values": ["true"]}]) == {}


def test_instances_are_found_by_their_reservation(region):
    ec2, ids = region
    (reservation,) = ec2.describe_instances(InstanceIds=[ids["instances"]])["Reservations"]
    by_it = [{"Name": "reservation-id", "Values": [reservation["ReservationId"]]}]
    assert list(describe(ec2, "instances", Filters=by_it)) == [ids["instances"]]


def test_an_instance_is_found_by_its_primary_address_and_by_others_only_under_their_interface(region):
    ec2, ids = region
    node = describe(ec2, "instances")[ids["instances"]]
    secondary = node["NetworkInterfaces"][1]["PrivateIpAddresses"][1]["PrivateIpAddress"]
    assert describe(ec2, "instances", Filters=[{"Name": "private-ip-address", "Values": [secondary]}]) == {}
    by_interface = [{"Name": "network-interface.addresses.private-ip-address", "Values": [secondary]}]
    assert list(describe(ec2, "instances", Filters=by_interface)) == [ids["instances"]]


def test_an_attachment_s_status_is_detached_where_there_is_none(region):
    ec2, _ = region
    found = describe(ec2, "interfaces", Filters=[{"Name": "attachment.status", "Values": ["detached"]}])
    assert [eni["Status"] for eni in found.values()] == ["available"]


def test_ranges_of_another_vpc_are_others(region):
    ec2, ids = region
    vpcs = describe(ec2, "vpcs")
    associations = [vpcs[ids[name]]["CidrBlockAssociationSet"][0]["AssociationId"] for name in ("vpcs", "other")]
    assert len(set(associations)) == 2
    by_id = [{"Name": "cidr-block-association.association-id", "Values": associations[1:]}]
    assert list(describe(ec2, "vpcs", Filters=by_id)) == [ids["other"]]


def test_a_whole_day_is_asked_for_with_a_wildcard(region):
    ec2, ids = region
    day = describe(ec2, "instances")[ids["instances"]]["LaunchTime"].strftime("%Y-%m-%dT*")
    assert ids["instances"] in describe(ec2, "instances", Filters=[{"Name": "launch-time", "Values": [day]}])


def test_instance_types_have_no_tags(region):
    ec2, _ = region
    by_tag = [{"Name": "tag:role", "Values": ["true"]}]
    assert error_code(ec2.describe_instance_types, Filters=by_tag) == "InvalidParameterValue"


def test_a_call_has_at_most_200_filter_values(region):
    ec2, _ = region

    def by(count):
        return [{"Name": "availability-zone", "Values": [f"{REGION}a"] + (count - 1) * ["x"]}]

    assert len(describe(ec2, "subnets", Filters=by(200))) == 1
    assert error_code(ec2.describe_subnets, Filters=by(201)) == "FilterLimitExceeded"
    long = [{"Name": "availability-zone", "Values": ["x" * 256]}]
    assert error_code(ec2.describe_subnets, Filters=long) == "FilterLimitExceeded"
