"""The life of network interfaces, as boto3 sees it."""
import functools

import pytest
from botocore.exceptions import ClientError
from conftest import error_code, launch, subnet_a


def test_an_interface_comes_with_what_was_asked_for(ec2):
    subnet = subnet_a(ec2)
    group = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["nodes"]}])["SecurityGroups"][0]
    eni = ec2.create_network_interface(
        SubnetId=subnet["SubnetId"],
        Groups=[group["GroupId"]],
        SecondaryPrivateIpAddressCount=9,
        Description="enipool node-1 i-1",
        ClientToken="intent-1",
        TagSpecifications=[
            {"ResourceType": "network-interface", "Tags": [{"Key": "enipool.dev/intent", "Value": "a&b <c>"}]}
        ],
    )["NetworkInterface"]
    assert eni["Status"] == "available"
    assert eni["VpcId"] == subnet["VpcId"] and eni["AvailabilityZone"] == subnet["AvailabilityZone"]
    assert eni["Groups"] == [{"GroupId": group["GroupId"], "GroupName": "nodes"}]
    assert [a["Primary"] for a in eni["PrivateIpAddresses"]] == [True] + 9 * [False]
    assert eni["PrivateIpAddresses"][0]["PrivateIpAddress"] == eni["PrivateIpAddress"]
    assert eni["TagSet"] == [{"Key": "enipool.dev/intent", "Value": "a&b <c>"}]
    assert eni["Description"] == "enipool node-1 i-1"
    assert ec2.describe_network_interfaces()["NetworkInterfaces"][0] == eni


