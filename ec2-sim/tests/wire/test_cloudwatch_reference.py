"""CloudWatch against two references: moto, which is given the same data and asked the same, and botocore's copy of
CloudWatch's API model, which must know every member of our answers. moto is right in what is compared here; where it is
not (it looks at few of CloudWatch's rules), test_cloudwatch.py alone says what is expected.
"""
import json
from datetime import datetime, timedelta, timezone

import pytest
from botocore.exceptions import ClientError
from conftest import cloudwatch_client, start_sim, stop

MINUTE = timedelta(minutes=1)
# The start of a minute: moto counts periods from the first datum, CloudWatch and the simulator from StartTime.
START = datetime.now(timezone.utc).replace(second=0, microsecond=0) - 10 * MINUTE
CLUSTER = [{"Name": "CLUSTER_ID", "Value": "demo"}]


def datum(name, minute, **more):
    at = START + minute * MINUTE
    return {"MetricName": name, "Dimensions": CLUSTER, "Unit": "Count", "Timestamp": at, **more}


DATA = [
    datum("total", 0, Value=11200.0),
    datum("total", 1, Value=11186.0),
    datum("total", 1, Value=11100.5),
    datum("total", 4, Value=0.0),
    datum("many", 0, Values=[1.0, 4.0], Counts=[3.0, 2.0]),
    datum("sums", 0, StatisticValues={"SampleCount": 4.0, "Sum": 10.0, "Minimum": 1.0, "Maximum": 4.0}),
]


def fill(client):
    client.put_metric_data(Namespace="Kubernetes", MetricData=DATA)
    # Under a name of its own: moto does not look at the namespace where there are dimensions.
    client.put_metric_data(Namespace="Other", MetricData=[datum("elsewhere", 0, Value=1.0)])
    return client


@pytest.fixture(scope="module")
def both(moto_endpoint):
    sim = start_sim("--timing", "none", "--no-throttle")
    yield fill(sim.cloudwatch()), fill(cloudwatch_client(moto_endpoint))
    stop(sim.process)


def statistics(client, name, period, statistics):
    points = client.get_metric_statistics(
        Namespace="Kubernetes", MetricName=name, Dimensions=CLUSTER, Period=period, Statistics=statistics,
        StartTime=START, EndTime=START + 10 * MINUTE,
    )["Datapoints"]
    return sorted(points, key=lambda point: point["Timestamp"])


ALL = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"]


@pytest.mark.parametrize("name", ["total", "many", "sums"])
@pytest.mark.parametrize("period", [60, 120, 300])
def test_statistics_are_moto_s(both, name, period):
    ours, theirs = (statistics(client, name, period, ALL) for client in both)
    assert ours == theirs and ours
    ours, theirs = (statistics(client, name, period, ["Maximum"]) for client in both)
    assert ours == theirs, "and what is not asked for is left out"


@pytest.mark.parametrize("order", ["TimestampAscending", "TimestampDescending"])
@pytest.mark.parametrize("stat", ["Sum", "Average", "Minimum", "Maximum", "SampleCount"])
def test_data_are_moto_s(both, stat, order):
    def ask(client):
        queries = [
            {
                "Id": name,
                "Label": f"the label of {name}",
                "MetricStat": {
                    "Metric": {"Namespace": "Kubernetes", "MetricName": name, "Dimensions": CLUSTER},
                    "Period": 60,
                    "Stat": stat,
                },
            }
            for name in ("total", "many", "none")
        ]
        span = {"StartTime": START, "EndTime": START + 10 * MINUTE}
        return client.get_metric_data(MetricDataQueries=queries, ScanBy=order, **span)["MetricDataResults"]

    ours, theirs = (ask(client) for client in both)
    assert ours == theirs
    assert [len(result["Values"]) for result in ours] == [3, 1, 0]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"Namespace": "Kubernetes"},
        {"MetricName": "total"},
        {"Dimensions": CLUSTER},
        {"Dimensions": [{"Name": "CLUSTER_ID"}], "Namespace": "Other"},
        {"Namespace": "None"},
    ],
)
def test_lists_are_moto_s(both, wanted):
    def names(client):
        listed = client.list_metrics(**wanted)["Metrics"]
        return sorted((metric["Namespace"], metric["MetricName"], str(metric["Dimensions"])) for metric in listed)

    ours, theirs = (names(client) for client in both)
    assert ours == theirs


@pytest.mark.parametrize(
    "wrong",
    [
        {"Value": float("nan")},
        {"Value": 1.0, "StatisticValues": {"SampleCount": 1.0, "Sum": 1.0, "Minimum": 1.0, "Maximum": 1.0}},
        {"Values": [1.0, 2.0], "Counts": [1.0]},
    ],
)
def test_refusals_are_moto_s(both, wrong):
    def refusal(client):
        with pytest.raises(ClientError) as caught:
            client.put_metric_data(Namespace="Refused", MetricData=[datum("wrong", 0, **wrong)])
        answer = caught.value.response
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]

    ours, theirs = (refusal(client) for client in both)
    assert ours == theirs


def unknown_members(value, shape, path):
    """Members of an answer that the API model has no place for; parsers would drop them without a word."""
    if shape.type_name == "structure":
        for name, member in value.items():
            if name in shape.members:
                yield from unknown_members(member, shape.members[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif shape.type_name == "list":
        for item in value:
            yield from unknown_members(item, shape.member, f"{path}[]")
    elif isinstance(value, (dict, list)):
        yield f"{path}: not a {shape.type_name}"


def test_every_member_is_in_cloudwatch_s_api_model(both):
    ours = both[0]
    unknown, seen = set(), set()

    def look(http_response, model, **_):
        seen.add(model.name)
        if model.output_shape is not None:
            unknown.update(unknown_members(json.loads(http_response.content), model.output_shape, model.name))

    ours.meta.events.register("after-call.cloudwatch", look)
    fill(ours)
    ours.list_metrics()
    statistics(ours, "total", 60, ALL)
    metric = {"Namespace": "Kubernetes", "MetricName": "total", "Dimensions": CLUSTER}
    query = {"Id": "q", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}
    span = {"StartTime": START, "EndTime": START + 10 * MINUTE}
    page = ours.get_metric_data(MetricDataQueries=[query], MaxDatapoints=1, **span)
    assert page["MetricDataResults"][0]["StatusCode"] == "PartialData"
    assert len(seen) == 4, f"every action of the simulator is looked at: {sorted(seen)}"
    assert unknown == set()
