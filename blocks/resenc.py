"""The residual unit of nnU-Net's ResEnc U-Nets: ResNet-D basic blocks, several per level.

Source: Isensee et al., nnU-Net Revisited, MICCAI 2024, with the block of He et al., Bag of Tricks, CVPR 2019. How ours
differs: sizes that the stride doesn't divide are rounded up.
"""

import torch.nn as nn
from torch import Tensor

from blocks.conv import ConvNormAct, Triple, make_activation, make_norm


class ResNetDBlock(nn.Module):
    """Two convolutions and a shortcut: average pooling for a stride, then a 1x1x1 convolution for other channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple,
        stride: Triple,
        norm: str,
        activation: str,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        settings = {"kernel": kernel, "norm": norm, "dropout": dropout, "bias": bias}
        self.first = ConvNormAct(in_channels, out_channels, stride=stride, activation=activation, **settings)
        self.second = ConvNormAct(
            out_channels, out_channels, stride=(1, 1, 1), activation=None, **{**settings, "dropout": 0.0}
        )
        shortcut: list[nn.Module] = []
        if tuple(stride) != (1, 1, 1):
            shortcut.append(nn.AvgPool3d(stride, stride, ceil_mode=True))
        if in_channels != out_channels:
            shortcut += [nn.Conv3d(in_channels, out_channels, 1, bias=False), make_norm(norm, out_channels)]
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C_in, D, H, W) to (B, C_out, ceil(D/s), ceil(H/s), ceil(W/s))."""
        return self.activation(self.second(self.first(x)) + self.shortcut(x))


class ResidualStage(nn.Sequential):
    """A level of a ResEnc U-Net: `blocks` residual blocks, the first with the stride."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        blocks: int,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        norm: str = "instance",
        activation: str = "leakyrelu",
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        if blocks < 1:
            raise ValueError(f"a residual level needs at least 1 block, got blocks={blocks}")
        settings = {"kernel": kernel, "norm": norm, "activation": activation, "dropout": dropout, "bias": bias}
        first = ResNetDBlock(in_channels, out_channels, stride=stride, **settings)
        rest = (ResNetDBlock(out_channels, out_channels, stride=(1, 1, 1), **settings) for _ in range(blocks - 1))
        super().__init__(first, *rest)
