"""ISA, SAU-Net's inter-slice attention: each slice is gated by masks computed from its two neighbours.

Source: Zhang, Yuan, Wang, Zhang, "SAU-Net", MIDL 2020, section 3.2, figures 2 and 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from blocks.norm import keeps_channels_last

CHUNKS = 8  # of channels; each fits in the cache, so several operations on it cost one pass over memory


class ISA(nn.Module):
    """O_i = F_i * (1 + M_{i-1} + M_{i+1}), with masks M = sigmoid(conv1x1(F)) of one value per channel and voxel.

    The first and last slices have one mask (the paper's pruned branch: nothing is replicated); a single slice
    has none and passes unchanged. A missing mask is a zero after the sigmoid; a zero before it would give 0.5.

    The paper doesn't specify whether one convolution computes both masks. It does with `shared` (our default);
    otherwise the masks of the previous and the next slice have separate convolutions. F must be features, not
    one-channel logits: the factor is positive, so signs never change and thresholded one-channel logits stay the
    same. Therefore the head follows this block (the paper's last sigmoid belongs to the head).

    Cost per voxel: channels^2 multiply-adds (twice that without `shared`). No weight depends on D, H or W.
    """

    def __init__(self, channels: int, *, shared: bool = True) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"ISA needs at least 1 channel, got {channels}")
        self.channels = channels
        self.shared = shared
        if shared:
            self.conv = nn.Conv3d(channels, channels, 1)
        else:
            self.conv_previous = nn.Conv3d(channels, channels, 1)
            self.conv_next = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), kept."""
        if x.dim() != 5 or x.shape[1] != self.channels:
            raise ValueError(f"ISA expects (B, {self.channels}, D, H, W), got {tuple(x.shape)}")
        if self.shared:
            previous = following = self.conv(x).sigmoid_()  # (B, C, D, H, W)
        else:
            # Convolve whole volumes: of a single slice, cutting off one slice would leave an empty volume.
            previous, following = self.conv_previous(x).sigmoid_(), self.conv_next(x).sigmoid_()
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return _gate_plainly(x, previous, following)
        x, previous, following = (part.contiguous(memory_format=_layout(x)) for part in (x, previous, following))
        return _Gate.apply(x, previous, None if self.shared else following)


def _gate_plainly(x: Tensor, previous: Tensor, following: Tensor) -> Tensor:
    """`_Gate` in plain operations: for compilers, which fuse them, and for exported files."""
    previous, following = (F.pad(mask, (0, 0, 0, 0, 1, 1)) for mask in (previous, following))  # D + 2 slices
    gate = previous[:, :, :-2] + following[:, :, 2:]  # slicing D - 1 would require D > 2 in an exported file
    return x + x * gate.to(x.dtype)


class _Gate(Function):
    """x_i * (1 + previous_{i-1} + following_{i+1}) in one pass; `following` is None if one mask serves both.

    Saves the input and the masks, which the convolution and the sigmoid save anyway.
    """

    @staticmethod
    def forward(ctx, x, previous, following):
        ctx.save_for_backward(x, previous, following)
        return _scale(x, previous, previous if following is None else following)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, previous, following = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_layout(x))
        grad_x = _scale(grad, previous, previous if following is None else following)
        grad_previous = torch.zeros_like(previous)
        grad_following = None if following is None else torch.zeros_like(following)
        for run in _chunks(x) if x.shape[2] > 1 else ():
            product = grad[:, run] * x[:, run]
            if grad_following is None:
                _neighbours(grad_previous[:, run], product, product)
            else:
                grad_previous[:, run, :-1] = product[:, :, 1:]
                grad_following[:, run, 1:] = product[:, :, :-1]
        return grad_x, grad_previous, grad_following


def _scale(x: Tensor, previous: Tensor, following: Tensor) -> Tensor:
    if x.shape[2] == 1:
        return x.clone()
    out = torch.empty_like(x)
    for run in _chunks(x):
        part, values = out[:, run], x[:, run]
        _neighbours(part, previous[:, run], following[:, run])
        torch.addcmul(values, values, part, out=part)
    return out


def _neighbours(out: Tensor, before: Tensor, after: Tensor) -> None:
    """out_i = before_{i-1} + after_{i+1} along D, which is at least 2."""
    torch.add(before[:, :, :-2], after[:, :, 2:], out=out[:, :, 1:-1])
    out[:, :, 0] = after[:, :, 1]
    out[:, :, -1] = before[:, :, -2]


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if keeps_channels_last(x) else torch.contiguous_format


def _chunks(x: Tensor) -> list[slice]:
    """Ranges of channels; a single one in channels-last layout and on devices other than the CPU."""
    channels = x.shape[1]
    step = -(-channels // CHUNKS) if x.is_cpu and not keeps_channels_last(x) else channels
    return [slice(start, start + step) for start in range(0, channels, step)]
