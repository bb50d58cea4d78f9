"""The timeline: trainings as bars by machine, in lanes where several run at a time."""

import json
import socket
from dataclasses import replace

import pytest
from synthetic_study import BEGAN, synthetic_records, synthetic_study, write_synthetic_study

from search.analysis.snapshot_reader import read_snapshot
from search.runner.devices import machine_of
from search.visualization.figures import timeline
from search.visualization.figures.timeline import draw_timeline, timeline_of
from search.visualization.pages.page import Request
from search.visualization.pages.progress import progress_page

HOUR_LATER = BEGAN.timestamp() + 3600


def on(record, machine, *, began="", ended=""):
    measurement = replace(record.measurement, machine=machine)
    return replace(record, measurement=measurement, started=began or record.started, ended=ended or record.ended)


@pytest.fixture
def snapshot_of(tmp_path):
    def read(records):
        write_synthetic_study(tmp_path, "made", records)
        return read_snapshot(synthetic_study("made"), tmp_path / "made")

    return read


def test_trainings_at_the_same_time_on_one_machine_are_in_different_lanes(snapshot_of):
    first, second, third, fourth = synthetic_records(4, state="trained")
    overlaps = on(second, "one", began=first.started, ended=second.ended)
    bars = timeline_of(snapshot_of([on(first, "one"), overlaps, on(third, "two"), on(fourth, "one")]), now=HOUR_LATER)
    assert [(bar.trial.number, bar.machine, bar.lane) for bar in bars] == [
        (0, "one", 0),
        (1, "one", 1),
        (2, "two", 0),
        (3, "one", 0),
    ]
    drawn = json.loads(draw_timeline(bars).drawing)
    assert drawn["layout"]["yaxis"]["categoryarray"] == ["two", "one · 2", "one · 1"]
    assert drawn["data"][0]["x"] == [300_000.0, 600_000.0, 300_000.0, 300_000.0]  # milliseconds


def test_a_running_training_ends_now_and_a_confirmation_is_named(snapshot_of):
    trained, running = synthetic_records(1, state="trained"), synthetic_records(1, first=1, state="running")
    confirmed = replace(synthetic_records(1, first=2, state="trained")[0], seed=7)
    bars = timeline_of(snapshot_of([*trained, *running, confirmed]), now=HOUR_LATER)
    assert [bar.kind for bar in bars] == ["trained", "running", "confirmation"]
    assert bars[1].ended == HOUR_LATER
    assert draw_timeline(bars).title == "Timeline: 3 trainings on 1 machine"


def test_a_training_whose_driver_has_ended_is_interrupted_after_the_time_that_it_took(snapshot_of):
    (running,) = synthetic_records(1, state="running")
    (bar,) = timeline_of(snapshot_of([running]), now=HOUR_LATER, lost={0})
    assert (bar.kind, bar.ended - bar.began) == ("interrupted", 300.0)


def test_a_long_study_shows_its_latest_trainings(snapshot_of, monkeypatch):
    monkeypatch.setattr(timeline, "MAX_BARS", 3)
    bars = timeline_of(snapshot_of(synthetic_records(5, state="trained")), now=HOUR_LATER)
    assert [bar.trial.number for bar in bars] == [2, 3, 4]
    assert draw_timeline(bars).title.endswith(", the latest")


def test_the_dashboard_shows_the_timeline_and_a_report_names_no_machines(snapshot_of):
    snapshot = snapshot_of([on(each, "secret-host") for each in synthetic_records(3)])
    names = {place: [getattr(each, "name", "") for each in _components(snapshot, place)] for place in ("", "/study/a")}
    assert "timeline" in names["/study/a"] and "timeline" not in names[""]
    assert "secret-host" not in str(_components(snapshot, ""))


def _components(snapshot, place):
    return progress_page(snapshot, Request(place=place)).components


def test_a_gpu_has_the_number_that_it_has_outside_the_process(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine_of("cpu") == socket.gethostname()
    assert machine_of("cuda:1") == f"{socket.gethostname()}, GPU 1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert machine_of("cuda:1") == f"{socket.gethostname()}, GPU 5"
