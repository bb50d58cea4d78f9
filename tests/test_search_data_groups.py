"""Case names that look like several scans of one patient, and the pattern to write."""

import logging

import pytest
from conftest import quiet_view, write_study
from test_search_cli import call, words

from search.config import load_study
from search.data.groups import group_warning, suggest_group
from search.data.read import group_of
from search.runner.local import run_study
from search.runner.plan import make_plan


def named(*parts, first=1, last=6):
    return [part.format(number) for number in range(first, last) for part in parts]


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (named("patient{:03d}_frame01", "patient{:03d}_frame12"), r"patient\d+"),
        (named("sub-{:02d}_ses-01", "sub-{:02d}_ses-02", "sub-{:02d}_ses-03"), r"sub-\d+"),
        (named("{:04d}-left", "{:04d}-right"), r"\d+"),
        (named("P{}", "P{}_2"), r"P\d+"),
        (named("site1_p{}_a", "site1_p{}_b", last=40), r"site\d+_p\d+"),
        ([*named("scan.{}_a", "scan.{}_b"), *named("mr_{}_a", "mr_{}_b")], r"^\D*\d+"),
        (named("v1.{}_a", "v1.{}_b"), r"v\d+\.\d+"),
    ],
)
def test_scans_of_one_patient_are_found_with_the_pattern_that_groups_them(names, pattern):
    assert suggest_group(names) == pattern
    groups = {group_of(name, pattern) for name in names}
    assert None not in groups and 1 < len(groups) < len(names)


@pytest.mark.parametrize(
    "names",
    [
        named("hippocampus_{:03d}"),
        named("Task04_{:03d}", last=60),
        named("study2019_{:03d}", "study2020_{:03d}", last=60),
        named("case{}a", "case{}b"),
        ["left", "right", "both"],
        [*named("patient{:03d}_frame01", "patient{:03d}_frame12"), "phantom"],
        ["patient001_frame01"],
        [],
    ],
)
def test_other_names_are_left_alone(names):
    assert suggest_group(names) is None and group_warning(names) == ""


def test_check_and_run_warn_with_the_pattern_until_it_is_written(tmp_path, monkeypatch, capsys, caplog):
    made = write_study(tmp_path)
    rename(tmp_path / "phantom")
    shown = words(call(monkeypatch, capsys, "check", made.file, "--runs", made.runs).out)
    assert r"patient0_frame0 and patient0_frame1 look like one patient" in shown
    assert r"write `group: patient\d+` under `data`" in shown
    with caplog.at_level(logging.WARNING, "voxnas"):
        run_study(make_plan(load_study(made.file), runs=made.runs), trials=1, view=quiet_view())
    assert [record.getMessage() for record in caplog.records if "look like one patient" in record.getMessage()]
    caplog.clear()
    grouped = load_study(made.file, overrides=[r"data.group=patient\d+", "name=grouped"])
    plan = make_plan(grouped, runs=made.runs)
    run_study(plan, trials=1, view=quiet_view())
    assert not plan.notes and not caplog.records


def rename(folder):
    """Give the phantom's six cases names of three patients."""
    text = (folder / "dataset.json").read_text()
    for number in range(6):
        old, new = f"phantom_{number:03d}", f"patient{number // 2}_frame{number % 2}"
        for path in folder.glob(f"*/{old}*"):
            path.rename(path.with_name(path.name.replace(old, new)))
        text = text.replace(old, new)
    (folder / "dataset.json").write_text(text)
