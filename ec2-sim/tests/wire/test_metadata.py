"""The instance metadata service, by hand and through botocore's own client of it."""
import datetime

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import InstanceMetadataProvider
from botocore.utils import InstanceMetadataFetcher
from conftest import REGION, http, launch


@pytest.fixture
def node(sim, ec2):
    """An instance with a second interface, and the URL of its metadata service."""
    instance = launch(ec2, name="node-1")
    eni = ec2.create_network_interface(SubnetId=instance["SubnetId"], Ipv4PrefixCount=2)["NetworkInterface"]
    ec2.attach_network_interface(
        NetworkInterfaceId=eni["NetworkInterfaceId"], InstanceId=instance["InstanceId"], DeviceIndex=1
    )
    opened = sim.control("POST", "imds", {"instance": instance["InstanceId"], "listen": "127.0.0.1:0"})
    return instance, eni, opened["endpoint"]


def token(url, ttl=60):
    status, headers, text = http("PUT", f"{url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(ttl)})
    assert status == 200
    assert headers["x-aws-ec2-metadata-token-ttl-seconds"] == str(ttl)
    return text


def test_interfaces_are_listed_with_all_their_fields(node):
    instance, eni, url = node
    session = {"X-aws-ec2-metadata-token": token(url)}

    def get(path):
        status, _, text = http("GET", f"{url}/latest/meta-data/{path}", session)
        return text if status == 200 else status

    assert get("instance-id") == instance["InstanceId"]
    assert get("instance-type") == "m5.large"
    assert get("placement/availability-zone") == f"{REGION}a"
    assert get("placement/region") == REGION
    assert get("local-ipv4") == instance["PrivateIpAddress"]
    primary = instance["NetworkInterfaces"][0]["MacAddress"]
    assert get("mac") == primary
    assert set(get("network/interfaces/macs/").split()) == {f"{primary}/", f"{eni['MacAddress']}/"}
    second = f"network/interfaces/macs/{eni['MacAddress']}"
    assert get(f"{second}/interface-id") == eni["NetworkInterfaceId"]
    assert get(f"{second}/device-number") == "1"
    assert get(f"{second}/network-card") == "0"
    assert get(f"{second}/local-ipv4s") == eni["PrivateIpAddress"]
    assert get(f"{second}/ipv4-prefix").split() == [p["Ipv4Prefix"] for p in eni["Ipv4Prefixes"]]
    assert get(f"{second}/subnet-id") == eni["SubnetId"]
    assert get(f"{second}/subnet-ipv4-cidr-block") == "10.0.0.0/20"
    assert get(f"{second}/vpc-id") == eni["VpcId"]
    assert get(f"{second}/vpc-ipv4-cidr-blocks") == "10.0.0.0/16"
    assert get(f"{second}/security-group-ids") == eni["Groups"][0]["GroupId"]
    assert get(f"network/interfaces/macs/{primary}/ipv4-prefix") == 404
    assert get("no/such/path") == 404


def test_the_first_version_is_switched_off(node):
    assert http("GET", f"{node[2]}/latest/meta-data/instance-id")[0] == 401


def test_a_token_expires(sim, node):
    session = {"X-aws-ec2-metadata-token": token(node[2], ttl=30)}
    path = f"{node[2]}/latest/meta-data/instance-id"
    assert http("GET", path, session)[0] == 200
    sim.control("POST", "time", {"advance_ms": 31_000})
    assert http("GET", path, session)[0] == 401


def test_one_instance_s_token_is_no_good_at_another(sim, ec2, node):
    other = launch(ec2, name="node-2")
    url = sim.control("POST", "imds", {"instance": other["InstanceId"], "listen": "127.0.0.1:0"})["endpoint"]
    session = {"X-aws-ec2-metadata-token": token(node[2])}
    assert http("GET", f"{url}/latest/meta-data/instance-id", session)[0] == 401


def test_botocore_gets_credentials_and_ec2_tells_the_node_by_them(sim, node):
    instance, _, url = node
    fetcher = InstanceMetadataFetcher(timeout=5, num_attempts=1, base_url=url)
    credentials = InstanceMetadataProvider(iam_role_fetcher=fetcher).load()
    assert credentials is not None
    frozen = credentials.get_frozen_credentials()
    client = boto3.client(
        "ec2",
        endpoint_url=sim.endpoint,
        region_name=REGION,
        aws_access_key_id=frozen.access_key,
        aws_secret_access_key=frozen.secret_key,
        aws_session_token=frozen.token,
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.describe_subnets()
    last = sim.control("GET", "calls")["calls"][-1]
    assert last["caller"] == frozen.access_key
    assert instance["InstanceId"].removeprefix("i-").upper()[:8] in frozen.access_key


def test_the_identity_document_is_json(node):
    import json

    session = {"X-aws-ec2-metadata-token": token(node[2])}
    text = http("GET", f"{node[2]}/latest/dynamic/instance-identity/document", session)[2]
    document = json.loads(text)
    assert document["instanceId"] == node[0]["InstanceId"]
    assert document["region"] == REGION
    assert document["availabilityZone"] == f"{REGION}a"
    pending = datetime.datetime.fromisoformat(document["pendingTime"])
    assert abs(datetime.datetime.now(datetime.timezone.utc) - pending) < datetime.timedelta(minutes=5)
