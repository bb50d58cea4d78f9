"""Convert volumes to the network grid and back: axes, spacing, intensities, labels.

Training and deployment share this implementation: an exported model includes a copy of this file and of
`volume_files.py` next to its `predict.py`. Therefore they import numpy and nibabel, but nothing else from voxnas.

There are two grids. The **source** grid is that of the file: `(X, Y, Z)` in any orientation. The **network** grid is
`(D, H, W)`: RAS directions, through-plane axis first, target spacing. Resampling is linear on every axis with
voxel edges aligned (`align_corners=False`): the field of view is kept, its size is rounded to whole voxels. As in
nnU-Net, there is no smoothing before downsampling: with the median spacing as target the factors are small, but a
target several times coarser than the data would cause aliasing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from search.data.volume_files import Volume

_T = TypeVar("_T")
Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]
Normalisation = tuple[str | float, ...]
RULES = ("zscore", "zscore_nonzero", "ct", "none", "rescale_to_0_1", "rgb_to_0_1")  # first value of a Normalisation


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing settings as plain values, shared by all volumes of a data set.

    `spacing` is the target in mm for (D, H, W). `axes` are the RAS axes (0, 1, 2) that become D, H, W.
    `normalisation` has one entry per channel: `("zscore",)` over the whole volume, `("zscore_nonzero",)` with the mean
    and standard deviation of the non-zero voxels (for volumes with a wide margin of zeros; the same linear map applies
    to all voxels), `("ct", low, high, mean, deviation)`: clip, then z-score with the data set's values, `("none",)`,
    `("rescale_to_0_1",)` with the volume's minimum and maximum, or `("rgb_to_0_1",)`: divide by 255.
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
    if rule[0] == "none":
        return channel.astype(np.float32, copy=False)
    if rule[0] == "rescale_to_0_1":
        low, high = float(channel.min()), float(channel.max())
        return ((channel - np.float64(low)) / max(high - low, 1e-8)).astype(np.float32)
    if rule[0] == "rgb_to_0_1":
        return (channel / np.float64(255)).astype(np.float32)
    if rule[0] == "ct":
        low, high, mean, deviation = (float(value) for value in rule[1:])
        channel = np.clip(channel, low, high)
    elif rule[0] in ("zscore", "zscore_nonzero"):
        counted = channel[channel != 0] if rule[0] == "zscore_nonzero" and channel.any() else channel
        mean, deviation = float(counted.mean(dtype=np.float64)), float(counted.std(dtype=np.float64))
    else:
        raise ValueError(f"unknown normalisation {rule[0]!r}, expected one of {', '.join(RULES)}")
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
    """Return class indices (X, Y, Z) on the network grid (D, H, W), as uint8, or uint16 if they don't fit.

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
    """Return the dtype of class indices."""
    return np.uint16 if max(classes - 1, *order, 0) > 255 else np.uint8


def labels_of(plane: NDArray[np.float32], order: Sequence[int] = ()) -> NDArray[Any]:
    """Return the index of the largest logit, the first one on a tie: (K, ...) to (...).

    With `order`, the logits are those of regions: each region in turn writes its index to the voxels where its logit is
    above 0.
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
