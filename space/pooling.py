"""Strides and kernels from the voxel spacing, so that thick slices are not pooled away (nnU-Net's rule)."""

from __future__ import annotations

Triple = tuple[int, int, int]
SMALLEST_MAP = 4  # voxels along an axis under which it is pooled no further


def pooling_from_spacing(patch: Triple, *, spacing: tuple[float, float, float], levels: int) -> tuple[Triple, ...]:
    """Return one stride (D, H, W) a step down, `levels - 1` in all.

    An axis is pooled while its spacing is under twice the finest among the axes that still can be pooled, and
    while its size allows (nnU-Net, Isensee et al. 2021, `get_pool_and_conv_props`). A stride of (1, 1, 1) says
    that the patch is used up: `space.feasible` refuses such a network.
    """
    size, mm = list(patch), list(spacing)
    strides: list[Triple] = []
    for _ in range(levels - 1):
        able = [axis for axis in range(3) if size[axis] >= 2 * SMALLEST_MAP]
        finest = min((mm[axis] for axis in able), default=0.0)
        pooled = [axis for axis in able if mm[axis] < 2 * finest]
        stride = [2 if axis in pooled else 1 for axis in range(3)]
        size = [-(-length // step) for length, step in zip(size, stride, strict=True)]
        mm = [length * step for length, step in zip(mm, stride, strict=True)]
        strides.append((stride[0], stride[1], stride[2]))
    return tuple(strides)


def kernels_from_spacing(spacing: tuple[float, float, float], *, pooling: tuple[Triple, ...]) -> tuple[Triple, ...]:
    """Return one kernel (D, H, W) a level: 1 along an axis until voxels are near isotropic, then 3 for good."""
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
    """Return the map's size (D, H, W) at each level; strides round up, as strided convolutions do."""
    sizes = [patch]
    for stride in pooling:
        d, h, w = (-(-length // step) for length, step in zip(sizes[-1], stride, strict=True))
        sizes.append((d, h, w))
    return tuple(sizes)
