"""Instances, their types and the network around them, as boto3 sees them."""
import gzip
import json
import os

import moto
from conftest import error_code, launch, subnet_a


def test_an_instance_runs_stops_starts_and_ends(ec2):
    node = launch(ec2, name="node-1")
    assert node["State"] == {"Code": 0, "Name": "pending"}
    ids = [node["InstanceId"]]
    ec2.get_waiter("instance_running").wait(InstanceIds=ids)
    shown = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["node-1"]}])["Reservations"][0]
    assert shown["Instances"][0]["PrivateIpAddress"] == node["PrivateIpAddress"]
    assert shown["Instances"][0]["PrivateDnsName"].startswith("ip-10-0-")
    change = ec2.stop_instances(InstanceIds=ids)["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids)
    ec2.start_instances(InstanceIds=ids)
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids)
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == [], "the primary interface goes along"
    assert error_code(ec2.start_instances, InstanceIds=ids) == "IncorrectInstanceState"


def test_instances_of_one_launch_share_a_reservation(ec2):
    def run(count):
        return ec2.run_instances(
            ImageId="ami-0123456789abcdef0",
            InstanceType="m5.large",
            MinCount=count,
            MaxCount=count,
            SubnetId=subnet_a(ec2)["SubnetId"],
        )

    def instances(launch):
        return [i["InstanceId"] for i in launch["Instances"]]

    three, one = run(3), run(1)
    shown = {r["ReservationId"]: r for r in ec2.describe_instances()["Reservations"]}
    assert shown.keys() == {three["ReservationId"], one["ReservationId"]}
    for launch in three, one:
        assert instances(shown[launch["ReservationId"]]) == instances(launch), "in the order of the launch"
    assert [i["AmiLaunchIndex"] for i in shown[three["ReservationId"]]["Instances"]] == [0, 1, 2]
    some = ec2.describe_instances(InstanceIds=instances(three)[:2])["Reservations"]
    assert [instances(r) for r in some] == [instances(three)[:2]]


def test_a_launch_token_launches_once(ec2):
    run = {
        "ImageId": "ami-0123456789abcdef0",
        "InstanceType": "m5.large",
        "MinCount": 1,
        "MaxCount": 1,
        "SubnetId": subnet_a(ec2)["SubnetId"],
        "ClientToken": "node-1",
    }
    first, again = ec2.run_instances(**run), ec2.run_instances(**run)
    assert again["ReservationId"] == first["ReservationId"]
    assert again["Instances"][0]["InstanceId"] == first["Instances"][0]["InstanceId"]
    assert len(ec2.describe_instances()["Reservations"]) == 1
    run["InstanceType"] = "m5.xlarge"
    assert error_code(ec2.run_instances, **run) == "IdempotentParameterMismatch"
    run["ClientToken"] = "x" * 65
    assert error_code(ec2.run_instances, **run) == "InvalidParameterValue"


def test_a_launch_template_s_interfaces_come_with_prefixes(ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    node = ec2.run_instances(
        ImageId="ami-0123456789abcdef0",
        InstanceType="m5.large",
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[
            {"DeviceIndex": 0, "SubnetId": subnet, "Ipv4PrefixCount": 2},
            {"DeviceIndex": 1, "SubnetId": subnet, "SecondaryPrivateIpAddressCount": 3, "DeleteOnTermination": False},
        ],
    )["Instances"][0]
    first, second = node["NetworkInterfaces"]
    assert len(first["Ipv4Prefixes"]) == 2 and len(second["PrivateIpAddresses"]) == 4
    assert first["Attachment"]["DeleteOnTermination"] is True
    assert second["Attachment"]["DeleteOnTermination"] is False


def test_limits_are_those_of_the_type(ec2):
    node = launch(ec2, "t3.small")
    enis = [ec2.create_network_interface(SubnetId=node["SubnetId"])["NetworkInterface"] for _ in range(3)]
    attach = [{"NetworkInterfaceId": e["NetworkInterfaceId"], "InstanceId": node["InstanceId"]} for e in enis]
    ec2.attach_network_interface(DeviceIndex=1, **attach[0])
    ec2.attach_network_interface(DeviceIndex=2, **attach[1])
    assert error_code(ec2.attach_network_interface, DeviceIndex=3, **attach[2]) == "AttachmentLimitExceeded"
    one = enis[0]["NetworkInterfaceId"]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=one, SecondaryPrivateIpAddressCount=3)
    full = error_code(ec2.assign_private_ip_addresses, NetworkInterfaceId=one, SecondaryPrivateIpAddressCount=1)
    assert full == "PrivateIpAddressLimitExceeded"


