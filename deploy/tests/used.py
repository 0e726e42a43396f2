"""Which series alerts and dashboards use."""

import json
import re

import catalogue as pages
import checks
import promql_parser as promql
import yaml

DEPLOY = pages.ROOT / "deploy"


def selectors(node) -> "set[str]":
    """Names of all series that a PromQL expression selects."""
    if type(node).__name__ == "VectorSelector":
        return {node.name}
    found: "set[str]" = set()
    for part in ("lhs", "rhs", "expr", "vector_selector"):
        child = getattr(node, part, None)
        if child is not None:
            found |= selectors(child)
    for argument in getattr(node, "args", None) or []:
        found |= selectors(argument)
    return found


def series_names() -> "set[str]":
    catalogue = pages.read()
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text(encoding="utf-8"))
    grafana = json.loads((DEPLOY / "grafana/enipool.json").read_text(encoding="utf-8"))
    expressions = [alert["expr"] for alert in checks.alerts(rules)]
    expressions += [expression for _, expression, _ in checks.grafana_queries(grafana)]
    names = set().union(*(selectors(promql.parse(expression)) for expression in expressions))
    cloudwatch = (DEPLOY / "cloudwatch/dashboard.json").read_text(encoding="utf-8")
    cloudwatch += (DEPLOY / "cloudwatch/enipool.yaml").read_text(encoding="utf-8")
    asked = set(
        re.findall(r'"Kubernetes", "(\w+)"|MetricName=\\"(\w+)|MetricName: (\w+)|SELECT \w+\((\w+)\)', cloudwatch)
    )
    return names | {catalogue.cloudwatch[name].name for found in asked for name in found if name}
