"""The GPU check itself, on the CPU with tiny sizes: it must not rot where no GPU is at hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parent / "gpu" / "check.py"
PARTS = ("memory", "faults", "study", "latency", "parity", "packing", "norms", "blocks", "loop", "compile")


def run_check(folder, *parts):
    return subprocess.run(
        [sys.executable, str(CHECK), *parts, "--cpu", "--out", str(folder)], capture_output=True, text=True
    )


def check(folder, parts):
    done = run_check(folder, *parts)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "check.json").read_text())
    assert found["environment"]["sizes"] == "tiny"
    assert [part["name"] for part in found["parts"]] == list(parts)
    assert not any(part["errors"] for part in found["parts"])
    text = (folder / "check.md").read_text()
    assert all(f"## {name}" in text for name in parts) and "**missed**" not in text
    return {part["name"]: part for part in found["parts"]}


def test_every_part_runs_and_keeps_its_limits(tmp_path):
    parts = check(tmp_path, PARTS)
    assert len(parts["memory"]["rows"]) == 2 and len(parts["norms"]["rows"]) == 10
    assert [row["state"] for row in parts["faults"]["rows"]] == ["failed", "trained", "trained"]
    assert {row["state"] for row in parts["study"]["rows"]} == {"trained"}


def test_a_part_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(CHECK.parent))
    from check import main

    monkeypatch.setattr(sys, "argv", ["check.py", "memroy"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "no such part: memroy; choose from memory, faults" in capsys.readouterr().err


def test_results_survive_a_part_that_fails(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CHECK.parent))
    from report import OutOfTime, PartReport, Report

    part = PartReport("memory", float("inf"))
    part.limit("error", 0.2, 0.05)
    with part.item("one network"):
        raise RuntimeError("no kernel | for it")
    report = Report(tmp_path, {"device": "a card"}, [part])
    report.write()
    assert part.verdict == "FAILED" and "no kernel" in (tmp_path / "check.md").read_text()
    assert json.loads((tmp_path / "check.json").read_text())["parts"][0]["errors"][0]["item"] == "one network"
    late = PartReport("latency", 0.0)
    with pytest.raises(OutOfTime), late.item("too late"):
        raise AssertionError("never begun")
