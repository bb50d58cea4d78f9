"""Study files: all mistakes at once, each with its position."""

import subprocess
import sys
from pathlib import Path

import pytest

from search.config import UserError, load_study
from search.config.units import (
    parse_bytes,
    parse_count,
    parse_seconds,
    show_bytes,
    show_count,
    show_remaining,
    show_seconds,
)

GOOD = """\
data: {path: volumes}
objectives: {dice: maximize, memory: {budget: 2 GiB}, latency: }
training: {learning_rate: 1e-3, patch: [8, 32, 32]}
"""
BAD = """\
name: a study
data:
  path: volumes
  gruop: patient
space:
  fix: {encodr: plain, width: 0}
  choices: {attention@skips: [isa, cbam]}
objectives:
  dice: maximise
  memory: {budget: 8 GiBs}
training:
  epochs: ten
  patch: [32, 48]
  epochs: 3
search: {proposer: tpee}
serach: 1
"""


def write(folder: Path, text: str) -> Path:
    (folder / "volumes").mkdir(exist_ok=True)
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def mistakes(file: Path, **options) -> list[str]:
    with pytest.raises(UserError) as error:
        load_study(file, **options)
    return [str(mistake).replace(f"{file.parent}/", "") for mistake in error.value.mistakes]


def test_a_valid_study_is_read_with_units_and_yaml_1_2(tmp_path):
    study = load_study(write(tmp_path, GOOD)).study
    assert study.name == "study"
    assert study.training.learning_rate == 0.001
    assert study.training.patch == (8, 32, 32)
    assert study.directions == {"dice": "maximize", "memory": "minimize", "latency": "minimize"}
    assert study.budgets == {"memory": 2 * 2**30}


def test_the_next_study_is_read_without_building_the_validators_again(tmp_path, monkeypatch):
    (tmp_path / "volumes").mkdir()
    file = tmp_path / "study.yaml"
    file.write_text(GOOD)
    first = load_study(file)
    monkeypatch.setattr("search.config.validate.TypeAdapter", None)
    assert load_study(file) == first


def test_all_mistakes_are_reported_at_once_with_their_positions(tmp_path):
    found = mistakes(write(tmp_path, BAD))
    for start in (
        "study.yaml:1:1: name: 'a study' is not valid: use at most 64 letters",
        "study.yaml:4:3: data.gruop: unknown key; did you mean 'group'? (allowed: path, group,",
        "study.yaml:6:9: space.fix.encodr: no axis is called 'encodr'; did you mean 'encoder'?",
        "study.yaml:6:24: space.fix.width: 0 is not an integer from 1 to 1024",
        "study.yaml:7:13: space.choices.attention@skips: 'cbam' is not a choice; did you mean 'csam'?",
        "study.yaml:9:3: objectives.dice: 'maximise' is not known",
        "study.yaml:10:12: objectives.memory.budget: '8 GiBs' is not a size: there is no unit 'GiBs'; use",
        "study.yaml:12:3: training.epochs: input should be a valid integer, got 'ten'",
        "study.yaml:13:3: training.patch: [32, 48] is not known (allowed: auto, nnunet); or: expected 3 values, got 2",
        "study.yaml:14:3: training.epochs: duplicate key; first defined on line 12",
        "study.yaml:15:10: search.proposer: 'tpee' is not known; did you mean 'tpe'? (allowed: known-cost, random,",
        "study.yaml:16:1: serach: unknown key; did you mean 'search'?",
    ):
        assert any(line.startswith(start) for line in found), (start, found)
    assert len(found) == 12


def test_overrides_are_checked_like_the_file(tmp_path):
    file = write(tmp_path, GOOD)
    study = load_study(file, overrides=["training.epochs=3", "search.proposer=random", "name=other"]).study
    assert (study.training.epochs, study.search.proposer, study.name) == (3, "random", "other")
    found = mistakes(file, overrides=["training.epochs=0", "seed", "data.path.x=1"])
    assert found == [
        "--set data.path.x: 'path' is 'volumes', not a mapping",
        "--set seed: expected the form key.path=value",
        "--set training.epochs: input should be greater than or equal to 1, got 0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives: {dice: }", "the key 'data' is missing"),
        (
            "data: {path: nowhere}\nobjectives: {dice: }",
            "no such folder: .*nowhere.*; set its parent folder with --data",
        ),
        ("data: {path: volumes}", "no objective is optimised; add at least one of dice, memory"),
        ("data: {path: volumes}\nobjectives: {dice: record}", "no objective is optimised"),
        ("data: [1]\nobjectives: {dice: }", r"data: \[1\] must be a mapping with keys: path, group"),
        ("- 1", "the file must be a mapping of keys to values"),
        ("data: {path: [", "invalid YAML"),
        (
            "data: {path: volumes}\nobjectives: {dice: , latency: {budget: -1 ms}}",
            "'-1 ms' is not a duration",
        ),
        (
            "data: {path: volumes}\nobjectives: {dice: , latency: {budget: 5 lightyears}}",
            r"there is no unit 'lightyears'; use a form such as 20 ms \(s, ms, us, min, h\)",
        ),
    ],
)
def test_each_mistake_explains_the_fix(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, text))


