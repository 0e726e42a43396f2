"""CloudWatch's protocols with boto3: what is put is read back, what CloudWatch refuses is refused in its words. All of it
in each of the three protocols: CBOR, which the AWS SDK for Rust speaks, JSON, which botocore likes best, and Query.
"""
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError
from conftest import error_code, http, subnet_a

PROTOCOLS = ["smithy-rpc-v2-cbor", "json", "query"]
CLUSTER = [{"Name": "CLUSTER_ID", "Value": "demo"}]
MINUTE = timedelta(minutes=1)
SCOPE = "AKIAX/20260101/eu-west-1/monitoring/aws4_request"
SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 Credential={SCOPE}, Signature=0"}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def cloudwatch(sim, protocol):
    return sim.cloudwatch(protocol)


def now():
    return datetime.now(timezone.utc)


def datum(name="totalIPAddresses", value=11200.0, **more):
    return {"MetricName": name, "Dimensions": CLUSTER, "Unit": "Count", "Value": value, **more}


def put(client, *data, namespace="Kubernetes"):
    return client.put_metric_data(Namespace=namespace, MetricData=list(data))


def span(end=None):
    end = end or now() + MINUTE
    return {"StartTime": end - 10 * MINUTE, "EndTime": end}


def statistics(client, name="totalIPAddresses", **more):
    """The datapoints of the last minutes, oldest first."""
    wanted = {"Period": 60, "Statistics": ["SampleCount", "Average", "Sum", "Minimum", "Maximum"], **span(), **more}
    answer = client.get_metric_statistics(Namespace="Kubernetes", MetricName=name, Dimensions=CLUSTER, **wanted)
    assert answer["Label"] == name
    return sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])


def query(name="totalIPAddresses", stat="Sum", **more):
    metric = {"Namespace": "Kubernetes", "MetricName": name, "Dimensions": CLUSTER}
    return {"Id": "q", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}, **more}


