"""The shape of answers. The same calls to the simulator and to moto: each field that moto answers must be in our answer,
with the same type; and every XML element of ours must be one that EC2's API model (botocore's copy of it) knows.

moto is no judge of behaviour, but an independent reading of the protocol. What it answers and we do not is listed here,
with the reason.
"""
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import REGION, launch, subnet_a

# Fields of moto's answers that an ENI pool does not read, by what they belong to.
NOT_SIMULATED = {
    "Association": "public addresses are not simulated",
    "PublicDnsName": "public addresses are not simulated",
    "PublicIpAddress": "public addresses are not simulated",
    "KeyName": "key pairs are not simulated",
    "KernelId": "a relic of paravirtual images",
    "RamdiskId": "a relic of paravirtual images",
    "BlockDeviceMappings": "volumes are not simulated",
    "StateReason": "a running instance has none; moto shows an empty one",
    "Platform": "only Windows instances have it",
    "SriovNetSupport": "instances with an ENA driver have none",
    "IpPermissions": "rules of security groups are not simulated",
    "IpPermissionsEgress": "rules of security groups are not simulated",
    "SecurityGroupArn": "nothing reads it",
    "SecurityGroups": "moto repeats the primary interface's groups; compared on the interface",
    "PrivateDnsNameOptionsOnLaunch": "host names of instances are not simulated",
    "ResponseMetadata": "compared elsewhere",
}


def network(ec2):
    vpc = ec2.create_vpc(CidrBlock="172.30.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="172.30.1.0/24", AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="g", Description="d")["GroupId"]
    return vpc, subnet, group


def run(ec2, image):
    """Every call once; their answers by name."""
    answers = {}
    vpc, subnet, group = network(ec2)
    tags = [{"Key": "Name", "Value": "x"}]
    answers["describe_vpcs"] = ec2.describe_vpcs(VpcIds=[vpc])
    answers["describe_subnets"] = ec2.describe_subnets(SubnetIds=[subnet])
    answers["describe_security_groups"] = ec2.describe_security_groups(GroupIds=[group])
    answers["run_instances"] = ec2.run_instances(
        ImageId=image,
        InstanceType="m5.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        SecurityGroupIds=[group],
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    instance = answers["run_instances"]["Instances"][0]["InstanceId"]
    answers["describe_instances"] = ec2.describe_instances(InstanceIds=[instance])
    answers["create_network_interface"] = ec2.create_network_interface(
        SubnetId=subnet,
        Groups=[group],
        Description="d",
        SecondaryPrivateIpAddressCount=2,
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )
    eni = answers["create_network_interface"]["NetworkInterface"]["NetworkInterfaceId"]
    answers["attach_network_interface"] = ec2.attach_network_interface(
        NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1
    )
    attachment = answers["attach_network_interface"]["AttachmentId"]
    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
    )
    answers["assign_addresses"] = ec2.assign_private_ip_addresses(
        NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1
    )
    # Prefixes are not among moto's: it ignores them. test_every_element_is_in_ec2_s_api_model has them.
    answers["describe_network_interfaces"] = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])
    address = answers["assign_addresses"]["AssignedPrivateIpAddresses"][-1]["PrivateIpAddress"]
    answers["unassign"] = ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=[address])
    answers["create_tags"] = ec2.create_tags(Resources=[eni], Tags=tags)
    answers["detach"] = ec2.detach_network_interface(AttachmentId=attachment)
    answers["delete"] = ec2.delete_network_interface(NetworkInterfaceId=eni)
    answers["describe_instance_types"] = ec2.describe_instance_types(InstanceTypes=["m5.large"])
    answers["terminate_instances"] = ec2.terminate_instances(InstanceIds=[instance])
    return answers


