"""Convolution units: plain, residual and dense, and the released UNETR++ residual block.

Every unit maps (B, C_in, D, H, W) to (B, C_out, ceil(D/s), ceil(H/s), ceil(W/s)) and works at any size.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from blocks.norm import ACTIVATIONS, NORMS, make_activation, make_norm

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "DenseUnit",
    "PlainUnit",
    "ResidualUnit",
    "UnetResBlock",
    "make_activation",
    "make_norm",
]

Triple = tuple[int, int, int]


def _conv(in_channels: int, out_channels: int, kernel: Triple, stride: Triple, *, bias: bool = False) -> nn.Conv3d:
    """A convolution with "same" padding: size n becomes ceil(n / stride)."""
    if in_channels < 1 or out_channels < 1:
        raise ValueError(f"a convolution needs at least 1 channel on each side, got {in_channels} -> {out_channels}")
    if len(kernel) != 3 or len(stride) != 3:
        raise ValueError(f"kernel and stride have 3 sizes (D, H, W), got {tuple(kernel)} and {tuple(stride)}")
    if min(stride) < 1 or any(size < 1 or size % 2 == 0 for size in kernel):
        raise ValueError(f"kernel sizes are odd and strides at least 1, got {tuple(kernel)} and {tuple(stride)}")
    padding = tuple(size // 2 for size in kernel)
    return nn.Conv3d(in_channels, out_channels, tuple(kernel), tuple(stride), padding, bias=bias)


def _check_unit(repeats: int, dropout: float) -> None:
    if repeats < 1:
        raise ValueError(f"a unit needs at least 1 convolution, got repeats={repeats}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is a probability below 1, got {dropout}")


def _dropout(probability: float) -> nn.Module:
    """Channel dropout; the identity at 0."""
    return nn.Dropout3d(probability) if probability else nn.Identity()


class ConvNormAct(nn.Module):
    """Convolution -> norm -> activation, if any -> channel dropout: one step of the plain and dense units."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple,
        stride: Triple,
        norm: str,
        activation: str | None,
        dropout: float,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, kernel, stride, bias=bias)
        self.norm = make_norm(norm, out_channels)
        self.activation = make_activation(activation) if activation else nn.Identity()
        self.dropout = _dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C_in, D, H, W) to (B, C_out, D', H', W')."""
        return self.dropout(self.activation(self.norm(self.conv(x))))


class PlainUnit(nn.Sequential):
    """`repeats` times conv -> norm -> activation, the first with the stride: the unit of U-Net and nnU-Net."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        norm: str = "instance",
        activation: str = "leakyrelu",
        repeats: int = 2,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        _check_unit(repeats, dropout)
        super().__init__(
            *(
                ConvNormAct(
                    out_channels if index else in_channels,
                    out_channels,
                    kernel=kernel,
                    stride=(1, 1, 1) if index else stride,
                    norm=norm,
                    activation=activation,
                    dropout=dropout,
                    bias=bias,
                )
                for index in range(repeats)
            )
        )


class ResidualUnit(nn.Module):
    """The residual form of the released UNETR++ UnetResBlock: the sum precedes the last activation.

    With repeats=2: act(norm2(conv2(act(norm1(conv1 x)))) + shortcut). If channels or stride change, the shortcut is
    norm3(conv3 x) with a 1x1x1 convolution of the same stride; else it is the input. With other `repeats` the
    shortcut has the number repeats + 1. The state-dict names are the released ones: `conv1.conv.weight`,
    `norm1.weight`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        norm: str = "instance",
        activation: str = "leakyrelu",
        repeats: int = 2,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        _check_unit(repeats, dropout)
        self.repeats = repeats
        for number in range(1, repeats + 1):
            first = number == 1
            self._add(
                number,
                in_channels if first else out_channels,
                out_channels,
                kernel=kernel,
                stride=stride if first else (1, 1, 1),
                norm=norm,
                bias=bias,
            )
        self.projects = in_channels != out_channels or tuple(stride) != (1, 1, 1)
        if self.projects:
            self._add(repeats + 1, in_channels, out_channels, kernel=(1, 1, 1), stride=stride, norm=norm, bias=bias)
        self.activation = make_activation(activation)
        self.dropout = _dropout(dropout)

    def _add(self, number: int, ins: int, outs: int, *, kernel: Triple, stride: Triple, norm: str, bias: bool) -> None:
        conv = nn.Sequential(OrderedDict(conv=_conv(ins, outs, kernel, stride, bias=bias)))
        self.add_module(f"conv{number}", conv)
        self.add_module(f"norm{number}", self._norm(norm, outs))

    def _norm(self, name: str, channels: int) -> nn.Module:
        return make_norm(name, channels)

    def _step(self, number: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"norm{number}")(self.get_submodule(f"conv{number}")(x))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C_in, D, H, W) to (B, C_out, D', H', W')."""
        shortcut = self._step(self.repeats + 1, x) if self.projects else x
        for number in range(1, self.repeats):
            x = self.dropout(self.activation(self._step(number, x)))
        return self.dropout(self.activation(self._step(self.repeats, x) + shortcut))


class UnetResBlock(ResidualUnit):
    """The released UNETR++ block: a `ResidualUnit` of two convolutions whose instance norm has no parameters.

    Source: unetr_plus_plus, dynunet_block.py. Its transformer blocks use the norm "batch", its blocks at full
    resolution "instance".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        norm: str = "instance",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel=kernel, stride=stride, norm=norm, dropout=dropout)

    def _norm(self, name: str, channels: int) -> nn.Module:
        return make_norm(name, channels, affine=name != "instance")


class DenseUnit(nn.Module):
    """SAU-Net's dense block: each convolution after the first also takes the block's input.

    Source: Zhang et al., MIDL 2020, section 3 and figure 1: h1 = CBR1(x), h2 = CBR2([h1, x]), output h2. The
    figure doesn't specify whether the junction adds or concatenates, and whether the output is joined with x
    again. We concatenate, and only before a convolution. With a stride (the paper uses none), x is subsampled as
    by a strided 1x1x1 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        norm: str = "instance",
        activation: str = "leakyrelu",
        repeats: int = 2,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        _check_unit(repeats, dropout)
        self.stride = tuple(stride)
        self.steps = nn.ModuleList(
            ConvNormAct(
                out_channels + in_channels if index else in_channels,
                out_channels,
                kernel=kernel,
                stride=(1, 1, 1) if index else stride,
                norm=norm,
                activation=activation,
                dropout=dropout,
                bias=bias,
            )
            for index in range(repeats)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C_in, D, H, W) to (B, C_out, D', H', W')."""
        out = self.steps[0](x)
        if self.stride != (1, 1, 1):
            depth, height, width = self.stride
            x = x[:, :, ::depth, ::height, ::width]
        for step in self.steps[1:]:
            out = step(torch.cat([out, x], dim=1))
        return out
