"""Every axis of the U-shaped space, with its choices and conditions, and how a study narrows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from space.architecture import Value, freeze
from space.axes import Axis, DecisionError, Space
from space.canonical import Context

LEVELS: tuple[Value, ...] = (3, 4, 5, 6)
BLOCKS = ("none", "isa", "csam")
BLOCK_OPTIONS: dict[str, tuple[tuple[str, tuple[Value, ...], str], ...]] = {
    "isa": (("shared", (True, False), "one convolution for both neighbours, or one each"),),
    "csam": (
        ("semantic", (True, False), "the gate over channels"),
        ("positional", (True, False), "the gate over the plane"),
        ("slice", (True, False), "the gate over slices"),
        ("uncertainty", (False, True), "the slice gate drawn from a learnt normal"),
    ),
}
NETWORK: tuple[tuple[str, tuple[Value, ...], str], ...] = (
    ("encoder", ("plain", "residual"), "the convolution unit of every level"),
    ("levels", LEVELS, "resolutions, the bottleneck's included"),
    ("width", (8, 16, 24, 32), "channels at full resolution"),
    ("growth", (2.0, 1.5), "factor of the channels per level"),
    ("width_cap", (320,), "most channels at any level"),
    ("repeats", (2, 1, 3), "convolutions in a unit"),
    ("kernels", ("auto", "2d", "3d"), "kernel of each level: from the spacing, 1x3x3, or 3x3x3"),
    ("norm", ("instance", "batch", "group", "layer", "slice"), "normalisation"),
    ("activation", ("leakyrelu", "relu", "gelu", "silu"), "activation"),
    ("dropout", (0.0, 0.1, 0.2), "dropout inside units"),
    ("downsampling", ("strided", "max"), "strided convolution, or max pooling"),
    ("upsampling", ("linear", "nearest", "transposed"), "how maps grow back"),
    ("skip", ("concat", "add"), "how a skip joins the decoder"),
    ("deep_supervision", (True, False), "losses at the coarser decoder levels too"),
)
GROUPS = ("encoders", "bottleneck", "skips", "decoders")


def full_axes(placement: str) -> tuple[Axis, ...]:
    """Return all axes, places of a group decided together (`tied`) or one by one (`each`)."""
    axes = [Axis(name, choices, meaning) for name, choices, meaning in NETWORK]
    for group in GROUPS:
        for place, when in _places(group, placement):
            axes.append(Axis(f"attention@{place}", BLOCKS, f"attention block at {place}", when))
            for block, options in BLOCK_OPTIONS.items():
                inside = (*when, (f"attention@{place}", (block,)))
                for option, choices, meaning in options:
                    condition = inside
                    if (block, option) == ("csam", "uncertainty"):
                        condition = (*inside, (f"csam.slice@{place}", (True,)))
                    axes.append(Axis(f"{block}.{option}@{place}", choices, meaning, condition))
    return tuple(axes)


def _places(group: str, placement: str) -> list[tuple[str, tuple[tuple[str, tuple[Value, ...]], ...]]]:
    if group == "bottleneck" or placement == "tied":
        return [(group, ())]
    kind = group.removesuffix("s")
    return [
        (f"{kind}{level}", (("levels", tuple(n for n in LEVELS if isinstance(n, int) and n > level + 1)),))
        for level in range(max(n for n in LEVELS if isinstance(n, int)) - 1)
    ]


def narrow(context: Context, *, placement: str, fix: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> Space:
    """Return the study's space: the full one with some axes fixed and others given fewer choices.

    A name is an axis (`width`, `attention@skip0`), a group (`attention@skips`), or an axis at every place
    (`attention`, `csam.uncertainty`); the narrower name wins. Raises DecisionError with every problem,
    under `fix.NAME` or `choices.NAME`.
    """
    axes = full_axes(placement)
    said: dict[str, tuple[Value, ...]] = {}
    problems: list[tuple[str, str]] = []
    requests = [(f"fix.{name}", name, (value,)) for name, value in fix.items()]
    requests += [(f"choices.{name}", name, tuple(values)) for name, values in choices.items()]
    for key, name, values in sorted(requests, key=lambda request: _narrowness(request[1])):
        matching = [axis for axis in axes if _names(name, axis.name)]
        if not matching:
            problems.append((key, _unknown(name, axes)))
        elif name in fix and name in choices and key.startswith("choices."):
            problems.append((key, f"{name!r} is fixed already"))
        for message in _bad_values(values, matching):
            problems.append((key, message))
        said.update({axis.name: tuple(_like(value, axis) for value in values) for axis in matching})
    if problems:
        raise DecisionError(tuple(problems))
    return Space(_without_unreachable(axes, said), context, tied=placement == "tied")


def _like(value: Any, axis: Axis) -> Value:
    """Write a number as its axis does, so that 2 and 2.0 are one choice."""
    return float(value) if isinstance(axis.choices[0], float) and isinstance(value, int) else freeze(value)


def _without_unreachable(axes: tuple[Axis, ...], said: Mapping[str, tuple[Value, ...]]) -> tuple[Axis, ...]:
    """Apply the narrowed choices, and drop axes whose condition no remaining choice can meet."""
    kept: dict[str, Axis] = {}
    for axis in axes:
        met = all(name in kept and set(kept[name].choices) & set(allowed) for name, allowed in axis.when)
        if met:
            kept[axis.name] = Axis(axis.name, said.get(axis.name, axis.choices), axis.meaning, axis.when)
    return tuple(kept.values())


def _names(name: str, axis: str) -> bool:
    head, _, place = axis.partition("@")
    return name in (axis, head, f"{head}@{re.sub('[0-9]+$', 's', place)}")


def _narrowness(name: str) -> int:
    return 0 if "@" not in name else (1 if name.endswith("s") else 2)


def _unknown(name: str, axes: tuple[Axis, ...]) -> str:
    known = dict.fromkeys(
        key for axis in axes for key in (axis.name.partition("@")[0], re.sub("[0-9]+$", "s", axis.name), axis.name)
    )
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    heads = ", ".join(dict.fromkeys(axis.name.partition("@")[0] for axis in axes))
    return f"no axis is called {name!r}{hint} (axes: {heads})"


def _bad_values(values: tuple[Any, ...], matching: list[Axis]) -> list[str]:
    """Check values against an axis's own; sizes and rates may take any number of the same kind."""
    if not values and matching:
        return ["an empty list leaves nothing to choose"]
    messages = []
    for value in values:
        for axis in matching[:1]:
            problem = _bad_value(value, axis)
            if problem:
                messages.append(problem)
    return messages


NUMBERS: dict[str, tuple[float, float]] = {
    "width": (1, 1024), "growth": (1.0, 4.0), "width_cap": (1, 4096), "repeats": (1, 8), "dropout": (0.0, 0.9),
}  # fmt: skip


def _bad_value(value: Any, axis: Axis) -> str | None:
    if axis.name in NUMBERS:
        low, high = NUMBERS[axis.name]
        whole = isinstance(axis.choices[0], int)
        kind = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if kind and low <= value <= high:
            return None
        return f"{value!r} is not {'a whole number' if whole else 'a number'} from {low:g} to {high:g}"
    same = [
        choice for choice in axis.choices if choice == value and isinstance(choice, bool) == isinstance(value, bool)
    ]
    if same:
        return None
    close = get_close_matches(str(value), [str(choice) for choice in axis.choices], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{value!r} is not a choice{hint} (choices: {', '.join(str(choice) for choice in axis.choices)})"
