"""The table of objectives, the single definition behind study files, costs, fronts, tables, figures and proposers.

To add an objective, add an entry here and add the attribute that it reads to `Costs` (search/trials/records.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from search.config.units import parse_bytes, parse_count, parse_seconds, show_bytes, show_count, show_seconds

Direction = Literal["maximize", "minimize"]


def show_score(score: float) -> str:
    """Format a score between 0 and 1."""
    return f"{score:.4f}"


@dataclass(frozen=True)
class Objective:
    """A quantity that a study can optimise, limit or record.

    `attribute` is the dotted path of the value: in Costs (known before training), or in Measurement if `learned`
    (known after training). `column` names the value in machine-readable tables, including its unit. Figures plot the
    value divided by `drawn_per`, in `unit`. `scale` sets how two values are compared: by difference (linear) or by
    ratio (log). `range` bounds the values. `parse` reads a budget; without it the objective takes no budget. A
    `per_device` value is valid on one device only.
    """

    name: str
    heading: str
    meaning: str
    direction: Direction
    attribute: str
    column: str
    show: Callable[[float], str]
    parse: Callable[[Any], float] | None = None
    unit: str = ""
    drawn_per: float = 1.0
    scale: Literal["linear", "log"] = "log"
    range: tuple[float, float] = (0.0, math.inf)
    learned: bool = False
    per_device: bool = False

    @property
    def is_maximized(self) -> bool:
        """Whether higher values are better."""
        return self.direction == "maximize"

    @property
    def ideal(self) -> float:
        """The best possible value."""
        return self.range[1] if self.is_maximized else self.range[0]

    @property
    def arrow(self) -> str:
        """The direction as an arrow."""
        return "↑" if self.is_maximized else "↓"

    @property
    def axis_title(self) -> str:
        """The heading with the unit that figures use."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def read(self, holder: object) -> float | None:
        """Read the value from Costs, or from a Measurement if `learned`; None if unknown."""
        found = reduce(lambda each, name: getattr(each, name, None), self.attribute.split("."), holder)
        return None if found is None else float(found)  # type: ignore[arg-type]

    def loss(self, value: Any) -> Any:
        """Convert a value or an array to a loss: the distance from the ideal, to be minimised."""
        return self.ideal - value if self.is_maximized else value - self.ideal

    def from_loss(self, loss: Any) -> Any:
        """Convert a loss or an array of losses back to values."""
        return self.ideal - loss if self.is_maximized else loss + self.ideal

    def worse(self, one: float, other: float) -> float:
        """Return the worse of two values."""
        return min(one, other) if self.is_maximized else max(one, other)

    def show_change(self, value: float, *, against: float) -> str:
        """Format the change relative to another value, as a difference or as a factor."""
        if self.scale == "linear":
            return f"{value - against:+.4f}"
        return f"x {value / against:.2f}" if against else "from zero"


OBJECTIVES: Mapping[str, Objective] = {
    each.name: each
    for each in (
        Objective("dice", "Dice", "Mean Dice over classes and validation cases, on whole volumes.",
                  "maximize", "dice", "dice", show_score, scale="linear", range=(0.0, 1.0), learned=True),
        Objective("memory", "training memory", "Predicted peak memory of one training step.",
                  "minimize", "memory_bytes", "memory_bytes", show_bytes, parse_bytes, "MiB", 2**20),
        Objective("inference_memory", "inference memory", "Predicted peak memory of one patch at batch 1.",
                  "minimize", "inference_memory_bytes", "inference_memory_bytes", show_bytes, parse_bytes,
                  "MiB", 2**20),
        Objective("latency", "latency", "Median time of one patch at batch 1, measured on this device.",
                  "minimize", "latency.median_s", "latency_s", show_seconds, parse_seconds, "ms", 1e-3,
                  per_device=True),
        Objective("macs", "MACs", "Multiply-adds of one patch at batch 1.",
                  "minimize", "macs", "macs", show_count, parse_count, "G", 1e9),
        Objective("params", "parameters", "Number of trainable parameters.",
                  "minimize", "params", "params", show_count, parse_count, "M", 1e6),
    )
}  # fmt: skip
COSTS = tuple(name for name, each in OBJECTIVES.items() if not each.learned)


def show(objective: str, value: float | None) -> str:
    """Format an objective's value; empty if unknown."""
    return OBJECTIVES[objective].show(value) if value is not None else ""


def show_named(objective: str, value: float | None) -> str:
    """Format an objective's heading and value."""
    return f"{OBJECTIVES[objective].heading} {show(objective, value)}"


def show_point(values: Mapping[str, float]) -> str:
    """Format several objectives' values with their headings."""
    return ", ".join(show_named(name, value) for name, value in values.items())


def costs_among(names: Iterable[str]) -> list[str]:
    """Return the objectives whose values are known before training."""
    return [name for name in names if not OBJECTIVES[name].learned]


def primary(names: Iterable[str]) -> str:
    """Return the main objective of a study: the first learned objective, else the first."""
    listed = list(names)
    return next((name for name in listed if OBJECTIVES[name].learned), listed[0])


def cost_axis(names: Iterable[str]) -> str:
    """Return the objective to plot against the primary one: the first other objective, else a cost."""
    listed = list(names)
    return next(name for name in (*listed, *COSTS) if name != primary(listed))


def per_device(names: Iterable[str]) -> bool:
    """Return whether values of these objectives are comparable only on the same device."""
    return any(OBJECTIVES[name].per_device for name in names)