def test_every_type_has_aws_s_own_figures(ec2):
    """All current types, against the DescribeInstanceTypes answers that moto's package carries."""
    path = os.path.join(os.path.dirname(moto.__file__), "ec2/resources/instance_types.json.gz")
    with gzip.open(path, "rt") as source:
        published = json.load(source)
    shown = {}
    for page in ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 100}):
        shown.update({t["InstanceType"]: t for t in page["InstanceTypes"]})
    assert shown.keys() == published.keys()
    for name, real in published.items():
        ours = shown[name]
        for field in "MaximumNetworkInterfaces", "Ipv4AddressesPerInterface", "MaximumNetworkCards":
            assert ours["NetworkInfo"][field] == real["NetworkInfo"][field], (name, field)
        cards = [(c["NetworkCardIndex"], c["MaximumNetworkInterfaces"]) for c in real["NetworkInfo"]["NetworkCards"]]
        ours_cards = [(c["NetworkCardIndex"], c["MaximumNetworkInterfaces"]) for c in ours["NetworkInfo"]["NetworkCards"]]
        assert sorted(ours_cards) == sorted(cards), name
        assert ours["VCpuInfo"]["DefaultVCpus"] == real["VCpuInfo"]["DefaultVCpus"], name
        assert ours.get("Hypervisor") == real.get("Hypervisor"), name
        assert ours["BareMetal"] == real["BareMetal"], name


def test_types_come_at_most_a_hundred_at_once_and_other_things_a_thousand(ec2):
    assert len(ec2.describe_instance_types(MaxResults=100)["InstanceTypes"]) == 100
    assert error_code(ec2.describe_instance_types, MaxResults=101) == "InvalidParameterValue"
    calls = (
        ec2.describe_instances,
        ec2.describe_network_interfaces,
        ec2.describe_security_groups,
        ec2.describe_subnets,
        ec2.describe_vpcs,
    )
    for describe in calls:
        describe(MaxResults=1000)
        assert error_code(describe, MaxResults=1001) == "InvalidParameterValue"


def test_an_unknown_type_is_named(ec2):
    assert error_code(ec2.describe_instance_types, InstanceTypes=["m5.large", "m5.huge"]) == "InvalidInstanceType"


def test_vpcs_subnets_and_groups_can_be_made_and_found(ec2):
    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(
        VpcId=vpc,
        CidrBlock="172.20.1.0/24",
        AvailabilityZone="eu-west-1b",
        TagSpecifications=[{"ResourceType": "subnet", "Tags": [{"Key": "role", "Value": "pods"}]}],
    )["Subnet"]
    assert subnet["AvailableIpAddressCount"] == 251
    group = ec2.create_security_group(VpcId=vpc, GroupName="pods", Description="pods")["GroupId"]
    found = ec2.describe_subnets(
        Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "tag:role", "Values": ["pods"]}]
    )["Subnets"]
    assert [s["SubnetId"] for s in found] == [subnet["SubnetId"]]
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
    assert {g["GroupName"] for g in groups} == {"default", "pods"}
    assert group in {g["GroupId"] for g in groups}
    overlap = error_code(ec2.create_subnet, VpcId=vpc, CidrBlock="172.20.1.128/25")
    assert overlap == "InvalidSubnet.Conflict"
    assert len(ec2.describe_vpcs()["Vpcs"]) == 2


def test_everything_comes_in_pages(ec2):
    """Twelve of each: five, five and two, none twice and none left out."""
    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
    # A region begins with one VPC, and a VPC with one group.
    for number in range(10):
        ec2.create_vpc(CidrBlock=f"172.{number}.0.0/16")
    subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"172.20.{n}.0/24")["Subnet"]["SubnetId"] for n in range(12)]
    for number in range(11):
        ec2.create_security_group(VpcId=vpc, GroupName=f"g{number}", Description="d")
    ec2.run_instances(
        ImageId="ami-0123456789abcdef0", InstanceType="m5.large", MinCount=12, MaxCount=12, SubnetId=subnets[0]
    )
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    for call, filters, ids in [
        ("describe_instances", of_vpc, lambda p: [i["InstanceId"] for r in p["Reservations"] for i in r["Instances"]]),
        ("describe_subnets", of_vpc, lambda p: [s["SubnetId"] for s in p["Subnets"]]),
        ("describe_security_groups", of_vpc, lambda p: [g["GroupId"] for g in p["SecurityGroups"]]),
        ("describe_vpcs", [], lambda p: [v["VpcId"] for v in p["Vpcs"]]),
    ]:
        whole = ids(getattr(ec2, call)(Filters=filters))
        pages = list(ec2.get_paginator(call).paginate(Filters=filters, PaginationConfig={"PageSize": 5}))
        assert [len(ids(page)) for page in pages] == [5, 5, 2], call
        assert sorted(i for page in pages for i in ids(page)) == sorted(set(whole)), call
        assert error_code(getattr(ec2, call), NextToken="junk") == "InvalidPaginationToken"
