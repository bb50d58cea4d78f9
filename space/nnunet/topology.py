"""Levels, strides and kernels of an nnU-Net, from patch and spacing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from space.pooling import SMALLEST_MAP, Triple, kernels_from_spacing, level_sizes, stride_from_spacing


@dataclass(frozen=True)
class Topology:
    """The stride of each downsampling step and the kernel of each level, as (D, H, W)."""

    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]

    @property
    def levels(self) -> int:
        """Number of resolutions, including the bottleneck's."""
        return len(self.kernels)

    @property
    def divisors(self) -> Triple:
        """The product of the strides along each axis, which divides the sizes of a planned patch."""
        d = h = w = 1
        for stride in self.strides:
            d, h, w = d * stride[0], h * stride[1], w * stride[2]
        return d, h, w

    def padded(self, size: Sequence[float]) -> Triple:
        """Round a size up to multiples of the divisors."""
        d, h, w = (int(-(-length // step)) * step for length, step in zip(size, self.divisors, strict=True))
        return d, h, w

    def map_sizes(self, patch: Triple) -> tuple[Triple, ...]:
        """Return the map size at each level."""
        return level_sizes(patch, self.strides)


def topology(size: Sequence[float], *, spacing: Sequence[float]) -> Topology:
    """Return the topology for a patch of this size, which may be fractional: a median shape.

    Levels are added while an axis can be halved to at least 4 voxels; if only one can, it needs 12 voxels or more. The
    bottleneck always has full kernels. A patch of one slice gives a 2D network, whose spacing between slices has no
    effect.
    """
    is_flat = size[0] == 1
    spacings = (inf if is_flat else spacing[0], spacing[1], spacing[2])
    sizes, mm = list(size), list(spacings)
    strides: list[Triple] = []
    while True:
        stride = stride_from_spacing(sizes, spacing=mm)
        pooled = [axis for axis in range(3) if stride[axis] > 1]
        if not pooled or (len(pooled) == 1 and sizes[pooled[0]] < 3 * SMALLEST_MAP):
            break
        strides.append(stride)
        sizes = [-(-length // step) for length, step in zip(sizes, stride, strict=True)]
        mm = [length * step for length, step in zip(mm, stride, strict=True)]
    bottom: Triple = (1, 3, 3) if is_flat else (3, 3, 3)
    kernels = kernels_from_spacing(spacings, pooling=tuple(strides))[:-1]
    return Topology(tuple(strides), (*kernels, bottom))
