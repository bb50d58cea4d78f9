"""The whole workflow on real volumes, in short form; skipped with the reason if there are none."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bench_presets import ONE_PER_PAPER, falls, losses
from conftest import quiet_view

from search.config import load_study
from search.data.components import keep_largest
from search.data.geometry import mask_from_logits, to_grid
from search.data.prepared import load_prepared
from search.data.volume_files import read_volume
from search.export import export
from search.runner.evaluate import context_of
from search.runner.local import open_driver, run_study
from search.runner.plan import make_plan, prepared_data
from search.training.checkpoint import load_weights
from search.training.validation import window_logits
from search.trials.files import trial_folder
from space.build import build
from space.presets import PRESETS

STUDIES = Path(__file__).parents[1] / "studies"
SHORT = [
    "training.epochs=2",
    "training.steps_per_epoch=40",
    "training.learning_rate=0.01",
    "data.folds=4",
    "executor.device=cpu",
    "executor.threads=1",
    "space.fix.repeats=1",
    "space.choices.width=[8]",
    "space.choices.encoder=[plain]",
    "name=short",
    "search.proposer=random",
    "search.references=[]",
]


def subset(source: Path, folder: Path, names: list[str]) -> None:
    """Link a few cases of a Decathlon folder into another."""
    description = json.loads((source / "dataset.json").read_text())
    description["training"] = [{kind: f"./{kind}sTr/{name}.nii.gz" for kind in ("image", "label")} for name in names]
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
        for name in names:
            (folder / kind / f"{name}.nii.gz").symlink_to(source / kind / f"{name}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(description))


def untimed(study: str, folder: Path) -> Path:
    """Copy a shipped study into a folder, without the objective whose measurement takes longest."""
    file = folder / f"{study}.yaml"
    file.write_text((STUDIES / file.name).read_text().replace("  latency: minimize\n", ""))
    return file


def case_names(source: Path) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in (source / "labelsTr").glob("*.nii.gz"))


@pytest.mark.parametrize("every_form", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_short_study_learns_and_its_export_gives_the_same_mask_on_an_unseen_volume(
    every_form, shared_data, tmp_path, request
):
    if not every_form:
        request.getfixturevalue("source_form_alone")
    source = shared_data / "Task04_Hippocampus"
    *seen, unseen = case_names(source)[:21]
    subset(source, tmp_path / "Task04_Hippocampus", seen)
    loaded = load_study(untimed("hippocampus", tmp_path), overrides=SHORT, data_root=tmp_path)
    plan = make_plan(loaded, runs=tmp_path / "runs")
    (record,) = run_study(plan, trials=1, view=quiet_view()).records
    assert record.state == "trained" and record.measurement.dice > 0.6
    exported = export(plan, "best", tmp_path / "model", view=quiet_view())
    out = tmp_path / "mask.nii.gz"
    image = source / "imagesTr" / f"{unseen}.nii.gz"
    command = [sys.executable, exported.folder / "predict.py", image, "--out", out, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = nibabel.load(out)
    assert np.array_equal(written.affine, nibabel.load(image).affine)
    groups = json.loads((exported.folder / "preprocessing.json").read_text())["keep_largest"]
    mask = keep_largest(mask_of_trained_network(plan, record, image), groups)
    assert np.array_equal(np.asarray(written.dataobj), mask)
    truth = np.asarray(nibabel.load(source / "labelsTr" / f"{unseen}.nii.gz").dataobj)
    both = np.asarray(written.dataobj) > 0
    assert 2 * (both & (truth > 0)).sum() / (both.sum() + (truth > 0).sum()) > 0.6


def mask_of_trained_network(plan, record, image: Path) -> np.ndarray:
    prepared = prepared_data(plan)
    job = open_driver(plan, quiet_view()).job(record)
    network = build(job.architecture, context_of(job)).eval()
    load_weights(trial_folder(plan.folder, record.number), network, sha256=record.measurement.weights_sha256)
    volume = read_volume(image)
    array, grid = to_grid(volume, load_prepared(Path(prepared.folder)).preprocessing)
    logits = window_logits(network, torch.from_numpy(array)[None], job=job)
    return mask_from_logits(logits[0].numpy(), grid)


def test_folds_never_split_a_patient_and_thick_slices_are_not_pooled(shared_data, tmp_path):
    plan = make_plan(load_study(STUDIES / "acdc.yaml", data_root=shared_data), runs=tmp_path)
    assert plan.context.spacing[0] > 4 * plan.context.spacing[1]
    for fold in plan.folds:
        patients = [{name[:10] for name in side} for side in (fold.train, fold.validation)]
        assert not patients[0] & patients[1]
    architecture = plan.space.architecture(plan.space.complete({}))
    assert architecture["pooling"][0] == (1, 2, 2) and architecture["kernels"][0] == (1, 3, 3)


def test_the_loss_falls_on_thick_cardiac_slices(shared_data, tmp_path):
    source = shared_data / "Task27_ACDC"
    subset(source, tmp_path / "Task27_ACDC", case_names(source)[:4])
    overrides = ["name=short", "data.folds=2", "executor.device=cpu", "search.proposer=random"]
    overrides += ["training.batch=1", "training.patch=[6, 64, 64]", "search.references=[]", "executor.threads=1"]
    loaded = load_study(untimed("acdc", tmp_path), overrides=overrides, data_root=tmp_path)
    plan = make_plan(loaded, runs=tmp_path / "runs")
    training = replace(plan.training, epochs=2, steps_per_epoch=5, validate_every=2, overlap=0.0)
    plan = replace(plan, training=training)
    (record,) = run_study(plan, trials=1, view=quiet_view()).records
    first, last = record.measurement.epochs
    assert last.loss < first.loss and record.measurement.dice is not None


@pytest.mark.parametrize("name", sorted(path.name for path in STUDIES.glob("*.yaml")))
def test_every_shipped_study_states_its_question_command_and_time_and_is_valid(name, shared_data, tmp_path):
    head = (STUDIES / name).read_text().splitlines()
    assert head[0].startswith("# Question:") and head[1].startswith("# Run: ")
    assert any(line.startswith("# Time:") for line in head[:6])
    assert load_study(STUDIES / name, data_root=shared_data).study.directions["dice"] == "maximize"


@pytest.fixture(scope="module")
def five_patients(shared_data, tmp_path_factory):
    """A folder with the volumes of five patients, which are prepared once for all networks."""
    source, folder = shared_data / "Task27_ACDC", tmp_path_factory.mktemp("presets")
    subset(source, folder / source.name, case_names(source)[:10])
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ONE_PER_PAPER else pytest.mark.long) for name in PRESETS]
)
def test_a_narrow_version_of_a_papers_network_learns_on_cardiac_slices(name, five_patients):
    """The short form of `make bench-presets`, which trains them at full width."""
    for phase in losses(name, five_patients, five_patients, narrow=True, steps=6):
        assert falls(phase), phase
