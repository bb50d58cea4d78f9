"""Synthetic tables: real spaces and costs with a Dice of known structure (additive, by place, non-additive, noisy)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import OBJECTIVES
from search.simulate.formulas import formula_costs
from search.simulate.tables import Table
from space.architecture import Architecture
from space.canonical import Context, Decisions
from space.encoding import Coded
from space.feasible import why_not
from space.narrow import narrow
from space.place import AxisName
from space.space import Space
from space.unet_axes import full_axes

Matrix = NDArray[np.float64]
DIRECTIONS = {name: OBJECTIVES[name].direction for name in ("dice", "memory", "latency")}
EPOCHS = 27
STEPS_PER_EPOCH = 250
TRAINING_MACS = 3 * 2  # forward and backward, batch 2: MACs of a step over those of one patch
MACS_PER_S = 2e11
MEAN_LOSS, STEEPNESS = 0.18, 0.35  # Dice loss at score 0, and its relative slope there
TAIL = 2.5  # limit of the score's absolute value
CROSSING = 0.35  # standard deviation of the log time constants of learning curves, in addition to the effect of size
FLICKER = 0.004  # standard deviation of an epoch's Dice around the curve; decreases to 0 at the end


Link = Literal["share", "straight", "logistic"]


@dataclass(frozen=True)
class Recipe:
    """A space, the shares of Dice's variance, and the range over networks of a training's standard deviation of Dice.

    `link` maps the score to Dice. `share` reduces the loss by a share, as `known-cost` also assumes: good networks lie
    close together. `straight` is linear, clipped to 0 and 1. `logistic` is steepest at a Dice of 0.5.
    """

    character: str
    context: Context
    placement: str
    choices: Mapping[str, Sequence[Any]]
    shares: Mapping[str, float]
    link: Link
    noise: tuple[float, float] = (0.0005, 0.001)
    unseen: bool = field(default=False)


THICK = Context((12, 128, 128), (6.0, 1.0, 1.0), 1, 4)
NEAR_CUBE = Context((32, 48, 32), (1.0, 1.0, 1.0), 1, 3)
WIDE = Context((16, 96, 96), (3.0, 1.0, 1.0), 2, 3)
MIDDLING = Context((24, 64, 64), (2.5, 1.0, 1.0), 1, 3)
ODD = Context((20, 80, 64), (2.0, 0.8, 0.8), 1, 5)
BLOCKS = ("none", "isa", "csam")
RECIPES: dict[str, Recipe] = {
    "additive": Recipe(
        "main effects and pairwise interactions", NEAR_CUBE, "tied",
        {"encoder": ("plain", "residual"), "width": (8, 12, 16, 24), "repeats": (1, 2), "norm": ("instance", "batch"),
         "deep_supervision": (True, False), "skip": ("concat", "add"), "isa.shared": (True, False),
         "attention@encoders": BLOCKS, "attention@bottleneck": BLOCKS, "attention@skips": BLOCKS},
        {"trend": 0.35, "main": 0.4, "pairs": 0.25}, link="straight",
    ),
    "places": Recipe(
        "strong interactions between block and place, conditional places", THICK, "each",
        {"levels": (3, 4), "width": (16, 24, 32), "encoder": ("plain", "residual"), "repeats": (1, 2, 3),
         "attention@bottleneck": BLOCKS, "attention@skip0": BLOCKS, "attention@skip1": BLOCKS,
         "attention@skip2": BLOCKS, "attention@encoder0": BLOCKS},
        {"trend": 0.25, "main": 0.15, "places": 0.6}, link="logistic",
    ),
    "network": Recipe(
        "a small random network over the decisions, non-additive", WIDE, "tied",
        {"levels": (3, 4, 5), "width": (8, 16, 24, 32), "growth": (2.0, 1.5), "kernels": ("auto", "2d", "3d"),
         "encoder": ("plain", "residual"), "repeats": (1, 2), "attention@encoders": BLOCKS,
         "attention@bottleneck": BLOCKS, "attention@skips": BLOCKS, "attention@decoders": ("none", "isa")},
        {"trend": 0.2, "network": 0.8}, link="straight",
    ),
    "noisy": Recipe(
        "main effects and interactions, two trainings differ by 0.5 to 2 Dice points", NEAR_CUBE, "tied",
        {"encoder": ("plain", "residual"), "width": (8, 12, 16, 24), "repeats": (1, 2), "norm": ("instance", "batch"),
         "skip": ("concat", "add"), "attention@encoders": BLOCKS, "attention@bottleneck": BLOCKS,
         "attention@skips": BLOCKS},
        {"trend": 0.3, "main": 0.4, "pairs": 0.3}, link="share", noise=(0.0035, 0.014),
    ),
    "trees": Recipe(
        "an ensemble of random trees over the decisions, non-additive", MIDDLING, "tied",
        {"levels": (3, 4), "width": (8, 12, 16, 24, 32), "growth": (2.0, 1.5), "norm": ("instance", "batch"),
         "activation": ("leakyrelu", "gelu"), "repeats": (1, 2), "attention@encoders": BLOCKS,
         "attention@bottleneck": BLOCKS, "attention@skips": BLOCKS, "attention@decoders": ("none", "isa")},
        {"trend": 0.25, "forest": 0.75}, link="straight",
    ),
    "noisy-network": Recipe(
        "a small random network over decisions and places, two trainings differ by 0.5 to 2 Dice points", THICK, "each",
        {"levels": (3, 4), "width": (12, 16, 24, 32), "encoder": ("plain", "residual"), "repeats": (1, 2),
         "upsampling": ("linear", "transposed"), "attention@bottleneck": BLOCKS, "attention@skip0": BLOCKS,
         "attention@skip1": BLOCKS, "attention@skip2": BLOCKS, "attention@encoder0": BLOCKS},
        {"trend": 0.25, "network": 0.75}, link="logistic", noise=(0.0035, 0.014),
    ),
    "bumps": Recipe(
        "a random landscape of wide and narrow bumps, non-additive", ODD, "tied",
        {"levels": (3, 4, 5), "width": (8, 12, 16, 24), "kernels": ("auto", "3d"), "norm": ("instance", "batch"),
         "encoder": ("plain", "residual"), "repeats": (1, 2), "skip": ("concat", "add"),
         "attention@bottleneck": BLOCKS, "attention@skips": BLOCKS, "attention@encoders": ("none", "isa")},
        {"trend": 0.25, "bumps": 0.75}, link="straight", unseen=True,
    ),
    "noisy-trees": Recipe(
        "random trees over decisions and places, two trainings differ by 0.5 to 2 Dice points", MIDDLING, "each",
        {"levels": (3, 4), "width": (8, 16, 24, 32), "growth": (2.0, 1.5), "repeats": (1, 2),
         "activation": ("leakyrelu", "gelu"), "attention@bottleneck": BLOCKS, "attention@skip0": BLOCKS,
         "attention@skip1": BLOCKS, "attention@skip2": BLOCKS},
        {"trend": 0.25, "forest": 0.75}, link="logistic", noise=(0.0035, 0.014), unseen=True,
    ),
}  # fmt: skip


@lru_cache
def synthetic_table(name: str) -> Table:
    """Create a table of `RECIPES`, identical on every call and machine."""
    recipe = RECIPES[name]
    space = _space(recipe)
    decisions, architectures = _buildable(space)
    costs = tuple(formula_costs(architecture, recipe.context) for architecture in architectures)
    macs = np.array([each.macs for each in costs], dtype=float)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    size = _standard(np.log(macs))
    score = sum(
        (np.sqrt(share) * _PARTS[part](space, decisions, size, rng) for part, share in recipe.shares.items()),
        np.zeros(len(macs)),
    )
    truth = _LINKS[recipe.link](TAIL * np.tanh(score / TAIL))
    spread = rng.uniform(*recipe.noise, size=len(macs))
    slow = np.exp(0.25 * size + CROSSING * rng.standard_normal(len(macs))) * EPOCHS / 6
    gap = rng.uniform(0.1, 0.35, size=len(macs))
    seed_of = zlib.crc32(b"curve " + name.encode())
    ages = np.arange(1, EPOCHS + 1)

    def curve(row: int, seed: int) -> Matrix:
        drawn = np.random.default_rng((seed_of, row, seed))
        rest = np.exp(-ages / slow[row]) - np.exp(-EPOCHS / slow[row])
        flicker = FLICKER * drawn.standard_normal(EPOCHS) * (1.0 - ages / EPOCHS)
        dice: Matrix = truth[row] + spread[row] * drawn.standard_normal() - gap[row] * rest + flicker
        return np.asarray(np.clip(dice, 0.0, 1.0))

    return Table(
        name=name, character=recipe.character, space=space, directions=DIRECTIONS, decisions=decisions,
        architectures=architectures, costs=costs, truth=truth, epochs=EPOCHS,
        epoch_s=5.0 + STEPS_PER_EPOCH * TRAINING_MACS * macs / MACS_PER_S, curve=curve,
    )  # fmt: skip


def _space(recipe: Recipe) -> Space:
    """Narrow the full space to the recipe's choices; fix all other axes at their first choice."""
    named = set(recipe.choices)
    rest = {
        axis.name: axis.choices[0]
        for axis in full_axes(recipe.placement)
        if axis.name not in named and AxisName.parse(axis.name).head not in named
    }
    return narrow(recipe.context, placement=recipe.placement, fix=rest, choices=recipe.choices)


