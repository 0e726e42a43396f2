"""The alerts under promtool, with series by hand and with recorded ones."""

import re
import subprocess
from pathlib import Path

import checks
import promql_parser as promql
import pytest
import series
import yaml
from conftest import DEPLOY, RULES

HERE = Path(__file__).parent
TESTS = sorted((DEPLOY / "prometheus/tests").glob("*.yaml"))
ALERTS = [alert["alert"] for alert in checks.alerts(yaml.safe_load(RULES.read_text()))]


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_promtool_accepts_the_rules_and_the_configuration():
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert said.returncode == 0, said.stderr
    said = promtool("check", "config", DEPLOY / "prometheus/prometheus.yaml")
    assert said.returncode == 0, said.stderr


def test_prometheus_understands_every_query_of_the_dashboard(grafana, tmp_path):
    queries = checks.grafana_queries(grafana)
    rules = [{"record": f"query:{at}", "expr": expression} for at, (_, expression, _) in enumerate(queries)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    said = promtool("check", "rules", file)
    assert said.returncode == 0 and f"{len(queries)} rules found" in said.stdout, said.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_else_do_not(file):
    said = promtool("test", "rules", file)
    assert said.returncode == 0, said.stdout + said.stderr


# --- The tests above notice what is broken.


def changed(tmp_path, change):
    """promtool's tests with other rules. `change` is called with all alerts."""
    rules = yaml.safe_load(RULES.read_text())
    change(rules)
    (tmp_path / "tests").mkdir()
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    copies = []
    for file in TESTS:
        copy = tmp_path / "tests" / file.name
        copy.write_text(file.read_text())
        copies.append(copy)
    return promtool("test", "rules", *copies)


def test_rules_that_are_only_written_differently_pass(tmp_path):
    assert changed(tmp_path, lambda rules: None).returncode == 0


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_that_never_fires_is_noticed(tmp_path, name):
    def never(rules):
        for alert in checks.alerts(rules):
            if alert["alert"] == name:
                alert["expr"] = "vector(1) < 0"

    said = changed(tmp_path, never)
    assert said.returncode != 0 and name in said.stdout + said.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_that_fires_at_any_value_is_noticed(tmp_path, name):
    def always(rules):
        for alert in checks.alerts(rules):
            if alert["alert"] == name:
                tree = promql.parse(alert["expr"])
                inner = tree.args[0] if type(tree).__name__ == "Call" else tree.lhs
                alert["expr"] = inner.prettify()
                alert.pop("for", None)

    said = changed(tmp_path, always)
    assert said.returncode != 0 and name in said.stdout + said.stderr


# --- Recorded series


def minutes(text: str) -> float:
    units = {"h": 60.0, "m": 1.0, "s": 1 / 60}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", text))


EXPECTED = sorted((HERE / "recording").glob("*.expected.yaml"))


@pytest.mark.parametrize("file", EXPECTED, ids=lambda file: file.name.split(".")[0])
def test_alerts_fire_on_recorded_series_as_expected(file, tmp_path, guide_scrapes):
    name = file.name.split(".")[0]
    recording = guide_scrapes if name == "guide" else series.load(HERE / f"recording/{name}.yaml")
    document = promtool_test(recording, yaml.safe_load(file.read_text()))
    test = tmp_path / "test.yaml"
    test.write_text(yaml.safe_dump(document))
    said = promtool("test", "rules", test)
    assert said.returncode == 0, said.stdout + said.stderr


def promtool_test(recording: series.Recording, expected: "list[dict]") -> dict:
    length = recording.interval * (recording.steps - 1) / 60
    assert all(minutes(moment["at"]) <= length for moment in expected), f"the recording has {length} minutes"
    return {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{recording.interval}s",
        "tests": [
            {
                "interval": f"{recording.interval}s",
                "input_series": [
                    {"series": series.selector(key), "values": series.notation(values)}
                    for key, values in recording.series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": moment["at"],
                        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in moment["firing"]],
                    }
                    for moment in expected
                ],
            }
        ],
    }
