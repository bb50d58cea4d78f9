"""Synthetic volumes: reproducible, valid, anisotropic, and ambiguous slice by slice."""

import hashlib
import json

import nibabel
import numpy as np
import pytest

from search.data.check import check_folder
from search.data.phantom import write_phantom
from search.data.prepare import prepare
from search.data.prepared import open_case


def content(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_phantom(tmp_path / name, cases=3, seed=seed)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    write_phantom(tmp_path / "a", cases=3, seed=0)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    first, other = content(tmp_path / "a"), content(tmp_path / "c")
    assert [name for name in first if first[name] == other[name]] == ["dataset.json"]


def test_more_cases_do_not_change_the_first_ones(tmp_path):
    write_phantom(tmp_path / "few", cases=2)
    write_phantom(tmp_path / "many", cases=4)
    few, many = content(tmp_path / "few"), content(tmp_path / "many")
    assert {name for name in few if few[name] != many[name]} == {"dataset.json"}


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_a_phantom_is_a_valid_decathlon_folder(classes, tmp_path):
    write_phantom(tmp_path, cases=4, classes=classes)
    dataset, facts = check_folder(tmp_path, group=None, cache_dir=None)
    assert facts.notes == ()
    assert dataset.licence == "CC0"
    assert dataset.labels == ("background", "core", "ring", "side", "node")[: classes + 1]
    assert facts.spacing_median == (1.5, 1.5, 8.0)
    assert all(10 <= case.shape[2] <= 14 and case.shape[:2] == (64, 64) for case in facts.cases)


def test_classes_are_of_useful_size_and_cases_differ(tmp_path):
    write_phantom(tmp_path, cases=12)
    dataset, facts = check_folder(tmp_path, group=None)
    shares = np.array([np.array(case.voxels_per_class) / sum(case.voxels_per_class) for case in facts.cases])
    assert (shares[:, 1:] > 0.005).all()
    assert (shares[:, 0] > 0.75).all()
    assert len({case.shape[2] for case in facts.cases}) > 1
    assert len({case.spacing for case in facts.cases}) == 2
    means = [nibabel.load(case.images[0]).get_fdata().mean() for case in dataset.cases]
    assert max(means) > 1.5 * min(means)


def test_some_slices_mislead_when_seen_alone(tmp_path):
    write_phantom(tmp_path, cases=12)
    dataset, _ = check_folder(tmp_path, group=None)
    lost = decoys = slices = 0
    for case in dataset.cases:
        image = nibabel.load(case.images[0]).get_fdata()
        label = np.asarray(nibabel.load(case.label).dataobj)
        bright, plain = np.median(image[label == 1]), np.median(image[label == 0])
        seen = (image - plain) / (bright - plain)
        dark = ((seen < 0.5) & (label == 1)).sum(axis=(0, 1))
        lost += np.sum(dark > 0.3 * (label == 1).sum(axis=(0, 1)))
        decoys += np.sum([(seen[:, :, z][label[:, :, z] == 0] > 0.75).sum() > 40 for z in range(image.shape[2])])
        slices += image.shape[2]
    assert 0.05 < lost / slices < 0.3
    assert 0.05 < decoys / slices < 0.3


@pytest.mark.parametrize("shape", [(16, 20, 1), (33, 17, 3), (48, 48, 5)])
def test_thin_and_small_phantoms_work(shape, tmp_path):
    write_phantom(tmp_path / "data", cases=3, shape=shape, spacing=(2.0, 1.0, 9.0), classes=2)
    dataset, facts = check_folder(tmp_path / "data", group=None)
    prepared = prepare(dataset, facts, spacing="median", normalisation="auto", cache_dir=tmp_path / "cache")
    assert open_case(prepared, "phantom_000")[0].shape[2:] == (shape[1], shape[0])
    assert json.loads((tmp_path / "data/dataset.json").read_text())["numTraining"] == 3


def test_an_impossible_phantom_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a phantom has 1 to 4 classes, got 5"):
        write_phantom(tmp_path, classes=5)
    with pytest.raises(
        ValueError, match=r"at least 1 case, 1 slice and 16 x 16 voxels per slice, got 0 cases of \(64, 64, 12\)"
    ):
        write_phantom(tmp_path, cases=0)
    with pytest.raises(ValueError, match=r"got 12 cases of \(8, 64, 12\)"):
        write_phantom(tmp_path, shape=(8, 64, 12))
    assert list(tmp_path.iterdir()) == []
