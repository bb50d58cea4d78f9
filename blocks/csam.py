"""CSAM: one gate per channel, per pixel and per slice, each computed from the whole volume.

Source: CSAM (WACV 2024), CSAM_modules.py at a0029206; the state-dict names are the released ones. Differences:
the released modules take one volume as (S, C, H, W); ours take (B, C, D, H, W) and never mix the volumes of a
batch. Any number of slices works, and the uncertain gate is trained. A volume x of the released code is
`x.movedim(0, 1)[None]` here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.gating import pixel_descriptors, scale, slice_descriptors, source

REDUCTION = 16
EXPANSION = 4


def _check(x: Tensor, *, name: str, channels: int | None = None) -> None:
    if x.dim() != 5 or (channels is not None and x.shape[1] != channels):
        raise ValueError(f"{name} expects (B, {channels or 'C'}, D, H, W), got {tuple(x.shape)}")


def _gated(
    x: Tensor,
    *,
    semantic: "SemanticGate | None" = None,
    positional: "PositionalGate | None" = None,
    slices: "SliceGate | None" = None,
    noise: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Apply the given gates one after the other to (B, C, D, H, W); missing gates are 1."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return _gated_plainly(x, semantic=semantic, positional=positional, slices=slices, noise=noise)
    batch, channels, depth, height, width = x.shape
    origin = source(x)
    wide = origin.channel_mean.dtype
    ones = origin.channel_mean.new_ones
    maximum = mean = None
    of_channel, of_pixel, of_slice = ones(batch, channels), ones(batch, height * width), ones(batch, depth)
    if semantic is not None:
        of_channel = semantic.gate(origin.channel_max, origin.channel_mean).to(wide)
    if positional is not None:
        maximum, mean = pixel_descriptors(origin, of_channel)
        size = (batch, height, width)
        of_pixel = positional.gate(maximum.reshape(size), mean.reshape(size)).flatten(1).to(wide)
    volume, carriers = origin.volume, origin.carriers
    del origin, maximum, mean  # free the (C, H, W) arrays: at the end only the input and the output are in memory
    if slices is not None:
        of_slice = slices.gate(*slice_descriptors(volume, carriers, of_channel, of_pixel), noise=noise).to(wide)
    return scale(volume, carriers, of_channel, of_pixel, of_slice).reshape(x.shape)


def _gated_plainly(
    x: Tensor,
    *,
    semantic: "SemanticGate | None",
    positional: "PositionalGate | None",
    slices: "SliceGate | None",
    noise: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """`_gated` in plain operations: for compilers, which fuse them, and for exported files."""
    if semantic is not None:
        gate = semantic.gate(x.flatten(2).max(dim=2).values, x.mean(dim=(2, 3, 4)))
        x = x * gate.to(x.dtype)[:, :, None, None, None]
    if positional is not None:
        gate = positional.gate(x.flatten(1, 2).max(dim=1).values, x.mean(dim=(1, 2)))
        x = x * gate.to(x.dtype)[:, None, None]
    if slices is not None:
        by_slice = x.transpose(1, 2).flatten(2)  # (B, D, C * H * W)
        gate = slices.gate(by_slice.max(dim=2).values, by_slice.mean(dim=2), noise=noise)
        x = x * gate.to(x.dtype)[:, None, :, None, None]
    return x


def _perceptron(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


class SemanticGate(nn.Module):
    """One factor per channel: sigmoid(MLP(maximum) + MLP(mean)) over all voxels of the volume; C -> C // 16 -> C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < REDUCTION:
            raise ValueError(
                f"CSAM's semantic gate needs at least {REDUCTION} channels, got {channels}: "
                f"its hidden layer has channels // {REDUCTION} = {channels // REDUCTION} units; use semantic=False"
            )
        self.channels = channels
        self.linear = _perceptron(channels, channels // REDUCTION)

    def gate(self, maximum: Tensor, mean: Tensor) -> Tensor:
        """Both (B, C), to (B, C)."""
        dtype = self.linear[0].weight.dtype
        return torch.sigmoid(self.linear(maximum.to(dtype)) + self.linear(mean.to(dtype)))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        _check(x, name="SemanticGate", channels=self.channels)
        return _gated(x, semantic=self)


class PositionalGate(nn.Module):
    """One factor per pixel: sigmoid(conv7x7(maximum, mean)) over all slices and channels of the volume."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def gate(self, maximum: Tensor, mean: Tensor) -> Tensor:
        """Both (B, H, W), to (B, H, W)."""
        maps = torch.stack([maximum, mean], dim=1).to(self.conv.weight.dtype)  # (B, 2, H, W)
        return torch.sigmoid(self.conv(maps)[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        _check(x, name="PositionalGate")
        return _gated(x, positional=self)


class SliceGate(nn.Module):
    """One factor per slice, computed by an MLP over the slices from each slice's maximum and mean; S -> 4 S -> S.

    At another depth than `slices` the descriptors are interpolated to `slices`, and the gate back (linear,
    align_corners=False: the identity at the depth `slices`).

    With `uncertainty` the logits are sampled in training from a normal distribution with a covariance of rank
    `rank` plus a diagonal. The sample is reparameterised, so the ten tensors get gradients (the released code
    detaches it and they get none). In eval the logits are the mean (the released code samples in eval too).
    """

    def __init__(self, slices: int, *, uncertainty: bool = False, rank: int = 5) -> None:
        super().__init__()
        if slices < 1:
            raise ValueError(f"CSAM's slice gate needs at least 1 slice, got slices={slices}")
        if rank < 1:
            raise ValueError(f"the rank of the slice gate's covariance is at least 1, got {rank}")
        self.slices = slices
        self.uncertainty = uncertainty
        self.rank = rank
        self.linear = _perceptron(slices, EXPANSION * slices)
        if uncertainty:
            self.mean = nn.Linear(slices, slices)
            self.log_diag = nn.Linear(slices, slices)
            self.factor = nn.Linear(slices, slices * rank)

    def gate(self, maximum: Tensor, mean: Tensor, *, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Both (B, D), to (B, D); `noise` replaces the sampled standard normals (B, rank) and (B, slices)."""
        descriptors = torch.stack([maximum, mean], dim=1).to(self.linear[0].weight.dtype)  # (B, 2, D)
        descriptors = F.interpolate(descriptors, size=self.slices, mode="linear", align_corners=False)
        logits = self.linear(descriptors).sum(dim=1)  # (B, S)
        if self.uncertainty:
            logits = self._draw(logits.relu(), noise=noise)
        gate = torch.sigmoid(logits)
        depth = maximum.shape[1]
        return F.interpolate(gate[:, None], size=depth, mode="linear", align_corners=False)[:, 0]  # (B, D)

    def _draw(self, hidden: Tensor, *, noise: tuple[Tensor, Tensor] | None) -> Tensor:
        mean = self.mean(hidden)
        if noise is None:
            if not self.training:
                return mean
            noise = (mean.new_empty(mean.shape[0], self.rank).normal_(), torch.randn_like(mean))
        factor = self.factor(hidden).unflatten(1, (self.slices, self.rank))
        common = (factor * noise[0][:, None]).sum(dim=2)
        return mean + common + torch.exp(self.log_diag(hidden) / 2) * noise[1]

    def forward(self, x: Tensor, *, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        _check(x, name="SliceGate")
        return _gated(x, slices=self, noise=noise)


class CSAM(nn.Module):
    """The semantic, positional and slice gates in sequence, each applied to the output of the previous one.

    There is no residual connection and no outer scale: an untrained block scales by about 1/8. `semantic`,
    `positional` and `slice` select the gates, at least one; `slices`, `uncertainty` and `rank` as in `SliceGate`.
    """

    def __init__(
        self,
        channels: int,
        *,
        slices: int,
        semantic: bool = True,
        positional: bool = True,
        slice: bool = True,
        uncertainty: bool = False,
        rank: int = 5,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"CSAM needs at least 1 channel, got {channels}")
        if not (semantic or positional or slice):
            raise ValueError("CSAM needs at least one of the gates semantic, positional, slice")
        self.channels = channels
        self.semantic_att = SemanticGate(channels) if semantic else None
        self.positional_att = PositionalGate() if positional else None
        self.slice_att = SliceGate(slices, uncertainty=uncertainty, rank=rank) if slice else None

    def forward(self, x: Tensor, *, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Shape (B, C, D, H, W), kept; `noise` as in `SliceGate.gate`."""
        _check(x, name="CSAM", channels=self.channels)
        return _gated(x, semantic=self.semantic_att, positional=self.positional_att, slices=self.slice_att, noise=noise)
