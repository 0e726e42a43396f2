#!/usr/bin/env python3
"""Draws the dashboards as they look on recorded series: docs/images/grafana.png and docs/images/cloudwatch.png.

    draw.py [RECORDING.yaml]      default: recording/demo.yaml, or the made-up figures of recording/guide.py without one

Titles, places, queries, legends and units are those of the dashboards' own files; the values come from a real Prometheus that
holds the series. Only the drawing is ours: Grafana's licence (AGPL) keeps it out of this tree's tools, and CloudWatch runs
nowhere else. `make pictures` is the command.
"""

import hashlib
import io
import json
import math
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "recording")]

import catalogue as pages  # noqa: E402
import checks  # noqa: E402
import guide  # noqa: E402
import matplotlib  # noqa: E402
import series  # noqa: E402
import used  # noqa: E402
from PIL import Image  # noqa: E402
from PIL.PngImagePlugin import PngInfo  # noqa: E402
from prometheus import Line, Server  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

IMAGES = HERE.parents[1] / "docs/images"
BYTES_MAX = 200_000
WIDTH_INCHES, ROW_INCHES, DOTS_PER_INCH = 15.0, 0.30, 80
COLOURS = ["#5794f2", "#73bf69", "#f2a93b", "#e0526a", "#b877d9", "#37a2b4", "#8f9bb3", "#c4a000", "#ff7f50", "#4e9a06"]


@dataclass
class Panel:
    """One panel of either dashboard, with its lines as (legend, line)."""

    title: str
    kind: str  # row, stat, timeseries or heatmap
    x: int
    y: int
    width: int
    height: int
    unit: str = ""
    stacked: bool = False
    logarithmic: bool = False
    lines: "list[tuple[str, Line]]" = field(default_factory=list)


# --- Grafana


def legend(template: str, labels: "dict[str, str]") -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), template).strip() or "value"


def grafana_panels(dashboard: dict, prometheus: Server) -> "list[Panel]":
    # As Grafana chooses it: four scrapes at least.
    checks.GRAFANA_VARIABLES.update({"$__rate_interval": f"{4 * prometheus.recording.interval}s", "$cluster": ".*"})
    panels = []
    for panel in dashboard["panels"]:
        box, defaults = panel["gridPos"], panel.get("fieldConfig", {}).get("defaults", {})
        unit = defaults.get("unit") or panel.get("options", {}).get("yAxis", {}).get("unit", "")
        custom = defaults.get("custom", {})
        look = "stacking" in custom, custom.get("scaleDistribution", {}).get("type") == "log"
        lines = [
            (legend(target["legendFormat"], line.labels), line)
            for target in panel.get("targets", [])
            for line in prometheus.range(checks.expand(target["expr"]))
        ]
        panels.append(Panel(panel["title"], panel["type"], box["x"], box["y"], box["w"], box["h"], unit, *look, lines))
    return panels


# --- CloudWatch, whose metrics are Prometheus's by another name


def cloudwatch_query(metric: pages.Metric, statistic: str, interval: int) -> str:
    """What CloudWatch has of this metric in each period: of a counter, what was counted in it."""
    by = f" by ({', '.join(sorted(metric.labels))})" if metric.labels else ""
    if statistic == "Sum":
        return f"sum{by} (clamp_min({metric.name} - {metric.name} offset {interval}s, 0))"
    return f"max{by} ({metric.name})"


def cloudwatch_lines(widget: dict, catalogue: pages.Catalogue, prometheus: Server) -> "list[tuple[str, Line]]":
    found, interval = [], prometheus.recording.interval
    for parts, options in checks.widget_metrics(widget):
        if "expression" not in options:
            statistic = options.get("stat", widget["properties"]["stat"])
            for line in prometheus.range(cloudwatch_query(catalogue.cloudwatch[parts[1]], statistic, interval)):
                found.append((options.get("label", parts[1]), line))
            continue
        search = checks.SEARCH.search(options["expression"])
        metric = catalogue.cloudwatch[search["name"]]
        divided = re.search(r" / (\d+)$", options["expression"])
        for line in prometheus.range(cloudwatch_query(metric, search["stat"], interval)):
            # CloudWatch does not know series that have had nothing but zeros: they are not sent.
            if "FILL(" in options["expression"] and not any(line.values):
                continue
            values = [value / float(divided[1]) for value in line.values] if divided else line.values
            label = re.sub(r"\$\{PROP\('Dim\.\w+'\)\}", line.labels[next(iter(metric.labels))], options["label"])
            found.append((label, Line(line.labels, line.times, values)))
    return found


