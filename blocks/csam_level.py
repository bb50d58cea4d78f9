"""One level of CSAM's encoder, and the released names of its weights.

Source: EncoderCSAM in CSAM_modules.py at a0029206. Differences: volumes are (B, C, D, H, W); its 2D convolutions
(k, k) are convolutions (1, k, k) here, and its instance norm is computed per slice.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from blocks.csam import CSAM
from blocks.norm import make_activation, make_norm

_CONVS = ("conv.conv.0.weight", "conv.conv.3.weight")


class CSAMConv(nn.Module):
    """Two times conv 3x3 (with bias) -> norm per slice (without parameters) -> LeakyReLU 0.01, slice by slice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f"CSAMConv needs at least 1 channel on each side, got {in_channels} -> {out_channels}")
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(nn.Conv3d(channels, out_channels, (1, 3, 3), padding=(0, 1, 1)))
            layers.append(make_norm("slice", out_channels, affine=False))
            layers.append(make_activation("leakyrelu"))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C_in, D, H, W) to (B, C_out, D, H, W)."""
        return self.conv(x)


class CSAMLevel(nn.Module):
    """Convolutions, then CSAM on the skip only: the next level pools the features WITHOUT attention.

    At the last level the attended features are the bottleneck.
    """

    def __init__(self, in_channels: int, out_channels: int, *, slices: int, uncertainty: bool = False) -> None:
        super().__init__()
        self.conv = CSAMConv(in_channels, out_channels)
        self.attention = CSAM(out_channels, slices=slices, uncertainty=uncertainty)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (B, C_in, D, H, W) to two of (B, C_out, D, H, W): for the skip, and for the pooling."""
        x = self.conv(x)
        return self.attention(x), x


def from_released(state: Mapping[str, Tensor], *, level: int) -> dict[str, Tensor]:
    """Return the state of one `CSAMLevel` from that of a released EncoderCSAM; levels count from 0."""
    table = {f"conv.{level}.": "conv.", f"attentions.{level}.": "attention."}
    ours = _rename(state, table)
    if not ours:
        raise ValueError(f"the released state has no level {level}: no name starts with {' or '.join(table)}")
    return {name: value.unsqueeze(2) if name in _CONVS else value for name, value in ours.items()}


def to_released(state: Mapping[str, Tensor], *, level: int) -> dict[str, Tensor]:
    """Inverse of `from_released`."""
    state = {name: value.squeeze(2) if name in _CONVS else value for name, value in state.items()}
    return _rename(state, {"conv.": f"conv.{level}.", "attention.": f"attentions.{level}."})


def _rename(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        new + name.removeprefix(old): value
        for name, value in state.items()
        for old, new in prefixes.items()
        if name.startswith(old)
    }
