"""Postprocessing of an export: taken only where it helps validation cases, then part of every written mask."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from conftest import STUDY, quiet_view, write_study
from exported import predict, source_form_alone
from test_search_data_labels import REGIONS, write_data

from search.config import load_study
from search.data.components import keep_largest
from search.data.labelling import Labelling
from search.data.prepared import open_truth
from search.export.model import export
from search.export.postprocessing import _decide, _Masks, candidate_steps, helps
from search.export.trained import pack
from search.runner.local import run_study
from search.runner.plan import make_plan, prepared_data
from search.storage import read_records
from search.training.validation import mean_dice
from search.trials.records import CaseDice


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    made = write_study(tmp_path_factory.mktemp("masks"))
    return prepared_data(make_plan(load_study(made.file), runs=made.runs))


def masks_of(folder, prepared, spoil):
    """Write the truths of all cases, each changed by `spoil`, as the masks of a network."""
    found = _Masks(folder, prepared)
    for case in prepared.cases:
        mask = np.array(open_truth(prepared, case.name)[0])
        spoil(mask)
        found.write(case.name, mask)
    return found


def far_corner(mask):
    """Return a corner block that no structure of the phantom touches."""
    corners = [mask[:4, :4, :2], mask[-4:, :4, :2], mask[:4, -4:, :2], mask[-4:, -4:, -2:]]
    return next(corner for corner in corners if not corner.any())


def test_islands_of_one_class_are_removed_and_the_scores_rise_to_one(tmp_path, prepared):
    def spoil(mask):
        far_corner(mask)[1:3, 1:3, 0] = 2

    found = _decide(masks_of(tmp_path, prepared, spoil), prepared.labelling)
    assert found.names[0] in ("all foreground", prepared.labels[2]) and found.groups
    assert mean_dice(found.before) < mean_dice(found.after)
    assert f"only the largest component of {found.names[0]}" in str(found)


def test_perfect_masks_and_masks_of_two_true_parts_are_left_alone(tmp_path, prepared):
    (tmp_path / "one").mkdir()
    found = _decide(masks_of(tmp_path / "one", prepared, lambda mask: None), prepared.labelling)
    assert found.groups == () and found.before == found.after and mean_dice(found.before) == 1.0
    assert "Postprocessing: none; keeping the largest component did not help on 6 validation cases" in str(found)


def test_a_step_that_helps_the_mean_and_hurts_a_class_is_not_taken():
    before = [CaseDice("a", (0.9, 0.5)), CaseDice("b", (0.9, None))]
    assert helps(before, [CaseDice("a", (0.9, 0.6)), CaseDice("b", (0.9, None))])
    assert not helps(before, before)
    assert not helps(before, [CaseDice("a", (0.85, 0.9)), CaseDice("b", (0.9, None))])


def test_all_foreground_is_tried_first_then_each_class_or_region():
    classes = Labelling(("background", "a", "b"), (0, 1, 5))
    assert candidate_steps(classes) == [("all foreground", (1, 2)), ("a", (1,)), ("b", (2,))]
    assert candidate_steps(Labelling(("background", "a"), (0, 1))) == [("all foreground", (1,))]
    regions = Labelling(("background", "whole", "core"), (0, 1, 2), regions=((1, 2), (2,)), order=(1, 2))
    assert candidate_steps(regions) == [("all foreground", (1, 2)), ("core", (2,))]


def predicted(model, image, out, *options):
    assert predict(model, image, "--out", out, *options) == 0
    return np.asarray(nibabel.load(out).dataobj)


@pytest.fixture(scope="module", params=["classes", "regions"])
def exported(request, tmp_path_factory):
    """A study of one trial over two folds, exported."""
    root = tmp_path_factory.mktemp(request.param)
    made = write_study(root, STUDY.replace("trials: 3", "trials: 1, folds: 2"))
    if request.param == "regions":
        shutil.rmtree(root / "phantom")
        write_data(root / "phantom", REGIONS, values={1: 1, 2: 2, 3: 3}, unlabelled=4, regions_class_order=[1, 2, 3])
    plan = make_plan(load_study(made.file), runs=made.runs)
    run_study(plan, trials=1, view=quiet_view())
    with source_form_alone():
        found = export(plan, "0", root / "model", view=quiet_view())
    return plan, root / "model", found


def test_the_decision_is_that_of_each_folds_own_network_on_its_validation_cases(exported, tmp_path):
    plan, model, found = exported
    (record,) = read_records(plan.url, "tiny")
    trained = pack("trial", plan, record, [record], view=quiet_view())
    assert [(each.member, each.cases) for each in trained.validated] == [
        (0, plan.folds[0].validation),
        (1, plan.folds[1].validation),
    ]
    groups = json.loads((model / "preprocessing.json").read_text())["keep_largest"]
    card = (model / "MODEL_CARD.md").read_text()
    assert "### Postprocessing" in card and found.why[-1] in card
    assert ("only the largest component" in found.why[-1]) == bool(groups)
    assert f"on {len(record.measurement.cases)} validation cases" in found.why[-1]


def test_predict_writes_masks_with_the_postprocessing_and_only_those_steps(exported, tmp_path):
    plan, model, _ = exported
    settings = json.loads((model / "preprocessing.json").read_text())
    image = plan.dataset.cases[0].images[0]
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    written = {}
    highest = len(settings["label_values"]) - 1
    for groups in ([], settings["keep_largest"], [list(range(1, highest + 1)), [highest]]):
        (copy / "preprocessing.json").write_text(json.dumps({**settings, "keep_largest": groups}))
        written[str(groups)] = predicted(copy, image, tmp_path / "mask.nii.gz", "--no-verify")
        index_of = np.zeros(max(settings["label_values"]) + 1, dtype=np.uint8)
        index_of[settings["label_values"]] = np.arange(highest + 1)
        expected = keep_largest(index_of[written["[]"]], groups)
        assert np.array_equal(index_of[written[str(groups)]], expected)
    assert np.array_equal(predicted(model, image, tmp_path / "own.nii.gz"), written[str(settings["keep_largest"])])
