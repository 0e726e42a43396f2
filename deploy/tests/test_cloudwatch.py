"""The stack and the plain dashboard, by cfn-lint and in moto."""

import json
import subprocess
import sys
from pathlib import Path

import boto3
import checks
import pytest
from conftest import DEPLOY, REGION

TEMPLATE = DEPLOY / "cloudwatch/enipool.yaml"
CFN_LINT = Path(sys.executable).with_name("cfn-lint")
RENDER = DEPLOY / "cloudwatch/render.py"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:oncall"
# What `aws cloudformation deploy` takes without a bucket.
TEMPLATE_BYTES_MAX = 51_200


def render(*arguments, check=True):
    return subprocess.run([sys.executable, RENDER, *arguments], capture_output=True, text=True, check=check)


def test_the_template_holds_the_dashboard_of_the_json_file():
    assert render("--check").returncode == 0


def test_another_body_in_the_template_is_noticed(tmp_path):
    for name in ("render.py", "dashboard.json", "enipool.yaml"):
        (tmp_path / name).write_bytes((DEPLOY / "cloudwatch" / name).read_bytes())
    body = tmp_path / "dashboard.json"
    body.write_text(body.read_text().replace('"Addresses for pods"', '"Addresses"'))
    check = [sys.executable, tmp_path / "render.py", "--check"]
    said = subprocess.run(check, capture_output=True, text=True, check=False)
    assert said.returncode == 1 and "out of date" in said.stderr


def lint(path):
    return subprocess.run([CFN_LINT, path], capture_output=True, text=True, check=False)


def test_cfn_lint_accepts_the_template():
    said = lint(TEMPLATE)
    assert said.returncode == 0, said.stdout
    assert TEMPLATE.stat().st_size < TEMPLATE_BYTES_MAX


def test_cfn_lint_refuses_a_broken_template(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(TEMPLATE.read_text().replace("TreatMissingData: breaching", "TreatMissing: breaching"))
    said = lint(broken)
    assert said.returncode != 0 and "TreatMissing" in said.stdout


@pytest.fixture
def stack(moto):
    """Makes a stack of the template and takes it away again. Answers the dashboard's body and the alarms by name."""
    made = []

    def make(cluster, **parameters):
        parameters = {"ClusterName": cluster, **parameters}
        formation, watch = moto("cloudformation"), moto("cloudwatch")
        formation.create_stack(
            StackName=cluster,
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        made.append(cluster)
        state = formation.describe_stacks(StackName=cluster)["Stacks"][0]
        assert state["StackStatus"] == "CREATE_COMPLETE", state
        body = watch.get_dashboard(DashboardName=f"{cluster}-enipool")["DashboardBody"]
        alarms = watch.describe_alarms(AlarmNamePrefix=f"{cluster}-enipool-")["MetricAlarms"]
        return json.loads(body), {alarm["AlarmName"].removeprefix(f"{cluster}-enipool-"): alarm for alarm in alarms}

    yield make
    for name in made:
        moto("cloudformation").delete_stack(StackName=name)


def test_the_stack_makes_the_dashboard_of_this_cluster(stack, catalogue):
    body, alarms = stack("prod")
    assert checks.cloudwatch_dashboard(body, catalogue) == []
    assert {variable["id"]: variable["defaultValue"] for variable in body["variables"]} == {
        "cluster": "prod",
        "region": REGION,
    }
    # The same as the plain file with both preselected, but for the alarms above it.
    plain = json.loads(render("--body", "prod", REGION).stdout)
    first, *rest = body["widgets"]
    assert first["type"] == "alarm" and sorted(first["properties"]["alarms"]) == sorted(
        alarm["AlarmArn"] for alarm in alarms.values()
    )
    for widget in rest:
        widget["y"] -= first["height"]
    assert rest == plain["widgets"]


def test_the_stack_s_alarms_treat_missing_data_with_sense(stack, template):
    _, alarms = stack("prod", AlarmTopicArn=TOPIC)
    assert len(alarms) == len(checks.alarms(template)) == 9
    missing = {name: alarm["TreatMissingData"] for name, alarm in alarms.items()}
    assert missing.pop("metrics-missing") == "breaching"
    assert set(missing.values()) == {"notBreaching"}
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [TOPIC], name
        assert f"docs/monitoring.md#enipool{name.replace('-', '')}" in alarm["AlarmDescription"], name


def test_without_a_topic_nobody_is_called(stack):
    _, alarms = stack("prod")
    assert [alarm["AlarmActions"] + alarm["OKActions"] for alarm in alarms.values()] == [[]] * 9


def test_parameters_set_the_thresholds_and_the_runbook(stack):
    _, alarms = stack(
        "prod",
        SubnetRunwaySeconds="7200",
        SubnetFreeAddresses="5",
        ThrottledCalls="3",
        RunbookURL="https://wiki.example.com/x",
    )
    thresholds = {name: alarms[name]["Threshold"] for name in ("subnet-runs-out", "subnet-low", "ec2-throttled")}
    assert thresholds == {"subnet-runs-out": 7200, "subnet-low": 5, "ec2-throttled": 3}
    assert "https://wiki.example.com/x#enipoolsubnetlow" in alarms["subnet-low"]["AlarmDescription"]


def test_two_clusters_do_not_share_anything(stack, moto):
    stack("blue")
    _, green = stack("green")
    assert len(moto("cloudwatch").list_dashboards()["DashboardEntries"]) == 2
    queries = [alarm["Metrics"][0]["Expression"] for alarm in green.values() if alarm.get("Metrics")]
    assert len(queries) == 3 and all("CLUSTER_ID = 'green'" in query for query in queries)
    dimensions = [alarm["Dimensions"] for alarm in green.values() if alarm.get("MetricName")]
    assert dimensions == [[{"Name": "CLUSTER_ID", "Value": "green"}]] * 6


def test_the_plain_file_is_a_dashboard_unedited(moto):
    watch: boto3.client = moto("cloudwatch")
    body = (DEPLOY / "cloudwatch/dashboard.json").read_text()
    assert not watch.put_dashboard(DashboardName="plain", DashboardBody=body).get("DashboardValidationMessages")
    got = json.loads(watch.get_dashboard(DashboardName="plain")["DashboardBody"])
    assert got == json.loads(body)
    watch.delete_dashboards(DashboardNames=["plain"])
    # Its two variables say where to look: without a choice, the first cluster that has metrics.
    cluster, region = got["variables"]
    assert cluster["defaultValue"] == "__FIRST" and region["property"] == "region"
    texts = [json.dumps(widget) for widget in got["widgets"] if widget["type"] == "metric"]
    assert all(cluster["pattern"] in text for text in texts)
