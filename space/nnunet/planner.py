"""From a data set's fingerprint to nnU-Net's plan: spacing, patch, batch and topology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from space.nnunet.topology import Topology, topology
from space.pooling import Triple

Spacing = tuple[float, float, float]
BASE_FEATURES = 32  # channels at full resolution; they double per level
MOST_FEATURES, MOST_FEATURES_2D = 320, 512
ANISOTROPY = 3.0  # an axis is anisotropic if its spacing is this many times the others', and its size this much less
FINE_PERCENTILE = 10.0  # of an anisotropic axis's spacings
FIRST_VOXELS, FIRST_PIXELS = 256**3, 2048**2  # the patch from which the search for a patch starts
REFERENCE_GB = 8.0  # memory at which the reference values of a family hold
REFERENCE_BATCH, REFERENCE_BATCH_2D = 2, 12
SMALLEST_BATCH = 2


@dataclass(frozen=True)
class Fingerprint:
    """What a plan depends on: each case's shape after cropping to non-zero voxels, and its spacing, both (D, H, W).

    D is the axis of the largest spacing. `classes` includes background.
    """

    shapes: tuple[Triple, ...]
    spacings: tuple[Spacing, ...]
    channels: int
    classes: int


@dataclass(frozen=True)
class Family:
    """A family of nnU-Nets: units per level, and the constants of its planner.

    `reference` is the number of convolution outputs, in values, of a network that fits the reference memory at the
    reference batch. The patch must fit at a batch of 2; in 2D, at `fitted_batch_2d`. A batch covers at most the
    share `covered` of all voxels. `residual` encoders have a stem of one convolution and count units in blocks of two
    convolutions; the last number holds for all deeper levels.
    """

    name: str
    residual: bool
    encoder_units: tuple[int, ...]
    decoder_units: int
    reference: float
    reference_2d: float
    fitted_batch_2d: int
    covered: float

    def units(self, level: int) -> int:
        """Return the number of units at an encoder level."""
        return self.encoder_units[min(level, len(self.encoder_units) - 1)]


PLAIN = Family("nnunet", False, (2,), 2, 560e6, 85e6, 2, 0.05)
RESENC_M = Family("nnunet_resenc_m", True, (1, 3, 4, 6), 1, 680e6, 135e6, 12, 1.0)


@dataclass(frozen=True)
class Plan:
    """Spacing in mm, patch, batch and topology that nnU-Net chooses; a patch of one slice means its 2D network."""

    spacing: Spacing
    patch: Triple
    batch: int
    topology: Topology


def features(levels: int, *, flat: bool) -> tuple[int, ...]:
    """Return the channels of each level; `flat` for the 2D network, whose cap is higher."""
    most = MOST_FEATURES_2D if flat else MOST_FEATURES
    return tuple(min(most, BASE_FEATURES * 2**level) for level in range(levels))


def make_plan(
    fingerprint: Fingerprint,
    family: Family = PLAIN,
    *,
    memory_gb: float = REFERENCE_GB,
    spacing: Spacing | None = None,
    patch: Triple | None = None,
) -> Plan:
    """Plan a data set as nnU-Net's `3d_fullres` configuration, or its `2d` if the volumes or the patch have one slice.

    A given `spacing` or `patch` is kept, and the rest planned for it. Raises ValueError for a fingerprint without
    cases, and if no patch fits.
    """
    if not fingerprint.shapes or len(fingerprint.shapes) != len(fingerprint.spacings):
        raise ValueError(
            f"a fingerprint needs a shape and a spacing for each case, got {len(fingerprint.shapes)} shapes "
            f"and {len(fingerprint.spacings)} spacings"
        )
    spacing = spacing or target_spacing(fingerprint)
    shape = _median_shape(fingerprint, spacing)
    flat = (patch or shape)[0] == 1
    most = (family.reference_2d if flat else family.reference) * memory_gb / REFERENCE_GB  # at the reference batch
    reference, fitted = (REFERENCE_BATCH_2D, family.fitted_batch_2d) if flat else (REFERENCE_BATCH, REFERENCE_BATCH)
    if patch is None:
        found = _Candidate.of(_first_size(shape, spacing, flat=flat), spacing)
    else:
        found = _Candidate(patch, topology(patch, spacing=spacing), spacing)

    def outputs() -> int:
        return convolution_outputs(found.topology, found.patch, family, classes=fingerprint.classes)

    while patch is None and outputs() / reference * fitted > most:
        found = found.smaller(shape)
    batch = round(most / outputs() * reference)
    covering = round(float(prod(shape)) * len(fingerprint.shapes) * family.covered / prod(found.patch))
    return Plan(spacing, found.patch, max(min(batch, covering), SMALLEST_BATCH), found.topology)


def target_spacing(fingerprint: Fingerprint) -> Spacing:
    """Return the spacing that volumes are resampled to: the median of each axis.

    If D is anisotropic both in spacing and in size, its 10th percentile, but no less than the coarsest other axis.
    """
    spacings = np.array(fingerprint.spacings)
    target = np.median(spacings, axis=0)
    size = np.median(np.array(fingerprint.shapes), axis=0)
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    widest = max(target[others])
    if target[coarsest] > ANISOTROPY * widest and size[coarsest] * ANISOTROPY < min(size[others]):
        fine = np.percentile(spacings[:, coarsest], FINE_PERCENTILE)
        target[coarsest] = fine if fine >= widest else widest + 1e-5
    d, h, w = (float(each) for each in target)
    return d, h, w


def convolution_outputs(planned: Topology, patch: Triple, family: Family, *, classes: int) -> int:
    """Count the values that all convolutions of a network put out for one patch, nnU-Net's estimate of its memory."""
    width = features(planned.levels, flat=patch[0] == 1)
    voxels = [prod(size) for size in planned.map_sizes(patch)]
    total = classes * voxels[0]
    if family.residual:
        total += width[0] * voxels[0]  # the stem
    for level, maps in enumerate(width[k] * voxels[k] for k in range(planned.levels)):
        units = family.units(level)
        total += maps * (2 * units + (1 if level else 0) if family.residual else units)  # each shortcut counts once
        if level < planned.levels - 1:
            total += maps * (family.decoder_units + 1)  # and the transposed convolution
    return total