def shape(value, path=""):
    """All paths of an answer with the type that is found there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from shape(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from shape(inner, f"{path}[]")
        if not value:
            yield f"{path}[]", "empty"
    else:
        yield path, type(value).__name__


@pytest.fixture(scope="module")
def answers(moto_endpoint):
    import boto3
    from conftest import start_sim, stop

    moto = boto3.client(
        "ec2", endpoint_url=moto_endpoint, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )
    image = moto.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    theirs = run(moto, image)
    sim = start_sim("--timing", "none", "--no-throttle")
    try:
        ours = run(sim.client(), image)
    finally:
        stop(sim.process)
    return ours, theirs


CALLS = [
    "describe_vpcs",
    "describe_subnets",
    "describe_security_groups",
    "run_instances",
    "describe_instances",
    "create_network_interface",
    "attach_network_interface",
    "assign_addresses",
    "describe_network_interfaces",
    "unassign",
    "create_tags",
    "detach",
    "delete",
    "terminate_instances",
]


@pytest.mark.parametrize("call", CALLS)
def test_our_answer_has_what_moto_s_has(answers, call):
    ours, theirs = (dict(shape(side[call])) for side in answers)
    missing = []
    for path, kind in theirs.items():
        if any(part.rstrip("[]") in NOT_SIMULATED for part in path.split(".")) or kind == "empty":
            continue
        if path not in ours:
            missing.append(path)
        elif ours[path] != kind and "empty" not in (kind, ours[path]):
            missing.append(f"{path}: {ours[path]} instead of {kind}")
    assert not missing, "\n".join(missing)


def test_network_figures_of_a_type_are_moto_s(answers):
    ours, theirs = (side["describe_instance_types"]["InstanceTypes"][0]["NetworkInfo"] for side in answers)
    for field in "MaximumNetworkInterfaces", "Ipv4AddressesPerInterface", "MaximumNetworkCards", "Ipv6Supported":
        assert ours[field] == theirs[field]


def unknown_elements(element, shape, path):
    """Elements of an answer that the API model has no place for; parsers would drop them without a word."""
    if shape.type_name == "structure":
        by_name = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        for child in element:
            name = child.tag.split("}")[-1]
            if name in by_name:
                yield from unknown_elements(child, by_name[name], f"{path}/{name}")
            else:
                yield f"{path}/{name}"
    elif shape.type_name == "list":
        for child in element:
            name = child.tag.split("}")[-1]
            if name == shape.member.serialization.get("name", "item"):
                yield from unknown_elements(child, shape.member, f"{path}/{name}")
            else:
                yield f"{path}/{name}"
    elif len(element):
        yield f"{path}: not a {shape.type_name}"


def test_every_element_is_in_ec2_s_api_model(ec2):
    unknown = set()
    seen = set()

    def look(http_response, model, **_):
        root = ElementTree.fromstring(http_response.content)
        assert root.tag == f"{{http://ec2.amazonaws.com/doc/2016-11-15/}}{model.name}Response"
        seen.add(model.name)
        if model.output_shape is not None:
            unknown.update(unknown_elements(root, model.output_shape, model.name))

    ec2.meta.events.register("after-call.ec2", look)
    run(ec2, "ami-0123456789abcdef0")
    node = launch(ec2)
    subnet = subnet_a(ec2)["SubnetId"]
    eni = ec2.create_network_interface(SubnetId=subnet, Ipv4PrefixCount=1)["NetworkInterface"]["NetworkInterfaceId"]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, Ipv4PrefixCount=1)
    ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=node["InstanceId"], DeviceIndex=1)
    ec2.describe_network_interfaces(MaxResults=5)
    ec2.describe_instances()
    ec2.describe_instance_types(InstanceTypes=["p5.48xlarge", "m4.large", "m5.metal"])
    ec2.stop_instances(InstanceIds=[node["InstanceId"]])
    ec2.start_instances(InstanceIds=[node["InstanceId"]])
    assert len(seen) == 21, f"every action of the simulator is looked at: {sorted(seen)}"
    # `requestId` and `return` are outside the model of every answer.
    assert {path for path in unknown if path.count("/") > 1 or not path.endswith(("/requestId", "/return"))} == set()
