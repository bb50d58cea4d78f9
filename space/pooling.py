"""Strides and kernels from the voxel spacing by nnU-Net's rule, which keeps the resolution across thick slices."""

from __future__ import annotations

from collections.abc import Sequence

Triple = tuple[int, int, int]
SMALLEST_MAP = 4  # voxels along an axis; pooling never goes below this


def stride_from_spacing(size: Sequence[float], *, spacing: Sequence[float]) -> Triple:
    """Return the stride (D, H, W) of one downsampling step; (1, 1, 1) if the map is too small.

    A step pools an axis if its size allows and its spacing is under twice the finest spacing of the axes that can
    still be pooled (nnU-Net, Isensee et al. 2021, `get_pool_and_conv_props`).
    """
    able = [axis for axis in range(3) if size[axis] >= 2 * SMALLEST_MAP]
    finest = min((spacing[axis] for axis in able), default=0.0)
    d, h, w = (2 if axis in able and spacing[axis] < 2 * finest else 1 for axis in range(3))
    return d, h, w


def pooling_from_spacing(patch: Triple, *, spacing: tuple[float, float, float], levels: int) -> tuple[Triple, ...]:
    """Return the stride (D, H, W) of each downsampling step, `levels - 1` in total.

    A stride of (1, 1, 1) means that the patch is too small for so many levels; `space.feasible` refuses such a network.
    """
    size, mm = list(patch), list(spacing)
    strides: list[Triple] = []
    for _ in range(levels - 1):
        stride = stride_from_spacing(size, spacing=mm)
        size = [-(-length // step) for length, step in zip(size, stride, strict=True)]
        mm = [length * step for length, step in zip(mm, stride, strict=True)]
        strides.append(stride)
    return tuple(strides)


def kernels_from_spacing(spacing: tuple[float, float, float], *, pooling: tuple[Triple, ...]) -> tuple[Triple, ...]:
    """Return the kernel (D, H, W) of each level: 1 along an axis until voxels are nearly isotropic, 3 from there on."""
    mm = list(spacing)
    wide = [False] * 3
    kernels: list[Triple] = []
    for level in range(len(pooling) + 1):
        if level:
            mm = [length * step for length, step in zip(mm, pooling[level - 1], strict=True)]
        wide = [was or mm[axis] < 2 * min(mm) for axis, was in enumerate(wide)]
        kernels.append((3 if wide[0] else 1, 3 if wide[1] else 1, 3 if wide[2] else 1))
    return tuple(kernels)


def level_sizes(patch: Triple, pooling: tuple[Triple, ...]) -> tuple[Triple, ...]:
    """Return the map size (D, H, W) at each level; sizes round up, as in strided convolutions."""
    sizes = [patch]
    for stride in pooling:
        d, h, w = (-(-length // step) for length, step in zip(sizes[-1], stride, strict=True))
        sizes.append((d, h, w))
    return tuple(sizes)
