"""The control API: nodes, limits, delays, the ledger of calls and the true state."""
import json

from conftest import REGION, error_code, http, launch, subnet_a


def refused(sim, method, path, body=None):
    """Status and text of a request that is expected to fail."""
    data = None if body is None else json.dumps(body).encode()
    status, _, text = http(method, f"{sim.endpoint}/_sim/{path}", data=data)
    assert status >= 400, text
    return status, json.loads(text)["error"]


def test_limits_can_be_set_and_their_fill_be_read(sim, ec2):
    sizes = {"DescribeVpcs": {"capacity": 3, "refill_per_second": 0}}
    sim.control("PUT", "throttle", {"sizes": sizes})
    for left in 2, 1, 0:
        ec2.describe_vpcs()
        shown = sim.control("GET", "throttle")
        assert (shown["config"], shown["tokens"]) == ({"off": False, "sizes": sizes}, {"DescribeVpcs": left})
    assert error_code(ec2.describe_vpcs) == "RequestLimitExceeded"
    ec2.describe_subnets()
    sim.control("PUT", "throttle", {"off": True})
    for _ in range(20):
        ec2.describe_vpcs()
    assert refused(sim, "PUT", "throttle", {"size": {}})[0] == 400


def test_nodes_are_made_and_ended_without_ec2_s_api(sim, ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    sim.control("DELETE", "calls")
    body = {"instance_type": "m5.large", "name": "node-1", "subnet": subnet, "prefixes": 2, "tags": {"role": "pods"}}
    made = sim.control("POST", "instances", body)["instance"]
    assert sim.control("GET", "calls")["counts"] == {}, "no call of anybody's"
    shown = ec2.describe_instances(InstanceIds=[made["id"]])["Reservations"][0]["Instances"][0]
    assert {tag["Key"]: tag["Value"] for tag in shown["Tags"]} == {"Name": "node-1", "role": "pods"}
    assert (shown["SubnetId"], len(shown["NetworkInterfaces"][0]["Ipv4Prefixes"])) == (subnet, 2)
    other = sim.control("POST", "instances", {"instance_type": "m5.large", "addresses": 3})["instance"]
    assert len(other["interfaces"][0]["secondary_ips"]) == 3
    sim.control("DELETE", f"instances/{made['id']}")
    shown = ec2.describe_instances(InstanceIds=[made["id"]])["Reservations"][0]["Instances"][0]
    assert shown["State"]["Name"] == "terminated"
    assert refused(sim, "POST", "instances", {"instance_type": "m5.huge"})[0] == 400
    assert refused(sim, "POST", "instances", {"instance_type": "m5.large", "colour": "red"})[0] == 400
    assert refused(sim, "DELETE", "instances/i-0123456789abcdef0")[0] == 400
    assert refused(sim, "DELETE", "instances/node-1")[0] == 404


def test_the_state_is_the_truth_whatever_ec2_shows(sim, ec2):
    node = launch(ec2, name="node-1")
    timing = sim.control("GET", "timing")
    hour = 3_600_000
    for lag in "visible", "free_count":
        timing[lag] = {"min": hour, "p50": hour, "p99": hour, "max": hour}
    sim.control("PUT", "timing", timing)
    before = subnet_a(ec2)["AvailableIpAddressCount"]
    eni = ec2.create_network_interface(SubnetId=node["SubnetId"], SecondaryPrivateIpAddressCount=2)["NetworkInterface"]
    missing = error_code(ec2.describe_network_interfaces, NetworkInterfaceIds=[eni["NetworkInterfaceId"]])
    assert missing == "InvalidNetworkInterfaceID.NotFound"
    state = sim.control("GET", "state")
    truth = {e["id"]: e for e in state["truth"]["enis"]}[eni["NetworkInterfaceId"]]
    assert (truth["primary_ip"], len(truth["secondary_ips"])) == (eni["PrivateIpAddress"], 2)
    assert truth["attachment"] is None
    (instance,) = state["truth"]["instances"]
    assert (instance["id"], instance["state"], instance["tags"]) == (node["InstanceId"], "running", {"Name": "node-1"})
    subnets = {s["subnet"]["id"]: s for s in state["subnets"]}
    assert (subnets[node["SubnetId"]]["free"], subnets[node["SubnetId"]]["shown_free"]) == (before - 3, before)
    assert {group["name"] for group in state["security_groups"]} == {"default", "nodes"}
    assert [vpc["cidrs"] for vpc in state["vpcs"]] == [["10.0.0.0/16"]]


def test_a_new_instance_is_found_late(sim, ec2):
    timing = sim.control("GET", "timing")
    timing["visible"] = {"min": 60_000, "p50": 60_000, "p99": 60_000, "max": 60_000}
    sim.control("PUT", "timing", timing)
    node = launch(ec2)["InstanceId"]
    assert error_code(ec2.describe_instances, InstanceIds=[node]) == "InvalidInstanceID.NotFound"
    sim.control("POST", "time", {"advance_ms": 60_000})
    assert ec2.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"][0]["InstanceId"] == node


def test_the_ledger_tells_who_called_what_and_how_it_ended(sim, ec2):
    subnet = subnet_a(ec2)["SubnetId"]
    sim.control("DELETE", "calls")
    seen = sim.control("GET", "calls")["last"]
    eni = ec2.create_network_interface(SubnetId=subnet, ClientToken="intent-1")["NetworkInterface"]
    sim.client(access_key="AKIAOTHER").describe_vpcs()
    assert error_code(ec2.delete_network_interface, NetworkInterfaceId="eni-0123456789abcdef0")
    ledger = sim.control("GET", f"calls?since={seen}")
    assert ledger["last"] == seen + 3
    assert [(call["action"], call["caller"], call["error"]) for call in ledger["calls"]] == [
        ("CreateNetworkInterface", "AKIAWIRETEST", None),
        ("DescribeVpcs", "AKIAOTHER", None),
        ("DeleteNetworkInterface", "AKIAWIRETEST", "InvalidNetworkInterfaceID.NotFound"),
    ]
    create = ledger["calls"][0]
    assert create["client_token"] == "intent-1"
    assert create["resources"] == [subnet, eni["NetworkInterfaceId"]]
    later = sim.control("GET", f"calls?since={seen + 2}")["calls"]
    assert [call["seq"] for call in later] == [seen + 3]
    assert ledger["counts"]["DescribeVpcs"] == {"calls": 1, "succeeded": 1, "errors": {}}
    sim.control("DELETE", "calls")
    reset = sim.control("GET", "calls")
    assert (reset["counts"], reset["calls"], reset["last"]) == ({}, [], seen + 3), "numbers go on"
    for query in "since=then", "sicne=1":
        assert refused(sim, "GET", f"calls?{query}") == (400, f'"{query}" is not since=NUMBER')


def test_delays_come_from_a_profile_or_one_by_one(sim):
    realistic = sim.control("PUT", "timing", {"profile": "realistic"})
    tenth = sim.control("PUT", "timing", {"profile": "realistic", "percent": 10})
    assert tenth["attach"]["p99"] == realistic["attach"]["p99"] // 10 > 0
    none = sim.control("PUT", "timing", {"profile": "none"})
    assert none["attach"] == {"min": 0, "p50": 0, "p99": 0, "max": 0}
    assert "there are none and realistic" in refused(sim, "PUT", "timing", {"profile": "brisk"})[1]
    assert refused(sim, "PUT", "timing", {"atach": none["attach"]})[0] == 400
    assert sim.control("GET", "timing") == none


def test_time_only_goes_forward_and_as_far_as_asked(sim):
    before = sim.control("GET", "time")["now"]
    after = sim.control("POST", "time", {"advance_ms": 86_400_000})["now"]
    assert 0 <= after - before - 86_400_000 < 60_000
    assert refused(sim, "POST", "time", {"advance_ms": -1})[0] == 400


def test_the_configuration_can_be_read_and_what_is_not_there_is_not_found(sim):
    assert sim.control("GET", "config")["region"] == REGION
    assert refused(sim, "GET", "coffee")[0] == 404
    assert refused(sim, "PATCH", "faults")[0] == 404
    assert refused(sim, "POST", "subnets/subnet-0123456789abcdef0/occupy", {"count": 1})[0] == 400
    assert refused(sim, "POST", "imds", {"instance": "i-0123456789abcdef0", "listen": "127.0.0.1:0"})[0] == 404
