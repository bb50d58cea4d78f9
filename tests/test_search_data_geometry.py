"""Reading volumes, resampling to the network's grid and back, writing masks."""

import ast
import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from other_user import as_nobody
from torch.nn.functional import interpolate

from search.data import geometry, volume_files
from search.data.geometry import (
    Grid,
    Preprocessing,
    choose_axes,
    from_grid,
    grid_of,
    label_to_grid,
    mask_from_logits,
    normalise,
    source_planes,
    strips,
    to_grid,
    turn,
)
from search.data.volume_files import Volume, grid_difference, read_volume, write_mask

ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]
SPACING_RAS = (1.5, 2.0, 5.0)


def plan(spacing=(5.0, 2.0, 1.5), axes=(2, 1, 0), normalisation=(("zscore",),)):
    return Preprocessing(spacing=spacing, axes=axes, normalisation=normalisation)


def octants(shape=(6, 10, 8)):
    """Labels 0 to 7 on a RAS grid, one per octant, with boundaries off the middle."""
    x, y, z = np.meshgrid(*[np.arange(size) for size in shape], indexing="ij")
    cut = [size // 2 - 1 for size in shape]
    return ((x > cut[0]) * 1 + (y > cut[1]) * 2 + (z > cut[2]) * 4).astype(np.uint8)


def stored(array, order, flips, spacing=SPACING_RAS):
    """Return a RAS array as a scanner with other axes stores it, with its affine."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    affine[:3, 3] = (-7.0, 11.0, 3.0)
    for axis, (ras, flip) in enumerate(zip(order, flips, strict=True)):
        affine[ras, axis] = -spacing[ras] if flip else spacing[ras]
        if flip:
            affine[ras, 3] += spacing[ras] * (array.shape[ras] - 1)
    kept = array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return kept, affine


def volume_of(array, affine, header=None):
    header = header or nibabel.Nifti1Image(array.astype(np.float32), affine).header
    return Volume(np.asarray(array, dtype=np.float32)[None], affine, header, "made")


def one_hot(label, classes):
    return np.stack([label == value for value in range(classes)]).astype(np.float32)


def save(path, array, affine=None, *, kind=nibabel.Nifti1Image):
    nibabel.save(kind(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_orientation_reaches_the_same_grid_and_comes_back_exactly(order, flips):
    label = octants()
    kept, affine = stored(label, order, flips)
    array, grid = to_grid(volume_of(kept, affine), plan())
    assert np.array_equal(array[0], normalise(label.astype(np.float32), ("zscore",)).transpose(2, 1, 0))
    assert np.array_equal(label_to_grid(kept, grid), label.transpose(2, 1, 0))
    assert not grid.resampled
    back = mask_from_logits(one_hot(label.transpose(2, 1, 0), 8), grid)
    assert back.dtype == np.uint8
    assert np.array_equal(back, kept)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_orientation_survives_resampling(order, flips):
    label = octants()
    kept, affine = stored(label, order, flips)
    finer = plan(spacing=(2.5, 1.0, 1.0))
    array, grid = to_grid(volume_of(kept, affine), finer)
    straight, _ = to_grid(volume_of(*stored(label, (0, 1, 2), (False,) * 3)), finer)
    assert array.shape == (1, 16, 20, 9)
    np.testing.assert_allclose(array, straight, atol=1e-5)
    assert np.array_equal(mask_from_logits(one_hot(label_to_grid(kept, grid), 8), grid), kept)


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [
        ((1.0, 1.0, 1.0), (2, 1, 0)),
        ((1.0, 1.0, 5.0), (2, 1, 0)),
        ((1.0, 5.0, 1.0), (1, 2, 0)),
        ((5.0, 1.0, 1.0), (0, 2, 1)),
        ((5.0, 5.0, 1.0), (1, 2, 0)),
        ((1.0000001, 1.0, 1.0), (2, 1, 0)),
    ],
)
def test_the_through_plane_axis_is_the_coarsest_and_z_on_a_tie(spacing, axes):
    assert choose_axes(spacing) == axes


def test_sagittal_slices_put_x_first():
    kept, affine = stored(octants(), (0, 1, 2), (False,) * 3, spacing=(6.0, 1.0, 1.0))
    array, _ = to_grid(volume_of(kept, affine), plan(spacing=(6.0, 1.0, 1.0), axes=(0, 2, 1)))
    assert array.shape == (1, 6, 8, 10)


def test_resampling_is_linear_with_aligned_edges():
    values = np.random.default_rng(0).normal(size=(5, 7, 4)).astype(np.float32)
    wanted = values.astype(np.float64)
    for axis, (size, new) in enumerate(zip(values.shape, (9, 5, 4), strict=True)):
        at = (np.arange(new) + 0.5) * size / new - 0.5
        wanted = np.apply_along_axis(lambda line, at=at, n=size: np.interp(at, range(n), line), axis, wanted)
    grid = Grid((4, 5, 9), (2, 1, 0), (False,) * 3, (1.0,) * 3, (5, 7, 4))
    resampled = from_grid(values[None], grid)[0].transpose(2, 1, 0)
    np.testing.assert_allclose(resampled, wanted, atol=1e-5)


@pytest.mark.parametrize("target", [(4.0, 1.1, 3.7), (9.0, 2.0, 1.5), (1.0, 1.0, 1.0)])
def test_a_blob_stays_where_it_is_in_millimetres(target):
    shape = (24, 20, 12)
    places = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), -1) * SPACING_RAS
    centre = np.array([20.0, 17.0, 26.0])
    blob = np.exp(-(((places - centre) / 9.0) ** 2).sum(-1))
    plain = plan(spacing=target, normalisation=(("ct", -9.0, 9.0, 0.0, 1.0),))
    array, grid = to_grid(volume_of(blob, np.diag([*SPACING_RAS, 1.0])), plain)
    # Exact voxel size of the network grid, whose extent is the source's
    sizes = np.array([size * mm / new for size, mm, new in zip(shape[::-1], grid.spacing, grid.shape, strict=True)])
    index = np.stack(np.meshgrid(*[np.arange(size) for size in grid.shape], indexing="ij"), -1)
    found = (index + 0.5) * sizes - np.array(SPACING_RAS[::-1]) / 2
    mean = (found * array[0][..., None]).reshape(-1, 3).sum(0) / array.sum()
    np.testing.assert_allclose(mean[::-1], centre, atol=0.3)


@pytest.mark.parametrize("degrees", [10, 30, 44, 46, 80])
def test_an_oblique_volume_gets_its_mask_on_its_own_grid(degrees, tmp_path):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ turn @ np.diag([-1.5, 2.0, 5.0])
    affine[:3, 3] = (30.5, -12.25, 7.0)
    label = octants()
    volume = read_volume(save(tmp_path / "image.nii.gz", label.astype(np.int16), affine))
    array, grid = to_grid(volume, plan(spacing=(4.0, 1.7, 1.7)))
    assert array.shape[0] == 1
    assert sorted(grid.order) == [0, 1, 2]
    mask = mask_from_logits(one_hot(label_to_grid(label, grid), 8), grid)
    assert mask.shape == label.shape
    assert (mask == label).mean() > 0.8
    write_mask(tmp_path / "mask.nii.gz", mask, volume)
    written = nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(written.affine, nibabel.load(tmp_path / "image.nii.gz").affine)
    assert np.array_equal(np.asarray(written.dataobj), mask)


@pytest.mark.parametrize("shape", [(1, 5, 7), (5, 1, 7), (5, 7, 1), (1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("target", [(5.0, 2.0, 1.5), (8.0, 0.7, 0.9), (100.0, 100.0, 100.0)])
def test_thin_volumes_survive_the_round_trip(shape, target):
    array = np.random.default_rng(1).normal(size=shape)
    volume = volume_of(array, np.diag([*SPACING_RAS, 1.0]))
    result, grid = to_grid(volume, plan(spacing=target))
    assert np.isfinite(result).all()
    assert min(result.shape) >= 1
    logits = np.random.default_rng(2).normal(size=(3, *grid.shape)).astype(np.float32)
    assert mask_from_logits(logits, grid).shape == shape
    assert from_grid(logits, grid).shape == (3, *shape)


def test_a_matching_spacing_moves_voxels_without_changing_values():
    array = np.random.default_rng(3).normal(size=(5, 6, 7)).astype(np.float32)
    kept, affine = stored(array, (1, 2, 0), (True, False, True))
    result, _ = to_grid(volume_of(kept, affine), plan(normalisation=(("ct", -9.0, 9.0, 0.0, 1.0),)))
    assert np.array_equal(result[0], array.transpose(2, 1, 0))
    assert result.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masks_agree_with_the_argmax_of_resampled_logits(dtype):
    grid = grid_of((9, 8, 5), np.diag([-1.0, 1.0, 4.0, 1.0]), plan(spacing=(3.0, 0.8, 1.3)))
    logits = np.random.default_rng(0).normal(size=(5, *grid.shape)).astype(dtype)
    before = logits.copy()
    mask = mask_from_logits(logits, grid)
    assert np.array_equal(mask, from_grid(logits, grid).argmax(0))
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("shape", [(9, 8, 5), (1, 7, 11), (20, 3, 2)])
def test_resampling_equals_torchs_linear_interpolation(shape):
    grid = grid_of(shape, np.diag([1.0, 1.0, 4.0, 1.0]), plan(spacing=(3.0, 0.8, 1.3)))
    values = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32)
    size = grid.turned_shape
    expected = interpolate(torch.from_numpy(values)[None], size=size, mode="trilinear", align_corners=False)[0]
    found = np.stack([turn(part, grid) for part in from_grid(values, grid)])
    assert np.allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_strips_of_planes_equal_whole_planes(count):
    grid = grid_of((9, 21, 5), np.diag([-1.0, 1.0, 4.0, 1.0]), plan(spacing=(3.0, 0.8, 1.3)))
    logits = np.random.default_rng(0).normal(size=(3, *grid.shape)).astype(np.float32)
    whole = np.stack([plane for _, plane in source_planes([(0, logits)], grid)], axis=1)
    cut = strips(grid, count)
    assert len(cut) == min(count, grid.turned_shape[1])
    for strip in cut:
        slabs = ((first, logits[:, first : first + 2, strip.needed]) for first in range(0, grid.shape[0], 2))
        found = np.stack([plane for _, plane in source_planes(slabs, grid, strip)], axis=1)
        assert np.array_equal(found, whole[:, :, strip.rows])


def test_logits_without_a_mask_are_refused():
    grid = grid_of((4, 5, 6), np.eye(4), plan(spacing=(1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match=r"shape \(2, 6, 5, 5\), expected at least 2 classes on \(6, 5, 4\)"):
        mask_from_logits(np.zeros((2, 6, 5, 5)), grid)
    with pytest.raises(ValueError, match="expected at least 2 classes"):
        mask_from_logits(np.zeros((1, 6, 5, 4)), grid)
    with pytest.raises(ValueError, match="the class values contain NaN"):
        mask_from_logits(np.full((2, 6, 5, 4), np.nan), grid)
    with pytest.raises(ValueError, match=r"values of size \(6, 5\) do not fit a grid of size \(6, 5, 4\)"):
        from_grid(np.zeros((6, 6, 5)), grid)


def test_a_resampled_voxel_takes_the_label_with_the_larger_share():
    label = np.array([0, 0, 3, 3, 3, 3, 7, 7, 7], dtype=np.uint8)[:, None, None]
    grid = Grid((9, 1, 1), (2, 1, 0), (False,) * 3, (1.0,) * 3, (1, 1, 3))
    assert label_to_grid(label, grid).ravel().tolist() == [0, 3, 7]


def test_zscore_uses_all_voxels_and_zscore_nonzero_only_nonzero_ones():
    channel = np.zeros((10, 10, 10), dtype=np.float32)
    channel[3:6, 3:6, 3:6] = np.random.default_rng(4).normal(100.0, 5.0, (3, 3, 3))
    whole, inside = normalise(channel, ("zscore",)), normalise(channel, ("zscore_nonzero",))
    assert abs(whole.mean()) < 1e-5
    assert abs(whole.std() - 1) < 1e-5
    assert abs(inside[channel > 0].mean()) < 1e-5
    assert abs(inside[channel > 0].std() - 1) < 1e-5
    assert inside[0, 0, 0] < -5


@pytest.mark.parametrize("rule", [("zscore",), ("zscore_nonzero",)])
@pytest.mark.parametrize("value", [0.0, 1e-30, 7.0, -3e6])
def test_a_constant_volume_becomes_zero(rule, value):
    result = normalise(np.full((3, 4, 5), value, dtype=np.float32), rule)
    assert result.dtype == np.float32
    assert abs(result).max() < 1e-5


def test_huge_intensities_keep_their_precision():
    channel = (1.7e6 + np.arange(60).reshape(3, 4, 5)).astype(np.float32)
    result = normalise(channel, ("zscore",))
    assert abs(result.mean()) < 1e-5
    assert abs(result.std() - 1) < 1e-5


def test_ct_is_clipped_then_scaled_by_given_values():
    result = normalise(np.array([[[-2000.0, 0.0, 3000.0]]], dtype=np.float32), ("ct", -100.0, 300.0, 50.0, 25.0))
    assert result.ravel().tolist() == [-6.0, -2.0, 10.0]


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(
        ValueError, match="unknown normalisation 'minmax', expected one of zscore, zscore_nonzero, ct, none"
    ):
        normalise(np.zeros((1, 1, 1), dtype=np.float32), ("minmax",))


def test_preprocessing_and_grid_pass_through_json():
    settings = plan(normalisation=(("zscore",), ("ct", -100.0, 300.0, 50.5, 25.0)))
    assert Preprocessing.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    grid = grid_of((4, 5, 6), np.diag([-1.0, 2.0, 3.0, 1.0]), settings)
    assert Grid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.uint16, ">i2"])
def test_volumes_of_every_type_are_read(name, dtype, tmp_path):
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    volume = read_volume(save(tmp_path / name, array))
    assert volume.data.dtype == np.float32
    assert volume.data.flags.c_contiguous
    assert np.array_equal(volume.data[0], array.astype(np.float32))


def test_slope_and_intercept_are_applied(tmp_path):
    raw = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(raw, np.eye(4))
    image.header.set_slope_inter(0.5, -10)  # nibabel then writes the raw values and these two
    nibabel.save(image, tmp_path / "scaled.nii")
    assert np.array_equal(read_volume(tmp_path / "scaled.nii").data[0], raw * np.float32(0.5) - 10)


def test_channels_come_from_one_file_or_several(tmp_path):
    array = np.random.default_rng(5).normal(size=(3, 4, 5, 2)).astype(np.float32)
    whole = read_volume(save(tmp_path / "whole.nii.gz", array))
    parts = [save(tmp_path / f"part_{index}.nii.gz", array[..., index]) for index in range(2)]
    assert whole.data.shape == (2, 3, 4, 5)
    assert np.array_equal(read_volume(parts).data, whole.data)


def test_files_that_are_not_volumes_are_refused(tmp_path):
    array = np.ones((3, 4, 5), dtype=np.float32)
    nan = array.copy()
    nan[0, 0, :2] = np.nan, np.inf
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    cases = {
        "flat.nii": (array[:, :, 0], np.eye(4), r"flat.nii: has shape \(3, 4\), but a volume must have 3 axes"),
        "five.nii": (np.ones((3, 4, 5, 2, 1)), np.eye(4), r"five.nii: has shape \(3, 4, 5, 2, 1\)"),
        "nan.nii": (nan, np.eye(4), r"nan.nii: contains NaN or infinite values \(2 of 60 voxels\)"),
        "big.nii": (np.full((2, 2, 2), 1e300), np.eye(4), r"infinite values \(8 of 8 voxels\)"),
        "none.nii": (np.ones((0, 4, 5)), np.eye(4), r"none.nii: is empty, its shape is \(0, 4, 5\)"),
        "wave.nii": (array.astype(np.complex64), np.eye(4), "wave.nii: contains values of type complex64"),
        "flat_affine.nii": (
            array,
            flat,
            "flat_affine.nii: has voxels of 1, 1, 0 mm, but a size must be between 1e-06 and",
        ),
    }
    for name, (values, affine, message) in cases.items():
        image = nibabel.Nifti1Image(values, np.eye(4))
        image.set_sform(affine, code=1)
        nibabel.save(image, tmp_path / name)
        with pytest.raises(ValueError, match=message):
            read_volume(tmp_path / name)
    with pytest.raises(ValueError, match="absent.nii: no such file"):
        read_volume(tmp_path / "absent.nii")
    with pytest.raises(ValueError, match="no files given"):
        read_volume([])


def test_damaged_files_are_reported(tmp_path):
    whole = save(tmp_path / "whole.nii.gz", np.random.default_rng(6).normal(size=(9, 9, 9))).read_bytes()
    damaged = {
        "cut.nii.gz": whole[: len(whole) // 2],
        "text.nii.gz": b"no gzip at all",
        "empty.nii.gz": b"",
        "short.nii": gzip.decompress(whole)[:1000],
        "junk.nii": bytes(range(256)) * 20,
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            read_volume(tmp_path / name)
    nibabel.save(nibabel.MGHImage(np.ones((3, 3, 3), dtype=np.float32), np.eye(4)), tmp_path / "brain.mgz")
    with pytest.raises(ValueError, match="brain.mgz: is not a NIfTI file but MGHImage"):
        read_volume(tmp_path / "brain.mgz")


def headed(path, affine, **fields):
    """Write a volume without a qform and with these header fields, which nibabel itself would correct."""
    image = nibabel.Nifti1Image(np.ones((3, 4, 5), dtype=np.int16), affine)
    for name, value in fields.items():
        image.header[name] = value
    with path.open("wb") as file:
        image.header["vox_offset"] = 352
        file.write(image.header.binaryblock + bytes(4) + np.ones(60, dtype=np.int16).tobytes())
    return path


def test_a_voxel_size_of_zero_is_refused_only_where_the_affine_depends_on_it(tmp_path, capfd):
    zero = [1, 0, 2, 3, 0, 0, 0, 0]
    for name, qform in (("none", 0), ("qform", 1)):
        file = headed(tmp_path / f"{name}.nii", np.eye(4), pixdim=zero, sform_code=0, qform_code=qform)
        with pytest.raises(ValueError, match=rf"{name}.nii: states no voxel sizes: pixdim is \[0.0, 2.0, 3.0\], and"):
            read_volume(file)
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    file = headed(tmp_path / "sform.nii", affine, pixdim=zero, sform_code=1, qform_code=0)
    assert np.array_equal(read_volume(file).affine, affine)
    assert capfd.readouterr().err == ""  # nibabel's remark doesn't name the file


def test_a_mask_takes_no_infinite_voxel_size_from_its_volume(tmp_path):
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    file = headed(tmp_path / "a.nii", affine, pixdim=[1, np.inf, 2, 3, 0, 0, 0, 0], sform_code=1, qform_code=0)
    write_mask(tmp_path / "mask.nii", np.ones((3, 4, 5), dtype=np.uint8), read_volume(file))
    assert nibabel.load(tmp_path / "mask.nii").header["pixdim"][1:4].tolist() == [1.5, 2.0, 3.0]


def test_a_position_outside_the_world_is_refused(tmp_path):
    affine = np.eye(4)
    affine[0, 3] = 1e30
    with pytest.raises(ValueError, match=r"a.nii: begins at \[1.*e\+30, 0.0, 0.0\] mm, which is no position"):
        read_volume(save(tmp_path / "a.nii", np.ones((3, 4, 5)), affine))


def test_the_suffix_of_a_compressed_file_may_be_written_in_capitals(tmp_path):
    save(tmp_path / "a.nii.gz", np.zeros((90, 90, 90), dtype=np.int16)).rename(tmp_path / "A.NII.GZ")
    assert read_volume(tmp_path / "A.NII.GZ").data.shape == (1, 90, 90, 90)


def test_a_file_without_permission_is_not_called_missing(tmp_path):
    file = save(tmp_path / "a.nii", np.ones((3, 4, 5)))
    file.chmod(0)
    with as_nobody(tmp_path), pytest.raises(ValueError, match=r"a.nii: cannot be read \(Permission denied\)"):
        read_volume(file)


def test_channel_files_on_different_grids_are_refused(tmp_path):
    first = save(tmp_path / "first.nii", np.ones((3, 4, 5)))
    smaller = save(tmp_path / "smaller.nii", np.ones((3, 4, 4)))
    moved = save(tmp_path / "moved.nii", np.ones((3, 4, 5)), np.diag([1.0, 1.0, 1.5, 1.0]))
    double = save(tmp_path / "double.nii", np.ones((3, 4, 5, 2)))
    with pytest.raises(ValueError, match=r"smaller.nii: has shape \(3, 4, 4\) instead of \(3, 4, 5\), unlike first"):
        read_volume([first, smaller])
    with pytest.raises(ValueError, match="moved.nii: has a different affine: corners are up to 2 mm apart"):
        read_volume([first, moved])
    with pytest.raises(ValueError, match="double.nii: contains 2 channels, but must contain one"):
        read_volume([first, double])


def test_a_tenth_of_a_voxel_is_the_tolerance_of_affines():
    shifted = np.eye(4)
    shifted[0, 3] = 0.09
    assert grid_difference((9, 9, 9), np.eye(4), (9, 9, 9), shifted) == ""
    shifted[0, 3] = 0.11
    assert "0.11 mm apart (allowed: 0.1 mm)" in grid_difference((9, 9, 9), np.eye(4), (9, 9, 9), shifted)


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="made: has 1 channels, but the network takes 2"):
        to_grid(volume_of(np.ones((3, 3, 3)), np.eye(4)), plan(normalisation=(("zscore",),) * 2))


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 3), (0, 0)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_mask_has_exactly_its_volumes_grid(codes, kind, tmp_path):
    affine = np.diag([-1.5, 2.0, 5.0, 1.0])
    affine[:3, 3] = (1.1, -2.2, 3.3)
    image = kind(np.ones((3, 4, 5), dtype=np.int16), affine)
    image.header.set_slope_inter(2.0, 1.0)
    image.header["descrip"] = b"a name that is nobody's business"
    image.header["cal_max"] = 900
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    nibabel.save(image, tmp_path / "image.nii.gz")
    volume = read_volume(tmp_path / "image.nii.gz")
    mask = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    write_mask(tmp_path / "mask.nii.gz", mask, volume)
    before, after = nibabel.load(tmp_path / "image.nii.gz"), nibabel.load(tmp_path / "mask.nii.gz")
    assert type(after) is kind
    assert np.array_equal(after.affine, before.affine)
    assert (int(after.header["qform_code"]), int(after.header["sform_code"])) == codes
    assert after.header.get_zooms() == before.header.get_zooms()
    assert after.header.get_xyzt_units() == before.header.get_xyzt_units()
    assert after.get_data_dtype() == np.uint8
    assert (after.dataobj.slope, after.dataobj.inter) == (1.0, 0.0)
    assert np.array_equal(np.asarray(after.dataobj), mask)
    assert after.header["cal_max"] == 0
    assert b"nobody" not in after.header["descrip"].tobytes()


def test_a_mask_of_a_4d_volume_has_three_axes(tmp_path):
    volume = read_volume(save(tmp_path / "image.nii", np.ones((3, 4, 5, 2))))
    write_mask(tmp_path / "mask.nii", np.ones((3, 4, 5), dtype=np.uint8), volume)
    assert nibabel.load(tmp_path / "mask.nii").shape == (3, 4, 5)


def test_equal_masks_give_equal_bytes_under_any_name(tmp_path):
    volume = read_volume(save(tmp_path / "image.nii", np.ones((3, 4, 5))))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(tmp_path / name, np.ones((3, 4, 5), dtype=np.uint8), volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_failed_write_keeps_the_earlier_mask(tmp_path, monkeypatch):
    volume = read_volume(save(tmp_path / "image.nii", np.ones((3, 4, 5))))
    mask = np.ones((3, 4, 5), dtype=np.uint8)
    write_mask(tmp_path / "mask.nii.gz", mask, volume)
    before = (tmp_path / "mask.nii.gz").read_bytes()

    def full(image, path):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(volume_files.nibabel, "save", full)
    with pytest.raises(OSError, match="no space left"):
        write_mask(tmp_path / "mask.nii.gz", mask * 2, volume)
    assert (tmp_path / "mask.nii.gz").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.nii", "mask.nii.gz"]


def test_masks_of_another_shape_or_format_are_refused(tmp_path):
    volume = read_volume(save(tmp_path / "image.nii", np.ones((3, 4, 5))))
    with pytest.raises(ValueError, match=r"mask.png: the file name must end in .nii.gz or .nii"):
        write_mask(tmp_path / "mask.png", np.ones((3, 4, 5), dtype=np.uint8), volume)
    with pytest.raises(ValueError, match=r"the mask has shape \(5, 4, 3\), but its volume has \(3, 4, 5\)"):
        write_mask(tmp_path / "mask.nii", np.ones((5, 4, 3), dtype=np.uint8), volume)


def test_geometry_imports_only_packages_of_a_deployed_model():
    tree = ast.parse(Path(geometry.__file__).read_text() + Path(volume_files.__file__).read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(
                str(node.module) if node.module == "search.data.volume_files" else str(node.module).split(".")[0]
            )
    allowed = {"numpy", "nibabel", "search.data.volume_files"}
    assert imported - set(sys.stdlib_module_names) - {"SimpleITK"} == allowed


def test_a_copy_of_geometry_works_alone(tmp_path):
    for module in (geometry, volume_files):
        file = Path(module.__file__)
        (tmp_path / file.name).write_text(file.read_text().replace("from search.data.", "from "))
    save(tmp_path / "image.nii.gz", octants().astype(np.int16), np.diag([-1.5, 2.0, 5.0, 1.0]))
    program = (
        "import sys; sys.modules['search'] = None\n"
        "from geometry import *\nfrom volume_files import *\n"
        "volume = read_volume('image.nii.gz')\n"
        "array, grid = to_grid(volume, Preprocessing((4.0, 1.0, 1.0), (2, 1, 0), (('zscore',),)))\n"
        "write_mask('mask.nii.gz', mask_from_logits(np.concatenate([array, -array]), grid), volume)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert nibabel.load(tmp_path / "mask.nii.gz").shape == (6, 10, 8)


@pytest.mark.parametrize("room", ["check", "read", "folds", "prepare", "phantom"])
def test_the_rooms_of_data_load_without_torch(room):
    program = f"import search.data.{room}, sys; print([n for n in ('torch', 'monai') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
