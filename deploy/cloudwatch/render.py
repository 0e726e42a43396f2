#!/usr/bin/env python3
"""The body of the CloudWatch dashboard, made from dashboard.json, the only copy that is edited.

    render.py                        write the body into enipool.yaml anew
    render.py --check                exit code 1 if enipool.yaml has another body
    render.py --body CLUSTER REGION  print the body with this cluster and region preselected, for `aws cloudwatch
                                     put-dashboard --dashboard-body "$(...)"`

Needs Python 3.9 and nothing else.
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE, TEMPLATE = HERE / "dashboard.json", HERE / "enipool.yaml"
# Column of the first character of the dashboard's body in the template.
INDENT = " " * 8
ALARMS_HEIGHT = 3


def preselect(body: dict, cluster: str, region: str) -> dict:
    """The body as it is when somebody has chosen this cluster and region in the dashboard's two menus."""
    defaults = {"cluster": cluster, "region": region}
    for variable in body["variables"]:
        variable["defaultValue"] = defaults[variable["id"]]
    for widget in body["widgets"]:
        if "region" in widget["properties"]:
            widget["properties"]["region"] = region
    return body


def alarms_first(body: dict, alarms: "list[str]") -> dict:
    """The body with the state of the alarms above everything else. `alarms` are their logical names in the template."""
    for widget in body["widgets"]:
        widget["y"] += ALARMS_HEIGHT
    properties = {"title": "Alarms", "alarms": [f"${{{name}.Arn}}" for name in alarms]}
    size = {"x": 0, "y": 0, "width": 24, "height": ALARMS_HEIGHT}
    body["widgets"].insert(0, {"type": "alarm", **size, "properties": properties})
    return body


def for_sub(body: dict) -> dict:
    """The body with `${…}` of CloudWatch's own written so that Fn::Sub leaves it alone."""
    return json.loads(json.dumps(body).replace("${", "${!"))


def lines(body: dict) -> "list[str]":
    """JSON with one line for each variable and widget."""
    compact = lambda value: json.dumps(value, ensure_ascii=False)  # noqa: E731
    parts = []
    for key, value in body.items():
        if isinstance(value, list):
            parts.append(f"{compact(key)}: [\n" + ",\n".join(compact(item) for item in value) + "]")
        else:
            parts.append(f"{compact(key)}: {compact(value)}")
    return ("{" + ",\n".join(parts) + "}").split("\n")


def logical_names(template: str) -> "list[str]":
    """Names of the alarms among the template's resources."""
    rows = template.split("\n")
    kind = "    Type: AWS::CloudWatch::Alarm"
    return [rows[at - 1].strip().rstrip(":") for at, row in enumerate(rows) if row == kind]


def rendered(source: str, template: str) -> str:
    """The template with the body that the source makes."""
    begin, end = "      DashboardBody: !Sub |\n", "\nOutputs:\n"
    if template.count(begin) != 1 or template.count(end) != 1:
        raise SystemExit("enipool.yaml: no place for the dashboard's body")
    before, rest = template.split(begin)
    after = rest.split(end)[1]
    body = for_sub(json.loads(source))
    body = preselect(body, "${ClusterName}", "${AWS::Region}")
    body = alarms_first(body, logical_names(template))
    text = "".join(f"{INDENT}{line}\n" for line in lines(body))
    return before + begin + text + end + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--body", nargs=2, metavar=("CLUSTER", "REGION"))
    args = parser.parse_args()
    source, template = SOURCE.read_text(encoding="utf-8"), TEMPLATE.read_text(encoding="utf-8")
    if args.body:
        print(json.dumps(preselect(json.loads(source), *args.body), ensure_ascii=False, separators=(",", ":")))
    elif args.check:
        if rendered(source, template) != template:
            print("deploy/cloudwatch/enipool.yaml is out of date: run deploy/cloudwatch/render.py", file=sys.stderr)
            return 1
    else:
        TEMPLATE.write_text(rendered(source, template), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
