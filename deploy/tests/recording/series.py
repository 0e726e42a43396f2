#!/usr/bin/env python3
"""Turns a folder of scrapes (see record.py) into series as `promtool test rules` takes them, in one file.

    series.py FOLDER > NAME.yaml          only what alerts and dashboards use
    series.py FOLDER --all > NAME.yaml    everything

Each series has the labels that the chart's monitors give a target: instance, node and pod. A series that ends gets a stale
marker, as it does in Prometheus.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from prometheus_client.openmetrics.parser import text_fd_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as older_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PORTS = {"operator": 61682, "agent": 61678}
MISSING, STALE = "_", "stale"
Key = "tuple[str, tuple[tuple[str, str], ...]]"


@dataclass
class Recording:
    """Series over equally spaced moments. A value is a float, MISSING or STALE."""

    start: int  # Unix time of the first moment, s
    interval: int  # s
    series: "dict[Key, list]"

    @property
    def steps(self) -> int:
        return len(next(iter(self.series.values()), []))


def target_labels(name: str) -> "dict[str, str]":
    """Of the file's name: `agent-ip-10-0-0-1` is the agent on that node."""
    component, _, node = name.partition("-")
    return {"instance": f"{node}:{PORTS[component]}", "node": node, "pod": f"enipool-{component}-{node}"}


def samples(text: str) -> "dict[Key, float]":
    """The series of one scrape, in either text format."""
    is_openmetrics = text.rstrip().endswith("# EOF")
    families = openmetrics(iter(text.splitlines(keepends=True))) if is_openmetrics else older_text(text)
    found = {}
    for family in families:
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = float(sample.value)
    return found


def moments(folder: Path) -> "list[Path]":
    found = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


def read(folder: Path, wanted=lambda name: True) -> Recording:
    """All scrapes of a folder; of series whose name is not wanted, nothing."""
    places = moments(folder)
    times = [int(place.name) for place in places]
    if len(times) < 2:
        raise SystemExit(f"{folder}: fewer than two scrapes")
    gaps = sorted(later - earlier for earlier, later in zip(times, times[1:]))
    interval = gaps[len(gaps) // 2]
    steps = round((times[-1] - times[0]) / interval) + 1
    series: "dict[Key, list]" = {}
    for place, time in zip(places, times):
        at = round((time - times[0]) / interval)
        for file in sorted(place.glob("*.txt")):
            labels = target_labels(file.stem)
            for (name, own), value in samples(file.read_text(encoding="utf-8")).items():
                if wanted(name):
                    key = name, tuple(sorted({**dict(own), **labels}.items()))
                    series.setdefault(key, [MISSING] * steps)[at] = value
    for values in series.values():
        end_gaps(values)
    return Recording(times[0], interval, dict(sorted(series.items())))


def end_gaps(values: list) -> None:
    """Where a series stops, its last value does not stand for the minutes to come."""
    for at in range(1, len(values)):
        if values[at] == MISSING and values[at - 1] not in (MISSING, STALE):
            values[at] = STALE


# --- promtool's notation


def number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def notation(values: list) -> str:
    """Values as promtool writes them: `1+2x3` is 1 3 5 7, `_x3` three that are missing."""
    parts, at = [], 0
    while at < len(values):
        first = values[at]
        end = at
        if isinstance(first, str):
            while end + 1 < len(values) and values[end + 1] == first:
                end += 1
            parts.append(
                f"{first}x{end - at + 1}" if first == MISSING and end > at else " ".join([first] * (end - at + 1))
            )
        else:
            step = 0.0
            following = values[at + 1] if at + 1 < len(values) else None
            # Sums of fractions would not come out as they were.
            if isinstance(following, float) and first == int(first) and following == int(following):
                step = following - first
            while end + 1 < len(values) and values[end + 1] == first + step * (end + 1 - at):
                end += 1
            if end == at or (step != 0 and end == at + 1):
                end = at
                parts.append(number(first))
            elif step == 0:
                parts.append(f"{number(first)}x{end - at}")
            else:
                parts.append(f"{number(first)}{'+' if step > 0 else '-'}{number(abs(step))}x{end - at}")
        at = end + 1
    return " ".join(parts)


PART = re.compile(r"(?P<first>-?[\d.e+-]+?|_)(?:(?P<step>[+-][\d.]+))?(?:x(?P<times>\d+))?")


def values_of(text: str) -> list:
    """The inverse of `notation`."""
    values = []
    for part in text.split():
        if part == STALE:
            values.append(STALE)
            continue
        found = PART.fullmatch(part)
        times = int(found["times"] or 0)
        if found["first"] == MISSING:
            values += [MISSING] * max(times, 1)
        else:
            first, step = float(found["first"]), float(found["step"] or 0)
            values += [first + step * at for at in range(times + 1)]
    return values


def selector(key: "Key", comma: str = ", ") -> str:
    name, labels = key
    quoted = (label + '="' + value.replace("\\", r"\\").replace('"', r"\"") + '"' for label, value in labels)
    return f"{name}{{{comma.join(quoted)}}}"


def key_of(text: str) -> "Key":
    """The inverse of `selector`."""
    name, _, rest = text.partition("{")
    labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest)
    return name, tuple((label, value.replace(r"\"", '"').replace(r"\\", "\\")) for label, value in labels)


def dump(recording: Recording) -> str:
    lines = [
        "# Made by series.py of recorded scrapes. Do not edit.",
        f"start: {recording.start}",
        f"interval: {recording.interval}s",
        "input_series:",
    ]
    for key, values in recording.series.items():
        lines.append(f"  - series: {yaml_text(selector(key))}")
        lines.append(f"    values: {yaml_text(notation(values))}")
    return "\n".join(lines) + "\n"


def yaml_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def load(file: Path) -> Recording:
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    series = {key_of(entry["series"]): values_of(str(entry["values"])) for entry in document["input_series"]}
    return Recording(document["start"], int(document["interval"].removesuffix("s")), series)


def main() -> int:
    import used

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="also what neither alerts nor dashboards use")
    args = parser.parse_args()
    names = used.series_names()
    sys.stdout.write(dump(read(args.folder, (lambda name: True) if args.all else names.__contains__)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
