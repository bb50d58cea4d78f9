"""Interpolation that keeps half precision.

Source: torch. Difference: under autocast on CUDA, torch returns float32 and doubles the memory; ours keeps the dtype.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: Sequence[int], *, mode: str, align_corners: bool = False) -> Tensor:
    """Interpolate (B, C, ...) to another size; the dtype is kept."""
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size=tuple(size), mode=mode, align_corners=None if mode == "nearest" else align_corners)