def test_data_is_found_under_the_root_the_variable_and_the_files_folder(tmp_path, monkeypatch):
    file = write(tmp_path, GOOD.replace("volumes", "Task01"))
    for root in ("given", "variable"):
        (tmp_path / root / "Task01").mkdir(parents=True)
    monkeypatch.setenv("VOXNAS_DATA", str(tmp_path / "variable"))
    assert load_study(file).data_folder == tmp_path / "variable" / "Task01"
    assert load_study(file, data_root=tmp_path / "given").data_folder == tmp_path / "given" / "Task01"


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_bytes, "8 GiB", 8 * 2**30),
        (parse_bytes, "8 GB", 8 * 10**9),
        (parse_bytes, "512 b", 512),
        (parse_seconds, "20 ms", 0.02),
        (parse_seconds, "1.5s", 1.5),
        (parse_seconds, "2 min", 120.0),
        (parse_count, "47 G", 47e9),
        (parse_count, "2.5M", 2.5e6),
    ],
)
def test_quantities_are_parsed(parse, text, value):
    assert parse(text) == pytest.approx(value)


def test_quantities_are_formatted_with_units():
    assert (show_bytes(8 * 2**30), show_bytes(12)) == ("8.0 GiB", "12 B")
    assert (show_seconds(0.0204), show_seconds(61), show_seconds(7300)) == ("20.4 ms", "61.0 s", "2 h 02 min")
    assert (show_remaining(0.02), show_remaining(61.4), show_remaining(7300)) == ("1 s", "61 s", "2 h 02 min")
    assert (show_count(2515062), show_count(12)) == ("2.52 M", "12")


def test_a_study_with_six_mistakes_prints_all_and_exits_with_2(tmp_path):
    file = write(tmp_path, BAD)
    done = subprocess.run([sys.executable, "-m", "search.cli", "check", str(file)], capture_output=True, text=True)
    assert done.returncode == 2
    first, *lines = done.stderr.splitlines()
    assert first == f"reading {file}" and len(lines) == 12
    assert all(line.startswith("voxnas: ") for line in lines)


SPACE_BAD = """\
data: {path: volumes}
space:
  base: unetrpp_acdcc
objectives: {dice: maximize}
"""


def test_mistakes_in_rules_and_bases_are_reported_at_their_lines(tmp_path):
    (tmp_path / "volumes").mkdir()
    file = write(tmp_path, SPACE_BAD)
    assert mistakes(file) == [
        "study.yaml:3:3: space.base: 'unetrpp_acdcc' is not known; did you mean 'unetrpp_acdc'? (allowed: sau_net, "
        "csam_unet, joint_denseunet, unetrpp_synapse, unetrpp_acdc, unetrpp_lung, unetrpp_tumor, meunet, "
        "meunet_cascade, nnunet, nnunet_resenc_m)"
    ]
    file.write_text(SPACE_BAD.replace("unetrpp_acdcc", "sau_net\n  open: [attention@skips, norms]"))
    (found,) = mistakes(file)
    assert found.startswith("study.yaml:4:27: space.open.1: no axis is called 'norms'; did you mean 'norm'?")
    rules = "\n  forbid:\n    - when: {attention@skip0: cbam}\n      why: too dear\n    - {when: {levels: 3}}"
    file.write_text(SPACE_BAD.replace("base: unetrpp_acdcc", "placement: each" + rules))
    assert mistakes(file) == ["study.yaml:7:7: space.forbid.1: the key 'why' is missing"]
    file.write_text(SPACE_BAD.replace("base: unetrpp_acdcc", "placement: each" + rules.replace("3}", "3}, why: x")))
    (found,) = mistakes(file)
    assert found.startswith("study.yaml:5:14: space.forbid.0.when.attention@skip0: 'cbam' is not a choice here")


def test_a_base_may_be_opened_and_combinations_forbidden(tmp_path):
    (tmp_path / "volumes").mkdir()
    text = SPACE_BAD.replace(
        "unetrpp_acdcc",
        "unetrpp_acdc\n  open: [attention@skips]\n  choices: {attention@skips: "
        "[base, isa]}\n  forbid: [{when: {attention@skip0: isa}, why: too dear}]",
    )
    section = load_study(write(tmp_path, text)).study.space
    assert section.base == "unetrpp_acdc" and section.open == ("attention@skips",)
    assert section.forbid[0].why == "too dear"
