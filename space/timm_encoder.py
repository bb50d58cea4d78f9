"""A 2D timm encoder applied to a volume slice by slice."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from space.timm_info import PREFIX, timm_stages

SMALLEST = 32  # pixels along a side; some timm models fail below


class TimmSlices(nn.Module):
    """The first `levels` stages of a timm model (Wightman), as feature maps of a volume.

    Slices form one batch of images: batch norm's statistics cover all slices. Slices are zero-padded at the end to a
    multiple of the deepest stride, at least 32 pixels, and the feature maps cropped accordingly.
    """

    def __init__(self, name: str, in_channels: int, *, levels: int) -> None:
        super().__init__()
        self.name, self.in_channels, self.title = name, in_channels, f"{PREFIX}{name}, slice by slice"
        self.reductions = timm_stages(name).reductions[:levels]
        self.net = make_timm(name, in_channels, levels=levels, pretrained=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Shape (B, C, D, H, W) to (B, C_level, D, ceil(H / r), ceil(W / r)) for each level."""
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
    """Create timm's feature extractor, truncated after stage `levels`.

    With `pretrained`, timm fetches its weights and adapts the first layer to the input channels. Some default
    extractors (EfficientNet, MobileNet) keep and run all stages; the getter form, if the model supports it, truncates.
    """
    settings = {"features_only": True, "in_chans": in_channels, "out_indices": tuple(range(levels))}
    try:
        network: nn.Module = timm.create_model(name, feature_cls="getter", pretrained=pretrained, **settings)
    except (AttributeError, AssertionError, NotImplementedError):
        network = timm.create_model(name, pretrained=pretrained, **settings)
    return network


def _missing(length: int, multiple: int) -> int:
    """Return the padding of a side to the next multiple of the stride that is at least SMALLEST."""
    enough = -(-SMALLEST // multiple) * multiple
    missing: Any = torch.sym_max(-length % multiple, enough - length)  # a plain max would fix the side in a trace
    return missing  # type: ignore[no-any-return]
