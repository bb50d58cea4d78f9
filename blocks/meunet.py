"""meU-net: its convolution unit, the training step on two patches, and the concatenation of its cascade.

Source: Wang, Blackie, Miguel-Aliaga, Bai, "Memory-efficient segmentation of high-resolution volumetric
MicroCT images", MIDL 2022, PMLR 172:1322-1335. A plain U-Net trained on two patches with the same centre: the
standard patch as usual, the expanded patch without gradient (and without decoder) at the first level. Inference
is that of a plain U-Net.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.norm import make_norm

Triple = tuple[int, int, int]


class MeUnit(nn.Sequential):
    """Two times conv 3x3x3 (with bias) -> ReLU -> batch norm; the norm comes last, as in the paper's figure 2.

    The paper gives the width at the end of a level; we use the same width inside. Shape (B, C_in, D, H, W) to
    (B, C_out, D, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f"MeUnit needs at least 1 channel on each side, got {in_channels} -> {out_channels}")
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(nn.Conv3d(channels, out_channels, 3, padding=1))
            layers.append(nn.ReLU(inplace=True))
            layers.append(make_norm("batch", out_channels))
        super().__init__(*layers)


def expansion_margins(patch: Triple, *, factor: float) -> Triple:
    """Return the voxels added on each side of the standard patch: (factor - 1) * size / 2, rounded to even numbers.

    Even margins keep the standard patch aligned after the first pooling by 2; halves round up. 160 voxels get 20, 40,
    60 for 1.25, 1.5, 1.75, which are the paper's 200, 240, 280. A thin axis may get 0.
    """
    if factor < 1.0:
        raise ValueError(f"the expanded patch is at least the standard one: factor {factor} is below 1")
    if len(patch) != 3 or min(patch) < 1:
        raise ValueError(f"a patch has 3 sizes of at least 1, got {tuple(patch)}")
    # The small excess makes 1.1 * 20 round as the decimal number, not as the binary number just below it.
    return tuple(2 * math.floor((factor - 1.0) * size / 4 + 0.5 + 1e-9) for size in patch)


def expanded_patch(patch: Triple, *, factor: float) -> Triple:
    """Return the sizes of the expanded patch: the patch plus `expansion_margins` on both sides."""
    margins = expansion_margins(patch, factor=factor)
    return tuple(size + 2 * margin for size, margin in zip(patch, margins, strict=True))


def central_crop(x: Tensor, patch: Triple) -> Tensor:
    """Return a view of the centre of the last three axes: the standard patch inside an expanded one."""
    spare = [have - want for have, want in zip(x.shape[-3:], patch, strict=True)]
    if min(spare) < 0 or any(value % 2 for value in spare):
        raise ValueError(f"a patch of {tuple(patch)} has no middle place in {tuple(x.shape[-3:])}")
    index = tuple(slice(value // 2, value // 2 + want) for value, want in zip(spare, patch, strict=True))
    return x[(..., *index)]


def shrink_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize labels (B, D, H, W) by nearest neighbour; label values and dtype are kept."""
    shrunk = F.interpolate(labels[:, None].double(), size=tuple(size), mode="nearest")
    return shrunk[:, 0].to(labels.dtype)


@dataclass(frozen=True)
class TwoPatchNetwork:
    """The three forward functions of one network that the training step uses."""

    whole: Callable[[Tensor], Tensor]  # standard image -> logits at full resolution
    first_level: Callable[[Tensor], Tensor]  # expanded image -> input of the second encoder level
    deeper: Callable[
        [Tensor], Tensor
    ]  # input of the second level -> logits of the second head, on the second level's grid


def two_patch_step(
    network: TwoPatchNetwork,
    *,
    image: Tensor,
    labels: Tensor,
    patch: Triple,
    loss: Callable[[Tensor, Tensor], Tensor],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradients of one step: the standard patch's loss plus the expanded patch's, weighted 1:1.

    `image` (B, C, D, H, W) and `labels` (B, D, H, W) are the expanded patch, `patch` the standard sizes at its
    centre. The two backward passes run one after the other, so only one patch's activations are in memory at a time;
    the gradients are those of the sum. The expanded patch doesn't change the first level's weights, the standard
    patch not those of the second head. `backward` is called with each loss (for example a gradient scaler's).
    Returns both losses, detached.

    The paper doesn't specify the batch norm of the first level on the expanded patch: here it behaves as in training;
    see `frozen_statistics`.
    """
    standard_loss = loss(network.whole(central_crop(image, patch)), central_crop(labels, patch))
    backward(standard_loss)
    standard_loss = standard_loss.detach()
    with torch.no_grad():
        features = network.first_level(image)
    logits = network.deeper(features)
    expanded_loss = loss(logits, shrink_labels(labels, logits.shape[2:]))
    backward(expanded_loss)
    return standard_loss, expanded_loss.detach()


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """In this context the batch norms of `module` normalise as usual but don't update their running statistics."""
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm3d) and child.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def one_hot_predictions(predictions: Sequence[Tensor], *, classes: int, background: bool = True) -> Tensor:
    """Encode first-stage label maps (B, D, H, W) as channels (B, m, D, H, W), m = number of maps * classes.

    The paper doesn't specify whether the background has a channel; by default it has one.
    """
    first = 0 if background else 1
    highest = max(int(prediction.max()) for prediction in predictions)
    if highest >= classes:
        raise ValueError(f"a prediction holds the label {highest}, but there are {classes} classes")
    return label_maps(predictions, labels=range(first, classes))


def label_maps(predictions: Sequence[Tensor], *, labels: Sequence[int]) -> Tensor:
    """Encode label maps (B, D, H, W) as channels (B, m, D, H, W): a 0/1 map per label and prediction.

    Labels outside `labels` are in no map. No operation depends on the values, as an exported file requires.
    """
    return torch.cat([torch.stack([given == label for label in labels], dim=1) for given in predictions], dim=1).float()


def concatenate_predictions(features: Tensor, predictions: Tensor) -> Tensor:
    """Resize one-hot predictions (B, m, D, H, W) by nearest neighbour and append them to (B, C, d, h, w).

    Returns (B, C + m, d, h, w). Before every decoder block this is the paper's post-concatenation ("full level"), on
    the image at the encoder's input its pre-concatenation.
    """
    resized = F.interpolate(predictions, size=features.shape[2:], mode="nearest")
    return torch.cat([features, resized.to(features.dtype)], dim=1)