def cloudwatch_panels(body: dict, catalogue: pages.Catalogue, prometheus: Server) -> "list[Panel]":
    panels = []
    for widget in body["widgets"]:
        box = [widget[name] for name in ("x", "y", "width", "height")]
        properties = widget["properties"]
        if widget["type"] == "text":
            panels.append(Panel(properties["markdown"].removeprefix("## "), "row", *box))
            continue
        kind = "stat" if properties["view"] == "singleValue" else "timeseries"
        lines = cloudwatch_lines(widget, catalogue, prometheus)
        panels.append(Panel(properties["title"], kind, *box, "locale", properties.get("stacked", False), False, lines))
    return panels


# --- Drawing


def shown(value: float, unit: str) -> str:
    """A value as Grafana writes it in this unit."""
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1000:.3g} ms" if abs(value) >= 0.001 or value == 0 else f"{value * 1e6:.3g} µs"
    text = f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"
    return text + {"ms": " ms", "percent": " %"}.get(unit, "")


@dataclass(frozen=True)
class Look:
    page: str
    panel: str
    text: str
    faint: str


GRAFANA = Look("#111217", "#181b1f", "#d8d9da", "#33363d")
CLOUDWATCH = Look("#f2f3f3", "#ffffff", "#16191f", "#d5dbdb")


# Name of the PNG's own remark on what it was drawn from.
SOURCE = "drawn-from"


def fingerprint(dashboard: Path, recording: Path) -> str:
    """Of what a picture is drawn from: the tests notice when that has changed since."""
    return hashlib.sha256(dashboard.read_bytes() + recording.read_bytes()).hexdigest()[:16]


def picture(panels: "list[Panel]", look: Look, title: str, seconds: float, source: str) -> bytes:
    """The dashboard as a PNG, which remembers its source."""
    rows = max(panel.y + panel.height for panel in panels) + 1
    height = rows * ROW_INCHES
    figure = pyplot.figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, facecolor=look.page)
    pyplot.rcParams.update(
        {"font.size": 8, "text.color": look.text, "axes.edgecolor": look.faint, "axes.linewidth": 0.6}
    )
    figure.text(0.008, 1 - 0.22 / height, title, fontsize=12, fontweight="bold", va="center", color=look.text)
    for panel in panels:
        left, top = panel.x / 24, (panel.y + 1) * ROW_INCHES
        place(figure, panel, look, left * WIDTH_INCHES, top, height, seconds)
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor=look.page)
    pyplot.close(figure)
    small, remarks = io.BytesIO(), PngInfo()
    remarks.add_text(SOURCE, source)
    few_colours = Image.open(out).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    few_colours.save(small, format="png", optimize=True, pnginfo=remarks)
    return small.getvalue()


def place(figure, panel: Panel, look: Look, left: float, top: float, height: float, seconds: float) -> None:
    """One panel, in inches from the top left."""
    width, tall = panel.width / 24 * WIDTH_INCHES, panel.height * ROW_INCHES
    box = lambda x, y, w, h: ((left + x) / WIDTH_INCHES, 1 - (top + y + h) / height, w / WIDTH_INCHES, h / height)  # noqa: E731
    if panel.kind == "row":
        figure.text(
            (left + 0.12) / WIDTH_INCHES,
            1 - (top + tall / 2) / height,
            panel.title,
            fontsize=10,
            fontweight="bold",
            va="center",
            color=look.text,
        )
        return
    frame = figure.add_axes(box(0.04, 0.04, width - 0.08, tall - 0.08), facecolor=look.panel)
    frame.set(xticks=[], yticks=[])
    frame.text(
        0.12 / width,
        1 - 0.06 / tall,
        panel.title,
        transform=frame.transAxes,
        va="top",
        fontsize=8.5,
        fontweight="bold",
        color=look.text,
    )
    if not panel.lines:
        frame.text(0.5, 0.45, "no data", transform=frame.transAxes, ha="center", va="center", color=look.faint)
    elif panel.kind == "stat":
        figures(frame, panel, look)
    else:
        legend_rows = 0 if panel.kind == "heatmap" else math.ceil(min(len(panel.lines), 8) / max(1, int(width / 1.9)))
        room = 0.24 + 0.17 * legend_rows
        axes = figure.add_axes(box(0.72, 0.34, width - 1.0, tall - 0.38 - room), facecolor=look.panel)
        chart(axes, panel, look, seconds)
        if legend_rows:
            axes.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.17 / (tall - 0.38 - room)),
                ncols=max(1, int(width / 1.9)),
                frameon=False,
                fontsize=7,
                handlelength=1.2,
                labelcolor=look.text,
                borderaxespad=0,
            )


def figures(frame, panel: Panel, look: Look) -> None:
    """The last value of each line, large."""
    for at, (name, line) in enumerate(panel.lines):
        x = (at + 0.5) / len(panel.lines)
        frame.text(
            x,
            0.46,
            shown(line.values[-1], panel.unit),
            transform=frame.transAxes,
            ha="center",
            va="center",
            fontsize=19,
            color=look.text,
        )
        frame.text(x, 0.14, name, transform=frame.transAxes, ha="center", va="center", fontsize=8, color=look.text)


