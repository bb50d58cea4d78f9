"""The U-Net: encoder levels, bottleneck, skips and decoder levels, each with a place for an attention block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.meunet import concatenate_predictions
from blocks.resize import resize
from space.architecture import Architecture
from space.canonical import map_sizes
from space.encoders import (
    backbone,
    decoder_level,
    encoder_level,
    image_levels,
    start_as_nnunet,
    start_encoder_attention,
)
from space.place import Place, down_place
from space.pooling import Triple
from space.specs.build import build_block
from space.specs.registry import site_at, spec_at
from space.stages import prediction_channels, prediction_levels

SUPERVISED_LEVELS = 3  # with deep supervision, unless the architecture has its own: full resolution and two below it


class UNet(nn.Module):
    """A U-shaped segmentation network: encoder levels, bottleneck, skips and decoder levels.

    An `Architecture` defines the network. Shape: (B, in_channels, D, H, W) to logits (B, classes, D, H, W), any D, H,
    W: strides round sizes up and decoder maps are cropped or resized to their skip's size, hence odd sizes need no
    padding. `supervised` returns the training outputs.
    After a stem, logits are upsampled trilinearly. The second network of a cascade takes the first networks' one-hot
    predictions as the last channels of its input.
    """

    def __init__(self, architecture: Architecture, *, in_channels: int, classes: int, patch: Triple) -> None:
        super().__init__()
        channels, pooling = architecture["channels"], architecture["pooling"]
        sizes = map_sizes(architecture, patch)
        bottom = architecture.levels - 1
        predicted = prediction_channels(architecture, classes=classes)
        self.levels = architecture.levels
        self.image_levels = image_levels(architecture)
        self.prediction_levels = prediction_levels(architecture)
        self.image_channels = in_channels - predicted if self.prediction_levels else in_channels
        incoming = (*[self.image_channels] * self.image_levels, *channels[self.image_levels - 1 :])
        self.down = nn.ModuleList(encoder_level(architecture, level, incoming[level]) for level in range(self.levels))
        self.backbone = backbone(architecture, self.image_channels)
        self.has_stem = architecture.get("stem") is not None
        self.expansion: float | None = architecture.get("expansion")  # of the larger of two patches
        self.adds = architecture["skip"] == "add"
        widths = (*architecture.decoder_channels, channels[bottom])
        grown = channels if self.adds else widths
        self.grow = nn.ModuleList(
            _Grow(architecture, widths[level + 1], grown[level], pooling[level]) for level in range(bottom)
        )
        self.up = nn.ModuleList(
            decoder_level(
                architecture,
                level,
                (channels[level] if self.adds else channels[level] + self.grow[level].out_channels)
                + (predicted if level in self.prediction_levels else 0),
            )
            for level in range(bottom)
        )
        self.attention = nn.ModuleDict(
            {str(place): _attention(architecture, place, sizes) for place in architecture.attention()}
        )
        supervised = architecture.get("supervised_levels", SUPERVISED_LEVELS)
        self.supervised_heads = min(supervised, bottom) if architecture["deep_supervision"] else 1
        kernel = architecture.get("head_kernel", 1)
        self.heads = nn.ModuleList(
            nn.Conv3d(widths[level], classes, kernel, padding=kernel // 2)
            for level in range(2 if self.expansion else self.supervised_heads)
        )
        if architecture.get("init") == "he":
            for part in (self.down, self.grow, self.up, self.heads):
                start_as_nnunet(part)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, in_channels, D, H, W) to logits (B, classes, D, H, W)."""
        return self._logits(self._decoded(x)[0], x)

    def supervised(self, x: Tensor) -> list[Tensor]:
        """Return logits for the loss: full resolution first, then the coarser supervised levels.

        They exclude the second head of a two-patch network; see `search.training.schemes.two_patch_network`.
        """
        finest, *coarser = self._decoded(x)[: self.supervised_heads]
        heads = [*self.heads][1 : self.supervised_heads]
        return [self._logits(finest, x), *(head(features) for head, features in zip(heads, coarser, strict=True))]

    def _logits(self, features: Tensor, x: Tensor) -> Tensor:
        """Return the logits of level 0 on the input's grid."""
        logits: Tensor = self.heads[0](features)
        if self.has_stem:
            logits = resize(logits, x.shape[2:], mode="trilinear")
        return logits

    def encode(self, x: Tensor, *, first: int = 0) -> list[Tensor]:
        """Return the encoder's maps after attention from level `first` down; x is the input of that level."""
        image, maps = x, []
        if self.backbone is not None:
            maps = [self.down[0](image), *self.backbone(image)]
            return [self.attend(down_place(level, self.levels), features) for level, features in enumerate(maps)]
        for level in range(first, self.levels):
            x = self.down[level](image if level < self.image_levels else x)
            x = self.attend(down_place(level, self.levels), x)
            maps.append(x)  # (B, channels[level], D / strides, H / strides, W / strides)
        return maps

    def decode(self, maps: list[Tensor], *, first: int = 0, predictions: Tensor | None = None) -> list[Tensor]:
        """Return the decoder's maps, finest (level `first`) first; `maps` are the encoder's, bottleneck last."""
        x = maps[-1]
        decoded: list[Tensor] = []
        for level in reversed(range(first, self.levels - 1)):
            skip = self.attend(Place("skip", level), maps[level - first])
            x = self.grow[level](x, skip)
            x = skip + x if self.adds else torch.cat([skip, x], dim=1)
            if predictions is not None and level in self.prediction_levels:
                x = concatenate_predictions(x, predictions)
            x = self.attend(Place("decoder", level), self.up[level](x))
            decoded.insert(0, x)
        return decoded

    def attend(self, place: Place, x: Tensor) -> Tensor:
        """Apply the attention block at this place, if any."""
        name = str(place)
        return self.attention[name](x) if name in self.attention else x

    def _decoded(self, x: Tensor) -> list[Tensor]:
        """Return the decoder's maps, full resolution first."""
        if not self.prediction_levels:
            return self.decode(self.encode(x))
        image = x[:, : self.image_channels]
        predictions = x[:, self.image_channels :]
        return self.decode(self.encode(image), predictions=predictions)


