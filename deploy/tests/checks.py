"""What must hold of dashboards, alarms and alerts. Each check takes texts that were read already and answers complaints, in
words; none: all is well. The tests run them on the files as they are, and on broken ones."""

import json
import re

import yaml
from catalogue import CLUSTER_ID, Catalogue, Metric
from promql import Check

NAMESPACE = "Kubernetes"
# Grafana's own variables, as they could be at one moment.
GRAFANA_VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "6h", "$cluster": "prod"}


# --- Grafana


def expand(expression: str) -> str:
    """A query of the dashboard as Grafana would send it."""
    for name, value in GRAFANA_VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def grafana_queries(dashboard: dict) -> "list[tuple[str, str, str]]":
    """Title of the panel, query and legend of each query."""
    return [
        (panel["title"], expand(target["expr"]), target["legendFormat"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def grafana(dashboard: dict, catalogue: Catalogue) -> "list[str]":
    complaints = []
    for title, expression, legend in grafana_queries(dashboard):
        check = Check(expression, catalogue)
        complaints += [f"{title}: {complaint}" for complaint in check.complaints]
        if "$" in expression:
            complaints.append(f"{title}: a variable that the dashboard does not have: {expression}")
        for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", legend):
            if not check.complaints and label not in check.labels:
                complaints.append(f"{title}: the legend shows {label}, which the query does not have")
    for variable in dashboard["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.get("definition", ""))
        if variable["type"] == "query" and not asked:
            complaints.append(f"variable {variable['name']}: not label_values(METRIC, LABEL)")
        elif asked:
            complaints += Check(f"{asked[1]}{{{asked[2]}!=''}}", catalogue).complaints
    return complaints + overlaps([(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]], "w", "h")


def overlaps(boxes: "list[tuple[str, dict]]", width: str, height: str) -> "list[str]":
    """Panels on top of each other, or beyond the 24 columns that both products have."""
    complaints, taken = [], {}
    for title, box in boxes:
        if box["x"] + box[width] > 24:
            complaints.append(f"{title}: beyond the 24th column")
        for x in range(box["x"], box["x"] + box[width]):
            for y in range(box["y"], box["y"] + box[height]):
                if taken.setdefault((x, y), title) != title:
                    complaints.append(f"{title} lies on {taken[x, y]}")
                    break
            else:
                continue
            break
    return complaints


# --- CloudWatch

SEARCH = re.compile(
    r"""SEARCH\('\{(?P<schema>[^}]*)\} MetricName="(?P<name>\w+)" CLUSTER_ID="[^"]+"', '(?P<stat>\w+)', \d+\)"""
)
QUERY = re.compile(
    r"SELECT (?P<stat>\w+)\((?P<name>\w+)\) FROM SCHEMA\((?P<schema>[^)]*)\) WHERE (?P<where>.*)", re.DOTALL
)


def cloudwatch_use(catalogue: Catalogue, name: str, dimensions: "list[str]", statistic: str) -> "list[str]":
    """Whether this statistic of this metric by these dimensions makes sense."""
    metric = catalogue.cloudwatch.get(name)
    if not metric:
        return [f"CloudWatch gets no metric called {name}"]
    complaints = []
    expected = [CLUSTER_ID] + ([metric.dimension] if metric.dimension else [])
    if sorted(dimensions) != sorted(expected):
        complaints.append(f"{name} has the dimensions {expected}, not {dimensions}")
    return complaints + statistic_use(metric, statistic)


def statistic_use(metric: Metric, statistic: str) -> "list[str]":
    """CloudWatch gets of a counter what was counted in the period: its sum is the count. The sum of a gauge is nothing."""
    if statistic == "SampleCount":
        return []
    if (metric.kind == "counter") != (statistic == "Sum"):
        return [f"{metric.cloudwatch} is a {metric.kind}: its {statistic} says nothing"]
    return []


def split(schema: str) -> "tuple[str, list[str]]":
    namespace, *dimensions = [part.strip() for part in schema.split(",")]
    return namespace, dimensions


def search_use(catalogue: Catalogue, expression: str) -> "list[str]":
    searches = list(SEARCH.finditer(expression))
    if expression.count("SEARCH(") != len(searches) or not searches:
        return [f"not understood: {expression}"]
    complaints = []
    for search in searches:
        namespace, dimensions = split(search["schema"])
        if namespace != NAMESPACE:
            complaints.append(f"namespace {namespace}, not {NAMESPACE}")
        complaints += cloudwatch_use(catalogue, search["name"], dimensions, search["stat"])
    return complaints


def query_use(catalogue: Catalogue, query: str) -> "list[str]":
    """A query of Metrics Insights, as the alarms use them."""
    parts = QUERY.fullmatch(query.strip())
    if not parts:
        return [f"not understood: {query}"]
    namespace, dimensions = split(parts["schema"])
    # Over a metric's series the sum of a gauge is one: of all reasons, of all subnets.
    statistic = {"MIN": "Minimum", "MAX": "Maximum", "AVG": "Average", "SUM": "Sum"}.get(parts["stat"], parts["stat"])
    metric = catalogue.cloudwatch.get(parts["name"])
    if metric and metric.dimension and statistic == "Sum" and metric.kind == "gauge":
        statistic = "Maximum"
    complaints = [] if namespace == NAMESPACE else [f"namespace {namespace}, not {NAMESPACE}"]
    complaints += cloudwatch_use(catalogue, parts["name"], dimensions, statistic)
    for condition in parts["where"].split(" AND "):
        asked = re.fullmatch(r"\s*(\w+) !?= '[^']+'\s*", condition)
        if not asked:
            complaints.append(f"not understood: {condition}")
        elif asked[1] not in dimensions:
            complaints.append(f"{parts['name']} has no dimension {asked[1]}")
    return complaints


def widget_metrics(widget: dict) -> "list[tuple[list, dict]]":
    """Name and dimensions of each line of a metric widget, and its options."""
    lines = []
    for line in widget["properties"].get("metrics", []):
        options = line[-1] if isinstance(line[-1], dict) else {}
        lines.append((line[:-1] if options else line, options))
    return lines


def cloudwatch_dashboard(body: dict, catalogue: Catalogue) -> "list[str]":
    complaints, boxes = [], []
    for widget in body["widgets"]:
        properties = widget["properties"]
        title = properties.get("title") or properties.get("markdown")
        boxes.append((title, widget))
        if widget["type"] != "metric":
            continue
        found = [] if properties.get("region") else ["no region"]
        for line, options in widget_metrics(widget):
            if "expression" in options:
                found += search_use(catalogue, options["expression"])
                labels = re.findall(r"PROP\('Dim\.(\w+)'\)", options.get("label", ""))
                found += [
                    f"the label shows {name}, which the search does not have"
                    for name in labels
                    if name not in options["expression"]
                ]
            elif line[0] != NAMESPACE:
                found.append(f"namespace {line[0]}, not {NAMESPACE}")
            else:
                found += cloudwatch_use(catalogue, line[1], line[2::2], options.get("stat", properties["stat"]))
        complaints += [f"{title}: {complaint}" for complaint in found]
    searches = [variable["search"] for variable in body["variables"] if "search" in variable]
    for search in searches:
        asked = re.fullmatch(r"\{([^}]*)\} MetricName=\"(\w+)\"", search)
        complaints += (
            cloudwatch_use(catalogue, asked[2], split(asked[1])[1], "SampleCount")
            if asked
            else [f"not understood: {search}"]
        )
    return complaints + overlaps(boxes, "width", "height")


class Short(yaml.SafeLoader):
    """CloudFormation's short forms: `!Sub x` is read as {"Fn::Sub": "x"}, and so on."""


def short_form(loader: Short, suffix: str, node: yaml.Node):
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


Short.add_multi_constructor("!", short_form)


def template(text: str) -> dict:
    return yaml.load(text, Short)  # noqa: S506 (a SafeLoader)


def alarms(document: dict) -> "dict[str, dict]":
    """Properties of each alarm by its logical name."""
    resources = document["Resources"].items()
    return {
        name: resource["Properties"] for name, resource in resources if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


def substituted(value) -> str:
    return value["Fn::Sub"] if isinstance(value, dict) else value


def cloudwatch_alarms(document: dict, catalogue: Catalogue) -> "list[str]":
    complaints = []
    for name, alarm in alarms(document).items():
        found = [] if "TreatMissingData" in alarm else ["does not say what missing data mean"]
        if "MetricName" in alarm:
            dimensions = [dimension["Name"] for dimension in alarm["Dimensions"]]
            found += cloudwatch_use(catalogue, alarm["MetricName"], dimensions, alarm["Statistic"])
            if alarm["Namespace"] != NAMESPACE:
                found.append(f"namespace {alarm['Namespace']}, not {NAMESPACE}")
        for metric in alarm.get("Metrics", []):
            found += query_use(catalogue, substituted(metric["Expression"]))
        complaints += [f"{name}: {complaint}" for complaint in found]
    return complaints


# --- Prometheus's rules


def alerts(rules: dict) -> "list[dict]":
    return [rule for group in rules["groups"] for rule in group["rules"]]


def alert_rules(rules: dict, catalogue: Catalogue) -> "list[str]":
    complaints = []
    for alert in alerts(rules):
        check = Check(alert["expr"], catalogue)
        found = list(check.complaints)
        annotations = alert.get("annotations", {})
        if alert.get("labels", {}).get("severity") not in ("critical", "warning", "info"):
            found.append("no severity")
        for name in ("summary", "description", "runbook_url"):
            if not annotations.get(name):
                found.append(f"no annotation {name}")
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(annotations)):
            if not check.complaints and label not in check.labels:
                found.append(f"an annotation shows {label}, which the alert does not have")
        complaints += [f"{alert['alert']}: {complaint}" for complaint in found]
    return complaints


# --- The runbook

RUNBOOK = "docs/monitoring.md"


def anchors(page: str) -> "dict[str, str]":
    """Text of each section by the anchor that GitHub gives its heading."""
    sections = {}
    parts = re.split(r"^#{1,6} (.+)$", page, flags=re.MULTILINE)
    for heading, text in zip(parts[1::2], parts[2::2]):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        sections[anchor] = text
    return sections


def runbook(page: str, rules: dict, document: dict) -> "list[str]":
    """Each alert and alarm has a section, which names the alarm, and no section is about what does not exist."""
    complaints, wanted, sections = [], set(), anchors(page)
    for alert in alerts(rules):
        url = alert["annotations"].get("runbook_url", "")
        path, _, anchor = url.partition("#")
        if path != RUNBOOK or anchor not in sections:
            complaints.append(f"{alert['alert']}: there is no {url}")
        elif anchor != alert["alert"].lower():
            complaints.append(f"{alert['alert']}: {url} is another alert's section")
        wanted.add(anchor)
    for name, alarm in alarms(document).items():
        asked = re.search(r"\$\{RunbookURL\}#([\w-]+)", substituted(alarm["AlarmDescription"]))
        anchor = asked[1] if asked else None
        wanted.add(anchor)
        called = substituted(alarm["AlarmName"]).replace("${ClusterName}", "CLUSTER")
        if anchor not in sections:
            complaints.append(f"alarm {name}: there is no section {anchor} in {RUNBOOK}")
        elif f"`{called}`" not in sections[anchor]:
            complaints.append(f"alarm {name}: the section {anchor} does not name {called}")
    described = [anchor for anchor in sections if anchor.startswith("enipool")]
    return complaints + [f"{RUNBOOK}: no alert is called {anchor}" for anchor in described if anchor not in wanted]


def links(page: str, exists) -> "list[str]":
    """Links within the page, and to files, for which `exists(path)` answers."""
    complaints, sections = [], anchors(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        path, _, anchor = target.partition("#")
        if path.startswith("https:"):
            continue
        if not path and anchor not in sections:
            complaints.append(f"{RUNBOOK}: there is no section {anchor}")
        if path and not exists(path):
            complaints.append(f"{RUNBOOK}: there is no {path}")
    return complaints


# --- Reasons of the API


def reasons(crd: str) -> "set[str]":
    """All reasons for which a pod can wait, as the CRD's description lists them."""
    listed = re.search(r"Reasons: ((?:`\w+`[,.]\s*)+)", crd)
    return set(re.findall(r"`(\w+)`", listed[1]))


# Not about what a pod waits for: nothing is wrong, or it comes by itself within seconds.
PASSING = frozenset(["AsPlanned", "Starting", "AttachInFlight", "AssignInFlight", "AwaitingTurn"])


def reason_names(rules: dict, document: dict, page: str, known: "set[str]") -> "list[str]":
    """Alert and alarm leave out the same reasons, which exist, and the runbook says what to do about each other one."""
    alert = next(alert for alert in alerts(rules) if alert["alert"] == "EnipoolPodsWait")
    in_alert = set(re.search(r'reason!~"([\w|]+)"', alert["expr"])[1].split("|"))
    query = substituted(alarms(document)["PodsWait"]["Metrics"][0]["Expression"])
    in_alarm = set(re.findall(r"REASON != '(\w+)'", query))
    complaints = [f"no reason is called {name}" for name in sorted((in_alert | in_alarm) - known)]
    if in_alert != in_alarm:
        complaints.append(f"the alert leaves out {sorted(in_alert)}, the alarm {sorted(in_alarm)}")
    named = set(re.findall(r"`(\w+)`", anchors(page)["enipoolpodswait"]))
    return complaints + [f"{RUNBOOK} does not say what to do about {name}" for name in sorted(known - PASSING - named)]
