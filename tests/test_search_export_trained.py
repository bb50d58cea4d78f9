"""The weights of an export: a trial's own, a retraining on all cases, one network per fold."""

from __future__ import annotations

import errno
import os
import shutil
from unittest.mock import Mock

import pytest
import torch
from conftest import quiet_view

from search.config import UserError, load_study
from search.config.errors import RunError
from search.export.trained import Ensemble, Trained, pack, trained_network
from search.runner.plan import make_plan
from search.storage import read_records
from search.training.checkpoint import load_weights


@pytest.fixture(scope="module")
def study(tiny_run, tmp_path_factory):
    """A writable copy of the tiny study."""
    root = tmp_path_factory.mktemp("packed")
    shutil.copytree(tiny_run.file.parent, root, dirs_exist_ok=True)
    plan = make_plan(load_study(root / tiny_run.file.name, data_root=root), runs=root / "runs")
    records = read_records(plan.url, plan.study.name)
    kept = [each for each in records if (plan.folder / "trials" / f"{each.number:06d}" / "best.safetensors").exists()]
    return plan, kept[0], records


def test_a_trial_is_packed_with_its_own_dice(study):
    plan, record, records = study
    trained = pack("trial", plan, record, records, view=quiet_view())
    assert trained.how == "trained on fold 0 (of 0 to 2): 4 cases, validated on 2"
    assert trained.estimate == record.measurement.cases and len(trained.folders) == 1


def test_a_retraining_on_all_cases_keeps_the_cross_validated_estimate_and_runs_once(study):
    plan, record, records = study
    trained = pack("full", plan, record, records, view=quiet_view())
    assert trained.how == "retrained on all 6 cases"
    assert trained.estimate == record.measurement.cases
    network = trained_network(record, trained, plan.context)
    again = pack("full", plan, record, records, view=quiet_view())
    assert again.folders == trained.folders
    own = trained_network(record, pack("trial", plan, record, records, view=quiet_view()), plan.context)
    pairs = zip(network.parameters(), own.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("harm", ["weights", "digest", "folder", "pipe"])
def test_a_damaged_retraining_is_named_and_done_again(study, caplog, harm):
    plan, record, records = study
    trained = pack("full", plan, record, records, view=quiet_view())
    weights, done = (trained.folders[0] / name for name in ("best.safetensors", "done.txt"))
    sound = weights.read_bytes()
    (weights.parent / "last.pt").write_bytes(b"left by a process that was killed")
    assert pack("full", plan, record, records, view=quiet_view()).sha256 == trained.sha256
    assert not caplog.messages and not (weights.parent / "last.pt").exists()
    if harm == "digest":
        done.write_text(done.read_text()[:-9])
    else:
        weights.unlink()
        {
            "weights": lambda: weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1])),
            "folder": weights.mkdir,
            "pipe": lambda: os.mkfifo(weights),
        }[harm]()
    assert pack("full", plan, record, records, view=quiet_view()).sha256 == trained.sha256
    assert "the network is trained again" in caplog.text and str(weights) in caplog.text
    assert weights.read_bytes() == sound


def test_a_retraining_on_a_full_disk_ends_with_how_to_resume(study, monkeypatch):
    plan, record, records = study
    shutil.rmtree(plan.folder / "exports", ignore_errors=True)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.pt")
    with monkeypatch.context() as patched, pytest.raises(RunError, match="last.pt: No space .* rerun the same command"):
        patched.setattr("search.runner.train.save_checkpoint", Mock(side_effect=full))
        pack("full", plan, record, records, view=quiet_view())
    pack("full", plan, record, records, view=quiet_view())


def test_an_ensemble_trains_missing_folds_and_scores_every_case_unseen(study):
    plan, record, records = study
    trained = pack("folds", plan, record, records, view=quiet_view())
    assert len(trained.folders) == 3
    assert trained.how.startswith("ensemble of 3 networks, one per fold (trials ")
    assert {case.case for case in trained.estimate} == {case.name for case in plan.dataset.cases}
    network = trained_network(record, trained, plan.context)
    assert isinstance(network, Ensemble)
    for folder, member in zip(trained.folders, network.networks, strict=True):
        load_weights(folder, member, sha256="")
    now = read_records(plan.url, plan.study.name)
    assert len(now) == len(records) + 2
    assert pack("folds", plan, record, now, view=quiet_view()) == trained


def test_deleted_weights_are_reported(study, tmp_path):
    plan, record, _ = study
    with pytest.raises(UserError, match=f"trial {record.number}: its weights were deleted: .*`keep: all`"):
        trained_network(record, Trained((tmp_path,), ("",), "", ()), plan.context)


@pytest.mark.parametrize(
    ("gone", "hint"),
    [("trials/000007", "restore it, or pick another trial"), ("trials", "give the folder of runs that has it")],
)
def test_a_folder_that_someone_deleted_is_named(gone, hint, study, tmp_path):
    plan, record, _ = study
    (tmp_path / gone).parent.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=f"trial {record.number}: {tmp_path / gone} is missing; .*{hint}"):
        trained_network(record, Trained((tmp_path / "trials/000007",), ("",), "", ()), plan.context)
