"""The operator as it is shipped sends the cluster's metrics to moto, and boto3 reads them back.

Real: the operator's binary, the API server (KUBECONFIG), the AWS SDK on both sides. The nodes' agents are played: their
ENIPools get a status by hand. `make test-cloudwatch` starts the API server and runs this.
"""

import json
import os
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = "moto-cluster"
NAMESPACE = "kube-system"
AWS = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, look, seconds=60):
    """What `look` returns, as soon as that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"{what} did not happen in {seconds} s")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def kubectl(*arguments, stdin=None):
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(*objects):
    kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))


@pytest.fixture(scope="module")
def moto():
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("moto's start", lambda: answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def ec2():
    port = free_port()
    server = subprocess.Popen([os.environ["EC2_SIM_BIN"], "serve", "--listen", f"127.0.0.1:{port}", "--timing", "none"])
    try:
        until("the start of EC2", lambda: answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def node(name):
    labels = {"node.kubernetes.io/instance-type": "m5.large", "topology.kubernetes.io/zone": "eu-west-1a"}
    number = f"{sum(name.encode()):017x}"
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": f"aws:///eu-west-1a/i-{number}"},
    }


def agent(name):
    labels = {"app.kubernetes.io/name": "enipool", "app.kubernetes.io/component": "agent"}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"agent-{name}", "namespace": NAMESPACE, "labels": labels},
        "spec": {"nodeName": name, "hostNetwork": True, "containers": [{"name": "agent", "image": "none"}]},
    }


def status(generation, **figures):
    return {
        "attachedENIs": figures["enis"], "observedGeneration": generation, "reason": figures.get("reason", "AsPlanned"),
        "waiting": figures.get("waiting", 0),
        "capacity": {"enis": 3, "addressesPerENI": 9, "addresses": 27},
        "addresses": {"total": figures["total"], "assigned": figures["assigned"], "cooling": 0,
                      "available": figures["total"] - figures["assigned"]},
    }


def report(name, **figures):
    """Plays the agent of a node: its pod is ready, and its status answers the spec."""
    pool = json.loads(kubectl("get", "enipool", name, "-o", "json"))
    patch = {"status": status(pool["metadata"]["generation"], **figures)}
    kubectl("patch", "enipool", name, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    kubectl("patch", "pod", f"agent-{name}", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps(ready))


@pytest.fixture(scope="module")
def operator(moto, ec2, tmp_path_factory):
    crds = [argument for file in sorted((ROOT / "crds").glob("*.yaml")) for argument in ("-f", str(file))]
    kubectl("apply", "--server-side", *crds)
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}})
    apply(node("a"), node("b"), agent("a"), agent("b"))
    log = tmp_path_factory.mktemp("operator") / "log"
    port = free_port()
    program = [os.environ["OPERATOR_BIN"], "--identity", "test", "--admin-address", f"127.0.0.1:{port}", "--metrics-interval", "10",
               "--cloudwatch", "true", "--cluster-name", CLUSTER]
    environment = {**os.environ, **AWS, "AWS_ENDPOINT_URL_CLOUDWATCH": moto, "AWS_ENDPOINT_URL_EC2": ec2}
    with log.open("w") as out:
        running = subprocess.Popen(program, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        until("an ENIPool for each node", lambda: len(kubectl("get", "enipools", "-o", "name").split()) == 2)
        yield log
    finally:
        running.terminate()
        running.wait(timeout=20)
        print(log.read_text())


@pytest.fixture(scope="module")
def cloudwatch(moto):
    return boto3.client("cloudwatch", endpoint_url=moto, region_name="eu-west-1", aws_access_key_id="any", aws_secret_access_key="any")


def latest(cloudwatch, name, *more):
    """The newest value and its unit."""
    now = datetime.now(timezone.utc)
    dimensions = [{"Name": "CLUSTER_ID", "Value": CLUSTER}] + [{"Name": key, "Value": value} for key, value in more]
    points = cloudwatch.get_metric_statistics(
        Namespace="Kubernetes", MetricName=name, Dimensions=dimensions, Period=1, Statistics=["Average"],
        StartTime=now - timedelta(minutes=10), EndTime=now + timedelta(minutes=1),
    )["Datapoints"]
    if not points:
        return None
    point = max(points, key=lambda point: point["Timestamp"])
    return point["Average"], point["Unit"]


A = {"enis": 2, "total": 18, "assigned": 11}
B = {"enis": 3, "total": 27, "assigned": 25, "waiting": 2, "reason": "InstanceLimit"}


def both_report():
    report("a", **A)
    report("b", **B)
    return True


def test_boto3_reads_the_sums_under_the_helpers_names(operator, cloudwatch):
    # Again and again: an agent takes up each spec that the operator writes.
    until("the sums of both nodes", lambda: both_report() and latest(cloudwatch, "assignIPAddresses") == (36.0, "Count"))
    for name, value in [("maxIPAddresses", 54.0), ("totalIPAddresses", 45.0), ("eniMaxAvailable", 6.0), ("eniAllocated", 5.0),
                        ("ipamdActionInProgress", 0.0), ("ipamdErr", 0.0), ("nodes", 2.0), ("silentNodes", 0.0), ("waitingPods", 2.0)]:
        assert latest(cloudwatch, name) == (value, "Count"), name
    assert latest(cloudwatch, "waitingPodsByReason", ("REASON", "InstanceLimit")) == (2.0, "Count")


def test_every_metric_has_the_cluster_as_a_dimension(operator, cloudwatch):
    until("the first round", lambda: latest(cloudwatch, "nodes"))
    metrics = [metric for page in cloudwatch.get_paginator("list_metrics").paginate(Namespace="Kubernetes") for metric in page["Metrics"]]
    assert len(metrics) > 20
    second = {"REASON", "EC2_ACTION", "SUBNET_ID", "ENI_POOL_CLASS"}
    for metric in metrics:
        names = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        assert names.pop("CLUSTER_ID") == CLUSTER, metric
        assert len(names) <= 1 and set(names) <= second, metric
    assert {metric["Namespace"] for metric in metrics} == {"Kubernetes"}


def test_the_log_has_the_same_figures(operator, cloudwatch):
    until("the sums in the log", lambda: "Produce GAUGE metrics: assignIPAddresses, value: 36.000000" in operator.read_text())


def test_a_silent_agent_leaves_the_sums(operator, cloudwatch):
    gone = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    kubectl("patch", "pod", "agent-b", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps(gone))
    def counted():
        report("a", **A)
        return latest(cloudwatch, "silentNodes") == (1.0, "Count")

    until("node b being counted as silent", counted, seconds=150)
    assert latest(cloudwatch, "assignIPAddresses") == (11.0, "Count")
    assert latest(cloudwatch, "nodes") == (2.0, "Count")
