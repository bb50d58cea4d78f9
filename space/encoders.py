"""Encoder families: what stands at each level on the way down, and the unit that answers it on the way up.

`plain`, `residual` and `dense` are our own units, with every entry of the architecture. The papers' families fix
some of them, and those are not written: `csam` and `me` have no norm, activation, kernels, repeats and dropout of
their own, `unetrpp` likewise; `densenet` adds `dense_layers` and `dense_growth`. `bottom` and `decoder` name the
unit of the deepest level and of the way up, where it isn't the encoder's.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.conv import DenseUnit, PlainUnit, ResidualUnit, UnetResBlock
from blocks.csam_level import CSAMConv
from blocks.meunet import MeUnit
from blocks.norm import GroupNorm, make_activation, make_norm
from space.architecture import Architecture
from space.pooling import Triple
from space.timm_info import PREFIX, is_timm

if TYPE_CHECKING:
    from space.timm_encoder import TimmSlices

ONE: Triple = (1, 1, 1)
MakeUnit = Callable[[Architecture, int, int, int, Triple], nn.Module]


def _own(unit: type[nn.Module]) -> MakeUnit:
    """Make a unit of ours with the architecture's entries."""

    def make(architecture: Architecture, level: int, in_channels: int, out_channels: int, stride: Triple) -> nn.Module:
        return unit(
            in_channels,
            out_channels,
            kernel=architecture["kernels"][level],
            stride=stride,
            norm=architecture["norm"],
            activation=architecture["activation"],
            repeats=architecture["repeats"],
            dropout=architecture["dropout"],
        )

    return make


def _fixed(unit: type[nn.Module]) -> MakeUnit:
    """Make a paper's unit, which has a form of its own and no stride."""

    def make(architecture: Architecture, level: int, in_channels: int, out_channels: int, stride: Triple) -> nn.Module:
        if stride != ONE:
            raise ValueError(f"{architecture['encoder']!r} units have no stride, but level {level} has {stride}")
        return unit(in_channels, out_channels)

    return make


UNITS: dict[str, MakeUnit] = {
    "plain": _own(PlainUnit),
    "residual": _own(ResidualUnit),
    "dense": _own(DenseUnit),
    "csam": _fixed(CSAMConv),
    "me": _fixed(MeUnit),
}


def image_levels(architecture: Architecture) -> int:
    """Return how many levels read the image itself: two in UNETR++, whose stem stands beside full resolution."""
    return 2 if architecture["encoder"] == "unetrpp" else 1


def backbone(architecture: Architecture, in_channels: int) -> TimmSlices | None:
    """Make what gives all levels below full resolution at once, where the encoder is one of timm's."""
    if not is_timm(architecture["encoder"]):
        return None
    from space.timm_encoder import TimmSlices  # not before: timm takes as long to load as torch

    return TimmSlices(architecture["encoder"].removeprefix(PREFIX), in_channels, levels=architecture.levels - 1)


def encoder_level(architecture: Architecture, level: int, in_channels: int) -> nn.Module:
    """Make a level of the way down: (B, in_channels, D, H, W) to (B, C, ceil(D/s), ceil(H/s), ceil(W/s))."""
    family, channels = architecture["encoder"], architecture["channels"][level]
    stride = architecture["pooling"][level - 1] if level else ONE
    if family == "unetrpp":
        return PatchDown(in_channels, channels, stride=stride) if level else _released_unit(in_channels, channels)
    if family == "densenet":
        return _dense_level(architecture, level, in_channels, stride)
    if is_timm(family):  # a unit of ours beside it at full resolution; what is below is its own
        return nn.Identity() if level else UNITS["plain"](architecture, level, in_channels, channels, ONE)
    unit = UNITS[architecture.get("bottom", family) if level == architecture.levels - 1 else family]
    if level and architecture["downsampling"] == "max":
        pool = nn.MaxPool3d(stride, ceil_mode=True)
        return nn.Sequential(pool, unit(architecture, level, in_channels, channels, ONE))
    if level == 0 and architecture.get("stem"):
        kernel, stride = architecture["stem"]
        settings = {name: architecture[name] for name in ("norm", "activation")}
        stem = PlainUnit(in_channels, channels, kernel=kernel, stride=stride, repeats=1, **settings)
        return nn.Sequential(stem, unit(architecture, level, channels, channels, ONE))
    return nn.Sequential(unit(architecture, level, in_channels, channels, stride))


