"""The pictures in docs/images are those of the dashboards as they are now. `make pictures` draws them anew."""

import draw
import pytest
from PIL import Image


@pytest.mark.parametrize("name", sorted(draw.DASHBOARDS))
def test_the_picture_is_drawn_from_this_dashboard_and_recording(name):
    drawn_from = Image.open(draw.IMAGES / name).text[draw.SOURCE]
    expected = draw.fingerprint(draw.DASHBOARDS[name], draw.default_recording())
    assert drawn_from == expected, f"docs/images/{name} is out of date: run `make pictures`"
    assert (draw.IMAGES / name).stat().st_size < draw.BYTES_MAX


def test_another_dashboard_has_another_fingerprint(tmp_path):
    recording = draw.default_recording()
    changed = tmp_path / "dashboard.json"
    for path in draw.DASHBOARDS.values():
        changed.write_text(path.read_text() + " ")
        assert draw.fingerprint(changed, recording) != draw.fingerprint(path, recording)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (11186.0, "locale", "11,186"),
        (0.0125, "s", "12.5 ms"),
        (0.00025, "s", "250 µs"),
        (7200.0, "s", "2 h"),
        (172800.0, "s", "2 d"),
        (0.0, "s", "0 ms"),
        (250.5, "ms", "250 ms"),
        (80.0, "percent", "80 %"),
        (0.25, "none", "0.25"),
    ],
)
def test_values_are_written_in_their_unit(value, unit, text):
    assert draw.shown(value, unit) == text


def test_legends_show_the_labels_that_a_series_has():
    assert draw.legend("{{phase}} {{cluster}}", {"phase": "wait"}) == "wait"
    assert draw.legend("held {{cluster}}", {"cluster": "prod"}) == "held prod"


def test_cloudwatch_gets_what_was_counted_in_the_period(catalogue):
    counter, gauge = catalogue.cloudwatch["ipamdErr"], catalogue.cloudwatch["subnetFreeAddresses"]
    assert draw.cloudwatch_query(counter, "Sum", 60) == "sum (clamp_min(ipamdErr - ipamdErr offset 60s, 0))"
    assert draw.cloudwatch_query(gauge, "Minimum", 60) == "max by (subnet) (enipool_cluster_subnet_free_addresses)"
