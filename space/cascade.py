"""meU-net's cascade as one module: a second network also receives the predictions of the first networks.

Source: Wang et al., MIDL 2022, section 3.2 and figure 3. Differences: the first networks predict the same patch that
the second network segments. In the paper, they segment whole volumes beforehand from overlapping patches. Our first
networks may be any U of the space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.meunet import label_maps
from space.architecture import Architecture
from space.canonical import Context
from space.stages import first_architecture, second_context
from space.unet import UNet


class Cascade(nn.Module):
    """First networks and a second network that takes their one-hot predictions; trained one after the other.

    Shape: (B, in_channels, D, H, W) to logits (B, classes, D, H, W). The second network passes no gradient to the
    first ones, as argmax predictions are not differentiable.
    """

    def __init__(self, architecture: Architecture, context: Context) -> None:
        super().__init__()
        self.classes = context.classes
        self.expansions: tuple[float, ...] = architecture["cascade.first"]
        self.first = nn.ModuleList(
            UNet(
                first_architecture(architecture, expansion),
                in_channels=context.in_channels,
                classes=context.classes,
                patch=context.patch,
            )
            for expansion in self.expansions
        )
        channels = second_context(architecture, context).in_channels
        self.second = UNet(architecture, in_channels=channels, classes=context.classes, patch=context.patch)

    def networks(self) -> dict[str, UNet]:
        """Return all networks by module name, in training order."""
        firsts = {f"first.{number}": first for number, first in enumerate(self.first) if isinstance(first, UNet)}
        return {**firsts, "second": self.second}

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, in_channels, D, H, W) to logits (B, classes, D, H, W)."""
        logits: Tensor = self.second(self.with_predictions(x))
        return logits

    def supervised(self, x: Tensor) -> list[Tensor]:
        """Return the second network's logits for the loss, full resolution first."""
        return self.second.supervised(self.with_predictions(x))

    def with_predictions(self, x: Tensor) -> Tensor:
        """Append the first networks' one-hot predictions to the image as channels."""
        with torch.no_grad():
            labels = [first(x).argmax(dim=1) for first in self.first]  # (B, D, H, W) each
            return torch.cat([x, label_maps(labels, labels=range(self.classes)).to(x.dtype)], dim=1)