def decoder_level(architecture: Architecture, level: int, in_channels: int) -> nn.Module:
    """Make the unit after a skip has joined: (B, in_channels, D, H, W) to (B, C, D, H, W).

    UNETR++ has one at full resolution only: below it the attention blocks are the level.
    """
    channels = architecture.decoder_channels[level]
    family = architecture.get("decoder", architecture["encoder"])
    if family == "unetrpp":
        return nn.Identity() if level else _released_unit(in_channels, channels)
    if is_timm(family):
        family = "plain"
    return UNITS[family](architecture, level, in_channels, channels, ONE)


def start_encoder_attention(architecture: Architecture, block: nn.Module) -> None:
    """Give an encoder's attention block the released start, where its family has one.

    UNETR++ draws the weights of its encoder's linear maps, token projections included, from a normal of deviation
    0.02 (cut at 100 deviations, so not at all) and zeroes their biases; its decoder keeps torch's start.
    """
    if architecture["encoder"] != "unetrpp":
        return
    for module in block.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _released_unit(in_channels: int, out_channels: int) -> nn.Module:
    unit: nn.Module = UnetResBlock(in_channels, out_channels)
    return unit


class PatchDown(nn.Module):
    """UNETR++'s stem and downsampling: a bias-free convolution whose kernel is its stride, then group norm.

    The released groups are the incoming channels (1 or 4 at the stem; two channels a group below it), which must
    divide the outgoing ones: with other images ours take the greatest common divisor. Sizes that the stride doesn't
    divide are filled up with zeros at their ends (the released code drops the rest).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: Triple) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(in_channels, out_channels, stride, stride, bias=False)
        self.norm = GroupNorm(gcd(in_channels, out_channels), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C_in, D, H, W) to (B, C, ceil(D/s), ceil(H/s), ceil(W/s))."""
        # One less than the stride at any size: what an exported file can say, and never a voxel more in the output
        depth, height, width = (step - 1 for step in self.stride)
        out: Tensor = self.norm(self.conv(functional.pad(x, (0, width, 0, height, 0, depth))))
        return out


def dense_channels(*, stem: int, layers: tuple[int, ...], growth: int) -> tuple[int, ...]:
    """Return the channels of a DenseNet's levels: the stem, then each stage's; transitions halve in between."""
    channels = [stem]
    for stage, count in enumerate(layers):
        taken = channels[-1] // 2 if stage else channels[-1]
        channels.append(taken + count * growth)
    return tuple(channels)


def _dense_level(architecture: Architecture, level: int, in_channels: int, stride: Triple) -> nn.Module:
    """Make a DenseNet's stem at full resolution, or pooling and a stage; from the second stage with a transition."""
    channels, layers, growth = architecture["channels"], architecture["dense_layers"], architecture["dense_growth"]
    spelled = dense_channels(stem=channels[0], layers=layers, growth=growth)
    if spelled != channels:
        raise ValueError(f"a DenseNet of layers {layers} and growth {growth} has channels {spelled}, not {channels}")
    if level == 0:
        kernel = architecture["kernels"][0]
        return nn.Sequential(_conv(in_channels, channels[0], kernel), *_norm_act(architecture, channels[0]))
    if level == 1:
        down: list[nn.Module] = [nn.MaxPool3d(stride, ceil_mode=True)]
    else:
        halved = nn.Conv3d(in_channels, in_channels // 2, 1, bias=False)
        down = [*_norm_act(architecture, in_channels), halved, nn.AvgPool3d(stride, ceil_mode=True)]
        in_channels //= 2
    end = _norm_act(architecture, channels[level]) if level == architecture.levels - 1 else ()
    return nn.Sequential(*down, DenseStage(architecture, level, in_channels), *end)


class DenseStage(nn.Module):
    """DenseNet's stage: each layer (norm, activation, convolution) adds its channels to all before it."""

    def __init__(self, architecture: Architecture, level: int, in_channels: int) -> None:
        super().__init__()
        kernel, growth = architecture["kernels"][level], architecture["dense_growth"]
        widths = [in_channels + layer * growth for layer in range(architecture["dense_layers"][level - 1])]
        self.layers = nn.ModuleList(
            nn.Sequential(*_norm_act(architecture, width), _conv(width, growth, kernel)) for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W) to (B, C + layers * growth, D, H, W)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


def _norm_act(architecture: Architecture, channels: int) -> tuple[nn.Module, nn.Module]:
    return make_norm(architecture["norm"], channels), make_activation(architecture["activation"])


def _conv(in_channels: int, out_channels: int, kernel: Triple) -> nn.Conv3d:
    depth, height, width = kernel
    return nn.Conv3d(in_channels, out_channels, kernel, padding=(depth // 2, height // 2, width // 2), bias=False)
