"""Servers and clients for the wire tests: the simulator, and moto as a second reading of AWS's protocols."""
import os
import signal
import subprocess
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.config import Config

REGION = "eu-west-1"


class Sim:
    """A running simulator."""

    def __init__(self, process, endpoint):
        self.process = process
        self.endpoint = endpoint

    def client(self, access_key="AKIAWIRETEST", retries=1):
        return boto3.client(
            "ec2",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=access_key,
            aws_secret_access_key="any",
            config=Config(retries={"total_max_attempts": retries, "mode": "standard"}, read_timeout=20),
        )

    def cloudwatch(self, protocol=None, access_key="AKIAWIRETEST", **config):
        """A client of CloudWatch in one of its protocols; without one, in that which botocore likes best."""
        return cloudwatch_client(self.endpoint, protocol, access_key, **config)

    def control(self, method, path, body=None):
        """One request to the control API; the answer as an object."""
        return http_json(method, f"{self.endpoint}/_sim/{path}", body)


def cloudwatch_client(endpoint, protocol=None, access_key="x", retries=1, **config):
    session = boto3.Session()
    if protocol:
        loader = session._session.get_component("data_loader")
        load = loader.load_service_model

        def load_in_protocol(service, kind, api_version=None):
            model = load(service, kind, api_version)
            if (service, kind) == ("cloudwatch", "service-2"):
                model = {**model, "metadata": {**model["metadata"], "protocol": protocol, "protocols": [protocol]}}
            return model

        loader.load_service_model = load_in_protocol
    client = session.client(
        "cloudwatch",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": retries, "mode": "standard"}, read_timeout=20, **config),
    )
    assert protocol in (None, client.meta.service_model.resolved_protocol)
    return client


def http_json(method, url, body=None):
    import json

    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=20) as answer:
        return json.loads(answer.read())


def http(method, url, headers=None, data=None):
    """Status, headers and text, whatever the status is."""
    request = urllib.request.Request(url, method=method, headers=headers or {}, data=data)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def start_sim(*arguments):
    command = [os.environ["EC2_SIM_BIN"], "serve", "--listen", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    endpoint = process.stdout.readline().strip()
    assert endpoint.startswith("http://"), f"ec2-sim did not start: {endpoint!r}"
    return Sim(process, endpoint)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.fixture
def sim():
    """A fresh region without delays and throttling."""
    running = start_sim("--timing", "none", "--no-throttle")
    yield running
    stop(running.process)


@pytest.fixture
def throttled_sim():
    """A fresh region with EC2's published limits."""
    running = start_sim("--timing", "none")
    yield running
    stop(running.process)


@pytest.fixture
def ec2(sim):
    return sim.client()


@pytest.fixture(scope="session")
def moto_endpoint():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def moto(moto_endpoint):
    return boto3.client(
        "ec2", endpoint_url=moto_endpoint, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )


def subnet_a(ec2):
    """A subnet of zone a."""
    return ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [f"{REGION}a"]}])["Subnets"][0]


def launch(ec2, instance_type="m5.large", name="node", **more):
    """One instance in zone a."""
    return ec2.run_instances(
        ImageId="ami-0123456789abcdef0",
        InstanceType=instance_type,
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet_a(ec2)["SubnetId"],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
        **more,
    )["Instances"][0]


def error_code(call, *arguments, **parameters):
    """The EC2 error code that the call ends with."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    return caught.value.response["Error"]["Code"]
