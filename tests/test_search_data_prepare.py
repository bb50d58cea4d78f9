"""Prepared arrays: their content, when they are rebuilt, and resumption after an interruption."""

import json
import os
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from search.data import prepare as room
from search.data.check import check_dataset, check_folder
from search.data.facts import read_facts
from search.data.geometry import mask_from_logits, normalise, to_grid
from search.data.intensities import choose_normalisation
from search.data.prepare import prepare
from search.data.prepared import load_prepared, open_case, open_foreground, open_truth
from search.data.read import DataError, read_dataset
from search.data.volume_files import read_volume

DATA = Path(os.environ.get("VOXNAS_DATA", Path(__file__).parents[2] / "shared" / "data"))
SHAPE = (7, 6, 4)
SPACINGS = ((1.0, 1.0, 3.0), (1.0, 1.0, 3.0), (1.4, 1.4, 3.0))


def save(path, array, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def made(root, *, seed=0, image=None, **changes):
    """Write three cases, the last one coarser in plane and stored from right to left, labels 0, 2 and 5."""
    rng = np.random.default_rng(seed)
    names = ("p1_a", "p1_b", "p2_a")
    for name, spacing in zip(names, SPACINGS, strict=True):
        affine = np.diag([-spacing[0] if name == "p2_a" else spacing[0], *spacing[1:], 1.0])
        label = rng.choice(np.array([0, 2, 5], dtype=np.uint8), SHAPE)
        save(root / f"labelsTr/{name}.nii.gz", label, affine)
        values = rng.normal(50, 9, SHAPE).astype(np.float32) if image is None else image(label)
        save(root / f"imagesTr/{name}.nii.gz", values, affine)
    description = {
        "name": "Made",
        "licence": "CC0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "2": "organ", "5": "tumour"},
        "training": [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names],
        **changes,
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def prepared_of(root, cache, *, spacing="median", normalisation="auto", group=r"p\d", progress=None):
    dataset, facts = check_folder(root, group=group)
    return prepare(dataset, facts, spacing=spacing, normalisation=normalisation, cache_dir=cache, progress=progress)


def snapshot(folder):
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}


def test_prepared_arrays_are_on_the_network_grid(tmp_path):
    root = made(tmp_path / "data")
    prepared = prepared_of(root, tmp_path / "cache")
    assert prepared.preprocessing.spacing == (3.0, 1.0, 1.0)
    assert prepared.preprocessing.axes == (2, 1, 0)
    assert prepared.preprocessing.normalisation == (("zscore",),)
    assert (prepared.channels, prepared.labels) == (("MRI",), ("background", "organ", "tumour"))
    assert (prepared.label_values, prepared.licence) == ((0, 2, 5), "CC0")
    assert prepared.groups == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}
    assert [case.shape for case in prepared.cases] == [(4, 6, 7), (4, 6, 7), (4, 8, 10)]
    assert prepared.shape_median == (4, 6, 7)
    for case in prepared.cases:
        image, label = open_case(prepared, case.name)
        volume = read_volume(root / f"imagesTr/{case.name}.nii.gz")
        assert isinstance(image, np.memmap)
        assert not image.flags.writeable
        assert (image.dtype, label.dtype) == (np.float32, np.uint8)
        assert image.shape == (1, *case.shape)
        assert label.shape == case.shape
        assert np.array_equal(image, to_grid(volume, prepared.preprocessing)[0])
        assert case.voxels_per_class == tuple(np.bincount(label.ravel(), minlength=3).tolist())