def _buildable(space: Space) -> tuple[tuple[Decisions, ...], tuple[Architecture, ...]]:
    """List the distinct networks of a space that can be built."""
    found: dict[Architecture, Decisions] = {}
    for decisions in space.enumerate():
        architecture = space.architecture(decisions)
        if architecture not in found and why_not(architecture, space.context) is None:
            found[architecture] = decisions
    return tuple(found.values()), tuple(found)


def _share(score: Matrix) -> Matrix:
    return np.asarray(1.0 - MEAN_LOSS * np.exp(-STEEPNESS * score))


def _straight(score: Matrix) -> Matrix:
    return np.asarray(np.clip(1.0 - MEAN_LOSS * (1.0 - STEEPNESS * score), 0.0, 1.0))


def _logistic(score: Matrix) -> Matrix:
    """Return a Dice with the same value and slope at score 0 as the other links."""
    odds = MEAN_LOSS / (1.0 - MEAN_LOSS) * np.exp(-STEEPNESS / (1.0 - MEAN_LOSS) * score)
    return np.asarray(1.0 / (1.0 + odds))


_LINKS = {"share": _share, "straight": _straight, "logistic": _logistic}


def _standard(values: Matrix) -> Matrix:
    return np.asarray((values - values.mean()) / values.std())


