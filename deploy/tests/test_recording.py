"""Recorded scrapes become promtool's series, value by value; and what real scrapes show is what the pages of metrics say."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import guide
import pytest
import series
import yaml

HERE = Path(__file__).parent

OPENMETRICS = """\
# TYPE eniAllocated gauge
eniAllocated {enis}
# TYPE enipool_cluster_ec2_throttles counter
enipool_cluster_ec2_throttles_total {throttles}
# TYPE enipool_cni_add_seconds histogram
enipool_cni_add_seconds_bucket{{outcome="success",le="0.5"}} 1
enipool_cni_add_seconds_bucket{{outcome="success",le="+Inf"}} 2
enipool_cni_add_seconds_sum{{outcome="success"}} 0.75
enipool_cni_add_seconds_count{{outcome="success"}} 2
# EOF
"""
OLDER = """\
# TYPE enipool_serving gauge
enipool_serving 1
"""


def scrapes(folder, *moments):
    """Each moment: seconds, and texts by target."""
    for seconds, texts in moments:
        place = folder / str(seconds)
        place.mkdir()
        for name, text in texts.items():
            (place / f"{name}.txt").write_text(text)
    return series.read(folder)


def test_scrapes_become_series_with_the_labels_of_their_target(tmp_path):
    text = OPENMETRICS.format(enis=3, throttles=7)
    recording = scrapes(
        tmp_path, (100, {"operator-a": text, "agent-b": OLDER}), (105, {"operator-a": text, "agent-b": OLDER})
    )
    assert (recording.start, recording.interval, recording.steps) == (100, 5, 2)
    written = [series.selector(key) for key in recording.series]
    assert 'eniAllocated{instance="a:61682", node="a", pod="enipool-operator-a"}' in written
    assert 'enipool_serving{instance="b:61678", node="b", pod="enipool-agent-b"}' in written
    bucket = 'enipool_cni_add_seconds_bucket{instance="a:61682", le="0.5", node="a", outcome="success", pod="enipool-operator-a"}'
    assert bucket in written


def test_a_target_that_does_not_answer_ends_its_series(tmp_path):
    text = {"operator-a": OPENMETRICS.format(enis=3, throttles=7)}
    recording = scrapes(tmp_path, (100, text), (105, {"agent-b": OLDER}), (110, {"agent-b": OLDER}), (115, text))
    by_name = {key[0]: values for key, values in recording.series.items()}
    assert by_name["eniAllocated"] == [3.0, "stale", "_", 3.0]
    assert by_name["enipool_serving"] == ["_", 1.0, 1.0, "stale"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 1.0, 1.0], "1x2"),
        ([1.0, 3.0, 5.0, 2.0], "1+2x2 2"),
        ([9.0, 7.0, 5.0, "stale", "_", "_", 1.0], "9-2x2 stale _x2 1"),
        ([0.1, 0.2, 0.30000000000000004], "0.1 0.2 0.30000000000000004"),
        (["_", "_", 4.5, 4.5], "_x2 4.5x1"),
        ([4.0, 5.0], "4 5"),
    ],
)
def test_the_notation_holds_the_same_values(values, text):
    assert series.notation(values) == text
    assert series.values_of(text) == values


def test_promtool_reads_the_notation_as_it_is_meant(tmp_path):
    values = [9.0, 7.0, 5.0, "stale", "_", "_", 1.0, 1.0]
    expected = [
        {
            "expr": "x",
            "eval_time": f"{at}m",
            "exp_samples": [{"labels": 'x{a="b"}', "value": value}] if isinstance(value, float) else [],
        }
        for at, value in enumerate(values)
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": 'x{a="b"}', "values": series.notation(values)}],
        "promql_expr_test": expected,
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    said = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_file_of_series_is_read_back_as_it_was(tmp_path, guide_scrapes):
    file = tmp_path / "guide.yaml"
    file.write_text(series.dump(guide_scrapes))
    assert series.load(file) == guide_scrapes
    assert guide_scrapes.steps == guide.STEPS


def test_labels_with_quotes_survive():
    key = ("x", (("a", 'say "no" \\ yes'),))
    assert series.key_of(series.selector(key)) == key


def test_one_scrape_is_no_recording(tmp_path):
    with pytest.raises(SystemExit, match="fewer than two"):
        scrapes(tmp_path, (100, {"agent-b": OLDER}))


def test_a_recording_is_made_of_what_targets_answer(tmp_path):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(OLDER.encode() if "openmetrics" in self.headers["Accept"] else b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    command = [
        sys.executable,
        HERE / "recording/record.py",
        tmp_path,
        f"agent-b={url}",
        "operator-a=http://127.0.0.1:1/metrics",
    ]
    subprocess.run([*command, "--every", "1", "--for", "2"], check=True)
    server.shutdown()
    recording = series.read(tmp_path)
    assert [series.selector(key) for key in recording.series] == [
        'enipool_serving{instance="b:61678", node="b", pod="enipool-agent-b"}'
    ]
    assert recording.series[next(iter(recording.series))] == [1.0, 1.0, 1.0]


# --- Real recordings against the pages of metrics

RECORDINGS = sorted(path for path in (HERE / "recording").glob("*.yaml") if not path.name.endswith(".expected.yaml"))


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.stem)
def test_what_was_recorded_is_what_the_pages_of_metrics_say(file, catalogue):
    complaints = undocumented(series.load(file), catalogue)
    assert complaints == []


def undocumented(recording, catalogue):
    """Series whose name or labels no page of metrics knows."""
    complaints = set()
    for name, labels in recording.series:
        found = catalogue.series(name)
        own = {label for label, _ in labels} - {"instance", "node", "pod"}
        if not found:
            complaints.add(f"no page knows {name}")
        elif own != found[0].labels | ({"le"} if found[1] == "bucket" else set()):
            complaints.add(f"{name} has the labels {sorted(own)}")
    return sorted(complaints)


def test_a_recorded_series_that_no_page_knows_is_noticed(guide_scrapes, catalogue):
    assert undocumented(guide_scrapes, catalogue) == []
    target = (("instance", "a"), ("node", "a"), ("pod", "a"))
    strange = {("enipool_new", target): [1.0], ("enipool_serving", (*target, ("zone", "a"))): [1.0]}
    said = undocumented(series.Recording(0, 1, strange), catalogue)
    assert said == ["enipool_serving has the labels ['zone']", "no page knows enipool_new"]
