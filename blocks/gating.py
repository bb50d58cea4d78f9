"""Scales a volume by gates computed from its reductions, in three passes forward and four backward.

Source: the arithmetic of CSAM's gates (blocks/csam.py). Plain autograd saves the volume after each gate and
sums six gradients of the volume's size. This implementation saves only the input. Gates are positive, so the
maximum over (slices, channels) of x * a equals the maximum over channels of a * (x's maximum over slices): the
semantic and positional descriptors come from two arrays without slices. The gradient of x is written once, at
the end.

To write it once, the last backward step needs values of the earlier ones. They pass them on as the "gradient"
of a carrier: a zero that `_Source` returns and one later function consumes. The values that flow back through
carriers are not derivatives; `_Source.backward` combines them into the derivative. Double backward is not
supported.

Shapes: volumes (B, C, S, N) with N = H * W; gates (B, C), (B, N) and (B, S). If several values are equal to
the maximum, one of them gets the gradient, as in the released code.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHUNKS = 8  # of channels; each fits in the cache, so several operations on it cost one pass over memory


class Carriers(NamedTuple):
    """Zeros whose "gradients" pass values back to `_Source`."""

    output: Tensor  # the cotangent of the scaled volume
    channel_gate: Tensor
    pixel_gate: Tensor
    slice_gate: Tensor
    pixel_max: Tensor  # gradients of the descriptors
    pixel_mean: Tensor
    slice_max: Tensor
    slice_mean: Tensor
    slice_channel: Tensor  # the channel of each slice's maximum, as a float


class Source(NamedTuple):
    """A volume with the reductions that the gates need."""

    volume: Tensor  # (B, C, S, N), without gradient
    channel_max: Tensor  # (B, C)
    channel_mean: Tensor
    over_slices_max: Tensor  # (B, C, N), without gradient
    over_slices_sum: Tensor
    carriers: Carriers


def source(x: Tensor) -> Source:
    """Compute the reductions of a volume (B, C, S, H, W) in one pass."""
    volume = x.flatten(3).contiguous()
    channel_max, channel_mean, largest, total, *carriers = _Source.apply(volume)
    return Source(volume.detach(), channel_max, channel_mean, largest, total, Carriers(*carriers))


def pixel_descriptors(origin: Source, channel_gate: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and mean over channels and slices of the volume times its channel gate, (B, N) each."""
    carriers = origin.carriers
    return _Pixels.apply(
        origin.over_slices_max,
        origin.over_slices_sum,
        channel_gate,
        origin.volume.shape[2],
        carriers.pixel_max,
        carriers.pixel_mean,
    )


def slice_descriptors(
    volume: Tensor, carriers: Carriers, channel_gate: Tensor, pixel_gate: Tensor
) -> tuple[Tensor, Tensor]:
    """Maximum and mean over channels and pixels of the volume times both gates, (B, S) each."""
    return _Slices.apply(volume, channel_gate, pixel_gate, *carriers[6:])


def scale(volume: Tensor, carriers: Carriers, channel_gate: Tensor, pixel_gate: Tensor, slice_gate: Tensor) -> Tensor:
    """The volume times all three gates, (B, C, S, N)."""
    return _Scale.apply(volume, channel_gate, pixel_gate, slice_gate, *carriers[:4])


