"""Convert volumes on disk to the network grid and back: reading, axes, spacing, intensities, writing.

Training and deployment share this implementation: an exported model includes a copy of this file next to its
`predict.py`. Therefore it imports numpy and nibabel, but nothing from voxnas.

There are two grids. The **source** grid is that of the file: `(X, Y, Z)` in any orientation. The **network** grid is
`(D, H, W)`: RAS directions, through-plane axis first, target spacing. Resampling is linear on every axis with
voxel edges aligned (`align_corners=False`): the field of view is kept, its size is rounded to whole voxels. As in
nnU-Net, there is no smoothing before downsampling: with the median spacing as target the factors are small, but a
target several times coarser than the data would cause aliasing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

_T = TypeVar("_T")
Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]
Normalisation = tuple[str | float, ...]

AFFINE_TOLERANCE = 0.1  # as a fraction of the smallest voxel size, at every corner of the volume
# Header fields that define voxel positions; a mask takes no others (text, intent, display range) from its volume
POSITION_FIELDS = (
    "qform_code sform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z srow_x srow_y srow_z xyzt_units"
)


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing settings as plain values, shared by all volumes of a data set.

    `spacing` is the target in mm for (D, H, W). `axes` are the RAS axes (0, 1, 2) that become D, H, W.
    `normalisation` has one entry per channel: `("zscore",)` over the whole volume, `("zscore_nonzero",)` with the mean
    and standard deviation of the non-zero voxels (for volumes with a wide margin of zeros; the same linear map applies
    to all voxels), or `("ct", low, high, mean, deviation)`: clip, then z-score with the data set's values.
    """

    spacing: Spacing
    axes: Triple
    normalisation: tuple[Normalisation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """Read back what `to_json` gave."""
        rules = tuple(tuple(rule) for rule in values["normalisation"])
        return cls(spacing=_triple(values["spacing"]), axes=_triple(values["axes"]), normalisation=rules)


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as stored on disk: float32 (C, X, Y, Z), affine from voxel to RAS mm, NIfTI header, file name."""

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    header: Any
    name: str


@dataclass(frozen=True)
class Grid:
    """The mapping between the source grid and the network grid of one volume, as plain values.

    `order` lists the source axes that become D, H, W; `flips` marks those of D, H, W to reverse. `spacing` is that of
    the source in mm, and `shape` is the size on the network grid, both in (D, H, W).
    """

    source_shape: Triple
    order: Triple
    flips: tuple[bool, bool, bool]
    spacing: Spacing
    shape: Triple

    @property
    def turned_shape(self) -> Triple:
        """Size in (D, H, W) before resampling."""
        return _triple(self.source_shape[axis] for axis in self.order)

    @property
    def source_spacing(self) -> Spacing:
        """Spacing in mm in the order of the source axes."""
        return tuple(self.spacing[self.order.index(axis)] for axis in range(3))  # type: ignore[return-value]

    @property
    def resampled(self) -> bool:
        """Whether the two grids differ by more than the order and direction of their axes."""
        return self.turned_shape != self.shape

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Grid:
        """Read back what `to_json` gave."""
        return cls(**{name: _triple(entries) for name, entries in values.items()})


def choose_axes(spacing: Sequence[float]) -> Triple:
    """Return the RAS axes that become D, H, W: the coarsest axis (z on a tie), then the others in reverse order."""
    through = max(axis for axis in range(3) if spacing[axis] >= max(spacing) * (1 - 1e-3))
    return _triple([through, *(axis for axis in (2, 1, 0) if axis != through)])


def read_volume(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Volume:
    """Read one 3D or 4D NIfTI file (last axis = channels), or several 3D files, one per channel.

    Raises ValueError, naming the file, if a file is missing, unreadable, empty, not 3D or 4D, not finite, without a
    usable affine, or not on the grid of the first file.
    """
    files = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    parts: list[NDArray[np.float32]] = []
    images: list[Any] = []
    for file in files:
        image, values = load_nifti(file)
        if values.ndim not in (3, 4):
            raise ValueError(f"{file}: has shape {values.shape}, but a volume must have 3 axes (4 with channels)")
        data = np.moveaxis(values[..., None] if values.ndim == 3 else values, 3, 0)
        if len(files) > 1 and len(data) != 1:
            raise ValueError(
                f"{file}: contains {len(data)} channels, but must contain one, as each channel has its own file"
            )
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(data, dtype=np.float32)
        if broken := int(np.count_nonzero(~np.isfinite(data))):
            raise ValueError(f"{file}: contains NaN or infinite values ({broken} of {data.size} voxels)")
        parts.append(data)
        images.append(image)
        if difference := grid_difference(parts[0].shape[1:], images[0].affine, data.shape[1:], image.affine):
            raise ValueError(f"{file}: {difference}, unlike {files[0].name}")
    if not files:
        raise ValueError("no files given")
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Volume(whole, np.asarray(images[0].affine, dtype=np.float64), images[0].header, str(files[0]))


def load_nifti(file: Path) -> tuple[Any, NDArray[Any]]:
    """Return a NIfTI image and its scaled values; raises ValueError with the file and the problem."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        image: Any = nibabel.load(file)
        values = np.asarray(image.dataobj)
    except Exception as error:  # nibabel, gzip and zlib have no common error class for damaged files
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: cannot be read ({type(error).__name__}: {reason})") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError(f"{file}: is not a NIfTI file but {type(image).__name__}")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{file}: contains values of type {values.dtype}, which are neither intensities nor labels")
    if values.size == 0:
        raise ValueError(f"{file}: is empty, its shape is {values.shape}")
    affine = np.asarray(image.affine)
    if not abs(np.linalg.det(affine)) > 1e-6 * voxel_sizes(affine).prod():  # true for NaN as well
        raise ValueError(f"{file}: has a degenerate affine: {affine.tolist()}")
    return image, values


