"""`voxnas space`: axes, conditions, size, refusals and costs of a study's space."""

import json
import sys

import pytest
from conftest import STUDY, write_study

from search.cli import main
from search.cli.space_report import axis_rows
from space.canonical import Context
from space.narrow import narrow

OPEN = STUDY.replace("attention: none, ", "attention@encoders: none, attention@skips: none, attention@decoders: none, ")
OPEN = OPEN.replace("isa]}", "csam, epa]}\n  forbid: [{when: {width: 2, repeats: 2}, why: too thin to be deep}]")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("survey"), OPEN)


def call(made, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["voxnas", "space", str(made.file), "--runs", str(made.runs), *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_the_table_shows_axes_conditions_size_rules_and_refusals(made, monkeypatch, capsys):
    call(made, monkeypatch, "--sample", "3", "--timed", "1")
    printed = capsys.readouterr().out
    assert "csam.slice" in printed and "attention is csam" in printed and "bottleneck" in printed
    assert "forbidden: too thin to be deep" in printed and "combinations of choices, with 1 rule applied" in printed
    assert "infeasible, e.g. csam at bottleneck has" in printed  # equal up to places and numbers
    assert "Costs of 3 random networks" in printed and "latency" in printed


def test_json_has_the_same_content_in_plain_units(made, monkeypatch, capsys):
    call(made, monkeypatch, "--sample", "4", "--timed", "0", "--json")
    values = json.loads(capsys.readouterr().out)
    assert values["forbidden"] == ["too thin to be deep"] and values["size"] > 100
    assert 0 < sum(values["infeasible"].values()) < 1
    axis = next(axis for axis in values["axes"] if axis["name"] == "csam.uncertainty@bottleneck")
    assert axis["when"] == {"attention@bottleneck": ["csam"], "csam.slice@bottleneck": [True]}
    memory = values["costs"]["memory"]
    assert memory["networks"] == 4 and memory["min"] <= memory["median"] <= memory["max"]
    assert "latency" not in values["costs"] and memory["seconds_each"] > 0
    assert memory["model_error"] is None  # four have no effect


def test_the_error_of_the_cost_model_is_shown(made, monkeypatch, capsys):
    call(made, monkeypatch, "--sample", "12", "--timed", "0", "--json")
    errors = [cost["model_error"] for cost in json.loads(capsys.readouterr().out)["costs"].values()]
    assert len(errors) == 4 and all(0 < error < 0.5 for error in errors)


def test_equal_axes_of_several_places_share_a_row():
    context = Context((8, 64, 64), (8.0, 1.0, 1.0), 1, 2)
    rows = axis_rows(narrow(context, placement="each", fix={}, choices={}))
    assert len(rows) < 40
    (slices,) = [row for row in rows if row.name == "csam.slice"]
    assert slices.condition == "attention is csam" and len(slices.places) == 16
    assert [row.condition for row in rows if row.name == "attention"] == ["encoder is not unetrpp", ""]
    assert next(row for row in rows if row.name == "expansion").condition == "stages is two-patch"


def test_on_a_cpu_no_latency_is_measured_unless_asked_for(made, monkeypatch, capsys):
    call(made, monkeypatch, "--sample", "2")
    printed, progress = capsys.readouterr()
    assert "no latency was measured; --timed N measures that of N networks" in printed
    assert "latency" not in printed.partition("Costs of 2 random networks")[2].partition("no latency")[0]
    assert progress.splitlines()[-1] == "pricing: 2 of 2 networks"
