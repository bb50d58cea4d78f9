"""What an optimiser step is made of: loss over the supervised levels, optimiser, learning rate, precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.nn import functional

from search.config.schema import Training
from space.build import Network

LAYOUT = torch.channels_last_3d  # of weights and images: convolutions take a third to a half less time on CPUs


class SupervisedLoss(nn.Module):
    """Dice over the foreground plus cross-entropy, at each supervised level, each half the weight of the one above.

    Deep supervision as in nnU-Net (weights 1, 1/2, 1/4, ..., normalised); labels are reduced to a level's size by
    nearest neighbour. Without `lowest_head` the coarsest of several levels has no weight; `batch_dice` sums over the
    batch before the quotient is formed.
    """

    def __init__(self, *, batch_dice: bool = True, lowest_head: bool = True) -> None:
        super().__init__()
        self.level_loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=batch_dice)
        self.lowest_head = lowest_head

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
            total = total + weight / sum(weights) * self.level_loss(logits.float(), target)
        return total


def make_loss(training: Training) -> SupervisedLoss:
    """Return the loss that the training names."""
    return SupervisedLoss(batch_dice=training.batch_dice, lowest_head=training.lowest_head)


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