def _trend(space: Space, decisions: Sequence[Decisions], size: Matrix, rng: np.random.Generator) -> Matrix:
    """Larger networks are better, with diminishing returns."""
    return _standard(-np.exp(-0.8 * size))


def _main(space: Space, decisions: Sequence[Decisions], size: Matrix, rng: np.random.Generator) -> Matrix:
    """A normal effect of each choice of each axis."""
    codes = _free(space, decisions)
    effects = [rng.standard_normal(codes.max() + 1) for _ in range(codes.shape[1])]
    return _standard(np.sum([effect[column] for effect, column in zip(effects, codes.T, strict=True)], axis=0))


def _pairs(space: Space, decisions: Sequence[Decisions], size: Matrix, rng: np.random.Generator) -> Matrix:
    """A normal effect of each pair of choices, on half of the pairs of axes."""
    codes = _free(space, decisions)
    total, count = np.zeros(len(codes)), codes.max() + 1
    for one in range(codes.shape[1]):
        for other in range(one):
            effect = rng.standard_normal((count, count)) * (rng.random() < 0.5)
            total += effect[codes[:, one], codes[:, other]]
    return _standard(total)


def _places(space: Space, decisions: Sequence[Decisions], size: Matrix, rng: np.random.Generator) -> Matrix:
    """Interactions of blocks: effects of each pair and triple of (block, place), and of block and width."""
    codes = _free(space, decisions)
    names = [space.axes[column].name for column in Coded(space).free]
    at = [number for number, name in enumerate(names) if AxisName.parse(name).is_attention]
    width = names.index("width")
    total, count = np.zeros(len(codes)), codes.max() + 1
    for position, one in enumerate(at):
        total += 0.7 * rng.standard_normal((count, count))[codes[:, one], codes[:, width]]
        for other in at[:position]:
            total += rng.standard_normal((count, count))[codes[:, one], codes[:, other]]
            for third in at[: at.index(other)]:
                cube = 0.5 * rng.standard_normal((count, count, count))
                total += cube[codes[:, one], codes[:, other], codes[:, third]]
    return _standard(total)


def _network(space: Space, decisions: Sequence[Decisions], size: Matrix, rng: np.random.Generator) -> Matrix:
    """A random network of two hidden layers over the one-hot codes."""
    hot = _one_hot(_free(space, decisions))
    first = np.tanh(hot @ rng.standard_normal((hot.shape[1], 24)) * 1.2 / np.sqrt(hot.sum(axis=1).mean() / 3))
    second = np.tanh(first @ rng.standard_normal((24, 12)) / np.sqrt(6))
    return _standard(second @ rng.standard_normal(12))


def _forest(space: Space, decisions: Sequence[Decisions], size: Matrix, rng: np.random.Generator) -> Matrix:
    """A sum of 40 random trees with six successive splits on one-hot codes."""
    hot = _one_hot(_free(space, decisions)).astype(np.int64)
    total = np.zeros(len(hot))
    for _ in range(40):
        leaf = np.zeros(len(hot), dtype=np.int64)
        for _ in range(6):
            split = rng.integers(hot.shape[1], size=64)[leaf % 64]
            leaf = 2 * leaf + hot[np.arange(len(hot)), split]
        total += rng.standard_normal(64)[leaf]
    return _standard(total)


def _bumps(space: Space, decisions: Sequence[Decisions], size: Matrix, rng: np.random.Generator) -> Matrix:
    """A sum of 60 Gaussian bumps of random width around random networks; distance is the share of differing choices."""
    codes = _free(space, decisions)
    total = np.zeros(len(codes))
    for centre in rng.integers(len(codes), size=60):
        distance = (codes != codes[centre]).mean(axis=1)
        total += rng.standard_normal() * np.exp(-((distance / rng.uniform(0.15, 0.6)) ** 2))
    return _standard(total)


def _free(space: Space, decisions: Sequence[Decisions]) -> NDArray[np.int64]:
    """Return the codes of the axes with two or more choices."""
    coded = Coded(space)
    return coded.encode(decisions)[:, coded.free]


def _one_hot(codes: NDArray[np.int64]) -> Matrix:
    return np.concatenate([np.eye(column.max() + 1)[column] for column in codes.T], axis=1)


_PARTS = {
    "trend": _trend, "main": _main, "pairs": _pairs, "places": _places, "network": _network, "forest": _forest,
    "bumps": _bumps,
}  # fmt: skip
