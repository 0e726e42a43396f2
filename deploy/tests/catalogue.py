"""The metrics that exist, read from the pages of metrics: docs/metrics.md (whose tables are generated from the code) and
docs/node.md. It knows nothing that these pages do not say."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METRICS_PAGE, NODE_PAGE = ROOT / "docs/metrics.md", ROOT / "docs/node.md"
# The AWS plugin's dimension by which clusters are told apart.
CLUSTER_ID = "CLUSTER_ID"


@dataclass(frozen=True)
class Metric:
    """One metric. `name` is the one in Prometheus, with `_total` if it has that."""

    name: str
    kind: str  # gauge, counter, histogram or info
    labels: "frozenset[str]" = frozenset()
    cloudwatch: "str | None" = None
    dimension: "str | None" = None  # CloudWatch's, beside CLUSTER_ID


@dataclass
class Catalogue:
    """All metrics by each of their names."""

    prometheus: "dict[str, Metric]" = field(default_factory=dict)
    cloudwatch: "dict[str, Metric]" = field(default_factory=dict)

    def add(self, metric: Metric) -> None:
        if metric.name in self.prometheus:
            raise ValueError(f"two metrics are called {metric.name}")
        self.prometheus[metric.name] = metric
        if metric.cloudwatch:
            self.cloudwatch[metric.cloudwatch] = metric

    def series(self, name: str) -> "tuple[Metric, str] | None":
        """The metric that a series of this name belongs to, and its part: `value`, or of a histogram `bucket`, `sum` or
        `count`."""
        if name in self.prometheus and self.prometheus[name].kind != "histogram":
            return self.prometheus[name], "value"
        base, _, part = name.rpartition("_")
        metric = self.prometheus.get(base)
        if metric and metric.kind == "histogram" and part in ("bucket", "sum", "count"):
            return metric, part
        return None


def rows(text: str) -> "list[list[str]]":
    """Cells of each row of the Markdown tables in `text`, without their headings."""
    found = []
    lines = text.splitlines()
    for line, following in zip(lines, lines[1:] + [""]):
        is_rule = re.fullmatch(r"\|[-|]+\|", line)
        if line.startswith("|") and not is_rule and not re.fullmatch(r"\|[-|]+\|", following):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def section(page: str, name: str) -> str:
    """What stands between the marks of that name in docs/metrics.md."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    return page.split(begin)[1].split(end)[0]


def quoted(cell: str) -> "list[str]":
    return re.findall(r"`([^`]+)`", cell)


def cluster_metrics(page: str) -> "list[Metric]":
    """The tables of the cluster's metrics."""
    metrics = []
    for name in ("metrics helper", "enipool"):
        for cloudwatch, prometheus, kind, _unit, by, _meaning in rows(section(page, name)):
            dimension, label = quoted(by) if by else (None, None)
            labels = frozenset([label] if label else [])
            metrics.append(Metric(quoted(prometheus)[0], kind, labels, quoted(cloudwatch)[0], dimension))
    return metrics


def operator_metrics(page: str) -> "list[Metric]":
    """The table of the operator's own process."""
    table = rows(section(page, "operator"))
    return [Metric(quoted(name)[0], kind, frozenset(quoted(by))) for name, kind, by, _meaning in table]


def node_metrics(page: str) -> "list[Metric]":
    """The tables of the agents' metrics: the first heading is the prefix of all names, labels stand in braces."""
    metrics = []
    text = page.split("\n## Metrics\n")[1].split("\n## ")[0]
    for table in re.split(r"\n\n", text):
        heading = re.match(r"\| `(\w+_)…` \| kind \|", table)
        if not heading:
            continue
        for names, kind, _meaning in rows(table):
            for name in quoted(names):
                stem, _, labels = name.rstrip("}").partition("{")
                metrics.append(Metric(heading[1] + stem, kind, frozenset(filter(None, labels.split(",")))))
    return metrics


def read(metrics_page: "str | None" = None, node_page: "str | None" = None) -> Catalogue:
    """The catalogue of the pages, or of these texts instead."""
    metrics_page = METRICS_PAGE.read_text(encoding="utf-8") if metrics_page is None else metrics_page
    node_page = NODE_PAGE.read_text(encoding="utf-8") if node_page is None else node_page
    catalogue = Catalogue()
    for metric in cluster_metrics(metrics_page) + operator_metrics(metrics_page) + node_metrics(node_page):
        catalogue.add(metric)
    return catalogue
