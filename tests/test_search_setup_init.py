"""`voxnas init`: the study that it writes for a data folder, and the groups that it finds in names."""

import re

import nibabel
import numpy as np
import pytest
import torch
from conftest import write_study

from search.cli.init import write_study as init
from search.config import UserError, load_study
from search.config.yaml_source import read_source
from search.data.phantom import write_phantom
from search.files import write_text
from search.runner.plan import make_plan
from search.setup import suggest
from search.setup.groups import guess_group
from search.setup.machine import Machine
from search.setup.template import _quoted


@pytest.fixture
def slow_step(monkeypatch):
    """A machine with a CPU and 8 GiB, where a step takes two seconds."""
    monkeypatch.setattr(suggest, "step_seconds", lambda plan, network, machine: 2.0)
    return Machine("cpu", "a processor", 8 * 2**30, 2)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        ([f"patient{n:03d}_frame{m:02d}" for n in range(1, 5) for m in (1, 7)], r"patient\d+"),
        ([f"SUB-{n}_visit-{m}" for n in (3, 14, 159) for m in (1, 2)], None),
        ([f"a{n}b.{m}" for n in (3, 14, 159) for m in ("ed", "es")], None),
        ([f"{kind}{n}_{m}" for n in (3, 14) for kind in "ab" for m in ("ed", "es")], r"(.*\d)[._-][^._-]+$"),
        ([f"hippocampus_{n:03d}" for n in range(9)], None),
        ([f"p{n}_t1" for n in range(9)], None),  # a group for each case is none
        ([f"p{n}_{m}" for n in range(2) for m in range(9)], None),  # two groups are no patients
        (["p1_a", "p1_b", "p2_a", "p3_a", "other"], None),
        ([], None),
    ],
)
def test_groups_are_found_in_names_that_all_show_them(names, pattern):
    assert guess_group(names) == pattern


def test_the_study_is_accepted_with_patch_levels_and_groups_from_the_data(tmp_path, slow_step):
    write_phantom(tmp_path / "volumes", cases=6, shape=(32, 28, 8), classes=2)
    stages = []
    name, text = suggest.suggest_study(
        tmp_path / "volumes", slow_step, hours=1.0, runs=tmp_path / "runs", stage=lambda *stage: stages.append(stage)
    )
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    plan = make_plan(load_study(file), runs=tmp_path / "runs")
    assert plan.study.search.hours == 1.0 and plan.budgets == {"memory": 4 * 2**30}
    assert plan.training.epochs * plan.training.steps_per_epoch * plan.study.search.trials * 2.0 < 3600
    assert plan.context.patch == plan.training.patch and plan.study.data.group is None
    assert ("checking volumes", 12, 12) in stages and stages[-1] == ("timing an optimiser step",)
    assert "about" in text.splitlines()[2] and "on a processor, 2 threads" in text


@pytest.mark.parametrize(("hours", "trials"), [(0.01, 4), (8.0, 4), (200.0, 20)])
def test_longer_hours_give_longer_trainings_and_then_more_trials(tmp_path, slow_step, hours, trials):
    write_phantom(tmp_path / "volumes", cases=4, shape=(32, 28, 8), classes=1)
    arguments = {"hours": hours, "runs": tmp_path / "runs", "stage": lambda *stage: None}
    _, text = suggest.suggest_study(tmp_path / "volumes", slow_step, **arguments)
    found = {key: int(value) for key, value in re.findall(r"^  (trials|epochs|steps_per_epoch): (\d+)$", text, re.M)}
    assert found["trials"] == trials
    steps = found["trials"] * found["epochs"] * found["steps_per_epoch"]
    assert steps * 2.0 <= hours * 3600 or found["epochs"] == 4


