"""A 2D encoder of timm's that runs over a volume slice by slice."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from space.timm_info import PREFIX, timm_stages

SMALLEST = 32  # pixels along a side: below, some of timm's models fail


class TimmSlices(nn.Module):
    """The first `levels` stages of a timm model (Wightman), as maps of a volume.

    Slices are images of a batch, so that batch norm's statistics are over all of them. Planes are filled up with zeros
    at their ends to a multiple of the deepest stride, and to 32 pixels, and maps are cropped back.
    """

    def __init__(self, name: str, in_channels: int, *, levels: int) -> None:
        super().__init__()
        self.name, self.in_channels, self.title = name, in_channels, f"{PREFIX}{name}, slice by slice"
        self.reductions = timm_stages(name).reductions[:levels]
        self.net = make_timm(name, in_channels, levels=levels, pretrained=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Shape (B, C, D, H, W) to one (B, C_level, D, ceil(H / r), ceil(W / r)) a level."""
        batch, channels, depth, height, width = x.shape
        slices = x.transpose(1, 2).reshape(batch * depth, channels, height, width)
        right, below = (_missing(length, self.reductions[-1]) for length in (width, height))
        slices = functional.pad(slices, (0, right, 0, below))
        maps = []
        for features, step in zip(self.net(slices), self.reductions, strict=True):
            cropped = features[:, :, : (height + step - 1) // step, : (width + step - 1) // step]
            maps.append(cropped.unflatten(0, (batch, depth)).transpose(1, 2))  # (B, C_level, D, h, w)
        return maps


def make_timm(name: str, in_channels: int, *, levels: int, pretrained: bool) -> nn.Module:
    """Make timm's feature extractor, cut behind its last stage that is asked for.

    With `pretrained` timm fetches its weights, its first layer made to fit the channels. Some of timm's own extractors
    (EfficientNet, MobileNet) keep and run all stages: the getter form cuts, where a model has it.
    """
    settings = {"features_only": True, "in_chans": in_channels, "out_indices": tuple(range(levels))}
    try:
        made: nn.Module = timm.create_model(name, feature_cls="getter", pretrained=pretrained, **settings)
    except (AttributeError, AssertionError, NotImplementedError):
        made = timm.create_model(name, pretrained=pretrained, **settings)
    return made


def _missing(length: int, multiple: int) -> int:
    """Return how many pixels a side lacks to the next multiple of the stride that isn't below SMALLEST."""
    enough = -(-SMALLEST // multiple) * multiple
    missing: Any = torch.sym_max(-length % multiple, enough - length)  # a plain max would fix the side in a trace
    return missing  # type: ignore[no-any-return]
