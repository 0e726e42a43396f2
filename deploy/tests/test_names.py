"""Dashboards, alarms, alerts and runbook name what exists; and the checks that say so fail on what is broken."""

import copy

import checks
import pytest
from catalogue import read
from conftest import DEPLOY
from promql import Check


def test_grafana_s_dashboard_uses_metrics_and_labels_that_exist(grafana, catalogue):
    assert checks.grafana(grafana, catalogue) == []
    assert len(checks.grafana_queries(grafana)) > 30


def test_cloudwatch_s_dashboard_uses_metrics_that_exist(cloudwatch, catalogue):
    assert checks.cloudwatch_dashboard(cloudwatch, catalogue) == []


def test_the_alarms_use_metrics_that_exist(template, catalogue):
    assert checks.cloudwatch_alarms(template, catalogue) == []
    assert len(checks.alarms(template)) == 9


def test_the_alerts_use_metrics_and_labels_that_exist(rules, catalogue):
    assert checks.alert_rules(rules, catalogue) == []


def test_each_alert_and_alarm_has_a_section_in_the_runbook(page, rules, template):
    assert checks.runbook(page, rules, template) == []


def test_links_of_the_page_lead_somewhere(page):
    assert checks.links(page, lambda path: (DEPLOY.parent / "docs" / path).exists()) == []


def test_alert_alarm_and_runbook_agree_about_reasons(rules, template, page, reasons):
    assert len(reasons) == 22
    assert checks.reason_names(rules, template, page, reasons) == []


GUIDE = [
    "maxIPAddresses",
    "totalIPAddresses",
    "assignIPAddresses",
    "eniMaxAvailable",
    "eniAllocated",
    "ipamdActionInProgress",
    "ipamdErr",
]


def test_the_guide_s_figures_come_first(grafana, cloudwatch):
    """The first row of each dashboard, up to the second heading, shows all seven."""
    panels = grafana["panels"]
    second = [at for at, panel in enumerate(panels) if panel["type"] == "row"][1]
    first_row = " ".join(target["expr"] for panel in panels[:second] for target in panel.get("targets", []))
    assert [name for name in GUIDE if name not in first_row] == []
    widgets = cloudwatch["widgets"]
    second = [at for at, widget in enumerate(widgets) if widget["type"] == "text"][1]
    shown = {line[1] for widget in widgets[:second] for line, _ in checks.widget_metrics(widget)}
    assert set(GUIDE) <= shown


def test_both_dashboards_have_the_same_rows_first(grafana, cloudwatch):
    rows = [panel["title"] for panel in grafana["panels"] if panel["type"] == "row"]
    headings = [
        widget["properties"]["markdown"].removeprefix("## ")
        for widget in cloudwatch["widgets"]
        if widget["type"] == "text"
    ]
    assert (
        rows[: len(headings)] == headings == ["Addresses and network interfaces", "Why pods wait", "When subnets end"]
    )


# --- The checks fail on what is broken.

BROKEN_QUERIES = [
    ("max(eniAlocated)", "no metric has series called eniAlocated"),
    ("rate(enipool_cluster_adds_without_address[5m])", "no metric has series called"),
    ("rate(eniAllocated[5m])", "rate of it says nothing"),
    ("sum(ipamdErr)", "used without rate or increase"),
    ("max by (node) (enipool_cluster_subnet_free_addresses{zone='a'})", "has no label zone"),
    ("max by (reason) (enipool_cluster_waiting_pods)", "by reason, which its series do not have"),
    ("max without (reason) (enipool_cluster_waiting_pods)", "by reason, which its series do not have"),
    ("histogram_quantile(0.9, sum(rate(enipool_cni_add_seconds_bucket[5m])))", "has no label le"),
    ("rate(enipool_cni_add_seconds[5m])", "no metric has series called"),
    ("enipool_time_to_address_seconds_bucket", "used without rate or increase"),
    ("max(eniAllocated", "not PromQL"),
]


@pytest.mark.parametrize(("expression", "complaint"), BROKEN_QUERIES)
def test_a_broken_query_is_refused(catalogue, expression, complaint):
    said = Check(expression, catalogue).complaints
    assert any(complaint in text for text in said), said


def test_a_broken_panel_of_grafana_is_refused(grafana, catalogue):
    def broken(change):
        dashboard = copy.deepcopy(grafana)
        change(next(panel for panel in dashboard["panels"] if panel.get("targets")))
        return checks.grafana(dashboard, catalogue)

    assert any("no metric" in text for text in broken(lambda panel: panel["targets"][0].update(expr="nodes")))
    assert any(
        "the legend shows zone" in text
        for text in broken(lambda panel: panel["targets"][0].update(legendFormat="{{zone}}"))
    )
    assert any("lies on" in text for text in broken(lambda panel: panel["gridPos"].update(w=24)))
    assert any("24th column" in text for text in broken(lambda panel: panel["gridPos"].update(x=20)))
    assert any(
        "a variable" in text for text in broken(lambda panel: panel["targets"][0].update(expr="nodes{node='$node'}"))
    )