def test_attach_modify_detach_delete(ec2):
    node = launch(ec2)
    eni = ec2.create_network_interface(SubnetId=node["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    attachment = ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=node["InstanceId"], DeviceIndex=1)
    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni,
        Attachment={"AttachmentId": attachment["AttachmentId"], "DeleteOnTermination": True},
    )
    shown = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]
    assert shown["Status"] == "in-use"
    assert shown["Attachment"]["AttachmentId"] == attachment["AttachmentId"]
    assert shown["Attachment"]["InstanceId"] == node["InstanceId"]
    assert (shown["Attachment"]["DeviceIndex"], shown["Attachment"]["NetworkCardIndex"]) == (1, 0)
    assert shown["Attachment"]["DeleteOnTermination"] is True
    assert shown["Attachment"]["Status"] == "attached"
    instance = ec2.describe_instances(InstanceIds=[node["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert [i["Attachment"]["DeviceIndex"] for i in instance["NetworkInterfaces"]] == [0, 1]
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId=eni) == "InvalidParameterValue"
    ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
    ec2.get_waiter("network_interface_available").wait(NetworkInterfaceIds=[eni])
    ec2.delete_network_interface(NetworkInterfaceId=eni)
    not_found = error_code(ec2.describe_network_interfaces, NetworkInterfaceIds=[eni])
    assert not_found == "InvalidNetworkInterfaceID.NotFound"


def test_one_attribute_of_an_interface_is_changed_at_a_time(ec2):
    subnet = subnet_a(ec2)
    groups = [
        ec2.create_security_group(VpcId=subnet["VpcId"], GroupName=f"g{n}", Description="d")["GroupId"] for n in range(6)
    ]
    eni = ec2.create_network_interface(SubnetId=subnet["SubnetId"], Description="new")["NetworkInterface"]
    modify = functools.partial(ec2.modify_network_interface_attribute, NetworkInterfaceId=eni["NetworkInterfaceId"])

    def shown():
        return ec2.describe_network_interfaces(NetworkInterfaceIds=[eni["NetworkInterfaceId"]])["NetworkInterfaces"][0]

    assert (eni["SourceDestCheck"], eni["Groups"][0]["GroupName"]) == (True, "default")
    modify(Groups=groups[:2])
    assert shown() == eni | {"Groups": [{"GroupId": g, "GroupName": f"g{n}"} for n, g in enumerate(groups[:2])]}
    before = shown()
    modify(Description={"Value": "spare"})
    assert shown() == before | {"Description": "spare"}
    modify(SourceDestCheck={"Value": False})
    after = shown()
    assert after == before | {"Description": "spare", "SourceDestCheck": False}
    two = error_code(modify, Description={"Value": "both"}, SourceDestCheck={"Value": True})
    assert two == "InvalidParameterCombination"
    assert error_code(modify) == "MissingParameter"
    assert error_code(modify, Groups=groups) == "SecurityGroupsPerInterfaceLimitExceeded"
    assert error_code(modify, Groups=["sg-0123456789abcdef0"]) == "InvalidGroup.NotFound"
    nowhere = {"AttachmentId": "eni-attach-0123456789abcdef0", "DeleteOnTermination": True}
    assert error_code(modify, Attachment=nowhere) == "InvalidAttachmentID.NotFound"
    assert shown() == after, "what was refused changed nothing"


def test_addresses_and_prefixes_come_and_go(ec2):
    subnet = subnet_a(ec2)
    eni = ec2.create_network_interface(SubnetId=subnet["SubnetId"], Ipv4PrefixCount=1)["NetworkInterface"]
    assert len(eni["Ipv4Prefixes"]) == 1 and eni["Ipv4Prefixes"][0]["Ipv4Prefix"].endswith("/28")
    name = eni["NetworkInterfaceId"]
    more = ec2.assign_private_ip_addresses(NetworkInterfaceId=name, SecondaryPrivateIpAddressCount=3)
    addresses = [a["PrivateIpAddress"] for a in more["AssignedPrivateIpAddresses"]]
    assert len(set(addresses)) == 3
    prefixes = ec2.assign_private_ip_addresses(NetworkInterfaceId=name, Ipv4PrefixCount=2)["AssignedIpv4Prefixes"]
    assert len(prefixes) == 2
    free = subnet_a(ec2)["AvailableIpAddressCount"]
    assert subnet["AvailableIpAddressCount"] - free == 1 + 3 + 3 * 16
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=name, PrivateIpAddresses=addresses[:2])
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=name, Ipv4Prefixes=[prefixes[0]["Ipv4Prefix"]])
    shown = ec2.describe_network_interfaces(NetworkInterfaceIds=[name])["NetworkInterfaces"][0]
    held = {a["PrivateIpAddress"] for a in shown["PrivateIpAddresses"] if not a["Primary"]}
    assert held == {addresses[2]}
    assert len(shown["Ipv4Prefixes"]) == 2
    again = error_code(ec2.unassign_private_ip_addresses, NetworkInterfaceId=name, PrivateIpAddresses=addresses[:1])
    assert again == "InvalidParameterValue"