def test_init_writes_a_file_once_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    made = write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    image = nibabel.load(made.data / "phantom/imagesTr/phantom_001.nii.gz")
    moved = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    moved.set_qform(np.diag([9.0, 9.0, 9.0, 1.0]), code=1)
    nibabel.save(moved, made.data / "phantom/imagesTr/phantom_001.nii.gz")
    arguments = {"hours": 0.1, "runs": made.runs, "quiet": True}
    init(made.data / "phantom", tmp_path / "mine.yaml", force=False, **arguments)
    text, said = (tmp_path / "mine.yaml").read_text(), capsys.readouterr().out
    assert f"voxnas run {tmp_path / 'mine.yaml'} --runs {made.runs}" in said
    assert "note: sform and qform disagree in 1 of 6 cases (phantom_001), by up to " in said
    assert load_study(tmp_path / "mine.yaml").study.name == "mine"
    assert f"# Run:      voxnas run {tmp_path / 'mine.yaml'} " in text
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert ("thread" in text) == (device == "cpu")
    with pytest.raises(UserError, match="mine.yaml exists already; choose another file, or overwrite it with --force"):
        init(made.data / "phantom", tmp_path / "mine.yaml", force=False, **arguments)
    with pytest.raises(UserError, match="no such folder"):
        init(tmp_path / "nothing", None, force=False, **arguments)


@pytest.mark.parametrize("name", ["体🫀", "a\u2028b\x7f\x85", "\udcff", 'say "x" \\', "new\nline"])
def test_a_folder_of_any_name_is_written_so_that_it_is_read_again(name, tmp_path):
    (tmp_path / name).mkdir()
    file = write_text(tmp_path / "study.yaml", f"path: {_quoted(str(tmp_path / name))}\n")
    assert read_source(file).values["path"] == str(tmp_path / name)


@pytest.mark.parametrize(
    ("cases", "size", "message"),
    [
        (1, 16, "volumes: contains only one case; a study trains on some cases and validates on others"),
        (4, 6, "volumes: the volumes are too small: a patch of .* is too small for 3 levels"),
    ],
)
def test_data_that_no_study_can_use_are_refused_in_a_sentence(tmp_path, slow_step, cases, size, message):
    write_phantom(tmp_path / "volumes", cases=cases, shape=(16, 16, 4), classes=1)
    for file in (tmp_path / "volumes").rglob("*.nii.gz"):
        whole = nibabel.load(file)
        voxels = np.asarray(whole.dataobj)[5 : 5 + size, 5 : 5 + size]
        nibabel.save(nibabel.Nifti1Image(voxels, whole.affine), file)
    arguments = {"hours": 1.0, "runs": tmp_path / "runs", "stage": lambda *stage: None}
    with pytest.raises(UserError, match=message):
        suggest.suggest_study(tmp_path / "volumes", slow_step, **arguments)


def test_volumes_of_a_single_slice_give_a_study_that_is_accepted(tmp_path, slow_step):
    write_phantom(tmp_path / "volumes", cases=4, shape=(36, 33, 1), classes=1)
    name, text = suggest.suggest_study(
        tmp_path / "volumes", slow_step, hours=1.0, runs=tmp_path / "runs", stage=lambda *stage: None
    )
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    assert make_plan(load_study(file), runs=tmp_path / "runs").context.patch[0] == 1


@pytest.mark.parametrize("name", ["Ünïcode.yaml", "my study.yaml", "cache.yaml"])
def test_a_file_whose_name_no_study_can_have_is_refused_before_the_data_are_read(tmp_path, name):
    message = "the file's name becomes the study's: use at most 64 letters"
    with pytest.raises(UserError, match=message):
        init(tmp_path, tmp_path / name, hours=1.0, force=False, runs=tmp_path / "runs", quiet=True)


@pytest.mark.parametrize(("gpus", "shown"), [(1, False), (4, True)])
def test_on_several_gpus_the_file_says_how_to_use_all_of_them(tmp_path, gpus, shown):
    from search.setup.template import Outline, study_text

    machine = Machine("cuda:0", "a card", 2**34, 8, gpus)
    sizes = {"shape": (8, 28, 32), "spacing_mm": (1.0, 1.0, 1.0), "patch": (8, 24, 24), "levels": 3, "widths": (8, 16)}
    counts = {"cases": 6, "groups": 6, "group": None, "folds": 3}
    text = study_text(Outline("a", tmp_path, **counts, **sizes, machine=machine, hours=1.0))
    line = "# executor: {gpus: all}    # trains on all 4 GPUs of this machine at a time"
    assert (line in text.splitlines()) is shown
    file = tmp_path / "a.yaml"
    file.write_text(text.replace("# executor", "executor"))
    assert load_study(file, need_data=False).study.executor.gpus == ("all" if shown else None)
