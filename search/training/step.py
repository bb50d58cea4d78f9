"""What an optimiser step is made of: loss over the supervised levels, optimiser, learning rate, precision."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from search.config.schema import Training
from search.data.labelling import Labelling
from space.build import Network

SMOOTH = 1e-5  # of the soft Dice, as nnU-Net has it
LAYOUT = torch.channels_last_3d  # of weights and images: convolutions take a third to a half less time on CPUs


class SupervisedLoss(nn.Module):
    """Dice over the foreground plus cross-entropy, at each supervised level, each half the weight of the one above.

    Deep supervision as in nnU-Net (weights 1, 1/2, 1/4, ..., normalised); labels are reduced to a level's size by
    nearest neighbour. Without `lowest_head` the coarsest of several levels has no weight; `batch_dice` sums over the
    batch before the quotient is formed. Logits of `regions` (the class indices of each) are compared one by one, by
    sigmoid. Voxels of the index `ignored` don't count.
    """

    def __init__(
        self,
        *,
        batch_dice: bool = True,
        lowest_head: bool = True,
        regions: Sequence[Sequence[int]] = (),
        ignored: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_dice, self.lowest_head, self.regions, self.ignored = batch_dice, lowest_head, regions, ignored

    def forward(self, outputs: list[Tensor], labels: Tensor) -> Tensor:
        """Logits (B, K, d, h, w) a level, full resolution first, and labels (B, 1, D, H, W) to a scalar."""
        if not self.lowest_head:
            outputs = outputs[: max(1, len(outputs) - 1)]
        weights = [0.5**level for level in range(len(outputs))]
        total = outputs[0].new_zeros(())
        for logits, weight in zip(outputs, weights, strict=True):
            target = labels
            if logits.shape[2:] != labels.shape[2:]:
                target = functional.interpolate(labels, size=logits.shape[2:], mode="nearest-exact")
            total = total + weight / sum(weights) * self._level(logits.float(), target[:, 0])
        return total

    def _level(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, K, d, h, w) and labels (B, d, h, w), where float stands for whole numbers, to a scalar."""
        known = None if self.ignored is None else labels != self.ignored  # (B, d, h, w)
        if self.regions:
            return self._of_regions(logits, labels, known)
        classes = labels.long() if known is None else torch.where(known, labels, 0).long()
        entropy = functional.cross_entropy(logits, classes, reduction="none" if known is not None else "mean")
        target = functional.one_hot(classes, logits.shape[1]).movedim(-1, 1)  # (B, K, d, h, w)
        dice = self._dice(logits.softmax(1)[:, 1:], target[:, 1:], known)
        return dice + (entropy if known is None else _mean(entropy, known))

    def _of_regions(self, logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
        members = [torch.stack([labels == index for index in each]).any(0) for each in self.regions]
        target = torch.stack(members, 1).to(logits.dtype)  # (B, K, d, h, w)
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        return self._dice(logits.sigmoid(), target, known) + (
            entropy.mean() if known is None else _mean(entropy, known)
        )

    def _dice(self, shares: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
        """Return 1 minus the soft Dice of shares and target (B, K, d, h, w), over the classes' mean."""
        if known is not None:
            shares, target = shares * known[:, None], target * known[:, None]
        over = (0, 2, 3, 4) if self.batch_dice else (2, 3, 4)
        common, both = (shares * target).sum(over), shares.sum(over) + target.sum(over)
        return (1 - (2 * common + SMOOTH) / (both + SMOOTH)).mean()


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean over the known voxels, 0 where there are none."""
    return (values * known).sum() / known.sum().clamp(min=1)


def make_loss(training: Training, labelling: Labelling | None = None) -> SupervisedLoss:
    """Return the loss that the training names; without a labelling for classes that are all known."""
    return SupervisedLoss(
        batch_dice=training.batch_dice,
        lowest_head=training.lowest_head,
        regions=labelling.regions if labelling else (),
        ignored=labelling.ignored if labelling else None,
    )


def lay_out(network: Network) -> Network:
    """Bring a network's convolution weights into LAYOUT, real or abstract (`Module.to` can't swap those)."""
    for parameter in network.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=LAYOUT)
    return network


def make_optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimiser that the training names, in its fused form: fewer passes and no temporaries."""
    if training.optimiser == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=training.learning_rate,
            momentum=0.99,
            nesterov=True,
            weight_decay=training.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )


def learning_rate(training: Training, done: float) -> float:
    """Return the rate after a share of the steps: polynomial decay of power 0.9 (nnU-Net), half a cosine, constant."""
    if training.schedule == "poly":
        return float(training.learning_rate * (1 - done) ** 0.9)
    if training.schedule == "cosine":
        return training.learning_rate * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))
    return training.learning_rate


def autocast(device: torch.device, training: Training) -> AbstractContextManager[object]:
    """Return bfloat16 autocast where the training runs in it: asked for, or `auto` on CUDA."""
    if precision_name(device, training) == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def precision_name(device: torch.device, training: Training) -> Literal["float32", "bfloat16"]:
    """Return the type that convolutions and matrix products run in."""
    if training.precision == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return training.precision
