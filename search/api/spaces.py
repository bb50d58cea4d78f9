"""A search space: its axes, its size, random networks, and their costs."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from search.config import Training, UserError
from search.runner.sampling import sample_buildable
from space.architecture import Architecture
from space.axes import Axis
from space.canonical import Context
from space.presets import PRESETS
from space.space import Space

if TYPE_CHECKING:
    from search.trials.records import Costs


class SearchSpace:
    """The networks that a study searches, for one patch, spacing, and number of channels and classes."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def __repr__(self) -> str:
        return f"SearchSpace({len(self.axes)} open axes, {self.size:,} combinations, {self.context})"

    @property
    def context(self) -> Context:
        """Patch (D, H, W) in voxels, spacing (D, H, W) in mm, input channels and classes of its networks."""
        return self._space.context

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes with more than one choice."""
        return tuple(axis for axis in self._space.axes if len(axis.choices) > 1)

    @property
    def size(self) -> int:
        """The exact number of combinations of choices."""
        return self._space.size

    def sample(self, count: int = 1, *, seed: int = 0) -> list[Architecture]:
        """Return random networks that can be built; the same ones for the same seed."""
        rng = Random(seed)
        return [self._space.architecture(sample_buildable(self._space, rng)) for _ in range(count)]


def predict_costs(
    architecture: Architecture | Mapping[str, Any] | str,
    context: Context | None = None,
    *,
    batch: int = 2,
    precision: str = "float32",
    device: str = "cpu",
) -> Costs:
    """Predict parameters, MACs and peak memory of training and inference, without a device and without training.

    The memory is that of a `device` of this kind, `cpu` or `cuda`, which need not be present.
    `architecture` may be the name of a paper's network, whose own patch, channels and classes are then the default
    `context`. Raises UserError for an unknown name, and for a network that can't be built for this patch.
    """
    import torch

    from search.config.errors import nearest
    from search.costs.price import predict_costs as predict
    from space.build import Refused

    if isinstance(architecture, str):
        if architecture not in PRESETS:
            raise UserError([f"no network is called {architecture!r}{nearest(architecture, tuple(PRESETS))}"])
        preset = PRESETS[architecture]
        context = context or preset.context
        architecture = preset.at(context)
    elif isinstance(architecture, Mapping):
        architecture = Architecture.of(architecture)
    if context is None:
        raise UserError(["predict_costs needs context=Context(patch, spacing, in_channels, classes)"])
    try:
        training = Training(patch=context.patch, batch=batch, precision=precision)  # type: ignore[arg-type]
        return predict(architecture, context, training, device=torch.device(device))
    except Refused as error:
        raise UserError([f"this network can't be built: {error}"]) from None