def chart(axes, panel: Panel, look: Look, seconds: float) -> None:
    axes.grid(color=look.faint, linewidth=0.4)
    axes.tick_params(colors=look.text, labelsize=7, length=2, pad=2)
    if panel.kind == "heatmap":
        heatmap(axes, panel)
    elif panel.stacked:
        stack(axes, panel)
    else:
        for at, (name, line) in enumerate(panel.lines):
            colour = COLOURS[at % len(COLOURS)]
            axes.plot(line.times, line.values, color=colour, linewidth=1.1, label=name if at < 8 else None)
        if panel.logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    if panel.kind != "heatmap":
        axes.yaxis.set_major_formatter(lambda value, _: shown(value, panel.unit))
        axes.yaxis.set_major_locator(
            matplotlib.ticker.LogLocator(numticks=4) if panel.logarithmic else matplotlib.ticker.MaxNLocator(4)
        )
    axes.set_xlim(0, seconds)
    axes.xaxis.set_major_formatter(lambda value, _: f"{int(value // 3600):02}:{int(value % 3600 // 60):02}")
    step = next(size for size in (60, 120, 300, 600, 1800, 3600, 7200, 86400) if seconds / size <= 8)
    axes.xaxis.set_major_locator(matplotlib.ticker.MultipleLocator(step))


def stack(axes, panel: Panel) -> None:
    moments = sorted({time for _, line in panel.lines for time in line.times})
    rows = []
    for _, line in panel.lines:
        at = dict(zip(line.times, line.values))
        rows.append([at.get(moment, 0.0) for moment in moments])
    axes.stackplot(moments, rows, labels=[name for name, _ in panel.lines], colors=COLOURS, alpha=0.75, linewidth=0)
    axes.set_ylim(bottom=0)


def heatmap(axes, panel: Panel) -> None:
    """Buckets from below, each with what is in it alone: Prometheus's are sums from below."""
    lines = sorted((line for _, line in panel.lines), key=lambda line: float(line.labels["le"]))
    moments = lines[0].times
    below, cells = [0.0] * len(moments), []
    for line in lines:
        cells.append([max(0.0, value - under) for value, under in zip(line.values, below)])
        below = line.values
    edges = [moments[0], *[(a + b) / 2 for a, b in zip(moments, moments[1:])], moments[-1]]
    highest = max(max(row) for row in cells) or 1.0
    axes.pcolormesh(
        edges,
        range(len(lines) + 1),
        [[cell or math.nan for cell in row] for row in cells],
        cmap="Blues_r" if axes.get_facecolor()[0] < 0.5 else "Blues",
        vmin=0,
        vmax=highest,
    )
    marks = range(0, len(lines), 3)
    axes.set_yticks(
        [mark + 0.5 for mark in marks],
        [
            shown(float(lines[mark].labels["le"]), "s") if math.isfinite(float(lines[mark].labels["le"])) else "∞"
            for mark in marks
        ],
    )


DASHBOARDS = {
    "grafana.png": used.DEPLOY / "grafana/enipool.json",
    "cloudwatch.png": used.DEPLOY / "cloudwatch/dashboard.json",
}
MADE_UP = HERE / "recording/guide.py"


def default_recording() -> Path:
    """The recording of a real cluster, if there is one."""
    recorded = HERE / "recording/demo.yaml"
    return recorded if recorded.exists() else MADE_UP


def load(file: Path) -> "tuple[series.Recording, str]":
    """The series, and what they are."""
    if file != MADE_UP:
        return series.load(file), f"recorded series ({file.stem})"
    with tempfile.TemporaryDirectory() as folder:
        guide.main(Path(folder))
        return series.read(Path(folder), used.series_names().__contains__), "made-up series, like the guide's example"


def main() -> int:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else default_recording()
    recording, source = load(file)
    seconds = (recording.steps - 1) * recording.interval
    bodies = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in DASHBOARDS.items()}
    with Server(recording) as prometheus:
        grafana = grafana_panels(bodies["grafana.png"], prometheus)
        cloudwatch = cloudwatch_panels(bodies["cloudwatch.png"], pages.read(), prometheus)
    IMAGES.mkdir(exist_ok=True)
    for name, panels, look, title in (
        ("grafana.png", grafana, GRAFANA, f"enipool · Grafana's dashboard · {source}"),
        ("cloudwatch.png", cloudwatch, CLOUDWATCH, f"enipool · CloudWatch's dashboard · {source}"),
    ):
        for panel in panels:
            if panel.kind != "row" and not panel.lines:
                print(f"{name}: no data for {panel.title}", file=sys.stderr)
        data = picture(panels, look, title, seconds, fingerprint(DASHBOARDS[name], file))
        if len(data) > BYTES_MAX:
            raise SystemExit(f"{name} has {len(data)} bytes, more than {BYTES_MAX}")
        (IMAGES / name).write_bytes(data)
        print(f"docs/images/{name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