@dataclass(frozen=True)
class _Candidate:
    """A patch of the search with its topology, which is that of the size before padding."""

    patch: Triple
    topology: Topology
    spacing: Spacing

    @staticmethod
    def of(size: Sequence[float], spacing: Spacing) -> _Candidate:
        found = topology(size, spacing=spacing)
        return _Candidate(found.padded(size), found, spacing)

    def smaller(self, shape: tuple[float, ...]) -> _Candidate:
        """Return the next smaller patch: less along the axis that is largest relative to the median shape.

        The step is what divides a patch that is already smaller by the present divisor: a size of 256, of divisor 64,
        steps to 224.
        """
        flat = shape[0] == 1
        axis = max(range(1 if flat else 0, 3), key=lambda each: (self.patch[each] / shape[each], each))
        less = list(self.patch)
        less[axis] -= self.topology.divisors[axis]
        step = topology(less, spacing=self.spacing).divisors[axis]
        size = list(self.patch)
        size[axis] -= step
        if size[axis] < 1:
            raise ValueError(f"no patch fits the memory target: the smallest, {self.patch}, is still too large")
        return _Candidate.of(size, self.spacing)


def _median_shape(fingerprint: Fingerprint, spacing: Spacing) -> tuple[float, float, float]:
    """Return the median shape after resampling; half voxels are possible."""
    resampled = [
        [round(own / target * n) for n, own, target in zip(shape, mm, spacing, strict=True)]
        for shape, mm in zip(fingerprint.shapes, fingerprint.spacings, strict=True)
    ]
    d, h, w = (float(each) for each in np.median(resampled, axis=0))
    return d, h, w


def _first_size(shape: tuple[float, ...], spacing: Spacing, *, flat: bool) -> tuple[float, ...]:
    """Return the first size: a patch of isotropic extent in mm, larger than any that fits, within the median shape."""
    per_mm = [1 / each for each in spacing]
    scale = (FIRST_PIXELS / prod(per_mm[1:])) ** (1 / 2) if flat else (FIRST_VOXELS / prod(per_mm)) ** (1 / 3)
    sizes = [min(round(each * scale), most) for each, most in zip(per_mm, shape, strict=True)]
    return (1.0, *sizes[1:]) if flat else tuple(sizes)
