"""What a PromQL expression uses, held against the catalogue: metrics and labels that do not exist, and metrics of a kind that
the function around them does not suit. Answers complaints, in words; none: nothing is wrong."""

import promql_parser as promql
from promql_parser import AggModifierType

from catalogue import Catalogue

# What Prometheus and its operator put on each target, and what people add to tell clusters apart.
TARGET_LABELS = frozenset(
    ["cluster", "component", "container", "endpoint", "instance", "job", "namespace", "node", "pod", "service"]
)
OF_COUNTERS = frozenset(["rate", "irate", "increase", "resets"])
# Functions that only ask whether a series is there.
OF_ANY_KIND = frozenset(["absent", "absent_over_time", "count", "group"])
KEEPS_SERIES = frozenset(["topk", "bottomk"])


class Check:
    """One expression. `labels` are those of its result, `complaints` what is wrong with it."""

    def __init__(self, expression: str, catalogue: Catalogue):
        self.catalogue = catalogue
        self.complaints: "list[str]" = []
        self.labels: "frozenset[str]" = frozenset()
        try:
            tree = promql.parse(expression)
        except ValueError as error:
            self.complaints.append(f"not PromQL: {error}: {expression}")
            return
        self.labels = self.look(tree, "")

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    def look(self, node, function: str) -> "frozenset[str]":
        """Labels of this part's result. `function` is the one that it is an argument of."""
        kind = type(node).__name__
        if kind == "VectorSelector":
            return self.selector(node, function)
        if kind == "MatrixSelector":
            return self.selector(node.vector_selector, function)
        if kind in ("ParenExpr", "UnaryExpr", "SubqueryExpr"):
            return self.look(node.expr, function)
        if kind == "Call":
            return self.call(node)
        if kind == "AggregateExpr":
            return self.aggregate(node)
        if kind == "BinaryExpr":
            left, right = self.look(node.lhs, function), self.look(node.rhs, function)
            return left or right
        return frozenset()

    def selector(self, node, function: str) -> "frozenset[str]":
        found = self.catalogue.series(node.name)
        if not found:
            self.complain(f"no metric has series called {node.name}")
            return frozenset()
        metric, part = found
        labels = metric.labels | TARGET_LABELS | ({"le"} if part == "bucket" else set())
        for matcher in node.matchers.matchers:
            if matcher.name not in labels:
                self.complain(f"{node.name} has no label {matcher.name}")
        counts = metric.kind == "counter" or part != "value"
        if counts and function not in OF_COUNTERS | OF_ANY_KIND:
            self.complain(f"{node.name} counts, and is used without rate or increase")
        if not counts and function in OF_COUNTERS:
            self.complain(f"{node.name} is a {metric.kind}: {function} of it says nothing")
        return labels

    def call(self, node) -> "frozenset[str]":
        name = node.func.name
        if name == "histogram_quantile":
            labels = self.look(node.args[1], "")
            if "le" not in labels:
                self.complain("histogram_quantile of what has no label le")
            return labels - {"le"}
        results = [self.look(argument, name) for argument in node.args]
        if name in ("absent", "absent_over_time"):
            return frozenset()
        return max(results, key=len, default=frozenset())

    def aggregate(self, node) -> "frozenset[str]":
        operator = str(node.op)
        labels = self.look(node.expr, operator)
        named = frozenset(node.modifier.labels) if node.modifier else frozenset()
        for label in sorted(named - labels):
            # A label that is not there is no error in PromQL, and never meant.
            if labels and not (node.modifier.type == AggModifierType.Without and label in TARGET_LABELS):
                self.complain(f"{operator} by {label}, which its series do not have")
        if operator in KEEPS_SERIES:
            return labels
        if node.modifier and node.modifier.type == AggModifierType.Without:
            return labels - named
        return named & labels