class _Grow(nn.Module):
    """Upsample the deeper map to its skip's size, and convert its channels unless `nearest-only` keeps them."""

    def __init__(self, architecture: Architecture, in_channels: int, out_channels: int, stride: Triple) -> None:
        super().__init__()
        self.how = how = architecture["upsampling"]
        bias = architecture.get("conv_bias", False)
        self.title = f"upsampling ({how})"
        self.out_channels = in_channels if how == "nearest-only" else out_channels
        self.change: nn.Module
        if how == "nearest-only":
            self.change = nn.Identity()
        elif how == "transposed":
            self.change = nn.ConvTranspose3d(in_channels, out_channels, stride, stride, bias=bias)
        elif how == "linear-conv":  # as in CSAM's code: aligned corners, then a convolution along the upsampled axes
            depth, height, width = (1 if step == 1 else 3 for step in stride)
            margin = (depth // 2, height // 2, width // 2)
            self.change = nn.Conv3d(in_channels, out_channels, (depth, height, width), padding=margin)
        else:
            self.change = nn.Conv3d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Shape (B, C_in, d, h, w) and the skip (B, C, D, H, W) to (B, C, D, H, W)."""
        if self.how == "linear-conv":
            grown = resize(x, skip.shape[2:], mode="trilinear", align_corners=True)
            return self.change(grown)  # type: ignore[no-any-return]
        x = self.change(x)
        if self.how == "transposed":  # the encoder rounded sizes up: crop at most stride - 1 voxels per axis
            return x[:, :, : skip.shape[2], : skip.shape[3], : skip.shape[4]]
        nearest = self.how in ("nearest", "nearest-only")
        x = resize(x, skip.shape[2:], mode="nearest") if nearest else resize(x, skip.shape[2:], mode="trilinear")
        return x


def _attention(architecture: Architecture, place: Place, sizes: tuple[Triple, ...]) -> nn.Module:
    """Build the attention block at a place."""
    spec, site = spec_at(architecture, place), site_at(architecture, place, sizes)
    block = build_block(spec, site, architecture.options(place))
    if place.is_down:
        start_encoder_attention(architecture, block)
    return block