@pytest.mark.parametrize("spacing", ["median", (3.0, 1.0, 1.0), (1.0, 2.0, 2.0)])
def test_truth_is_the_label_on_its_own_grid(spacing, tmp_path):
    root = made(tmp_path / "data")
    prepared = prepared_of(root, tmp_path / "cache", spacing=spacing)
    for case in prepared.cases:
        truth, grid = open_truth(prepared, case.name)
        stored = np.asarray(nibabel.load(root / f"labelsTr/{case.name}.nii.gz").dataobj)
        assert np.array_equal(np.array([0, 2, 5])[truth], stored)
        assert grid == case.grid
        assert grid.resampled == (Path(prepared.folder) / "cases" / f"{case.name}.truth.npy").exists()
        _, label = open_case(prepared, case.name)
        back = mask_from_logits(np.stack([label == index for index in range(3)]).astype(np.float32), grid)
        assert back.shape == truth.shape
        if not grid.resampled:
            assert np.array_equal(back, truth)


def test_foreground_voxels_are_of_their_class_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "FOREGROUND_VOXELS", 20)
    root = made(tmp_path / "data")
    prepared = prepared_of(root, tmp_path / "cache")
    for case in prepared.cases:
        _, label = open_case(prepared, case.name)
        places = open_foreground(prepared, case.name)
        assert list(places) == [1, 2]
        for index, rows in places.items():
            assert rows.dtype == np.int32
            assert rows.shape == (min(20, case.voxels_per_class[index]), 3)
            assert (label[tuple(rows.T)] == index).all()
            assert len({tuple(row) for row in rows.tolist()}) == len(rows)


def test_a_class_absent_from_a_case_has_no_foreground(tmp_path):
    root = made(tmp_path / "data")
    save(root / "labelsTr/p1_a.nii.gz", np.zeros(SHAPE, dtype=np.uint8), np.diag([1.0, 1.0, 3.0, 1.0]))
    places = open_foreground(prepared_of(root, tmp_path / "cache"), "p1_a")
    assert {index: rows.shape for index, rows in places.items()} == {1: (0, 3), 2: (0, 3)}


