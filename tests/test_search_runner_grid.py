"""Spacing, patch and batch that a study leaves to nnU-Net's planner: resolved from its data, trained and kept."""

import json
from pathlib import Path

import pytest
from conftest import STUDY, quiet_view, write_study

from search.cli.check import outline
from search.config import UserError, load_study
from search.config.training_section import Training
from search.data.check import CaseFacts, DataFacts
from search.data.fingerprint import fingerprint_of
from search.data.read import Dataset
from search.runner.grid import resolve_spacing, resolve_training
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.storage.identity import plain, refuse_changes
from space.nnunet.planner import make_plan as plan_as_nnunet

TEXT = STUDY.replace("folds: 3}", "folds: 3, spacing: nnunet}").replace(
    "patch: [5, 24, 24], batch: 1, epochs: 2, steps_per_epoch: 4",
    "patch: nnunet, batch: nnunet, epochs: 1, steps_per_epoch: 2",
)
DATASET = Dataset("thick", "nowhere", (), ("MR",), ("background", "a"), (0, 1), "")


def facts_of(*spacings, shape=(200, 190, 12)):
    cases = tuple(
        CaseFacts(str(number), str(number), shape, spacing, (9, 9), shape, str(number))
        for number, spacing in enumerate(spacings)
    )
    return DataFacts(cases, sorted(spacings)[len(spacings) // 2], shape, (), ())


THICK = facts_of((1.0, 1.0, 4.0), (1.0, 1.0, 8.0), (1.0, 1.0, 10.0))


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


def test_a_study_trains_on_the_grid_that_nnunets_rules_give_for_its_data(tmp_path):
    plan = plan_of(write_study(tmp_path, TEXT))
    expected = plan_as_nnunet(fingerprint_of(plan.dataset, plan.facts))
    assert (plan.context.spacing, plan.context.patch) == (expected.spacing, expected.patch)
    assert (plan.training.patch, plan.training.batch) == (expected.patch, expected.batch)
    assert outline(plan, {})["training"]["batch"] == expected.batch
    (record,) = run_study(plan, trials=1, view=quiet_view()).records
    assert record.state == "trained", record.measurement.reason
    (prepared,) = plan.cache.glob("*/prepared.json")
    assert json.loads(Path(prepared).read_text())["preprocessing"]["spacing"] == list(expected.spacing)


def test_thick_slices_are_resampled_to_a_fine_spacing_where_the_median_is_coarse():
    assert resolve_spacing("median", DATASET, THICK) == (8.0, 1.0, 1.0)
    assert resolve_spacing("nnunet", DATASET, THICK) == pytest.approx((4.8, 1.0, 1.0))  # the 10th percentile
    assert resolve_spacing((3.0, 2.0, 1.0), DATASET, THICK) == (3.0, 2.0, 1.0)


def test_patch_and_batch_are_planned_for_what_the_study_fixes():
    own = (2.0, 1.5, 1.5)
    found = resolve_training(Training(patch="nnunet", batch=3), DATASET, THICK, spacing=own)
    assert found.patch == plan_as_nnunet(fingerprint_of(DATASET, THICK), spacing=own).patch and found.batch == 3
    small, large = (
        resolve_training(
            Training(patch=patch, batch="nnunet"), DATASET, facts_of(*[(1.0, 1.0, 1.0)] * 900), spacing=own
        )
        for patch in ((16, 64, 64), (16, 128, 128))
    )
    assert small.patch == (16, 64, 64) and small.batch > large.batch > 2
    untouched = Training(patch=(16, 64, 64), batch=4)
    assert resolve_training(untouched, DATASET, THICK, spacing=own) == untouched


def test_the_planned_values_belong_to_the_study_and_another_plan_is_refused(tmp_path):
    made = write_study(tmp_path, TEXT)
    known = plain(plan_of(made).identity())
    assert set(known["content"]["planned"]) == {"data.spacing", "training.patch", "training.batch"}
    refuse_changes("tiny", known, plain(plan_of(made).identity()))
    other = json.loads(json.dumps(known))
    other["content"]["planned"]["training.batch"] = 7
    with pytest.raises(UserError, match="training.batch: nnU-Net's rules gave 7 when the study began, now"):
        refuse_changes("tiny", other, known)
    own = plan_of(made, "training.patch=[8,16,16]", "training.batch=2", "data.spacing=median").identity()
    assert "planned" not in own["content"]
    with pytest.raises(UserError, match="training.batch: the study began with 'nnunet', the file now has 2"):
        refuse_changes("tiny", known, plain(own))


def test_an_unresolved_grid_is_an_error_of_the_program():
    with pytest.raises(ValueError, match="the patch must be spelled out, not 'nnunet'"):
        _ = Training(patch="nnunet").size
    with pytest.raises(ValueError, match="the batch must be a number, not 'nnunet'"):
        _ = Training(batch="nnunet").samples
