"""Encoder families: the unit at each encoder level and the matching decoder unit.

`plain`, `residual` and `dense` are our own units; every entry of the architecture applies to them. The papers'
families fix some entries, which are then omitted: `csam`, `me` and `unetrpp` have no entries for norm, activation,
kernels, repeats and dropout. `densenet` adds `dense_layers` and `dense_growth`, `resenc` adds `residual_blocks`, blocks
per level; its `repeats` are those of the decoder. `bottom` and `decoder` name the unit of the deepest level and of the
decoder if they differ from the encoder's. Networks of nnU-Net have `conv_bias` (convolutions before a norm have a
bias), `init` (see `start_as_nnunet`) and `supervised_levels`.
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
from blocks.resenc import ResidualStage, ResNetDBlock
from space.architecture import Architecture
from space.pooling import Triple
from space.timm_info import PREFIX, is_timm

if TYPE_CHECKING:
    from space.timm_encoder import TimmSlices

ONE: Triple = (1, 1, 1)
MakeUnit = Callable[[Architecture, int, int, int, Triple], nn.Module]


def _own(unit: type[nn.Module]) -> MakeUnit:
    """Return a factory of our own units, configured by the architecture's entries."""

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
            bias=architecture.get("conv_bias", False),
        )

    return make


def _residual_stage(
    architecture: Architecture, level: int, in_channels: int, out_channels: int, stride: Triple
) -> nn.Module:
    """Create a level of nnU-Net's residual encoder, at full resolution after a stem of one convolution."""
    settings = {
        "kernel": architecture["kernels"][level],
        "norm": architecture["norm"],
        "activation": architecture["activation"],
        "dropout": architecture["dropout"],
        "bias": architecture.get("conv_bias", False),
    }
    blocks = architecture["residual_blocks"][level]
    if level:
        stage: nn.Module = ResidualStage(in_channels, out_channels, blocks=blocks, stride=stride, **settings)
        return stage
    stem = PlainUnit(in_channels, out_channels, repeats=1, **settings)
    return nn.Sequential(stem, ResidualStage(out_channels, out_channels, blocks=blocks, **settings))


def _fixed(unit: type[nn.Module]) -> MakeUnit:
    """Return a factory of a paper's units, which have a fixed form and no stride."""

    def make(architecture: Architecture, level: int, in_channels: int, out_channels: int, stride: Triple) -> nn.Module:
        if stride != ONE:
            raise ValueError(f"{architecture['encoder']!r} units have no stride, but level {level} has {stride}")
        return unit(in_channels, out_channels)

    return make


UNITS: dict[str, MakeUnit] = {
    "plain": _own(PlainUnit),
    "residual": _own(ResidualUnit),
    "dense": _own(DenseUnit),
    "resenc": _residual_stage,
    "csam": _fixed(CSAMConv),
    "me": _fixed(MeUnit),
}


def image_levels(architecture: Architecture) -> int:
    """Return how many levels read the image directly: two in UNETR++, whose stem runs beside full resolution."""
    return 2 if architecture["encoder"] == "unetrpp" else 1


def backbone(architecture: Architecture, in_channels: int) -> TimmSlices | None:
    """Create the timm encoder, which computes all levels below full resolution at once; None for other families."""
    if not is_timm(architecture["encoder"]):
        return None
    from space.timm_encoder import TimmSlices  # imported lazily: timm takes as long to load as torch

    return TimmSlices(architecture["encoder"].removeprefix(PREFIX), in_channels, levels=architecture.levels - 1)


def encoder_level(architecture: Architecture, level: int, in_channels: int) -> nn.Module:
    """Create an encoder level: (B, in_channels, D, H, W) to (B, C, ceil(D/s), ceil(H/s), ceil(W/s))."""
    family, channels = architecture["encoder"], architecture["channels"][level]
    stride = architecture["pooling"][level - 1] if level else ONE
    if family == "unetrpp":
        return PatchDown(in_channels, channels, stride=stride) if level else _released_unit(in_channels, channels)
    if family == "densenet":
        return _dense_level(architecture, level, in_channels, stride)
    if is_timm(family):  # our unit at full resolution; timm's stages are the levels below
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
    """Create the decoder unit after the skip has joined: (B, in_channels, D, H, W) to (B, C, D, H, W).

    UNETR++ has a unit at full resolution only; its other levels consist of attention blocks.
    """
    channels = architecture.decoder_channels[level]
    family = architecture.get("decoder", architecture["encoder"])
    if family == "unetrpp":
        return nn.Identity() if level else _released_unit(in_channels, channels)
    if is_timm(family):
        family = "plain"
    return UNITS[family](architecture, level, in_channels, channels, ONE)


def start_encoder_attention(architecture: Architecture, block: nn.Module) -> None:
    """Initialise an encoder's attention block as the released code does, for families with such a rule.

    UNETR++ draws the weights of its encoder's linear layers, including token projections, from a normal distribution
    with standard deviation 0.02 and zeroes their biases. The released code truncates at 100 standard deviations, which
    has no effect. The decoder keeps torch's default initialisation.
    """
    if architecture["encoder"] != "unetrpp":
        return
    for module in block.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def start_as_nnunet(network: nn.Module) -> None:
    """Initialise convolutions as nnU-Net does: He's normal distribution, and no bias.

    Each residual block starts as its shortcut: its last norm scales by 0.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ResNetDBlock) and isinstance(module.second.norm.weight, nn.Parameter):
            nn.init.zeros_(module.second.norm.weight)


def _released_unit(in_channels: int, out_channels: int) -> nn.Module:
    unit: nn.Module = UnetResBlock(in_channels, out_channels)
    return unit


class PatchDown(nn.Module):
    """UNETR++'s stem and downsampling: a bias-free convolution whose kernel is its stride, then group norm.

    The released code uses as many groups as input channels (1 or 4 at the stem; below it, two channels per group),
    which must divide the output channels. For other inputs, ours uses the greatest common divisor. Sizes that the
    stride doesn't divide are zero-padded at the end; the released code drops the remainder.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: Triple) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(in_channels, out_channels, stride, stride, bias=False)
        self.norm = GroupNorm(gcd(in_channels, out_channels), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C_in, D, H, W) to (B, C, ceil(D/s), ceil(H/s), ceil(W/s))."""
        # Pad by stride - 1 at any size: export needs a constant, and the output size stays ceil(size / stride)
        depth, height, width = (step - 1 for step in self.stride)
        out: Tensor = self.norm(self.conv(functional.pad(x, (0, width, 0, height, 0, depth))))
        return out


def dense_channels(*, stem: int, layers: tuple[int, ...], growth: int) -> tuple[int, ...]:
    """Return the channels of a DenseNet's levels: the stem, then each stage; transitions in between halve them."""
    channels = [stem]
    for stage, count in enumerate(layers):
        taken = channels[-1] // 2 if stage else channels[-1]
        channels.append(taken + count * growth)
    return tuple(channels)


def _dense_level(architecture: Architecture, level: int, in_channels: int, stride: Triple) -> nn.Module:
    """Create a DenseNet's stem (level 0), or a stage after pooling; from the second stage on, after a transition."""
    channels, layers, growth = architecture["channels"], architecture["dense_layers"], architecture["dense_growth"]
    expected = dense_channels(stem=channels[0], layers=layers, growth=growth)
    if expected != channels:
        raise ValueError(f"a DenseNet of layers {layers} and growth {growth} has channels {expected}, not {channels}")
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
    """DenseNet stage: each layer (norm, activation, convolution) concatenates its output to its input."""

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
