"""Faults on demand: each as EC2's clients meet it, and what the region holds afterwards."""
import time

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError
from conftest import error_code, http, launch, subnet_a

HOUR = 3_600_000


def interface(ec2):
    """A new interface's id."""
    return ec2.create_network_interface(SubnetId=subnet_a(ec2)["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]


def shown(ec2, eni):
    return ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]


def refusal(call, **parameters):
    """Status, code and message that the call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def test_a_stuck_attach_stays_attaching_until_the_fault_ends(sim, ec2):
    node, eni = launch(ec2), interface(ec2)
    fault = sim.control("POST", "faults", {"kind": "stuck-attach", "action": "AttachNetworkInterface"})["id"]
    ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=node["InstanceId"], DeviceIndex=1)
    sim.control("POST", "time", {"advance_ms": HOUR})
    attached = shown(ec2, eni)
    assert (attached["Status"], attached["Attachment"]["Status"]) == ("in-use", "attaching")
    truth = {e["id"]: e for e in sim.control("GET", "state")["truth"]["enis"]}
    assert truth[eni]["attachment"]["effective"] is False, "it is not in the instance"
    sim.control("DELETE", f"faults/{fault}")
    attached = shown(ec2, eni)
    assert (attached["Status"], attached["Attachment"]["Status"]) == ("in-use", "attached")


def test_a_stuck_detach_stays_detaching_until_the_fault_ends(sim, ec2):
    node, eni = launch(ec2), interface(ec2)
    attachment = ec2.attach_network_interface(
        NetworkInterfaceId=eni, InstanceId=node["InstanceId"], DeviceIndex=1
    )["AttachmentId"]
    sim.control("POST", "faults", {"kind": "stuck-detach", "action": "DetachNetworkInterface"})
    ec2.detach_network_interface(AttachmentId=attachment)
    sim.control("POST", "time", {"advance_ms": HOUR})
    assert shown(ec2, eni)["Attachment"]["Status"] == "detaching"
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId=eni) == "InvalidParameterValue"
    sim.control("DELETE", "faults")
    assert shown(ec2, eni)["Status"] == "available" and "Attachment" not in shown(ec2, eni)
    ec2.delete_network_interface(NetworkInterfaceId=eni)


def test_an_internal_error_may_hide_that_all_was_done(sim, ec2):
    eni = interface(ec2)
    sim.control("POST", "faults", {"kind": "applied-internal-error", "action": "AssignPrivateIpAddresses", "count": 1})
    status, code, _ = refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=3)
    assert (status, code) == (500, "InternalError")
    assert len(shown(ec2, eni)["PrivateIpAddresses"]) == 1 + 3
    sim.control("POST", "faults", {"kind": "internal-error", "action": "AssignPrivateIpAddresses", "count": 1})
    status, code, _ = refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=3)
    assert (status, code) == (500, "InternalError")
    assert len(shown(ec2, eni)["PrivateIpAddresses"]) == 1 + 3, "and this one was not carried out"


def test_what_is_applied_and_refused_by_ec2_itself_is_not_hidden(sim, ec2):
    sim.control("POST", "faults", {"kind": "applied-internal-error", "action": "DeleteNetworkInterface"})
    gone = error_code(ec2.delete_network_interface, NetworkInterfaceId="eni-0123456789abcdef0")
    assert gone == "InvalidNetworkInterfaceID.NotFound"


def test_a_lost_request_does_nothing(sim, ec2):
    sim.control("POST", "faults", {"kind": "request-lost", "action": "CreateNetworkInterface", "count": 1})
    with pytest.raises((ConnectionClosedError, EndpointConnectionError, HTTPClientError)):
        ec2.create_network_interface(SubnetId=subnet_a(ec2)["SubnetId"])
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_a_slow_call_takes_so_much_longer_and_the_others_do_not(sim, ec2):
    sim.control("POST", "faults", {"kind": "slow", "millis": 300, "action": "DescribeSubnets", "count": 1})
    start = time.monotonic()
    ec2.describe_subnets()
    assert time.monotonic() - start >= 0.3
    ec2.describe_subnets()
    ec2.describe_vpcs()
    calls = sim.control("GET", "calls")["calls"]
    assert [(call["action"], call["latency_ms"]) for call in calls] == [
        ("DescribeSubnets", 300),
        ("DescribeSubnets", 0),
        ("DescribeVpcs", 0),
    ]


def test_a_subnet_without_addresses_is_told_in_the_words_of_each_action(sim, ec2):
    subnet, eni = subnet_a(ec2), interface(ec2)
    sim.control("POST", "faults", {"kind": "insufficient-addresses", "count": 3})
    create = refusal(ec2.create_network_interface, SubnetId=subnet["SubnetId"])
    assert create == (400, "InvalidParameterValue", "There aren't sufficient free Ipv4 addresses or prefixes")
    assign = refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1)
    assert assign[:2] == (400, "InsufficientFreeAddressesInSubnet")
    run = refusal(
        ec2.run_instances,
        ImageId="ami-0123456789abcdef0",
        InstanceType="m5.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet["SubnetId"],
    )
    assert run == (
        400,
        "InsufficientFreeAddressesInSubnet",
        f"There are not enough free addresses in subnet '{subnet['SubnetId']}' to satisfy the requested number of"
        " instances.",
    )
    sim.control("POST", "faults", {"kind": "insufficient-prefixes", "action": "CreateNetworkInterface", "count": 1})
    prefixes = refusal(ec2.create_network_interface, SubnetId=subnet["SubnetId"], Ipv4PrefixCount=1)
    assert prefixes[:2] == (400, "InsufficientCidrBlocks")
    assert [e["NetworkInterfaceId"] for e in ec2.describe_network_interfaces()["NetworkInterfaces"]] == [eni]
    assert ec2.describe_instances()["Reservations"] == []


def test_any_other_error_can_be_had_in_its_own_words(sim, ec2):
    error = {"kind": "error", "status": 401, "code": "OptInRequired", "message": "You are not subscribed."}
    sim.control("POST", "faults", error | {"action": "DescribeVpcs", "count": 1})
    assert refusal(ec2.describe_vpcs) == (401, "OptInRequired", "You are not subscribed.")
    assert ec2.describe_vpcs()["Vpcs"]


def test_a_fault_befalls_the_calls_of_one_resource_after_those_it_skips(sim, ec2):
    one, other = interface(ec2), interface(ec2)
    rule = {"kind": "denied", "action": "DeleteNetworkInterface", "resource": one, "skip": 1, "count": 1}
    sim.control("POST", "faults", rule)
    held = launch(ec2)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId=held) == "InvalidParameterValue"
    ec2.delete_network_interface(NetworkInterfaceId=other)
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId=one, DryRun=True) == "DryRunOperation"
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId=one) == "UnauthorizedOperation"
    ec2.delete_network_interface(NetworkInterfaceId=one)


def test_faults_in_force_are_listed_with_their_hits(sim, ec2):
    assert sim.control("GET", "faults")["faults"] == []
    first = sim.control("POST", "faults", {"kind": "throttle", "action": "DescribeVpcs", "count": 5})["id"]
    second = sim.control("POST", "faults", {"kind": "slow", "millis": 1})["id"]
    assert error_code(ec2.describe_vpcs) == "RequestLimitExceeded"
    listed = {fault["id"]: fault for fault in sim.control("GET", "faults")["faults"]}
    assert listed.keys() == {first, second}
    assert (listed[first]["kind"], listed[first]["action"], listed[first]["hits"]) == ("throttle", "DescribeVpcs", 1)
    assert (listed[second]["kind"], listed[second]["millis"], listed[second]["hits"]) == ("slow", 1, 1)
    sim.control("DELETE", f"faults/{first}")
    assert [fault["id"] for fault in sim.control("GET", "faults")["faults"]] == [second]
    sim.control("DELETE", "faults")
    assert sim.control("GET", "faults")["faults"] == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (b'{"kind": "gremlins"}', "unknown variant `gremlins`"),
        (b'{"kind": "throttle", "acton": "CreateTags"}', "acton"),
        (b'{"kind": "throttle", "millis": 3}', "millis"),
        (b'{"kind": "throttle", "action": "CreateTag"}', "CreateTag\\\" is no action"),
        (b'{"kind": "slow"}', "missing field `millis`"),
        (b"throttle, please", "cannot read the body"),
    ],
)
def test_a_fault_that_could_befall_nothing_is_refused(sim, rule, words):
    status, _, text = http("POST", f"{sim.endpoint}/_sim/faults", data=rule)
    assert status == 400 and words in text, text
    assert sim.control("GET", "faults")["faults"] == []