def grid_difference(
    shape: Sequence[int], affine: NDArray[Any], other_shape: Sequence[int], other_affine: NDArray[Any]
) -> str:
    """Describe how another grid differs from the first ("has shape ..."), or return an empty string.

    Affines are equal if no corner moves by more than `AFFINE_TOLERANCE` times the smallest voxel size.
    """
    if tuple(shape) != tuple(other_shape):
        return f"has shape {tuple(other_shape)} instead of {tuple(shape)}"
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], [1], indexing="ij"), -1).reshape(-1, 4)
    moved_mm = float(np.linalg.norm(corners @ (other_affine - affine).T, axis=1).max())
    allowed_mm = AFFINE_TOLERANCE * float(voxel_sizes(affine).min())
    if moved_mm > allowed_mm:
        return f"has a different affine: corners are up to {moved_mm:.3g} mm apart (allowed: {allowed_mm:.3g} mm)"
    return ""


def grid_of(shape: Sequence[int], affine: NDArray[Any], preprocessing: Preprocessing) -> Grid:
    """Return the mapping to the network grid for a volume of source shape (X, Y, Z) with this affine."""
    source_shape = _triple(int(size) for size in shape)
    orientation = io_orientation(affine)
    order = _triple(int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in preprocessing.axes)
    spacing = _triple(float(voxel_sizes(affine)[axis]) for axis in order)
    ratios = [have_mm / want_mm for have_mm, want_mm in zip(spacing, preprocessing.spacing, strict=True)]
    return Grid(
        source_shape=source_shape,
        order=order,
        flips=_triple(bool(orientation[axis, 1] < 0) for axis in order),
        spacing=spacing,
        shape=_triple(max(1, round(source_shape[axis] * ratio)) for axis, ratio in zip(order, ratios, strict=True)),
    )


def to_grid(volume: Volume, preprocessing: Preprocessing) -> tuple[NDArray[np.float32], Grid]:
    """Return the volume on the network grid, float32 (C, D, H, W), and the mapping between the grids.

    Intensities are normalised before resampling, because the statistics must be those of measured voxels. If the
    volume already has the target spacing, voxels are reordered without interpolation.
    """
    channels, rules = len(volume.data), preprocessing.normalisation
    if channels != len(rules):
        raise ValueError(f"{volume.name}: has {channels} channels, but the network takes {len(rules)}")
    grid = grid_of(volume.data.shape[1:], volume.affine, preprocessing)
    result = np.empty((channels, *grid.shape), dtype=np.float32)
    for index, rule in enumerate(rules):
        result[index] = _resize(turn(normalise(volume.data[index], rule), grid), grid.shape)
    return result, grid


def normalise(channel: NDArray[np.float32], rule: Normalisation) -> NDArray[np.float32]:
    """Normalise a channel by an entry of `Preprocessing.normalisation`; a constant channel becomes 0."""
    if rule[0] == "ct":
        low, high, mean, deviation = (float(value) for value in rule[1:])
        channel = np.clip(channel, low, high)
    elif rule[0] in ("zscore", "zscore_nonzero"):
        counted = channel[channel != 0] if rule[0] == "zscore_nonzero" and channel.any() else channel
        mean, deviation = float(counted.mean(dtype=np.float64)), float(counted.std(dtype=np.float64))
    else:
        raise ValueError(f"unknown normalisation {rule[0]!r}, expected 'zscore', 'zscore_nonzero' or 'ct'")
    if deviation <= 1e-6 * abs(mean):  # rounding error of a constant channel
        deviation = max(abs(mean), 1.0)
    return ((channel - np.float64(mean)) / deviation).astype(np.float32)


