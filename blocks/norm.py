"""Norms and activations by name.

Sources: torch's own layers. Differences: torch's instance norm raises in training at one spatial element; ours
returns its bias, so the deepest level of a network may be one voxel. In eval every norm works at any size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NORMS = ("instance", "batch", "group", "layer", "slice")
ACTIVATIONS = ("leakyrelu", "relu", "gelu", "silu")


def keeps_channels_last(x: Tensor) -> bool:
    """Return whether x is in channels-last layout (and not also contiguous): its results should be too.

    False during export, where the test would become a fixed condition on the sizes.
    """
    if x.dim() != 5 or torch.compiler.is_exporting() or x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last_3d)


def _normalise_groups(x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Tensor:
    """Normalise each of `groups` groups of channels to zero mean and unit variance; shape (B, C, ...), kept.

    Uses the native operator: its output is not a view, so a following in-place activation costs no memory, and under
    autocast it keeps half precision, where `group_norm` returns float32 and doubles the activations. CUDA's kernel
    takes row-major volumes only: channels-last ones are normalised there by the batch norm's kernel, volume by volume.
    """
    on_cuda = x.is_cuda and keeps_channels_last(x)
    if on_cuda and groups == x.shape[1] and not torch.compiler.is_compiling():
        return _NormaliseChannels.apply(x, weight, bias, (None, None), 0.0, eps, True)
    if weight is not None and weight.dtype != x.dtype:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    volume = x if keeps_channels_last(x) and not on_cuda else x.contiguous()
    voxels = math.prod(x.shape[2:])
    out = torch.native_group_norm(volume, weight, bias, x.shape[0], x.shape[1], voxels, groups, eps)[0]
    return out.contiguous(memory_format=torch.channels_last_3d) if on_cuda else out


class _NormaliseChannels(Function):
    """Normalise each channel of channels-last volumes on CUDA, per volume (`apart`) or over the batch.

    Uses the batch norm's kernel on planes (B, C, D * H, W), because it is slow on channels-last tensors with five axes.
    The result is not a view, so a following in-place activation costs no memory.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, running, momentum, eps, apart):
        out = torch.empty_like(x)
        statistics, kept = [], torch.promote_types(x.dtype, torch.float32)
        for volume, normal in zip(_planes(x, apart), _planes(out, apart), strict=True):
            mean, deviation = (x.new_empty(x.shape[1], dtype=kept) for _ in range(2))
            torch.ops.aten.native_batch_norm.out(
                volume, weight, bias, *running, True, momentum, eps, out=normal, save_mean=mean, save_invstd=deviation
            )
            statistics += [mean, deviation]
        ctx.eps, ctx.apart = eps, apart
        ctx.save_for_backward(x, weight, *statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, *statistics = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        mask = [True, weight is not None, weight is not None]
        found = [
            torch.ops.aten.native_batch_norm_backward(
                above, volume, weight, None, None, mean, deviation, True, ctx.eps, mask
            )
            for above, volume, mean, deviation in zip(
                _planes(grad, ctx.apart), _planes(x, ctx.apart), statistics[::2], statistics[1::2], strict=True
            )
        ]
        volumes, of_weight, of_bias = zip(*found, strict=True)
        grad_x = (volumes[0] if len(volumes) == 1 else torch.cat(volumes)).unflatten(2, x.shape[2:4])
        if weight is None:
            return grad_x, None, None, None, None, None, None
        return grad_x, sum(of_weight), sum(of_bias), None, None, None, None


def _planes(x: Tensor, apart: bool) -> tuple[Tensor, ...]:
    """Return views of channels-last volumes (B, C, D, H, W) as (B, C, D * H, W), one per volume if `apart`."""
    planes = x.flatten(2, 3)
    return planes.split(1) if apart else (planes,)


class InstanceNorm(nn.InstanceNorm3d):
    """Statistics over (D, H, W) per volume and channel; a single voxel becomes the bias (0 without affine)."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        self._check_input_dim(x)
        return _normalise_groups(x, self.weight, self.bias, x.shape[1], self.eps)


class SliceNorm(nn.InstanceNorm3d):
    """Statistics over (H, W) per volume, channel and slice: a 2D network's instance norm, affine shared by slices.

    A volume gives the same result as its slices would as a batch of images.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        self._check_input_dim(x)
        with torch.autocast(x.device.type, enabled=False):  # CUDA's would give float32
            x = torch.native_layer_norm(x.contiguous(), x.shape[3:], None, None, self.eps)[0]
        if self.weight is None:
            return x
        weight, bias = (p.to(x.dtype)[:, None, None, None] for p in (self.weight, self.bias))  # (C, 1, 1, 1)
        return torch.addcmul(bias, x, weight)


class BatchNorm(nn.BatchNorm3d):
    """torch's batch norm, with a clear error if a training step has one value per channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        if self.training and x.shape[0] * math.prod(x.shape[2:]) == 1:
            raise ValueError(
                f"batch norm in training needs more than 1 value per channel, got the shape {tuple(x.shape)}: "
                "use a larger batch or patch, fewer levels, or another norm"
            )
        if not (self.training and x.is_cuda and keeps_channels_last(x)) or torch.compiler.is_compiling():
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        running = (self.running_mean, self.running_var)
        return _NormaliseChannels.apply(x, self.weight, self.bias, running, self.momentum, self.eps, False)


class LayerNorm(nn.LayerNorm):
    """Statistics over the channels of each voxel, as in a transformer or ConvNeXt (not torch's GroupNorm(1, C)).

    The result doesn't depend on the size of the volume. At one channel the output is the bias.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W) and memory layout, both kept."""
        with torch.autocast(x.device.type, enabled=False):  # CUDA's would give float32
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            out = F.layer_norm(x.movedim(1, -1), self.normalized_shape, weight, bias, self.eps).movedim(-1, 1)
        return out if keeps_channels_last(x) else out.contiguous()


class GroupNorm(nn.GroupNorm):
    """torch's group norm, but it keeps half precision under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        return _normalise_groups(x, self.weight, self.bias, self.num_groups, self.eps)


def make_norm(name: str, channels: int, *, affine: bool = True) -> nn.Module:
    """Return one of `NORMS` for `channels`; without `affine` it has no parameters.

    instance: per volume and channel. batch: over the batch, running statistics in eval. group: per volume and group
    of channels (8 groups, or the greatest common divisor of 8 and the channels). layer: over the channels of a voxel.
    slice: per volume, channel and slice. Only batch norm raises at one value per channel, and only in training.
    """
    if channels < 1:
        raise ValueError(f"a norm needs at least 1 channel, got {channels}")
    if name == "instance":
        return InstanceNorm(channels, affine=affine)
    if name == "batch":
        return BatchNorm(channels, affine=affine)
    if name == "group":
        return GroupNorm(math.gcd(8, channels), channels, affine=affine)
    if name == "layer":
        return LayerNorm(channels, elementwise_affine=affine)
    if name == "slice":
        return SliceNorm(channels, affine=affine)
    raise ValueError(f"unknown norm {name!r}; choose from {', '.join(NORMS)}")


def make_activation(name: str) -> nn.Module:
    """Return one of `ACTIVATIONS`; leakyrelu has slope 0.01. The first two work in place, after a norm or sum."""
    if name == "leakyrelu":
        return nn.LeakyReLU(0.01, inplace=True)
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "gelu":
        return nn.GELU()
    if name == "silu":
        return nn.SiLU()
    raise ValueError(f"unknown activation {name!r}; choose from {', '.join(ACTIVATIONS)}")