def _chunks(channels: int) -> Iterator[slice]:
    step = -(-channels // CHUNKS)
    return (slice(start, start + step) for start in range(0, channels, step))


def _map_channels(x: Tensor, step: Callable[[Tensor, slice], Tensor]) -> list[Tensor]:
    return [step(x[:, run], run) for run in _chunks(x.shape[1])]


def _weights(channel_gate: Tensor, pixel_gate: Tensor) -> Tensor:
    return channel_gate[:, :, None] * pixel_gate[:, None]  # (B, C, N)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _row(x: Tensor, channel: Tensor, *, dim: int) -> Tensor:
    """x (B, C, S, N) at the channels (B, N) with dim 2 free, or (B, S) with dim 3 free; (B, S, N)."""
    index = channel[:, None, None, :] if dim == 2 else channel[:, None, :, None]
    return x.gather(1, index.expand(-1, 1, x.shape[2], x.shape[3]))[:, 0]


class _Source(Function):
    @staticmethod
    def forward(ctx, x):
        parts = _map_channels(x, lambda part, _: (part.amax(2), part.sum(2, dtype=_wide(x))))
        largest, total = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))  # (B, C, N)
        batch, channels, slices, pixels = x.shape
        ctx.save_for_backward(x, largest)
        ctx.mark_non_differentiable(largest, total)
        zeros = total.new_zeros
        return (
            largest.amax(2).to(total.dtype),
            total.sum(2) / (slices * pixels),
            largest,
            total,
            x.new_zeros(1).expand(x.shape),
            zeros(batch, channels),
            zeros(batch, pixels),
            zeros(batch, slices),
            zeros(batch, pixels),
            zeros(batch, pixels),
            zeros(batch, slices),
            zeros(batch, slices),
            zeros(batch, slices),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, channel_max, channel_mean, _largest, _total, *values):
        x, largest = ctx.saved_tensors
        back = Carriers(*values)
        _, channels, slices, pixels = x.shape
        weights = _weights(back.channel_gate, back.pixel_gate).to(x.dtype)
        factor = back.slice_gate[:, None, :, None].to(x.dtype)
        of_slice = (back.slice_mean / (channels * pixels))[:, None, :, None].to(x.dtype)
        of_pixel = back.channel_gate[:, :, None] * (back.pixel_mean / (channels * slices))[:, None]
        of_pixel = (of_pixel + (channel_mean / (slices * pixels))[:, :, None]).to(x.dtype)
        grad = torch.empty_like(x)
        for run in _chunks(channels):
            part = grad[:, run]
            torch.addcmul(of_slice, back.output[:, run], factor, out=part)
            torch.addcmul(of_pixel[:, run, None], part, weights[:, run, None], out=part)
        _add_channel_max(grad, x, largest, channel_max)
        _add_pixel_max(grad, x, largest, back)
        _add_slice_max(grad, x, weights, back.slice_channel.long(), back.slice_max)
        return grad


def _add_channel_max(grad: Tensor, x: Tensor, largest: Tensor, value: Tensor) -> None:
    """Add the gradient (B, C) of each channel's maximum at the position of the maximum."""
    pixel = largest.argmax(2)  # (B, C)
    column = x.gather(3, pixel[:, :, None, None].expand(-1, -1, x.shape[2], 1))  # (B, C, S, 1)
    place = column.argmax(2) * x.shape[3] + pixel[:, :, None]  # (B, C, 1)
    grad.flatten(2).scatter_add_(2, place, value[:, :, None].to(grad.dtype))


def _add_pixel_max(grad: Tensor, x: Tensor, largest: Tensor, back: Carriers) -> None:
    """Add the gradient (B, N) of each pixel's maximum at its position, times the gate of that channel."""
    channel = (largest * back.channel_gate[:, :, None]).argmax(1)  # (B, N)
    value = back.pixel_max * back.channel_gate.gather(1, channel)
    place = channel * x.shape[2] + _row(x, channel, dim=2).argmax(1)
    place = place * x.shape[3] + torch.arange(x.shape[3], device=x.device)
    grad.flatten(1).scatter_add_(1, place, value.to(grad.dtype))


def _add_slice_max(grad: Tensor, x: Tensor, weights: Tensor, channel: Tensor, value: Tensor) -> None:
    """Add the gradient (B, S) of each slice's maximum at its position, times the weight there."""
    weight = weights.gather(1, channel[:, :, None].expand(-1, -1, x.shape[3]))  # (B, S, N)
    pixel = (_row(x, channel, dim=3) * weight).argmax(2)  # (B, S)
    value = value * weight.gather(2, pixel[:, :, None])[:, :, 0]
    place = (channel * x.shape[2] + torch.arange(x.shape[2], device=x.device)) * x.shape[3] + pixel
    grad.flatten(1).scatter_add_(1, place, value.to(grad.dtype))


