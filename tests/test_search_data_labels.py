"""Regions, the ignore label, 4D images and values above 255, from the files through training to an export's masks."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from conftest import STUDY, quiet_view
from exported import predict

from search.config import UserError, load_study
from search.data.components import keep_largest
from search.data.geometry import labels_of
from search.data.labelling import Labelling
from search.data.phantom import write_phantom
from search.data.prepared import load_prepared, open_case, open_foreground
from search.data.read import DataError, read_dataset
from search.export.model import export
from search.runner.local import run_study
from search.runner.plan import make_plan, prepared_data
from search.storage import read_records
from search.training.patches import open_volume
from search.training.step import SupervisedLoss
from search.training.validation import case_dice, without_ignored

REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "side": 3, "ignore": 4}


def write_data(folder: Path, labels: dict, *, values: dict[int, int], unlabelled: int | None = None, **more) -> None:
    """A phantom as an nnU-Net folder of 4D images with two channels, its labels' values replaced."""
    write_phantom(folder, cases=6, shape=(32, 28, 8), classes=3)
    table = np.zeros(4, dtype=np.uint16)
    for old, new in values.items():
        table[old] = new
    for path in (folder / "labelsTr").iterdir():
        image = nibabel.load(path)
        changed = table[np.asarray(image.dataobj)]
        if unlabelled is not None:
            changed[:, :9] = unlabelled
        nibabel.save(nibabel.Nifti1Image(changed, image.affine), path)
    for path in (folder / "imagesTr").iterdir():
        image = nibabel.load(path)
        array = np.asarray(image.dataobj, dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(np.stack([array, -0.5 * array + 3], -1), image.affine), path)
    description = json.loads((folder / "dataset.json").read_text())
    described = {"labels": labels, "modality": {"0": "T1", "1": "T2"}, **more}
    (folder / "dataset.json").write_text(json.dumps({**description, **described}))


def ran(root: Path) -> SimpleNamespace:
    """Train one network of a tiny study on `root/phantom`."""
    file = root / "tiny.yaml"
    file.write_text(STUDY.replace("trials: 3", "trials: 1"))
    plan = make_plan(load_study(file), runs=root / "runs")
    run_study(plan, trials=1, view=quiet_view())
    (record,) = read_records(plan.url, plan.study.name)
    return SimpleNamespace(file=file, plan=plan, record=record, prepared=prepared_data(plan))


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    root = tmp_path_factory.mktemp("regions")
    write_data(root / "phantom", REGIONS, values={1: 1, 2: 2, 3: 3}, unlabelled=4, regions_class_order=[1, 2, 3])
    return ran(root)


@pytest.fixture(scope="module")
def high(tmp_path_factory):
    root = tmp_path_factory.mktemp("high")
    write_data(root / "phantom", {"background": 0, "a": 7, "b": 300, "c": 40_000}, values={1: 7, 2: 300, 3: 40_000})
    return ran(root)


