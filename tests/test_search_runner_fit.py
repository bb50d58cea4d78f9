"""Settings that don't fit the data are refused before anything is prepared, with the case, key and way out."""

import json
import re

import nibabel
import numpy as np
import pytest
from conftest import STUDY, write_study

from search.config import UserError, load_study
from search.data.check import CaseFacts, DataFacts
from search.data.folds import Fold
from search.data.labelling import Labelling
from search.runner.fit import fold_problems, network_shapes, patch_problems, require_scorable, size_problems
from search.runner.plan import make_plan


def facts_of(shape=(9, 8, 5), spacing=(1.0, 1.0, 3.0), **voxels_per_class):
    cases = tuple(
        CaseFacts(
            name=name,
            group=name,
            shape=shape,
            spacing=spacing,
            voxels_per_class=counts,
            cropped=shape,
            digest=name,
        )
        for name, counts in voxels_per_class.items()
    )
    return DataFacts(cases=cases, spacing_median=spacing, shape_median=shape, problems=(), notes=())


CLASSES = Labelling(("background", "a", "b"), (0, 1, 2))
REGIONS = Labelling(("background", "whole", "core"), (0, 1, 2), regions=((1, 2), (2,)), order=(1, 2))


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ((9, 5, 0), (9, 5, 2), r"class 'b' has no voxels in the training cases of fold 3, so it can't be learned"),
        ((9, 5, 2), (9, 5, 0), r"class 'b' has no voxels in the validation cases of fold 3, so it can't be scored"),
        ((9, 5, 2), (9, 0, 0), r"the validation cases of fold 3 \(y\) contain only background, so no Dice can be"),
    ],
)
def test_a_class_on_one_side_of_a_fold_is_refused(train, validation, message):
    facts, fold = facts_of(x=train, y=validation), Fold(("x",), ("y",))
    (problem,) = fold_problems(facts, fold, CLASSES, number=3)
    assert re.search(message, problem) and "choose another data.fold or data.seed" in problem
    assert fold_problems(facts_of(x=(9, 5, 2), y=(9, 5, 2)), fold, CLASSES, number=3) == []


def test_a_fold_in_which_nothing_can_be_scored_is_refused_before_any_training():
    facts, folds = facts_of(x=(9, 5, 2), y=(9, 0, 0)), (Fold(("x",), ("y",)), Fold(("y",), ("x",)))
    require_scorable(facts, folds, [1])
    with pytest.raises(UserError, match=r"the validation cases of fold 0 \(y\) contain only background, so no Dice"):
        require_scorable(facts, folds, [0, 1])


def test_a_region_counts_by_any_of_its_classes():
    fold = Fold(("x",), ("y",))
    assert fold_problems(facts_of(x=(9, 5, 2), y=(9, 0, 2)), fold, REGIONS, number=0) == []
    (problem,) = fold_problems(facts_of(x=(9, 5, 0), y=(9, 5, 2)), fold, REGIONS, number=0)
    assert "region 'core' has no voxels in the training cases" in problem and "(it is in y)" in problem


def test_at_most_three_cases_are_named():
    facts = facts_of(x=(9, 5, 0), **{name: (9, 5, 1) for name in "abcde"})
    (problem,) = fold_problems(facts, Fold(("x",), tuple("abcde")), CLASSES, number=0)
    assert "(it is in a, b, c and 2 more)" in problem


@pytest.mark.parametrize(
    ("patch", "shapes", "meant"),
    [
        ((128, 128, 6), [(9, 200, 180), (11, 190, 200)], "[6, 128, 128]"),
        ((64, 4, 64), [(5, 70, 70)], "[4, 64, 64]"),
        ((6, 128, 128), [(9, 200, 180)], None),
        ((8, 32, 32), [(1, 40, 40)], None),
        ((512, 512, 512), [(9, 200, 180)], None),
        ((40, 56, 40), [(36, 50, 35)], None),
    ],
)
def test_axes_in_the_wrong_order_are_refused(patch, shapes, meant):
    problems = patch_problems(patch, shapes)
    assert len(problems) == (meant is not None)
    if meant:
        assert f"did you mean {meant}?" in problems[0] and "sizes are (D, H, W), D through the plane" in problems[0]


def test_a_spacing_whose_arrays_no_disk_holds_is_refused(tmp_path):
    facts = facts_of(x=(9, 5, 2), y=(9, 5, 2))
    shapes = network_shapes(facts, (2, 1, 0), (3.0, 1.0, 1.0))
    assert shapes == [(5, 8, 9)] * 2
    assert size_problems(facts, shapes, channels=1, cache=tmp_path / "not/there") == []
    fine = network_shapes(facts, (2, 1, 0), (3e-5, 1e-5, 1e-5))
    (problem,) = size_problems(facts, fine, channels=2, cache=tmp_path)
    assert re.search(r"data.spacing: the resampled volumes of 2 cases would take [\d.]+ EiB, but the disk of", problem)
    assert "(case x: 500,000 x 800,000 x 900,000 voxels); choose a coarser spacing" in problem


def test_check_and_run_refuse_before_anything_is_prepared(tmp_path):
    made = write_study(tmp_path, STUDY.replace("folds: 3", "folds: splits.json"))
    labels = sorted((made.data / "phantom/labelsTr").glob("*.nii.gz"))
    names = [file.name.removesuffix(".nii.gz") for file in labels]
    (made.data / "splits.json").write_text(json.dumps([{"train": names[1:], "val": names[:1]}]))
    first = nibabel.load(labels[0])
    nibabel.save(nibabel.Nifti1Image(np.zeros(first.shape, dtype=np.uint8), first.affine), labels[0])
    with pytest.raises(UserError, match=rf"the validation cases of fold 0 \({names[0]}\) contain only background"):
        make_plan(load_study(made.file), runs=made.runs)
    assert not list(made.runs.glob("cache/*/cases"))
