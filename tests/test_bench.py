"""`make bench`: figures are compared with their limits, collected from all benchmarks, and written as a page."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench import BENCHMARKS, Benchmark, Finished, page
from bench_figures import COLLECTED, Figure, collected, report

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("value", "limit", "at_least", "verdict"),
    [
        (0.5, 0.5, False, "met"),
        (0.51, 0.5, False, "MISSED"),
        (0.5, 0.5, True, "met"),
        (0.49, 0.5, True, "MISSED"),
        (float("nan"), 0.5, False, "MISSED"),
        (0.5, None, False, ""),
    ],
)
def test_a_figure_is_compared_with_its_limit(value, limit, at_least, verdict):
    assert Figure("time", value, "s", limit, at_least).verdict == verdict


def test_figures_are_printed_and_collected(tmp_path, monkeypatch, capsys):
    file = tmp_path / "figures.jsonl"
    assert collected(file) == []
    monkeypatch.setenv(COLLECTED, str(file))
    report("start", 0.25, "s", limit=0.5)
    report("memory", 12345.6, "MiB")
    assert capsys.readouterr().out == "start: 0.25 s (at most 0.5 s): met\nmemory: 12,346 MiB\n"
    assert collected(file) == [Figure("start", 0.25, "s", 0.5), Figure("memory", 12345.6, "MiB")]


def test_the_page_begins_with_what_misses_its_limit_and_names_what_did_not_run():
    done = Finished(
        Benchmark("Start", "bench_startup"), [Figure("help", 1.0, "s", 0.5), Figure("check", 1.0, "s", 2.0)], 3.0, ""
    )
    broken = Finished(Benchmark("Cluster", "bench_ray", ("driver",)), [], 1.0, "ended with code 1")
    written = page([done, broken], [(Benchmark("Export", "bench_export"), "needs Task27_ACDC under VOXNAS_DATA")])
    head, _, rest = written.partition("## Start")
    assert "1 of 2 limits are met" in head and "| help | 1 s | at most 0.5 s |" in head and "check" not in head
    assert "| check | 1 s | at most 2 s | met |" in rest and "**It ended with code 1.**" in rest
    assert "* Export (`make bench-export`): needs Task27_ACDC under VOXNAS_DATA." in rest


def test_every_benchmark_has_a_short_form():
    # the short form of presets is in test_real_data.py; transfer needs tables that share one space
    others = {"bench_figures", "bench_presets"}  # the short form of presets is in test_real_data.py
    others |= {"bench_noise", "bench_transfer"}  # few seeds would say nothing
    assert {each.script for each in BENCHMARKS} == {file.stem for file in HERE.glob("bench_*.py")} - others


@pytest.mark.long
def test_the_command_runs_a_benchmark_and_writes_the_page(tmp_path):
    out = tmp_path / "bench.md"
    command = [sys.executable, str(HERE / "bench.py"), "startup", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| voxnas --help, whole process |" in out.read_text() and f"wrote {out}" in done.stdout