def turn(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Return a view of (X, Y, Z) with axes ordered and directed as (D, H, W)."""
    return array.transpose(grid.order)[_directions(grid)]


def turn_back(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Undo `turn`: (D, H, W) to (X, Y, Z), contiguous."""
    return np.ascontiguousarray(array[_directions(grid)].transpose(np.argsort(grid.order)))


def label_to_grid(label: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Return class indices (X, Y, Z) on the network grid (D, H, W): uint8, or uint16 where they don't fit.

    Each class is resampled linearly as a binary mask; the class with the largest value wins (the lower class on a
    tie). Classes are processed one at a time, because memory must not grow with their number.
    """
    turned = turn(label, grid)
    kind = np.uint16 if int(turned.max()) > 255 else np.uint8
    if not grid.resampled:
        return np.ascontiguousarray(turned, dtype=kind)
    present = np.unique(turned)
    shares = (_resize((turned == value).astype(np.float32), grid.shape) for value in present)
    return present.astype(kind)[_first_largest(shares)]


def from_grid(values: NDArray[Any], grid: Grid) -> NDArray[np.float32]:
    """Return logits or probabilities (K, D, H, W) resampled linearly to the source grid, (K, X, Y, Z)."""
    if tuple(values.shape[1:]) != grid.shape:
        raise ValueError(f"values of size {tuple(values.shape[1:])} do not fit a grid of size {grid.shape}")
    planes = np.stack([plane for _, plane in source_planes([(0, values)], grid)], axis=1)
    return np.stack([turn_back(part, grid) for part in planes])


def mask_from_logits(logits: NDArray[Any], grid: Grid, *, order: Sequence[int] = ()) -> NDArray[Any]:
    """Return class indices on the source grid: logits (K, D, H, W) to (X, Y, Z), see `labels_of`."""
    least = 1 if len(order) else 2
    if tuple(logits.shape[1:]) != grid.shape or len(logits) < least:
        raise ValueError(f"logits of shape {tuple(logits.shape)}, expected at least {least} classes on {grid.shape}")
    mask = np.empty(grid.turned_shape, dtype=index_type(len(logits), order))
    for number, plane in source_planes([(0, logits)], grid):
        mask[number] = labels_of(plane, order)
    return turn_back(mask, grid)


def index_type(classes: int, order: Sequence[int] = ()) -> type[np.unsignedinteger[Any]]:
    """Return what class indices fit into."""
    return np.uint16 if max(classes - 1, *order, 0) > 255 else np.uint8


def labels_of(plane: NDArray[np.float32], order: Sequence[int] = ()) -> NDArray[Any]:
    """Return class indices at each place, (K, ...) to (...): that of the largest logit, the first one on a tie.

    With `order` the logits are those of regions, each of which writes its index where it is above 0, one after
    the other.
    """
    if np.isnan(plane).any():
        raise ValueError("the class values contain NaN: no class can be chosen")
    kind = index_type(len(plane), order)
    if not len(order):
        largest: NDArray[Any] = plane.argmax(axis=0).astype(kind)
        return largest
    labels = np.zeros(plane.shape[1:], dtype=kind)
    for logits, index in zip(plane, order, strict=True):
        labels[logits > 0] = index
    return labels


@dataclass(frozen=True)
class Strip:
    """A strip of the source grid's planes: its rows along H, and the rows of the network grid that they depend on."""

    rows: slice
    needed: slice


def strips(grid: Grid, count: int) -> list[Strip]:
    """Cut the reoriented planes (H, W) of the source grid into about `count` strips along H."""
    lower, upper, _ = _between(grid.shape[1], grid.turned_shape[1])
    edges = np.unique(np.linspace(0, grid.turned_shape[1], count + 1).round().astype(int)).tolist()
    return [
        Strip(slice(first, end), slice(int(lower[first]), int(upper[end - 1]) + 1))
        for first, end in zip(edges, edges[1:], strict=False)
    ]


def source_planes(
    slabs: Iterable[tuple[int, NDArray[Any]]], grid: Grid, strip: Strip | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (number, plane (K, H, W)) of the reoriented source grid, resampled linearly; two planes in memory.

    `slabs` are (first slice, values (K, d, h, W)) of the network grid in slice order; for a strip they hold only its
    `needed` rows.
    """
    strip = strip or strips(grid, 1)[0]
    arrived = ((begin + offset, slab[:, offset]) for begin, slab in slabs for offset in range(slab.shape[1]))
    lower, upper, share = _between(grid.shape[0], grid.turned_shape[0])
    first, second, between = _between(grid.shape[1], grid.turned_shape[1])
    within, start = strip.rows, strip.needed.start
    rows = (first[within] - start, second[within] - start, between[within])
    number, held = -1, {}
    for plane, (one, other) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        while number < other:
            number, values = next(arrived)
            whole = _blend(np.asarray(values, dtype=np.float32), 1, rows)
            held[number] = _blend(whole, 2, _between(grid.shape[2], grid.turned_shape[2]))
            held.pop(number - 2, None)
        weight = share[plane]
        yield plane, held[one] if weight == 0 else held[one] * (1 - weight) + held[other] * weight


def write_mask(
    path: str | os.PathLike[str], mask: NDArray[Any], volume: Volume, labels: Sequence[tuple[int, str]] = ()
) -> None:
    """Write a mask (X, Y, Z) as NIfTI on the grid of `volume`, with label names in a header extension.

    The values are uint8, or uint16 where one of them is above 255.
    """
    if mask.shape != volume.data.shape[1:]:
        raise ValueError(f"{path}: the mask has shape {mask.shape}, but its volume has {volume.data.shape[1:]}")
    highest = max([int(mask.max()), *(value for value, _ in labels)])
    save_like(path, np.asarray(mask, dtype=np.uint16 if highest > 255 else np.uint8), volume, labels)


def save_like(
    path: str | os.PathLike[str], values: NDArray[Any], volume: Volume, labels: Sequence[tuple[int, str]] = ()
) -> None:
    """Write values (X, Y, Z) or (X, Y, Z, K) as NIfTI on the grid of `volume`, atomically."""
    path = Path(path)
    suffix = next((suffix for suffix in (".nii.gz", ".nii") if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"{path}: the file name must end in .nii.gz or .nii")
    kind = nibabel.Nifti2Image if isinstance(volume.header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header["pixdim"][:4] = volume.header["pixdim"][:4]
    for field in POSITION_FIELDS.split():
        header[field] = volume.header[field]
    image = kind(values, volume.affine, header)
    image.header.set_slope_inter(1, 0)
    if labels:
        image.header.set_intent("label")
        named = json.dumps({"labels": {str(value): name for value, name in labels}})
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", named.encode()))
    temporary = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    try:
        nibabel.save(image, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _first_largest(parts: Iterable[NDArray[np.float32]]) -> NDArray[np.intp]:
    """Return the index of the largest array at each voxel, the first on a tie; all arrays have the same shape."""
    remaining = iter(parts)
    best = next(remaining).copy()
    index = np.zeros(best.shape, dtype=np.intp)
    for number, part in enumerate(remaining, start=1):
        index[part > best] = number
        np.maximum(best, part, out=best)
    return index


def _resize(values: NDArray[np.float32], shape: Triple) -> NDArray[np.float32]:
    """Resample (D, H, W) linearly to another size; values of the same size are returned unchanged."""
    for axis, (size, wanted) in enumerate(zip(values.shape, shape, strict=True)):
        values = _blend(values, axis, _between(size, wanted))
    return values


def _between(size: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each of `wanted` voxels, its two neighbours among `size` voxels and the weight of the second.

    The outer edges are aligned; beyond the outermost voxel centres the values are constant.
    """
    places = np.clip((np.arange(wanted) + 0.5) * (size / wanted) - 0.5, 0, size - 1)
    lower = np.floor(places).astype(np.intp)
    upper = np.minimum(lower + 1, size - 1)
    return lower, upper, (places - lower).astype(np.float32)


def _blend(
    values: NDArray[np.float32], axis: int, between: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Resample along one axis."""
    lower, upper, share = between
    if not share.any():
        return values if len(lower) == values.shape[axis] else values.take(lower, axis)
    share = share.reshape([-1 if each == axis else 1 for each in range(values.ndim)])
    result = values.take(upper, axis)
    first = values.take(lower, axis)
    result -= first
    result *= share
    result += first
    return result


def _directions(grid: Grid) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if flip else 1) for flip in grid.flips)


def _triple(values: Iterable[_T]) -> tuple[_T, _T, _T]:
    first, second, third = values
    return first, second, third
