"""The forms in which people keep labelled volumes: each is read as meant, or refused with the reason."""

import gzip
import json
import os
import stat
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from search.data.check import check_folder
from search.data.geometry import normalise
from search.data.labels import read_label
from search.data.prepare import prepare
from search.data.prepared import load_prepared, open_case
from search.data.read import DataError
from search.data.volume_files import Volume, read_volume, save_like

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
SHAPE = (9, 8, 5)


def pair(seed=0, shape=SHAPE):
    """An image (X, Y, Z) and its label, a box that the image shows."""
    label = np.zeros(shape, dtype=np.uint8)
    label[2:5, 3:6, 1:3] = 1
    return (np.random.default_rng(seed).normal(size=shape) + 3 * label).astype(np.float32), label


def save(path, values, affine=AFFINE, slope=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nibabel.save(image, path)


def save_itk(path, values, vector=False):
    """Write (X, Y, Z) or (X, Y, Z, C) with the grid of AFFINE."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.swapaxes(values, 0, 2), isVector=vector)
    image.SetSpacing((1.0, 1.0, 3.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))


def describe(root, **description):
    base = {"name": "Forms", "channel_names": {"0": "MRI"}, "labels": {"background": 0, "thing": 1}}
    description = {key: entry for key, entry in {**base, **description}.items() if entry is not None}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def nnunet(root, ending=".nii.gz", names=("a", "b"), write=save, **description):
    for seed, name in enumerate(names):
        image, label = pair(seed)
        write(root / f"imagesTr/{name}_0000{ending}", image)
        write(root / f"labelsTr/{name}{ending}", label)
    return describe(root, file_ending=ending, **description)


def prepared(root, folder, normalisation="auto"):
    dataset, facts = check_folder(root, group=None)
    return prepare(dataset, facts, spacing="median", normalisation=normalisation, cache_dir=folder)


def arrays(root, folder):
    """The prepared arrays by case."""
    found = prepared(root, folder)
    return {case.name: [np.array(array) for array in open_case(found, case.name)] for case in found.cases}


def same(left, right):
    assert left.keys() == right.keys()
    for name, values in left.items():
        for one, other in zip(values, right[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii"])
def test_other_formats_give_the_arrays_of_nifti(ending, tmp_path):
    write = save if ending == ".nii" else save_itk
    other = nnunet(tmp_path / "other", ending, write=write)
    same(arrays(other, tmp_path / "1"), arrays(nnunet(tmp_path / "nifti"), tmp_path / "2"))


def test_an_ending_without_its_dot_is_read(tmp_path):
    root = describe(nnunet(tmp_path / "data"), file_ending="nii.gz")
    assert [case.name for case in check_folder(root, group=None)[0].cases] == ["a", "b"]


def test_an_ending_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'file_ending' is '.png', but only .nii.gz, .nii, .mha, .* are supported"):
        check_folder(
            nnunet(tmp_path / "data", ".nii.gz") and describe(tmp_path / "data", file_ending=".png"), group=None
        )


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_vector_image_is_one_volume_with_channels(channels, tmp_path):
    values = np.stack([pair(seed)[0] for seed in range(channels)], axis=-1)
    save(tmp_path / "vector.nii.gz", values[:, :, :, None])
    save(tmp_path / "plain.nii.gz", values)
    save_itk(tmp_path / "vector.mha", values, vector=True)
    plain = read_volume(tmp_path / "plain.nii.gz")
    assert plain.data.shape == (channels, *SHAPE)
    for name in ("vector.nii.gz", "vector.mha"):
        other = read_volume(tmp_path / name)
        np.testing.assert_array_equal(other.data, plain.data)
        np.testing.assert_allclose(other.affine, plain.affine, atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 5, 2, 3), (9, 8, 5, 2, 1, 1)])
def test_other_numbers_of_axes_are_refused(shape, tmp_path):
    save(tmp_path / "odd.nii.gz", np.zeros(shape, dtype=np.float32))
    with pytest.raises(ValueError, match=r"odd.nii.gz: has shape .*, but a volume must have 3 axes"):
        read_volume(tmp_path / "odd.nii.gz")


def test_the_data_sets_own_list_of_files_is_read(tmp_path):
    root = tmp_path / "data"
    for seed, name in enumerate(("a", "b", "c")):
        image, label = pair(seed)
        save(root / f"elsewhere/{name}_t1.nii.gz", image)
        save(root / f"elsewhere/{name}_t2.nii.gz", image + 1)
        save(root / f"elsewhere/{name}_mask.nii.gz", label)
    listed = {
        name: {
            "images": [f"elsewhere/{name}_t1.nii.gz", f"elsewhere/{name}_t2.nii.gz"],
            "label": f"elsewhere/{name}_mask.nii.gz",
        }
        for name in ("a", "b")
    }
    describe(root, channel_names={"0": "T1", "1": "T2"}, dataset=listed, file_ending=".nii.gz", numTraining=2)
    dataset = check_folder(root, group=None)[0]
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [path.rsplit("/", 1)[1] for path in dataset.cases[1].images] == ["b_t1.nii.gz", "b_t2.nii.gz"]
    for entry, message in [
        ([], "'dataset' must map each case to its files, got list"),
        ({"a": {"images": "x.nii.gz"}}, r"\"dataset\"\['a'\]: expected .*\"label\": PATH"),
        ({"../a": listed["a"]}, "'../a' is not a name for a case"),
        (
            {"a": {**listed["a"], "images": listed["a"]["images"][:1]} | {"label": "no.nii.gz"}},
            "no.nii.gz: no such file",
        ),
        (
            {"a": {**listed["a"], "images": listed["a"]["images"] * 2}},
            "case a: has 4 image files, but .* lists 2 channels",
        ),
    ]:
        describe(root, channel_names={"0": "T1", "1": "T2"}, dataset=entry)
        with pytest.raises(DataError, match=message):
            check_folder(root, group=None)


def test_a_folder_per_patient_with_lists_of_images_is_read(tmp_path):
    root = tmp_path / "data"
    for seed in range(3):
        image, label = pair(seed)
        for name, values in (("t1", image), ("t2", image + 1), ("seg", label)):
            save(root / f"p{seed}/{name}.nii.gz", values)
    listed = [
        {"image": [f"p{seed}/t1.nii.gz", f"p{seed}/t2.nii.gz"], "label": f"p{seed}/seg.nii.gz"} for seed in range(3)
    ]
    describe(root, channel_names=["T1", "T2"], training=listed)
    found = prepared(root, tmp_path / "cache")
    assert [case.name for case in found.cases] == ["p0", "p1", "p2"] and found.channels == ("T1", "T2")
    describe(root, channel_names=["T1", "T2"], training=[*listed, listed[0]])
    with pytest.raises(DataError, match="is listed 2 times"):
        check_folder(root, group=None)


@pytest.mark.parametrize(("given", "names"), [("MRI", ("MRI",)), (["MRI"], ("MRI",)), ({"0": "MRI"}, ("MRI",))])
def test_channels_are_named_by_a_word_a_list_or_a_mapping(given, names, tmp_path):
    root = describe(nnunet(tmp_path / "data"), channel_names=None, modality=given, file_ending=".nii.gz")
    assert check_folder(root, group=None)[0].channels == names


def test_a_list_of_class_names_counts_from_the_background(tmp_path):
    root = describe(nnunet(tmp_path / "data"), labels=["background", "thing"], file_ending=".nii.gz")
    dataset = check_folder(root, group=None)[0]
    assert (dataset.labels, dataset.label_values) == (("background", "thing"), (0, 1))


@pytest.mark.parametrize("stored", [1, 10, 100, 255, 3000])
def test_labels_that_a_header_scales_to_integers_are_integers(stored, tmp_path):
    label = pair()[1].astype(np.int16) * stored
    save(tmp_path / "label.nii.gz", label, slope=1 / stored)
    values, _ = read_label(tmp_path / "label.nii.gz")
    assert values.dtype.kind == "i" and np.unique(values).tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.5, 0.99, 1.001])
def test_labels_between_integers_are_refused(value, tmp_path):
    save(tmp_path / "label.nii.gz", pair()[1].astype(np.float32) * np.float32(value))
    with pytest.raises(ValueError, match=r"label.nii.gz: contains non-integer values \(18 voxels, such as"):
        read_label(tmp_path / "label.nii.gz")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("none", lambda x: x),
        ("rescale_to_0_1", lambda x: (x - x.min()) / (x.max() - x.min())),
        ("rgb_to_0_1", lambda x: x / 255),
        ("zscore", lambda x: (x - x.mean()) / x.std()),
    ],
)
def test_each_rule_gives_its_formula(rule, expected):
    image = pair()[0] * 40 + 90
    np.testing.assert_allclose(normalise(image, (rule,)), expected(image.astype(np.float64)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["none", "rescale_to_0_1", "rgb_to_0_1", "zscore", "zscore_nonzero"])
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_each_rule_keeps_a_constant_channel_finite(rule, value):
    assert np.isfinite(normalise(np.full((1, 2, 3), value, dtype=np.float32), (rule,))).all()


def test_nnunets_channel_names_choose_the_normalisation(tmp_path):
    root = tmp_path / "data"
    names = {"0": "noNorm", "1": "rescale_to_0_1", "2": "RGB_to_0_1", "3": "CT", "4": "T1"}
    for seed, name in enumerate(("a", "b")):
        image, label = pair(seed)
        for channel in range(5):
            save(root / f"imagesTr/{name}_{channel:04d}.nii.gz", image + 10)
        save(root / f"labelsTr/{name}.nii.gz", label)
    describe(root, channel_names=names, file_ending=".nii.gz")
    rules = [rule[0] for rule in prepared(root, tmp_path / "cache").preprocessing.normalisation]
    assert rules == ["none", "rescale_to_0_1", "rgb_to_0_1", "ct", "zscore"]


def test_a_case_may_be_called_like_our_own_files(tmp_path):
    names = ("prepared", "cases", "a.image")
    root = nnunet(tmp_path / "data", names=names)
    found = prepared(root, tmp_path / "cache")
    assert {case.name for case in load_prepared(found.folder).cases} == set(names)
    for seed, name in enumerate(names):
        assert open_case(found, name)[1].sum() == pair(seed)[1].sum()


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e12, 1e300, np.nan, np.inf])
def test_impossible_voxel_sizes_are_refused(size, tmp_path):
    image = nibabel.Nifti1Image(pair()[0], np.eye(4))
    image.header.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), code=1)
    with np.errstate(over="ignore"):
        image.header["srow_z"] = [0, 0, size, 0]
    image.header["qform_code"] = 0
    with (tmp_path / "odd.nii").open("wb") as file:
        image.header.write_to(file)
        file.write(b"\0" * (int(image.header["vox_offset"]) - file.tell() if image.header["vox_offset"] else 4))
        file.write(image.get_fdata(dtype=np.float32).tobytes(order="F"))
    with pytest.raises(ValueError, match=r"odd.nii: (has voxels of .* mm, but a size must be between|cannot be read)"):
        read_volume(tmp_path / "odd.nii")


def test_an_affine_with_an_infinite_origin_is_refused(tmp_path):
    image = nibabel.Nifti1Image(pair()[0], AFFINE)
    image.header["qform_code"], image.header["sform_code"], image.header["srow_x"] = 0, 1, [1, 0, 0, np.inf]
    content = bytearray(image.header.binaryblock + b"\0" * 4 + image.get_fdata(dtype=np.float32).tobytes(order="F"))
    content[108:112] = np.float32(352).tobytes()  # vox_offset
    (tmp_path / "odd.nii").write_bytes(content)
    with pytest.raises(ValueError, match=r"odd.nii: has an affine with NaN or infinite values: .*inf"):
        read_volume(tmp_path / "odd.nii")


def test_label_values_beyond_all_integers_are_refused(tmp_path):
    save(tmp_path / "huge.nii", pair()[1].astype(np.float64) * 1e30)
    with pytest.raises(ValueError, match=r"huge.nii: contains the value 1e\+30, which is too large for a label"):
        read_label(tmp_path / "huge.nii")


def test_a_header_that_states_terabytes_is_refused_before_memory_is_taken(tmp_path):
    save(tmp_path / "big.nii", pair()[0])
    save(tmp_path / "big.nii.gz", pair()[0])
    content = bytearray((tmp_path / "big.nii").read_bytes())
    content[42:48] = np.array([30000, 30000, 3000], dtype="<i2").tobytes()  # dim[1:4]
    (tmp_path / "big.nii").write_bytes(content)
    (tmp_path / "big.nii.gz").write_bytes(gzip.compress(bytes(content)))
    for name in ("big.nii", "big.nii.gz"):
        with pytest.raises(ValueError, match=r"the header states shape \(30000, 30000, 3000\), but the file has only"):
            read_volume(tmp_path / name)


def test_a_mask_of_a_file_without_voxel_sizes_has_those_of_its_affine(tmp_path):
    image = nibabel.Nifti1Image(pair()[0], AFFINE)
    header = image.header.copy()
    header["pixdim"][1:4] = 0
    save_like(tmp_path / "mask.nii.gz", pair()[1], Volume(pair()[0][None], AFFINE, header, "x"))
    assert nibabel.load(tmp_path / "mask.nii.gz").header.get_zooms() == (1.0, 1.0, 3.0)


def test_the_tolerance_of_affines_is_a_setting(tmp_path):
    root = nnunet(tmp_path / "data")
    moved = AFFINE.copy()
    moved[0, 3] = 0.3
    save(root / "labelsTr/a.nii.gz", pair()[1], moved)
    with pytest.raises(
        DataError, match=r"corners are up to 0.3 mm apart .*; data.affine_tolerance sets what is allowed"
    ):
        check_folder(root, group=None)
    assert len(check_folder(root, group=None, affine_tolerance=0.5)[1].cases) == 2


@pytest.mark.parametrize(("shared", "mode"), [(False, 0o700), (True, 0o755)])
def test_prepared_volumes_are_private_unless_shared(shared, mode, tmp_path):
    before = os.umask(0o022)
    try:
        dataset, facts = check_folder(nnunet(tmp_path / "data"), group=None)
        found = prepare(
            dataset, facts, spacing="median", normalisation="auto", cache_dir=tmp_path / "cache", shared=shared
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(found.folder).stat().st_mode) == mode


def test_an_image_of_zeros_is_refused(tmp_path):
    root = nnunet(tmp_path / "data")
    save(root / "imagesTr/b_0000.nii.gz", np.zeros(SHAPE, dtype=np.int16))
    with pytest.raises(DataError, match=r"b_0000.nii.gz: contains only zeros"):
        check_folder(root, group=None)


def test_a_missing_modality_is_a_note(tmp_path):
    root = nnunet(tmp_path / "data", channel_names=["T1", "T2"])
    for seed, name in enumerate(("a", "b")):
        save(root / f"imagesTr/{name}_0001.nii.gz", pair(seed)[0] * (name == "a"))
    notes = check_folder(root, group=None)[1].notes
    assert len(notes) == 1 and notes[0].endswith("b_0001.nii.gz: contains only zeros")
