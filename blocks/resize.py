"""Interpolation that keeps half precision.

Source: torch's own. How ours differs: under autocast on CUDA torch's gives float32, twice the bytes; a CPU's does not.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: Sequence[int], *, mode: str, align_corners: bool = False) -> Tensor:
    """Interpolate (B, C, ...) to another size, in its own type."""
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size=tuple(size), mode=mode, align_corners=None if mode == "nearest" else align_corners)
