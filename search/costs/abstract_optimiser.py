"""An optimiser of abstract parameters: its state and their gradients are one allocation each, of the same bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from search.config.training_section import Training
from search.costs.abstract_tensor import AbstractTensor

STEP_BYTES = 4  # AdamW counts the steps of each parameter in a float32


class AbstractOptimiser(torch.optim.Optimizer):
    """The memory of `make_optimiser`'s optimiser after a step: its state, and gradients until `zero_grad`.

    A step of the real one would run four operators per parameter, one after another. Parameters of known values
    aren't counted, nor are their gradients and momenta (see AbstractTensors).
    """

    def __init__(self, network: nn.Module, training: Training) -> None:
        # not super().__init__: it imports torch's compiler, which takes a second
        self.parameters = [*network.parameters()]
        size_bytes = sum(
            each.numel() * each.element_size() for each in self.parameters if isinstance(each, AbstractTensor)
        )
        momenta, steps = (1, 0) if training.optimiser == "sgd" else (2, len(self.parameters))
        self.gradients: torch.Tensor | None = _allocate(size_bytes)
        self.held = _allocate(momenta * size_bytes + steps * STEP_BYTES)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Delete the gradients."""
        self.gradients = None
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Allocate nothing: the state exists."""


def _allocate(size_bytes: int) -> torch.Tensor:
    return torch.empty(size_bytes, dtype=torch.uint8)
