"""Squeeze-and-excitation in the plane: a gate for each channel of each slice.

Source: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018. Ours averages over the plane of a slice instead of
over the whole volume: slices of thick-slice volumes show different organs, so they want different channels.
"""

from torch import Tensor, nn
from voxnas import BlockSpec, Option


class SliceSE(nn.Module):
    """Scale each channel of each slice by sigmoid(W2 relu(W1 mean)), the mean taken over the slice's plane."""

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.relu = nn.ReLU()
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        mean = x.mean(dim=(3, 4)).transpose(1, 2)  # (B, D, C)
        gate = self.excite(self.relu(self.squeeze(mean))).sigmoid()
        return x * gate.transpose(1, 2)[..., None, None].to(x.dtype)


BLOCK = BlockSpec(
    "slice_se",
    SliceSE,
    label="Slice-wise squeeze-and-excitation",
    source="after Hu, Shen, Sun, CVPR 2018",
    licence="Apache-2.0",
    options=(Option("reduction", (4, 8), "channels over those of the hidden layer", limits=(1, 64)),),
)