def test_a_broken_variable_of_grafana_is_refused(grafana, catalogue):
    grafana["templating"]["list"][1]["definition"] = "label_values(eniAlocated, cluster)"
    assert checks.grafana(grafana, catalogue) == ["no metric has series called eniAlocated"]


BROKEN_LINES = [
    (["Kubernetes", "eniAlocated", "CLUSTER_ID", "x"], "no metric called eniAlocated"),
    (["Kubernetes", "eniAllocated", "CLUSTER", "x"], "has the dimensions"),
    (["Kubernetes", "subnetFreeAddresses", "CLUSTER_ID", "x"], "has the dimensions"),
    (["AWS/EC2", "eniAllocated", "CLUSTER_ID", "x"], "namespace AWS/EC2"),
    (["Kubernetes", "ipamdErr", "CLUSTER_ID", "x", {"stat": "Maximum"}], "is a counter"),
    (["Kubernetes", "eniAllocated", "CLUSTER_ID", "x", {"stat": "Sum"}], "is a gauge"),
    (
        [{"expression": "SEARCH('{Kubernetes,CLUSTER_ID} MetricName=\"classNodes\" CLUSTER_ID=\"x\"', 'Maximum', 60)"}],
        "has the dimensions",
    ),
    ([{"expression": "SEARCH('Kubernetes classNodes', 'Maximum', 60)"}], "not understood"),
]


@pytest.mark.parametrize(("line", "complaint"), BROKEN_LINES)
def test_a_broken_line_of_cloudwatch_is_refused(cloudwatch, catalogue, line, complaint):
    widget = next(widget for widget in cloudwatch["widgets"] if widget["type"] == "metric")
    widget["properties"]["metrics"].append(line)
    said = checks.cloudwatch_dashboard(cloudwatch, catalogue)
    assert len(said) == 1 and complaint in said[0], said


def test_a_widget_without_a_region_is_refused(cloudwatch, catalogue):
    del cloudwatch["widgets"][1]["properties"]["region"]
    assert any("no region" in text for text in checks.cloudwatch_dashboard(cloudwatch, catalogue))


def test_a_broken_alarm_is_refused(template, catalogue):
    def broken(name, **properties):
        document = copy.deepcopy(template)
        checks.alarms(document)[name].update(properties)
        return checks.cloudwatch_alarms(document, catalogue)

    assert any("no metric called" in text for text in broken("LeakedENIs", MetricName="leakedEnis"))
    assert any("is a counter" in text for text in broken("EC2Throttled", Statistic="Average"))
    assert any("namespace" in text for text in broken("LeakedENIs", Namespace="kubernetes"))
    query = "SELECT MIN(subnetFree) FROM SCHEMA(Kubernetes, CLUSTER_ID, SUBNET_ID) WHERE ZONE = 'a'"
    said = broken("SubnetLow", Metrics=[{"Expression": query}])
    assert any("no metric called subnetFree" in text for text in said) and any(
        "no dimension ZONE" in text for text in said
    )
    del checks.alarms(template)["LeakedENIs"]["TreatMissingData"]
    assert checks.cloudwatch_alarms(template, catalogue) == ["LeakedENIs: does not say what missing data mean"]


def test_a_broken_alert_is_refused(rules, catalogue):
    alert = checks.alerts(rules)[0]
    alert["labels"]["severity"] = "bad"
    alert["annotations"]["summary"] = "{{ $labels.zone }}"
    del alert["annotations"]["description"]
    said = " ".join(checks.alert_rules(rules, catalogue))
    assert "no severity" in said and "shows zone" in said and "no annotation description" in said


def test_a_section_that_is_missing_from_the_runbook_is_noticed(page, rules, template):
    cut = page.replace("### EnipoolSubnetLow", "### EnipoolSubnetHigh")
    said = checks.runbook(cut, rules, template)
    assert any(text.startswith("EnipoolSubnetLow: there is no docs/monitoring.md#enipoolsubnetlow") for text in said)
    assert any("alarm SubnetLow" in text for text in said)
    assert any("no alert is called enipoolsubnethigh" in text for text in said)
    assert checks.links("[a](#nowhere) [b](gone.md)", lambda _: False) != []


def test_a_reason_without_advice_is_noticed(rules, template, page, reasons):
    said = checks.reason_names(rules, template, page, reasons | {"Sunspots"})
    assert said == ["docs/monitoring.md does not say what to do about Sunspots"]
    renamed = checks.reason_names(rules, template, page, reasons - {"AwaitingTurn"})
    assert "no reason is called AwaitingTurn" in renamed


def test_a_metric_that_leaves_the_pages_is_noticed(grafana, cloudwatch, template, rules):
    """What a change of the code's table does: its page loses the row, the dashboards do not."""
    page = "\n".join(
        line
        for line in (DEPLOY.parent / "docs/metrics.md").read_text().splitlines()
        if "`withheldAddresses`" not in line
    )
    catalogue = read(metrics_page=page)
    assert checks.grafana(grafana, catalogue) and checks.cloudwatch_dashboard(cloudwatch, catalogue)
    assert checks.cloudwatch_alarms(template, catalogue) and checks.alert_rules(rules, catalogue)
