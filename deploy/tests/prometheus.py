"""A real Prometheus over recorded series: loads them, answers range queries, ends."""

import json
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import series

START_TIME_MAX = 60.0  # s


@dataclass(frozen=True)
class Line:
    """One series of an answer."""

    labels: "dict[str, str]"
    times: "list[float]"  # s after the recording's start
    values: "list[float]"


def openmetrics(recording: series.Recording) -> str:
    """All samples with their times, for promtool's import. It has no notation for the end of a series: see `Server`."""
    lines = []
    for key, values in recording.series.items():
        selector = series.selector(key, ",")
        for at, value in enumerate(values):
            if isinstance(value, float):
                lines.append(f"{selector} {value!r} {recording.start + at * recording.interval}")
    return "\n".join([*lines, "# EOF", ""])


class Server:
    """`with Server(recording) as prometheus: prometheus.range("eniAllocated")`. Needs promtool and prometheus on the PATH."""

    def __init__(self, recording: series.Recording):
        self.recording = recording
        self.folder = tempfile.TemporaryDirectory()
        self.process = None

    def __enter__(self) -> "Server":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        place = Path(self.folder.name)
        (place / "samples").write_text(openmetrics(self.recording))
        (place / "prometheus.yml").write_text("")
        load = ["promtool", "tsdb", "create-blocks-from", "openmetrics", place / "samples", place / "data"]
        said = subprocess.run(load, capture_output=True, text=True, check=False)
        if said.returncode:
            raise RuntimeError(f"the series cannot be loaded: {said.stderr}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            "prometheus",
            f"--config.file={place}/prometheus.yml",
            f"--storage.tsdb.path={place}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            # The recording may be years old.
            "--storage.tsdb.retention.time=100y",
            # Instead of stale markers: a value stands until the next scrape is overdue.
            f"--query.lookback-delta={2 * self.recording.interval}s",
        ]
        self.log = open(place / "log", "w+b")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + START_TIME_MAX
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                raise RuntimeError(f"prometheus did not start:\n{self.log.read().decode()}")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).close()
        except OSError:
            return False
        return True

    def __exit__(self, *_) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
            self.log.close()
        self.folder.cleanup()

    def range(self, query: str) -> "list[Line]":
        """The query over the whole recording, a value for each scrape."""
        recording = self.recording
        asked = {
            "query": query,
            "start": recording.start,
            "end": recording.start + (recording.steps - 1) * recording.interval,
            "step": recording.interval,
        }
        request = urllib.request.Request(f"{self.url}/api/v1/query_range", urllib.parse.urlencode(asked).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            result = json.load(answer)["data"]["result"]
        lines = []
        for found in result:
            points = [(float(at) - recording.start, float(value)) for at, value in found["values"]]
            lines.append(
                Line(
                    {k: v for k, v in found["metric"].items() if k != "__name__"},
                    [t for t, _ in points],
                    [v for _, v in points],
                )
            )
        return lines
