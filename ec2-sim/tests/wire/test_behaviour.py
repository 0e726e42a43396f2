"""What makes EC2 hard to use: limits, faults, lag; and the control API that brings them about."""
import time

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError
from conftest import error_code, http, launch, subnet_a


def test_a_burst_is_throttled_at_the_published_size_and_the_ledger_shows_it(throttled_sim):
    ec2 = throttled_sim.client()
    subnet = subnet_a(ec2)["SubnetId"]
    start, succeeded = time.monotonic(), 0
    with pytest.raises(ClientError) as caught:
        # The bucket refills while the test runs, as slowly as that may be: it is empty long before the last of these.
        for succeeded in range(400):
            ec2.create_network_interface(SubnetId=subnet)
    elapsed = time.monotonic() - start
    assert caught.value.response["Error"]["Code"] == "RequestLimitExceeded"
    assert 100 <= succeeded <= 101 + 5 * elapsed
    ledger = throttled_sim.control("GET", "calls")["counts"]["CreateNetworkInterface"]
    assert ledger == {"calls": succeeded + 1, "succeeded": succeeded, "errors": {"RequestLimitExceeded": 1}}
    throttled_sim.control("POST", "time", {"advance_ms": 2000})
    ec2.create_network_interface(SubnetId=subnet)


def test_the_sdk_s_own_retry_finds_what_a_lost_answer_made(sim):
    ec2 = sim.client(retries=3)
    sim.control("POST", "faults", {"kind": "answer-lost", "action": "CreateNetworkInterface", "count": 1})
    eni = ec2.create_network_interface(SubnetId=subnet_a(ec2)["SubnetId"])["NetworkInterface"]
    assert len(ec2.describe_network_interfaces()["NetworkInterfaces"]) == 1
    assert sim.control("GET", "calls")["counts"]["CreateNetworkInterface"]["calls"] == 2
    assert ec2.describe_network_interfaces()["NetworkInterfaces"][0] == eni


def test_without_a_retry_a_lost_answer_is_a_broken_connection(sim):
    ec2 = sim.client()
    sim.control("POST", "faults", {"kind": "answer-lost", "action": "CreateNetworkInterface", "count": 1})
    with pytest.raises((ConnectionClosedError, EndpointConnectionError, HTTPClientError)):
        ec2.create_network_interface(SubnetId=subnet_a(ec2)["SubnetId"])
    assert len(ec2.describe_network_interfaces()["NetworkInterfaces"]) == 1


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("throttle", 503, "RequestLimitExceeded"),
        ("denied", 403, "UnauthorizedOperation"),
        ("internal-error", 500, "InternalError"),
        ("unavailable", 503, "Unavailable"),
        ("insufficient-addresses", 400, "InsufficientFreeAddressesInSubnet"),
        ("insufficient-prefixes", 400, "InsufficientCidrBlocks"),
    ],
)
def test_faults_answer_as_ec2_does(sim, ec2, kind, status, code):
    eni = ec2.create_network_interface(SubnetId=subnet_a(ec2)["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    sim.control("POST", "faults", {"kind": kind, "action": "AssignPrivateIpAddresses", "count": 1})
    with pytest.raises(ClientError) as caught:
        ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.value.response["ResponseMetadata"]["RequestId"]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1)


def test_faults_can_be_tied_to_one_node_and_be_ended(sim, ec2):
    other = sim.client(access_key="AKIAOTHERNODE")
    fault = sim.control("POST", "faults", {"kind": "denied", "caller": "AKIAOTHERNODE"})["id"]
    assert error_code(other.describe_subnets) == "UnauthorizedOperation"
    assert ec2.describe_subnets()["Subnets"]
    sim.control("DELETE", f"faults/{fault}")
    assert other.describe_subnets()["Subnets"]
    assert http("DELETE", f"{sim.endpoint}/_sim/faults/{fault}")[0] == 404


def test_an_exhausted_and_a_fragmented_subnet(sim, ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    sim.control("POST", f"subnets/{subnet}/occupy", {"count": 5000, "every": 8})
    assert error_code(ec2.create_network_interface, SubnetId=subnet, Ipv4PrefixCount=1) == "InsufficientCidrBlocks"
    ec2.create_network_interface(SubnetId=subnet, SecondaryPrivateIpAddressCount=5)
    sim.control("POST", f"subnets/{subnet}/occupy", {"count": 5000})
    full = error_code(ec2.create_network_interface, SubnetId=subnet)
    assert full == "InvalidParameterValue"
    assert subnet_a(ec2)["AvailableIpAddressCount"] == 0
    sim.control("POST", f"subnets/{subnet}/vacate")
    assert subnet_a(ec2)["AvailableIpAddressCount"] == 4091 - 6


def test_attaches_take_their_time_and_time_can_be_moved(sim, ec2):
    node = launch(ec2)
    timing = sim.control("GET", "timing")
    hour = 3_600_000
    timing["attach"] = {"min": hour, "p50": hour, "p99": hour, "max": hour}
    sim.control("PUT", "timing", timing)
    eni = ec2.create_network_interface(SubnetId=node["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=node["InstanceId"], DeviceIndex=1)

    def status():
        shown = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]
        return shown["Status"], shown["Attachment"]["Status"]

    assert status() == ("in-use", "attaching")
    sim.control("POST", "time", {"advance_ms": hour})
    assert status() == ("in-use", "attached")


def test_realistic_delays_are_felt(sim, ec2):
    sim.control("PUT", "timing", {"profile": "realistic"})
    start = time.monotonic()
    ec2.describe_subnets()
    assert time.monotonic() - start >= 0.04
    sim.control("PUT", "timing", {"profile": "none"})


def test_requests_without_credentials_or_sense_are_refused(sim):
    status, _, text = http("POST", sim.endpoint, data=b"Action=DescribeVpcs&Version=2016-11-15")
    assert status == 403 and "MissingAuthenticationToken" in text
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAX/20260101/eu-west-1/ec2/aws4_request, Signature=0"}
    status, _, text = http("POST", sim.endpoint, signed, b"Action=MakeCoffee&Version=2016-11-15")
    assert status == 400 and "<Code>InvalidAction</Code>" in text
    few = b"Action=DescribeNetworkInterfaces&Version=2016-11-15&MaxResults=4"  # botocore would not even send it
    assert "<Code>InvalidParameterValue</Code>" in http("POST", sim.endpoint, signed, few)[2]
    assert http("POST", sim.endpoint, signed, b"Version=2016-11-15")[2].count("<Code>MissingAction</Code>") == 1
    assert http("GET", f"{sim.endpoint}/favicon.ico")[0] == 404
    assert http("POST", f"{sim.endpoint}/_sim/faults", data=b'{"kind": "gremlins"}')[0] == 400
    assert http("POST", sim.endpoint, signed, b"x" * (2 << 20))[0] == 413
    assert subnet_a(sim.client())["SubnetId"], "and it goes on serving"
