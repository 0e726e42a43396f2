"""The files under test, read once, and a moto server."""

import json
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "recording")]

import catalogue as pages  # noqa: E402
import checks  # noqa: E402
import guide  # noqa: E402
import series  # noqa: E402
from moto_alarm import StackAlarm  # noqa: E402

DEPLOY = Path(__file__).resolve().parents[1]
RULES = DEPLOY / "prometheus/rules.yaml"
REGION = "eu-west-1"


def text(path: str) -> str:
    return (DEPLOY.parent / path).read_text(encoding="utf-8")


@pytest.fixture
def catalogue():
    return pages.read()


@pytest.fixture
def grafana():
    return json.loads(text("deploy/grafana/enipool.json"))


@pytest.fixture
def cloudwatch():
    return json.loads(text("deploy/cloudwatch/dashboard.json"))


@pytest.fixture
def template():
    return checks.template(text("deploy/cloudwatch/enipool.yaml"))


@pytest.fixture
def rules():
    return yaml.safe_load(text("deploy/prometheus/rules.yaml"))


@pytest.fixture
def page():
    return text("docs/monitoring.md")


@pytest.fixture
def reasons():
    return checks.reasons(text("deploy/helm/enipool/crds/enipools.yaml"))


@pytest.fixture(scope="session")
def guide_scrapes(tmp_path_factory):
    """The folder of the made-up scrapes, read: that takes seconds, so once."""
    folder = tmp_path_factory.mktemp("guide")
    guide.main(folder)
    return series.read(folder)


@pytest.fixture(scope="session")
def moto():
    """boto3's clients, by service, of a moto server that lives as long as the session."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    StackAlarm.client = lambda service: boto3.client(
        service, region_name=REGION, endpoint_url=f"http://{host}:{port}", **keys
    )
    yield StackAlarm.client
    server.stop()
