"""`voxnas doctor`: what it finds wrong with packages, devices, disk and locks, and how it says so."""

import json
import os
from collections import namedtuple
from io import StringIO
from pathlib import Path

import pytest
import torch

from search.api.terminal import PlainConsole
from search.cli import doctor
from search.setup import devices, packages, surroundings
from search.setup.check import Check
from search.setup.machine import Machine


def test_this_environment_has_the_required_packages():
    assert packages.check_python().state == packages.check_required().state == "ok"


def test_a_missing_and_an_old_package_are_errors_with_a_way_out(monkeypatch):
    here = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: {"optuna": None, "dash": "3.9.1"}.get(name, here(name)))
    check = packages.check_required()
    assert (
        check.state == "error" and "optuna is not installed" in check.found and "dash 3.9.1, not <5,>=4" in check.found
    )
    assert check.advice.startswith("pip install --upgrade voxnas")


def test_an_unsupported_python_is_an_error(monkeypatch):
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.9.2")
    assert packages.check_python() == Check(
        "Python", "error", "3.9.2, not <3.14,>=3.11", "create a virtual environment with a supported Python"
    )


def test_versions_other_than_the_tested_ones_are_a_warning(monkeypatch, tmp_path):
    pins = tmp_path / "constraints.txt"
    pins.write_text("# pins\nnumpy==0.1\nscipy==99.0 ; sys_platform == 'nowhere'\nnot-installed==1.0\n")
    monkeypatch.setattr(packages, "CONSTRAINTS", pins)
    check = packages.check_tested()
    assert check.state == "warning" and check.found.startswith("numpy ") and check.found.endswith("(tested with 0.1)")
    monkeypatch.setattr(packages, "CONSTRAINTS", tmp_path / "elsewhere.txt")
    assert packages.check_tested().state == "ok"


def test_a_missing_extra_names_its_install_command(monkeypatch):
    here = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: None if name == "onnxscript" else here(name))
    assert packages.check_extras().advice == "pip install 'voxnas[onnx]'"


def test_a_gpu_that_pytorch_cannot_use_is_an_error_and_none_at_all_a_warning(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_cards", lambda: "NVIDIA H100")
    assert "can't use NVIDIA H100" in devices.check_device().found and devices.check_device().state == "error"
    monkeypatch.setattr(devices, "_cards", lambda: "")
    assert devices.check_device().state == "warning"


def test_a_small_gpu_is_a_warning(monkeypatch):
    monkeypatch.setattr(devices, "this_machine", lambda: Machine("cuda:0", "a card", 6 * 2**30, 4))
    assert devices.check_device().state == "warning" and "a card, 6.0 GiB" in devices.check_device().found


@pytest.mark.parametrize(
    ("device", "fast_s", "advice"),
    [
        ("cuda:0", 0.4, "set training.precision: float32"),
        ("cuda:0", 0.1, ""),
        ("cpu", 0.1, "training.precision: bfloat16 may be faster here"),
        ("cpu", 0.4, ""),
    ],
)
def test_bfloat16_is_advised_where_it_is_faster(monkeypatch, device, fast_s, advice):
    monkeypatch.setattr(devices, "this_machine", lambda: Machine(device, "it", 2**35, 2))
    monkeypatch.setattr(devices, "_conv_seconds", lambda machine, kind: fast_s if kind == torch.bfloat16 else 0.2)
    assert devices.check_precision().advice == advice


def test_convolutions_are_timed_on_this_machine():
    machine = devices.this_machine()
    assert all(devices._conv_seconds(machine, kind) > 0 for kind in (torch.float32, torch.bfloat16))


def test_a_busy_machine_is_a_warning(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert devices.check_load().advice.startswith("latencies measured now are too long")


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_errors(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    for free, state in ((2**20, "error"), (5 * 2**30, "warning"), (50 * 2**30, "ok")):
        monkeypatch.setattr(surroundings.shutil, "disk_usage", lambda folder, free=free: usage(0, 0, free))
        assert surroundings.check_disk(tmp_path / "runs").state == state
    monkeypatch.setattr(surroundings, "TemporaryFile", _refuse)
    assert surroundings.check_disk(tmp_path / "runs").found.endswith("can't be written: Read-only file system")
    assert surroundings.check_locks(tmp_path).state == "error"


def _refuse(**_):
    raise OSError(30, "Read-only file system")


def test_a_ray_that_cannot_start_is_a_warning_with_its_last_words(monkeypatch):
    monkeypatch.setattr(surroundings, "START_RAY", "raise SystemExit('no port is free')")
    check = surroundings.check_ray()
    assert check.state == "warning" and check.found.endswith("can't start: no port is free")


def test_the_exit_code_and_json_tell_whether_voxnas_can_work_here(monkeypatch, capsys):
    found = [Check("one", "ok", "fine"), Check("two", "warning", "slow", "wait")]
    monkeypatch.setattr(doctor, "_checks", lambda runs, stage: [(each.name, lambda each=each: each) for each in found])
    assert doctor.examine(Path("runs"), json=True, quiet=True)
    assert [each["state"] for each in json.loads(capsys.readouterr().out)] == ["ok", "warning"]
    found.append(Check("three", "error", "broken", "repair it"))
    assert not doctor.examine(Path("runs"), json=False, quiet=True)


def test_advice_stands_below_what_was_found_at_80_columns():
    console = PlainConsole(file=StringIO(), width=80)
    console.print(doctor.checks_table([Check("disk", "error", "1 KiB free " * 9, "free some space")]))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[0].startswith("ERROR  disk  1 KiB free") and lines[-1].strip() == "-> free some space"
    assert max(map(len, lines)) <= 80