def test_named_addresses_can_be_moved_only_on_demand(ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    one, two = (ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"] for _ in "ab")
    ec2.assign_private_ip_addresses(NetworkInterfaceId=one, PrivateIpAddresses=["10.0.0.77"])
    taken = error_code(ec2.assign_private_ip_addresses, NetworkInterfaceId=two, PrivateIpAddresses=["10.0.0.77"])
    assert taken == "InvalidParameterValue"
    ec2.assign_private_ip_addresses(NetworkInterfaceId=two, PrivateIpAddresses=["10.0.0.77"], AllowReassignment=True)
    owners = ec2.describe_network_interfaces(
        Filters=[{"Name": "addresses.private-ip-address", "Values": ["10.0.0.77"]}]
    )["NetworkInterfaces"]
    assert [eni["NetworkInterfaceId"] for eni in owners] == [two]


def test_a_client_token_creates_once_and_mismatches_are_told(ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    create = {"SubnetId": subnet, "ClientToken": "intent-42", "SecondaryPrivateIpAddressCount": 2}
    first = ec2.create_network_interface(**create)["NetworkInterface"]
    assert ec2.create_network_interface(**create)["NetworkInterface"] == first
    create["SecondaryPrivateIpAddressCount"] = 3
    assert error_code(ec2.create_network_interface, **create) == "IdempotentParameterMismatch"


def test_pages_and_filters(ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    made = set()
    for number in range(12):
        eni = ec2.create_network_interface(
            SubnetId=subnet,
            TagSpecifications=[
                {"ResourceType": "network-interface", "Tags": [{"Key": "number", "Value": f"n{number}"}]}
            ],
        )
        made.add(eni["NetworkInterface"]["NetworkInterfaceId"])
    pages = list(ec2.get_paginator("describe_network_interfaces").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(page["NetworkInterfaces"]) for page in pages] == [5, 5, 2]
    assert {eni["NetworkInterfaceId"] for page in pages for eni in page["NetworkInterfaces"]} == made

    def found(*filters):
        named = [{"Name": name, "Values": values} for name, values in filters]
        return len(ec2.describe_network_interfaces(Filters=named)["NetworkInterfaces"])

    assert found(("tag:number", ["n1*"])) == 3
    assert found(("tag:number", ["n1", "n2"]), ("status", ["available"])) == 2
    assert found(("tag-key", ["number"]), ("subnet-id", [subnet])) == 12
    assert found(("status", ["in-use"])) == 0
    unknown = error_code(ec2.describe_network_interfaces, Filters=[{"Name": "colour", "Values": ["red"]}])
    assert unknown == "InvalidParameterValue"
    both = error_code(ec2.describe_network_interfaces, NetworkInterfaceIds=sorted(made)[:1], MaxResults=5)
    assert both == "InvalidParameterCombination"
    assert error_code(ec2.describe_network_interfaces, NextToken="junk") == "InvalidPaginationToken"


def test_ids_of_the_wrong_form_are_told_from_unknown_ones(ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId="nic-1") == "InvalidNetworkInterfaceId.Malformed"
    unknown = error_code(ec2.delete_network_interface, NetworkInterfaceId="eni-0123456789abcdef0")
    assert unknown == "InvalidNetworkInterfaceID.NotFound"
    assert error_code(ec2.create_network_interface, SubnetId="subnet-0123456789abcdef0") == "InvalidSubnetID.NotFound"
    group = error_code(ec2.create_network_interface, SubnetId=subnet, Groups=["sg-0123456789abcdef0"])
    assert group == "InvalidGroup.NotFound"


def test_a_dry_run_and_an_unknown_parameter(ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    assert error_code(ec2.create_network_interface, SubnetId=subnet, DryRun=True) == "DryRunOperation"
    assert error_code(ec2.create_network_interface, SubnetId=subnet, Ipv6AddressCount=1) == "UnknownParameter"
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_tags_can_be_added(ec2):
    eni = ec2.create_network_interface(SubnetId=subnet_a(ec2)["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    ec2.create_tags(Resources=[eni], Tags=[{"Key": "Name", "Value": "spare"}])
    found = ec2.describe_network_interfaces(Filters=[{"Name": "tag:Name", "Values": ["spare"]}])["NetworkInterfaces"]
    assert [e["NetworkInterfaceId"] for e in found] == [eni]
    reserved = error_code(ec2.create_tags, Resources=[eni], Tags=[{"Key": "aws:x", "Value": "y"}])
    assert reserved == "InvalidParameterValue"


def test_tags_have_ec2_s_limits(ec2):
    eni = ec2.create_network_interface(SubnetId=subnet_a(ec2)["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]

    def refusal(*tags):
        with pytest.raises(ClientError) as caught:
            ec2.create_tags(Resources=[eni], Tags=[{"Key": key, "Value": value} for key, value in tags])
        return caught.value.response["Error"]

    ec2.create_tags(Resources=[eni], Tags=[{"Key": "k" * 128, "Value": "v" * 256}])
    assert refusal(("k" * 129, "v"))["Message"] == "Tag key exceeds the maximum length of 128 characters"
    assert refusal(("k", "v" * 257))["Message"] == "Tag value exceeds the maximum length of 256 characters"
    assert refusal(*((f"k{n}", "v") for n in range(50)))["Code"] == "TagLimitExceeded"
    ec2.create_tags(Resources=[eni], Tags=[{"Key": f"k{n}", "Value": "v"} for n in range(49)])