def test_a_prepared_folder_is_read_without_the_data_and_may_move(tmp_path):
    root = made(tmp_path / "data")
    prepared = prepared_of(root, tmp_path / "cache")
    shutil.rmtree(root)
    assert load_prepared(prepared.folder) == prepared
    shutil.move(prepared.folder, tmp_path / "moved")
    moved = load_prepared(tmp_path / "moved")
    assert moved.folder == str(tmp_path / "moved")
    assert moved.cases == prepared.cases
    assert open_case(moved, "p1_a")[0].shape == (1, 4, 6, 7)
    with pytest.raises(ValueError, match="is not a complete prepared data set"):
        load_prepared(prepared.folder)
    (tmp_path / "moved/prepared.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="has format 99, but this version reads format 2"):
        load_prepared(tmp_path / "moved")


def test_the_same_data_is_prepared_once(tmp_path):
    root = made(tmp_path / "data")
    first = prepared_of(root, tmp_path / "cache")
    before = snapshot(first.folder)
    shutil.copytree(root, tmp_path / "copy")
    assert prepared_of(root, tmp_path / "cache") == first
    assert prepared_of(tmp_path / "copy", tmp_path / "cache") == first
    assert snapshot(first.folder) == before


def test_other_content_or_settings_are_prepared_separately(tmp_path):
    root = made(tmp_path / "data")
    folders = {
        prepared_of(root, tmp_path / "cache").folder,
        prepared_of(root, tmp_path / "cache", spacing=(3.0, 1.0, 1.1)).folder,
        prepared_of(root, tmp_path / "cache", normalisation=("zscore_nonzero",)).folder,
        prepared_of(root, tmp_path / "cache", group=None).folder,
        prepared_of(made(tmp_path / "other", seed=1), tmp_path / "cache").folder,
        prepared_of(
            made(tmp_path / "named", labels={"0": "background", "2": "a", "5": "b"}), tmp_path / "cache"
        ).folder,
    }
    assert len(folders) == 6


def test_an_interrupted_preparation_resumes(tmp_path, monkeypatch):
    root, real = made(tmp_path / "data"), room.to_grid
    whole = prepared_of(root, tmp_path / "whole")
    monkeypatch.setattr(room, "for_each", lambda work, items, progress: [work(item) for item in items])
    read = []

    def interrupted(volume, preprocessing):
        read.append(volume.name)
        if len(read) == 2:
            raise KeyboardInterrupt
        return real(volume, preprocessing)

    monkeypatch.setattr(room, "to_grid", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared_of(root, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    with pytest.raises(ValueError, match="is not a complete prepared data set"):
        load_prepared(folder)
    prepared = prepared_of(root, tmp_path / "cache")
    assert [Path(name).name[:4] for name in read] == ["p1_a", "p1_b", "p1_b", "p2_a"]
    assert prepared.cases == whole.cases
    names = sorted(path.name for path in (Path(whole.folder) / "cases").iterdir())
    assert sorted(path.name for path in (folder / "cases").iterdir()) == names
    for name in names:
        assert (folder / "cases" / name).read_bytes() == (Path(whole.folder) / "cases" / name).read_bytes()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("missing", "p1_b.image.npy is missing: preparing the case p1_b again"),
        ("cut", "p1_b.image.npy is damaged: preparing the case p1_b again"),
        ("one bit", "p1_b.image.npy is damaged: preparing the case p1_b again"),
        ("zeros", "p1_b.label.npy is damaged: preparing the case p1_b again"),
        ("folder", r"p1_b.image.npy is damaged \(Not a regular file\): preparing the case p1_b again"),
        ("pipe", r"p1_b.label.npy is damaged \(Not a regular file\): preparing the case p1_b again"),
        ("pipe of facts", r"p1_b.json is damaged \(Not a regular file\): preparing the case p1_b again"),
        ("another case", "p1_b.json belongs to another case or preparation: preparing the case p1_b again"),
        ("no facts", r"p1_b.json is damaged \(.*\): preparing the case p1_b again"),
        ("other facts", r"p1_b.json is damaged \(.*differs from its digest\): preparing the case p1_b again"),
    ],
)
def test_a_damaged_case_is_named_and_prepared_again(harm, message, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(room, "for_each", lambda work, items, progress: [work(item) for item in items])
    root = made(tmp_path / "data")
    prepared = prepared_of(root, tmp_path / "cache")
    folder = Path(prepared.folder)
    sound = {path.name: path.read_bytes() for path in (folder / "cases").iterdir()}
    image, label, facts = (folder / "cases" / f"p1_b.{ending}" for ending in ("image.npy", "label.npy", "json"))
    values = bytearray(sound[image.name])
    if harm == "missing":
        image.unlink()
    elif harm == "cut":
        image.write_bytes(values[:200])
    elif harm == "one bit":
        values[-3] ^= 4
        image.write_bytes(values)
    elif harm == "zeros":
        label.write_bytes(sound[label.name][:128] + bytes(len(sound[label.name]) - 128))
    elif harm in ("folder", "pipe", "pipe of facts"):
        path = {"folder": image, "pipe": label, "pipe of facts": facts}[harm]
        path.unlink()
        (os.mkdir if harm == "folder" else os.mkfifo)(path)
    elif harm == "another case":  # with all of its files
        for name in [name for name in sound if name.startswith("p1_a.")]:
            shutil.copyfile(folder / "cases" / name, folder / "cases" / name.replace("p1_a.", "p1_b."))
    else:
        facts.write_text("{" if harm == "no facts" else facts.read_text().replace('"p1"', '"p2"', 1))
    assert prepared_of(root, tmp_path / "cache") == prepared
    assert len(caplog.messages) == 1 and re.search(message, caplog.messages[0])
    assert {path.name: path.read_bytes() for path in (folder / "cases").iterdir()} == sound
    assert prepared_of(root, tmp_path / "cache") == prepared
    assert len(caplog.messages) == 1


def test_a_damaged_list_of_cases_is_named_and_written_again(tmp_path, caplog):
    root = made(tmp_path / "data")
    prepared = prepared_of(root, tmp_path / "cache")
    file = Path(prepared.folder) / "prepared.json"
    sound = file.read_text()
    file.write_text(sound.replace("p1_b", "p1_c"))
    with pytest.raises(ValueError, match="prepared.json: the content differs from its digest"):
        load_prepared(prepared.folder)
    assert prepared_of(root, tmp_path / "cache") == prepared and file.read_text() == sound
    assert len(caplog.messages) == 1 and "prepared.json is damaged" in caplog.messages[0]


def test_files_of_another_preparation_are_named_and_prepared_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(room, "for_each", lambda work, items, progress: [work(item) for item in items])
    root = made(tmp_path / "data")
    prepared, other = (prepared_of(root, tmp_path / "cache", normalisation=rule) for rule in ("auto", ("ct",)))
    sound = {path.name: path.read_bytes() for path in (Path(prepared.folder) / "cases").iterdir()}
    shutil.rmtree(prepared.folder)
    shutil.copytree(other.folder, prepared.folder)
    assert prepared_of(root, tmp_path / "cache") == prepared
    assert "prepared.json is damaged (it belongs to another preparation): it is written again" in caplog.messages[0]
    assert len(caplog.messages) == 1 + len(prepared.cases)
    assert {path.name: path.read_bytes() for path in (Path(prepared.folder) / "cases").iterdir()} == sound


def test_a_pipe_in_place_of_the_list_of_cases_or_of_the_facts_blocks_nothing(tmp_path):
    root = made(tmp_path / "data")
    prepared = prepared_of(root, tmp_path / "cache")
    images = [str(path) for path in (root / "imagesTr").iterdir()]
    facts = read_facts(images, [], cache_dir=tmp_path)
    files = [Path(prepared.folder) / "prepared.json", *tmp_path.glob("facts-*.json")]
    for file in files:
        file.unlink()
        os.mkfifo(file)
    assert prepared_of(root, tmp_path / "cache") == prepared
    assert read_facts(images, [], cache_dir=tmp_path) == facts
    assert len(files) == 2 and all(file.is_file() for file in files)


def test_progress_counts_cases(tmp_path):
    seen = []
    prepared_of(made(tmp_path / "data"), tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_data_set_with_problems_is_not_prepared(tmp_path):
    root = made(tmp_path / "data", labels={"0": "background", "2": "organ"})
    dataset = read_dataset(root)
    facts = check_dataset(dataset, group=None)
    with pytest.raises(DataError, match="contains the value 5"):
        prepare(dataset, facts, spacing="median", normalisation="auto", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.0, 1.0, 1.0), (float("nan"), 1.0, 1.0), (float("inf"), 1.0, 1.0)])
def test_an_invalid_spacing_is_refused(spacing, tmp_path):
    with pytest.raises(ValueError, match="the target spacing must be three positive sizes in mm, got"):
        prepared_of(made(tmp_path / "data"), tmp_path / "cache", spacing=spacing)


@pytest.mark.parametrize("normalisation", [("zscore", "zscore"), ("minmax",), ()])
def test_an_unsuitable_normalisation_is_refused(normalisation, tmp_path):
    with pytest.raises(ValueError, match="expected one of zscore, zscore_nonzero, ct, .* for each channel of"):
        prepared_of(made(tmp_path / "data"), tmp_path / "cache", normalisation=normalisation)


def test_ct_takes_clipping_and_scale_from_the_foreground_of_all_cases(tmp_path):
    rng = np.random.default_rng(7)

    def image(label):
        return np.where(label > 0, rng.normal(60, 20, label.shape), -1000).astype(np.float32)

    root = made(tmp_path / "data", image=image, modality={"0": "CT"})
    prepared = prepared_of(root, tmp_path / "cache")
    values = []
    for name in prepared.groups:
        label = np.asarray(nibabel.load(root / f"labelsTr/{name}.nii.gz").dataobj)
        values.append(nibabel.load(root / f"imagesTr/{name}.nii.gz").get_fdata()[label > 0])
    pooled = np.concatenate(values)
    (rule,) = prepared.preprocessing.normalisation
    expected = (*np.percentile(pooled, [0.5, 99.5]), pooled.mean(), pooled.std())
    assert rule[0] == "ct"
    np.testing.assert_allclose(rule[1:], expected, rtol=1e-4)
    assert open_case(prepared, "p1_a")[0].min() == pytest.approx((expected[0] - expected[2]) / expected[3], rel=1e-3)
    assert load_prepared(prepared.folder).preprocessing == prepared.preprocessing


def test_the_sample_for_ct_is_bounded_and_repeatable(tmp_path, monkeypatch):
    monkeypatch.setattr("search.data.intensities.CT_VOXELS", 30)
    dataset, facts = check_folder(made(tmp_path, modality={"0": "ct"}), group=None)
    first = choose_normalisation(dataset, facts, "auto")
    assert first == choose_normalisation(dataset, facts, ("ct",))
    monkeypatch.setattr("search.data.intensities.CT_VOXELS", 31)
    assert first != choose_normalisation(dataset, facts, "auto")


def test_volumes_with_a_wide_margin_of_zeros_are_scaled_by_their_nonzero_voxels(tmp_path):
    def image(label):
        inside = np.zeros(label.shape, dtype=np.float32)
        inside[2:5, 2:5, 1:3] = np.random.default_rng(8).normal(100, 5, (3, 3, 2))
        return inside

    prepared = prepared_of(made(tmp_path / "data", image=image), tmp_path / "cache")
    assert prepared.preprocessing.normalisation == (("zscore_nonzero",),)
    expected = normalise(read_volume(tmp_path / "data/imagesTr/p1_a.nii.gz").data[0], ("zscore_nonzero",))
    assert np.array_equal(open_case(prepared, "p1_a")[0][0], expected.transpose(2, 1, 0))


def test_sagittal_slices_put_the_coarse_axis_first(tmp_path):
    root = made(tmp_path / "data")
    for path in root.glob("*Tr/*.nii.gz"):
        save(path, np.asarray(nibabel.load(path).dataobj), np.diag([4.0, 1.0, 1.0, 1.0]))
    prepared = prepared_of(root, tmp_path / "cache")
    assert prepared.preprocessing.axes == (0, 2, 1)
    assert {case.shape for case in prepared.cases} == {(7, 4, 6)}


@pytest.mark.parametrize(
    ("name", "group", "spacing", "shape"),
    [
        ("Task04_Hippocampus", None, (1.0, 1.0, 1.0), (36, 50, 35)),
        ("Task27_ACDC", r"(patient\d+)_", (10.0, 1.5625, 1.5625), (9, 160, 160)),
    ],
)
def test_real_data_is_prepared_and_scored_on_its_own_grid(name, group, spacing, shape, tmp_path):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent: real volumes are not part of the repository")
    prepared = prepared_of(DATA / name, tmp_path, group=group)
    assert prepared.preprocessing.spacing == spacing
    assert prepared.shape_median == shape
    assert not any(case.grid.resampled for case in prepared.cases)
    for case in prepared.cases[::20]:
        image, label = open_case(prepared, case.name)
        assert abs(image.mean()) < 1e-3
        truth, grid = open_truth(prepared, case.name)
        hot = np.stack([label == index for index in range(len(prepared.labels))]).astype(np.float32)
        assert np.array_equal(mask_from_logits(hot, grid), truth)


def test_real_labels_survive_a_moderate_change_of_spacing(tmp_path):
    if not (DATA / "Task04_Hippocampus").is_dir():
        pytest.skip(f"{DATA / 'Task04_Hippocampus'} is absent: real volumes are not part of the repository")
    prepared = prepared_of(DATA / "Task04_Hippocampus", tmp_path, spacing=(1.3, 0.9, 1.1), group=None)
    for case in prepared.cases[::20]:
        _, label = open_case(prepared, case.name)
        truth, grid = open_truth(prepared, case.name)
        mask = mask_from_logits(np.stack([label == index for index in range(3)]).astype(np.float32), grid)
        for index in (1, 2):
            found, true = mask == index, truth == index
            assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.93