class _Pixels(Function):
    @staticmethod
    def forward(ctx, largest, total, channel_gate, slices, carrier_max, carrier_mean):
        gate = channel_gate[:, :, None]
        maximum, channel = (largest * gate).max(dim=1)  # (B, N)
        ctx.save_for_backward(largest, total, channel)
        ctx.count = largest.shape[1] * slices
        return maximum, (total * gate).sum(dim=1) / ctx.count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_max, grad_mean):
        largest, total, channel = ctx.saved_tensors
        grad_gate = (total * (grad_mean / ctx.count)[:, None]).sum(dim=2)  # (B, C)
        at_max = largest.gather(1, channel[:, None])[:, 0] * grad_max
        grad_gate = grad_gate.scatter_add(1, channel, at_max.to(grad_gate.dtype))
        return None, None, grad_gate, None, grad_max, grad_mean


class _Slices(Function):
    @staticmethod
    def forward(ctx, x, channel_gate, pixel_gate, carrier_max, carrier_mean, carrier_channel):
        weights = _weights(channel_gate, pixel_gate).to(x.dtype)

        def reduce(part: Tensor, run: slice) -> tuple[Tensor, Tensor]:
            part = part * weights[:, run, None]  # (B, c, S, N)
            return part.amax(3), part.sum(3, dtype=_wide(x))

        largest, total = (torch.cat(part, dim=1) for part in zip(*_map_channels(x, reduce), strict=True))
        maximum, channel = largest.max(dim=1)  # (B, S)
        ctx.save_for_backward(x, channel_gate, pixel_gate, channel)
        return maximum.to(total.dtype), total.sum(dim=1) / (x.shape[1] * x.shape[3])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_max, grad_mean):
        x, channel_gate, pixel_gate, channel = ctx.saved_tensors
        each = (grad_mean / (x.shape[1] * x.shape[3]))[:, None, None].to(x.dtype)  # (B, 1, 1, S)
        parts = _map_channels(x, lambda part, _: torch.matmul(each, part)[:, :, 0])
        grad_weights = torch.cat(parts, dim=1)  # (B, C, N)
        row = _row(x, channel, dim=3)  # (B, S, N)
        weight = _weights(channel_gate, pixel_gate).to(x.dtype)
        weight = weight.gather(1, channel[:, :, None].expand(-1, -1, x.shape[3]))
        pixel = (row * weight).argmax(2, keepdim=True)  # (B, S, 1)
        at_max = (row.gather(2, pixel)[:, :, 0] * grad_max).to(grad_weights.dtype)
        place = channel * x.shape[3] + pixel[:, :, 0]
        grad_weights.flatten(1).scatter_add_(1, place, at_max)
        grad_channel = (grad_weights * pixel_gate[:, None]).sum(dim=2)
        grad_pixel = (grad_weights * channel_gate[:, :, None]).sum(dim=1)
        return None, grad_channel, grad_pixel, grad_max, grad_mean, channel.to(grad_mean.dtype)


class _Scale(Function):
    @staticmethod
    def forward(ctx, x, channel_gate, pixel_gate, slice_gate, *carriers):
        ctx.save_for_backward(x, channel_gate, pixel_gate, slice_gate)
        weights = _weights(channel_gate, pixel_gate).to(x.dtype)
        slice_gate = slice_gate[:, None, :, None].to(x.dtype)
        out = torch.empty_like(x)
        for run in _chunks(x.shape[1]):
            torch.mul(x[:, run], weights[:, run, None], out=out[:, run])
            out[:, run].mul_(slice_gate)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, channel_gate, pixel_gate, slice_gate = ctx.saved_tensors
        grad = grad.contiguous()
        weights = _weights(channel_gate, pixel_gate).to(x.dtype)
        each = slice_gate[:, None, None].to(x.dtype)  # (B, 1, 1, S)

        def reduce(part: Tensor, run: slice) -> tuple[Tensor, Tensor]:
            part = part * grad[:, run]  # (B, c, S, N)
            return torch.matmul(each, part)[:, :, 0], torch.matmul(part, weights[:, run, :, None])[..., 0]

        by_pixel, by_slice = (torch.cat(part, dim=1) for part in zip(*_map_channels(x, reduce), strict=True))
        grad_channel = (by_pixel * pixel_gate[:, None]).sum(dim=2)
        grad_pixel = (by_pixel * channel_gate[:, :, None]).sum(dim=1)
        return (None, grad_channel, grad_pixel, by_slice.sum(dim=1), grad, channel_gate, pixel_gate, slice_gate)