@pytest.fixture(scope="module")
def ignored(tmp_path_factory):
    root = tmp_path_factory.mktemp("ignored")
    labels = {"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4}
    write_data(root / "phantom", labels, values={1: 1, 2: 2, 3: 3}, unlabelled=4)
    return ran(root)


def test_regions_are_read_and_become_outputs_and_scores(regions):
    labelling = regions.prepared.labelling
    assert labelling.names == ("background", "whole", "core", "side") and labelling.values == (0, 1, 2, 3)
    assert labelling.regions == ((1, 2, 3), (2, 3), (3,)) and labelling.order == (1, 2, 3)
    assert labelling.outputs == regions.plan.context.classes == 3 and labelling.ignored == 4
    assert regions.record.state == "trained"
    assert all(len(case.dice) == 3 for case in regions.record.measurement.cases)
    assert load_prepared(regions.prepared.folder).labelling == labelling


def test_voxels_that_nobody_labelled_are_neither_sampled_nor_scored(regions):
    case = regions.prepared.cases[0].name
    _, label = open_case(regions.prepared, case)
    assert (np.asarray(label) == 4).any()
    for voxels in open_volume(regions.prepared, case).foreground:
        assert (np.asarray(label)[tuple(voxels.T)] < 4).all()
    whole, side = (open_volume(regions.prepared, case).foreground[place] for place in (0, -1))
    assert len(whole) > len(side) == len(open_foreground(regions.prepared, case)[3])
    labelling = regions.prepared.labelling
    mask, truth = np.array([1, 1, 2, 3]), np.array([1, 4, 2, 0])
    pair = without_ignored(mask, truth, labelling)
    assert case_dice(*pair, members=labelling.members) == (pytest.approx(4 / 5), pytest.approx(2 / 3), 0.0)


@pytest.mark.parametrize(
    ("kind", "every_form", "bundle"),
    [
        ("regions", True, False),
        ("ignored", False, False),
        ("high", False, False),
        *(pytest.param(kind, True, True, marks=pytest.mark.long) for kind in ("regions", "ignored", "high")),
    ],
)
def test_an_export_writes_the_values_of_the_data_set(kind, every_form, bundle, request, tmp_path):
    study = request.getfixturevalue(kind)
    if not bundle:
        request.getfixturevalue("without_bundle" if every_form else "source_form_alone")
    exported = export(study.plan, "0", tmp_path / "model", view=quiet_view())
    assert [check.form for check in exported.checks] == (["source", "pt2", "onnx"] if every_form else ["source"])
    assert all(check.differing_voxels == 0 for check in exported.checks)
    assert not bundle or "monai.bundle run" in exported.bundle
    image = study.plan.dataset.cases[0].images[0]
    assert predict(tmp_path / "model", image, "--out", tmp_path / "m.nii.gz", "--probabilities") == 0
    values = np.asarray(nibabel.load(tmp_path / "m.nii.gz").dataobj)
    shares = np.asarray(nibabel.load(tmp_path / "m_probabilities.nii.gz").dataobj)
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    groups = json.loads((tmp_path / "model/preprocessing.json").read_text())["keep_largest"]
    if kind == "regions":
        assert values.dtype == np.uint8 and shares.shape[-1] == 3
        expected = np.zeros(values.shape, dtype=np.uint8)
        for place, value in enumerate((1, 2, 3)):
            expected[shares[..., place] > 0.5] = value
        assert (keep_largest(expected, groups) == values).mean() > 0.9999
        assert "regions that may overlap, each by its own sigmoid: whole (1, 2, 3), core (2, 3), side (3)" in card
    elif kind == "ignored":
        assert values.dtype == np.uint8 and shares.shape[-1] == 4
        assert (keep_largest(shares.argmax(-1), groups) == values).mean() > 0.9999
        assert "Labels: 0 = background, 1 = a, 2 = b, 3 = c." in card
        assert all(len(case.dice) == 3 for case in study.record.measurement.cases)
    else:
        assert values.dtype == np.uint16 and set(np.unique(values)) <= {0, 7, 300, 40_000}
        indices = keep_largest(shares.argmax(-1), groups)
        assert (np.array([0, 7, 300, 40_000])[indices] == values).mean() > 0.9999
        assert "0 = background, 7 = a, 300 = b, 40000 = c" in card


def test_a_cascade_of_regions_is_refused(regions):
    text = regions.file.read_text().replace("stages: single", "stages: cascade")
    file = regions.file.with_name("cascade.yaml")
    file.write_text(text)
    with pytest.raises(UserError, match="a cascade passes classes on, and this data set has regions"):
        make_plan(load_study(file), runs=regions.file.parent / "runs")


@pytest.mark.parametrize(
    ("labels", "order", "said"),
    [
        (
            {"background": 0, "whole": [1, 2]},
            None,
            r"'regions_class_order' is None, expected .* of the 1 regions \(whole\)",
        ),
        ({"background": 0, "whole": [1, 2], "core": 2}, [1], r"'regions_class_order' is \[1\], expected"),
        (
            {"background": 0, "whole": [1, 2], "core": 2},
            [1, 3],
            "'regions_class_order': 3 is not a value of any region",
        ),
        ({"background": 0, "whole": [1, 2], "core": 2}, [2, 2], "'regions_class_order': 2 occurs twice"),
        ({"background": 0, "whole": [0, 1]}, [1], "a region contains the value 0, the background"),
        ({"background": 0, "a": 1, "ignore": 1}, None, "value 1 occurs 2 times"),
        ({"background": 0, "a": 3, "ignore": 2}, None, "ignore has the value 2, but must have the largest value"),
        ({"background": 0, "a": [1, 2], "ignore": 2}, [1], "ignore has the value 2, but must have the largest value"),
        ({"background": 0, "a": []}, None, r"'a' has the value \[\], expected an integer, or a list"),
    ],
)
def test_what_is_wrong_with_regions_and_ignore_is_said(tmp_path, labels, order, said):
    more = {} if order is None else {"regions_class_order": order}
    write_data(tmp_path / "phantom", labels, values={}, **more)
    with pytest.raises(DataError, match=said):
        read_dataset(tmp_path / "phantom")


def test_a_region_writes_over_the_ones_before_it():
    logits = np.array([[1.0, 1.0, -1.0, -1.0, 0.0], [1.0, -1.0, 1.0, -1.0, 0.0]], dtype=np.float32)
    assert labels_of(logits, (1, 2)).tolist() == [2, 1, 2, 0, 0]
    assert labels_of(logits, (2, 1)).tolist() == [1, 2, 1, 0, 0]
    assert labels_of(np.eye(300, dtype=np.float32)).tolist() == list(range(300))


def test_names_of_values_come_from_the_regions_that_write_them():
    labelling = Labelling(("background", "whole", "core"), (0, 1, 5, 9), regions=((1, 2, 3), (3,)), order=(1, 3))
    assert labelling.value_names == ("background", "whole", "label 5", "core")
    described = ("background", "whole (1, 5, 9; written as 1)", "core (9; written as 9)", "ignore (10)")
    assert replace(labelling, ignore=10).described == described
    assert Labelling(("background", "a"), (0, 3)).described == ("background", "a")


@pytest.mark.parametrize("regions", [(), ((1, 2), (2,))])
def test_what_lies_in_ignored_voxels_has_no_say_in_the_loss(regions):
    torch.manual_seed(0)
    logits = torch.randn(2, 2 if regions else 3, 5, 6, 7, requires_grad=True)
    labels = torch.randint(0, 4, (2, 1, 5, 6, 7)).float()  # 3 is ignored
    loss = SupervisedLoss(regions=regions, ignored=3)
    value = loss([logits], labels)
    value.backward()
    hidden = (labels == 3).expand_as(logits)
    assert (logits.grad[hidden] == 0).all() and (logits.grad[~hidden] != 0).any()
    assert torch.isclose(loss([torch.where(hidden, 50.0, logits)], labels), value)
    assert loss([logits], torch.full_like(labels, 3.0)).isfinite()


def test_the_lowest_head_has_no_weight_where_the_recipe_says_so():
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (1, 1, 8, 8, 8)).float()
    heads = [torch.randn(1, 2, size, size, size) for size in (8, 4, 2)]
    with_all, without = SupervisedLoss(), SupervisedLoss(lowest_head=False)
    assert torch.isclose(without(heads, labels), with_all(heads[:2], labels))
    assert not torch.isclose(without(heads, labels), with_all(heads, labels))
    assert torch.isclose(without(heads[:1], labels), with_all(heads[:1], labels))
