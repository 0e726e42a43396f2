"""Teaches moto's CloudFormation the resource AWS::CloudWatch::Alarm, which it does not know: its properties are the arguments
of PutMetricAlarm, so that is called with them. boto3 then holds them against the API's own description."""

from typing import Any, Callable

from moto.core.common_models import CloudFormationModel

WHOLE = frozenset(["DatapointsToAlarm", "EvaluationPeriods", "Period"])


def typed(value: Any, name: str = "") -> Any:
    """CloudFormation's parameters are text, also where the API takes a number."""
    if isinstance(value, dict):
        return {key: typed(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if name in WHOLE:
        return int(value)
    return float(value) if name == "Threshold" else value


class StackAlarm(CloudFormationModel):
    """One alarm of a stack."""

    # moto files its models by the service in their module's name.
    __module__ = "moto.cloudwatch.stack_alarm"

    # boto3's client of a service, at the moto server that runs.
    client: "Callable[[str], Any]"

    def __init__(self, name: str):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type() -> str:
        return "AlarmName"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::CloudWatch::Alarm"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Arn"

    def get_cfn_attribute(self, attr: str) -> str:
        described = StackAlarm.client("cloudwatch").describe_alarms(AlarmNames=[self.physical_resource_id])
        return described["MetricAlarms"][0]["AlarmArn"]

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        properties = cloudformation_json["Properties"]
        StackAlarm.client("cloudwatch").put_metric_alarm(**typed(properties))
        return cls(properties["AlarmName"])

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name):
        StackAlarm.client("cloudwatch").delete_alarms(AlarmNames=[resource_name])
