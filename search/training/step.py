"""The parts of a training step: deeply supervised loss, optimiser, learning rate, precision, memory format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from search.config.training_section import Training
from search.data.labelling import Labelling

Module = TypeVar("Module", bound=nn.Module)
SMOOTH = 1e-5  # added to numerator and denominator of the soft Dice, as in nnU-Net
Precision = Literal["float32", "bfloat16", "float16"]
WITH_BFLOAT16 = (8, 0)  # CUDA's compute capability of the first GPUs that compute in it
WITHOUT_BFLOAT16 = ("K80", "M40", "M60", "P4", "P40", "P100", "V100", "T4")
MEMORY_FORMAT = torch.channels_last_3d  # convolutions take a third to a half less time on CPUs


class SupervisedLoss(nn.Module):
    """Soft Dice loss of the foreground plus cross-entropy, deeply supervised as in nnU-Net (Isensee et al., 2021).

    Level weights are 1, 1/2, 1/4, ..., normalised; without `lowest_head` the coarsest of several levels has weight 0.
    Labels are resized to a level by nearest neighbour. `batch_dice` sums over the batch before dividing. With `regions`
    (class indices of each), each region has its own sigmoid and binary cross-entropy. Voxels labelled `ignored` are
    left out.
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
        """Map logits (B, K, d, h, w) per level, full resolution first, and labels (B, 1, D, H, W) to a scalar."""
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
        """Map logits (B, K, d, h, w) and labels (B, d, h, w), class indices stored as floats, to a scalar."""
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

    def _dice(self, probabilities: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
        """Return 1 minus the soft Dice of probabilities and target (B, K, d, h, w), averaged over the classes."""
        if known is not None:
            probabilities, target = probabilities * known[:, None], target * known[:, None]
        summed = (0, 2, 3, 4) if self.batch_dice else (2, 3, 4)
        overlap = (probabilities * target).sum(summed)
        total = probabilities.sum(summed) + target.sum(summed)
        return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean over the known voxels, 0 if there are none."""
    return (values * known).sum() / known.sum().clamp(min=1)


def make_loss(training: Training, labelling: Labelling | None = None) -> SupervisedLoss:
    """Return the loss for a training; without a labelling, for exclusive classes and no ignored voxels."""
    return SupervisedLoss(
        batch_dice=training.batch_dice,
        lowest_head=training.lowest_head,
        regions=labelling.regions if labelling else (),
        ignored=labelling.ignored if labelling else None,
    )


def to_memory_format(network: Module) -> Module:
    """Convert convolution weights to MEMORY_FORMAT in place; unlike `Module.to`, also works on abstract tensors."""
    for parameter in network.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=MEMORY_FORMAT)
    return network


def make_optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the training's optimiser, fused: it needs fewer passes over memory and no temporaries."""
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
    """Return the rate after the fraction `done` of all steps: `poly` (power 0.9, as nnU-Net), `cosine` or constant."""
    if training.schedule == "poly":
        return float(training.learning_rate * (1 - done) ** 0.9)
    if training.schedule == "cosine":
        return training.learning_rate * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))
    return training.learning_rate


def autocast(device: torch.device, training: Training) -> AbstractContextManager[object]:
    """Return the autocast context of a training; empty in float32."""
    precision = precision_name(device, training)
    return nullcontext() if precision == "float32" else torch.autocast(device.type, getattr(torch, precision))


def precision_name(device: torch.device, training: Training, *, model: str = "") -> Precision:
    """Return the dtype of convolutions and matrix products; `model` names a GPU on another machine.

    `auto` is float32 on a CPU and bfloat16 on a GPU, or float16 on one that lacks bfloat16.
    """
    if training.precision != "auto":
        return training.precision
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if _has_bfloat16(device, model) else "float16"


def _has_bfloat16(device: torch.device, model: str) -> bool:
    """Return whether a GPU computes in bfloat16; one that is neither here nor named is taken to."""
    if model:
        return not set(re.split(r"\W|_", model.upper())) & set(WITHOUT_BFLOAT16)
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= WITH_BFLOAT16


def predicted_precision(device: torch.device, training: Training) -> Precision:
    """Return the dtype in which costs are predicted: bfloat16 instead of float16, which takes as many bytes.

    A scaled step reads whether its gradients are finite; the abstract tensors of a prediction have no values.
    """
    precision = precision_name(device, training)
    return "bfloat16" if precision == "float16" else precision


def make_scaler(device: torch.device, training: Training) -> torch.amp.GradScaler:
    """Return the scaler of the loss, enabled in float16: there, small gradients would become 0."""
    return torch.amp.GradScaler(device.type, enabled=precision_name(device, training) == "float16")