def refusal(call, **parameters):
    """Status, code and message that the call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def test_what_is_put_is_read_back_to_the_last_field(sim, cloudwatch):
    at = now().replace(microsecond=123000)
    minute = at.replace(second=0, microsecond=0)
    put(cloudwatch, datum(Timestamp=at), datum(value=0.1, Timestamp=at))
    values = {"Values": [1.5, -2.0], "Counts": [3.0, 1.0], "Unit": "Seconds"}
    put(cloudwatch, {"MetricName": "latency", "Dimensions": CLUSTER, "Timestamp": at, **values})
    sums = {"SampleCount": 4.0, "Sum": 10.0, "Minimum": 1.0, "Maximum": 4.0}
    put(cloudwatch, {"MetricName": "sums", "Dimensions": CLUSTER, "Timestamp": at, "StatisticValues": sums})
    (total,) = statistics(cloudwatch)
    assert total == {
        "Timestamp": minute, "Unit": "Count",
        "SampleCount": 2.0, "Sum": 11200.1, "Average": 5600.05, "Minimum": 0.1, "Maximum": 11200.0,
    }
    (latency,) = statistics(cloudwatch, "latency", Unit="Seconds")
    assert (latency["SampleCount"], latency["Sum"], latency["Average"]) == (4.0, 2.5, 0.625)
    (of_sums,) = statistics(cloudwatch, "sums", Statistics=["Average", "Maximum"])
    assert of_sums == {"Timestamp": minute, "Unit": "None", "Average": 2.5, "Maximum": 4.0}
    (result,) = cloudwatch.get_metric_data(MetricDataQueries=[query()], **span())["MetricDataResults"]
    assert (result["Id"], result["Label"], result["StatusCode"]) == ("q", "totalIPAddresses", "Complete")
    assert (result["Timestamps"], result["Values"]) == ([minute], [11200.1])
    listed = cloudwatch.list_metrics(Namespace="Kubernetes", Dimensions=[{"Name": "CLUSTER_ID"}])["Metrics"]
    names = ["latency", "sums", "totalIPAddresses"]
    assert listed == [{"Namespace": "Kubernetes", "MetricName": name, "Dimensions": CLUSTER} for name in names]
    shown = {metric["name"]: metric for metric in sim.control("GET", "metrics")["metrics"]}
    assert shown["totalIPAddresses"]["at"] == int(at.timestamp() * 1000 + 0.5), "to the millisecond"


def test_refusals_are_cloudwatch_s_classes_codes_and_words(cloudwatch):
    errors = cloudwatch.exceptions
    for error, code, data, words in [
        (errors.InvalidParameterValueException, "InvalidParameterValue", [datum(Unit="Pods")],
         "The parameter MetricData.member.1.Unit must be a value in the set [ Seconds, "),
        (errors.InvalidParameterValueException, "InvalidParameterValue", [datum(), datum(value=float("nan"))],
         "The value NaN for parameter MetricData.member.2.Value is invalid."),
        (errors.InvalidParameterValueException, "InvalidParameterValue", [datum(value=float("-inf"))],
         "The value -inf for parameter MetricData.member.1.Value is invalid."),
        (errors.InvalidParameterValueException, "InvalidParameterValue", [datum(Timestamp=now() - timedelta(days=15))],
         "The parameter MetricData.member.1.Timestamp must specify a time within the past two weeks."),
        (errors.InvalidParameterValueException, "InvalidParameterValue", [datum(Dimensions=CLUSTER * 2)],
         "No metric may specify the same dimension name twice."),
        (errors.InvalidParameterCombinationException, "InvalidParameterCombination", [datum(Values=[1.0])],
         "The parameters MetricData.member.1.Value and MetricData.member.1.Values are mutually exclusive"),
        (errors.MissingRequiredParameterException, "MissingParameter", [], "The parameter MetricData is required."),
    ]:
        with pytest.raises(error) as caught:
            put(cloudwatch, *data)
        answer = caught.value.response["Error"]
        assert (answer["Code"], answer.get("Type", "Sender")) == (code, "Sender")
        assert answer["Message"].startswith(words), answer["Message"]
    assert cloudwatch.list_metrics()["Metrics"] == []


def test_large_requests_come_packed_and_are_unpacked(sim, cloudwatch):
    encodings = []
    note = lambda request, **_: encodings.append(request.headers.get("Content-Encoding"))
    cloudwatch.meta.events.register("before-send.cloudwatch.PutMetricData", note)
    put(cloudwatch, datum())
    put(cloudwatch, *(datum(f"metric-{number}", float(number)) for number in range(1000)))
    assert encodings == [None, b"gzip"] or encodings == [None, "gzip"]
    assert len(sim.control("GET", "metrics")["metrics"]) == 1001
    pages = cloudwatch.get_paginator("list_metrics").paginate()
    assert [len(page["Metrics"]) for page in pages] == [500, 500, 1]


@pytest.mark.parametrize("packed", [True, False])
def test_a_request_of_more_than_a_megabyte_is_refused(sim, protocol, packed):
    cloudwatch = sim.cloudwatch(protocol, disable_request_compression=not packed)
    # A little more than a megabyte in each protocol.
    values = [number / 7 for number in range({"smithy-rpc-v2-cbor": 120, "json": 60, "query": 20}[protocol])]
    large = [{"MetricName": "m", "Dimensions": CLUSTER, "Values": values}] * 1000
    too_large = (413, "RequestEntityTooLarge", "Request size exceeded 1048576 bytes")
    assert refusal(cloudwatch.put_metric_data, Namespace="Kubernetes", MetricData=large) == too_large
    assert sim.control("GET", "metrics")["metrics"] == []
    ledger = sim.control("GET", "calls/cloudwatch")
    (call,) = ledger["calls"]
    assert call["error"] == "RequestEntityTooLarge"
    put(cloudwatch, datum())


@pytest.mark.parametrize(
    "kind, status, code",
    [
        ("throttle", 400, "Throttling"),
        ("denied", 403, "AccessDenied"),
        ("internal-error", 500, "InternalServiceError"),
        ("unavailable", 503, "ServiceUnavailable"),
    ],
)
def test_faults_fail_with_cloudwatch_s_errors(sim, cloudwatch, kind, status, code):
    sim.control("POST", "faults", {"kind": kind, "action": "PutMetricData", "count": 1})
    parameters = {"Namespace": "Kubernetes", "MetricData": [datum()]}
    assert refusal(cloudwatch.put_metric_data, **parameters)[:2] == (status, code)
    assert cloudwatch.list_metrics()["Metrics"] == []
    cloudwatch.put_metric_data(**parameters)
    assert len(cloudwatch.list_metrics()["Metrics"]) == 1


def test_lost_answers_and_lost_requests_end_the_connection(sim, cloudwatch):
    for kind, kept in ("request-lost", 0), ("answer-lost", 1):
        sim.control("POST", "faults", {"kind": kind, "action": "PutMetricData", "count": 1})
        with pytest.raises((ConnectionClosedError, HTTPClientError)):
            put(cloudwatch, datum())
        assert len(cloudwatch.list_metrics()["Metrics"]) == kept


def test_what_sdks_retry_is_retried(sim, protocol):
    for kind in "throttle", "internal-error", "unavailable":
        sim.control("POST", "faults", {"kind": kind, "action": "PutMetricData", "count": 1})
        answer = put(sim.cloudwatch(protocol, retries=3), datum())
        assert answer["ResponseMetadata"]["RetryAttempts"] == 1, kind


def test_the_published_rate_is_kept(throttled_sim, protocol):
    cloudwatch = throttled_sim.cloudwatch(protocol)
    put(cloudwatch, datum())
    assert throttled_sim.control("GET", "throttle")["tokens"] == {"PutMetricData": 499}
    throttled_sim.control("PUT", "throttle", {"sizes": {"PutMetricData": {"capacity": 1, "refill_per_second": 0}}})
    put(cloudwatch, datum())
    refused = refusal(cloudwatch.put_metric_data, Namespace="Kubernetes", MetricData=[datum()])
    assert refused == (400, "Throttling", "Rate exceeded")


def test_a_time_that_is_left_out_is_that_of_the_simulator(sim, cloudwatch):
    sim.control("POST", "time", {"advance_ms": 86_400_000})
    put(cloudwatch, datum())
    (point,) = statistics(cloudwatch, **span(now() + timedelta(days=1) + MINUTE))
    assert timedelta(hours=23) < point["Timestamp"] - now() < timedelta(hours=25)


def test_what_is_not_simulated_is_refused_and_named(sim, cloudwatch):
    expression = {"Id": "e", "Expression": "SUM(METRICS())"}
    status, code, words = refusal(cloudwatch.get_metric_data, MetricDataQueries=[query(), expression], **span())
    assert (status, code) == (400, "InvalidParameterValue")
    assert "MetricDataQueries.member.2.Expression" in words and "is not simulated" in words
    percentile = refusal(cloudwatch.get_metric_data, MetricDataQueries=[query(stat="p99")], **span())
    assert percentile[2] == "The statistic p99 is not simulated."
    entity = [{"Entity": {"KeyAttributes": {"Type": "Service", "Name": "x"}}, "MetricData": [datum()]}]
    put_entity = refusal(cloudwatch.put_metric_data, Namespace="Kubernetes", EntityMetricData=entity)
    assert put_entity[2] == "The parameter EntityMetricData is not simulated."
    assert error_code(cloudwatch.describe_alarms) in ("InvalidAction", "UnknownOperationException")


def test_requests_without_a_signature_are_refused(sim, protocol):
    from botocore import UNSIGNED

    unsigned = sim.cloudwatch(protocol, signature_version=UNSIGNED)
    refused = refusal(unsigned.put_metric_data, Namespace="Kubernetes", MetricData=[datum()])
    assert refused[:2] == (403, "MissingAuthenticationToken")
    assert sim.control("GET", "metrics")["metrics"] == []


def test_query_s_parameters_may_be_in_the_url(sim):
    named = "Version=2010-08-01&Action=PutMetricData&Namespace=N&MetricData.member.1.MetricName=m"
    status, _, text = http("GET", f"{sim.endpoint}/?{named}&MetricData.member.1.Value=5", SIGNED)
    assert status == 200 and "<PutMetricDataResponse xmlns=" in text
    status, _, text = http("GET", f"{sim.endpoint}/?{named}&MetricData.member.1.Value=five", SIGNED)
    assert status == 400 and "MetricData.member.1.Value is not a number" in text
    (metric,) = sim.control("GET", "metrics")["metrics"]
    assert (metric["namespace"], metric["value"], metric["dimensions"]) == ("N", 5.0, {})


def test_bodies_that_cannot_be_read_are_refused(sim):
    target = {"X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData"}
    path = f"{sim.endpoint}/service/GraniteServiceVersion20100801/operation/PutMetricData"
    for url, headers, body in [
        (sim.endpoint, target, b"{"),
        (sim.endpoint, target, b"[]"),
        (sim.endpoint, {**target, "Content-Encoding": "gzip"}, b"{}"),
        (sim.endpoint, {**target, "Content-Encoding": "br"}, b"{}"),
        (sim.endpoint, {}, b"Version=2010-08-01"),
        (sim.endpoint, {}, b"Version=2010-08-01&Action=PutMetricData&Namespace=%zz"),
    ]:
        status, _, text = http("POST", url, {**SIGNED, **headers}, body)
        assert status == 400, text
    assert http("POST", f"{sim.endpoint}/service/Other/operation/PutMetricData", SIGNED)[0] == 404
    # Its answer is not text.
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(path, data=b"\xa1", headers=SIGNED, method="POST"), timeout=20)
    assert (caught.value.code, caught.value.headers["smithy-protocol"]) == (400, "rpc-v2-cbor")
    put(sim.cloudwatch(), datum())


def test_the_control_api_shows_what_has_come_in(sim, cloudwatch):
    assert sim.control("GET", "metrics")["metrics"] == []
    put(cloudwatch, datum(), datum(value=11186.0))
    put(cloudwatch, datum("other", StorageResolution=1), namespace="Other")
    answer = sim.control("GET", "metrics?namespace=Kubernetes")
    (metric,) = answer["metrics"]
    assert 0 <= answer["now"] - metric.pop("received") < 60_000
    assert 0 <= answer["now"] - metric.pop("at") < 60_000
    assert metric == {
        "namespace": "Kubernetes", "name": "totalIPAddresses", "dimensions": {"CLUSTER_ID": "demo"},
        "unit": "Count", "value": 11186.0, "datapoints": 2, "storage_resolution": 60,
    }
    assert answer["dropped"] == 0
    (metric,) = sim.control("GET", "metrics?minutes=5&namespace=Kubernetes")["metrics"]
    (minute,) = metric["minutes"]
    assert minute.pop("at") % 60_000 == 0
    assert minute == {"unit": "Count", "count": 2.0, "sum": 22386.0, "minimum": 11186.0, "maximum": 11200.0}
    assert [metric["storage_resolution"] for metric in sim.control("GET", "metrics")["metrics"]] == [60, 1]
    for wrong in "namespaces=x", "minutes=many":
        assert http("GET", f"{sim.endpoint}/_sim/metrics?{wrong}")[0] == 400
    sim.control("DELETE", "metrics")
    assert sim.control("GET", "metrics")["metrics"] == []


def test_ec2_s_ledger_knows_nothing_of_cloudwatch_s_calls(sim, cloudwatch):
    subnet_a(sim.client())
    before = sim.control("GET", "calls")
    assert before["cloudwatch"] == {"last": 0, "counts": {}}
    put(cloudwatch, datum())
    assert error_code(put, cloudwatch, datum(), namespace="AWS/EC2") == "InvalidParameterValue"
    after = sim.control("GET", "calls")
    assert (after["last"], after["counts"], after["calls"]) == (before["last"], before["counts"], before["calls"])
    counts = {"PutMetricData": {"calls": 2, "succeeded": 1, "errors": {"InvalidParameterValue": 1}}}
    assert after["cloudwatch"] == {"last": 2, "counts": counts}
    ledger = sim.control("GET", "calls/cloudwatch?since=1")
    (call,) = ledger["calls"]
    assert (call["action"], call["caller"], call["resources"]) == ("PutMetricData", "AKIAWIRETEST", ["AWS/EC2"])
    sim.control("DELETE", "calls")
    assert sim.control("GET", "calls/cloudwatch") == {"last": 2, "counts": {}, "calls": []}


def test_only_the_caller_that_is_denied_is_denied(sim, protocol):
    rule = {"kind": "denied", "action": "PutMetricData", "caller": "AKIAOPERATOR"}
    sim.control("POST", "faults", rule)
    denied = sim.cloudwatch(protocol, access_key="AKIAOPERATOR")
    status, code, words = refusal(denied.put_metric_data, Namespace="Kubernetes", MetricData=[datum()])
    assert (status, code) == (403, "AccessDenied")
    assert "is not authorized to perform: cloudwatch:PutMetricData" in words and "AKIAOPERATOR" in words
    put(sim.cloudwatch(protocol), datum())
    denied.list_metrics()


def test_a_fault_that_cloudwatch_cannot_have_is_refused(sim):
    for kind in "stuck-attach", "stuck-detach", "insufficient-addresses", "insufficient-prefixes":
        body = f'{{"kind": "{kind}", "action": "PutMetricData"}}'.encode()
        status, _, text = http("POST", f"{sim.endpoint}/_sim/faults", data=body)
        assert status == 400 and "for actions of EC2" in text
