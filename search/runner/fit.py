"""Check whether a study's settings fit its data: find problems that would make every training useless or impossible."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path

from search.config.errors import UserError
from search.config.units import counted, show_bytes
from search.data.check import CaseFacts, DataFacts
from search.data.folds import Fold
from search.data.geometry import Spacing, Triple
from search.data.labelling import Labelling

IMAGE_BYTES, LABEL_BYTES = 4, 1  # of a voxel in the prepared arrays
PADDED = 1.5  # a patch may be this much larger than the volumes, which are padded
NAMED = 3  # cases listed in a message


def fold_problems(facts: DataFacts, fold: Fold, labelling: Labelling, *, number: int) -> list[str]:
    """Return a message for each class that is absent from one side of the fold that trials use.

    A class without voxels in training can't be learned, and one without voxels in validation can't be scored.
    """
    by_name = {case.name: case for case in facts.cases}
    train, validation = ([by_name[name] for name in names] for names in (fold.train, fold.validation))
    kind = "region" if labelling.regions else "class"
    if _only_background(validation):
        return [_unscorable(number, validation)]
    problems = []
    for name, members in zip(labelling.names[1:], labelling.members, strict=True):
        for cases, others, what in ((train, validation, "training"), (validation, train, "validation")):
            holding = [case for case in others if _holds(case, members)]
            if holding and not any(_holds(case, members) for case in cases):
                verb = "learned" if what == "training" else "scored"
                problems.append(
                    f"data.fold: {kind} {name!r} has no voxels in the {what} cases of fold {number}, so it can't be "
                    f"{verb} (it is in {_named(holding)}); choose another data.fold or data.seed, or other splits"
                )
    return problems


def require_scorable(facts: DataFacts, folds: Sequence[Fold], numbers: Iterable[int]) -> None:
    """Raise UserError if the validation cases of some of these folds contain only background."""
    by_name = {case.name: case for case in facts.cases}
    sides = {number: [by_name[name] for name in folds[number].validation] for number in numbers}
    problems = [_unscorable(number, cases) for number, cases in sides.items() if _only_background(cases)]
    if problems:
        raise UserError(problems)


def _only_background(cases: Sequence[CaseFacts]) -> bool:
    return not any(any(case.voxels_per_class[1:]) for case in cases)


def _unscorable(number: int, validation: Sequence[CaseFacts]) -> str:
    return (
        f"data.fold: the validation cases of fold {number} ({_named(validation)}) contain only background, so no Dice "
        "can be measured; choose another data.fold or data.seed"
    )


def _holds(case: CaseFacts, members: Sequence[int]) -> bool:
    return any(case.voxels_per_class[index] for index in members)


def _named(cases: Sequence[CaseFacts]) -> str:
    names = ", ".join(case.name for case in cases[:NAMED])
    return names + (f" and {len(cases) - NAMED} more" if len(cases) > NAMED else "")


def patch_problems(patch: Triple, shapes: Sequence[Triple]) -> list[str]:
    """Return a message if a patch (D, H, W) is far larger than every volume, but fits in another order of its axes.

    `shapes` are the sizes of the volumes on the network grid.
    """

    def fits(sizes: Sequence[int], share: float = 1.0) -> bool:
        return any(all(want <= share * have for want, have in zip(sizes, shape, strict=True)) for shape in shapes)

    other = next((order for order in permutations(patch) if fits(order)), None)
    if fits(patch, PADDED) or other is None:
        return []
    largest = " x ".join(str(max(sizes)) for sizes in zip(*shapes, strict=True))
    return [
        f"training.patch: {list(patch)} is larger than every volume; sizes are (D, H, W), D through the plane, and the "
        f"largest volume has {largest} voxels; did you mean {list(other)}?"
    ]


def network_shapes(facts: DataFacts, axes: Triple, spacing: Spacing) -> list[Triple]:
    """Return the size (D, H, W) of each case after resampling to `spacing` in mm."""
    shapes = []
    for case in facts.cases:
        ratios = [case.spacing[axis] / target_mm for axis, target_mm in zip(axes, spacing, strict=True)]
        depth, height, width = (
            max(1, round(case.shape[axis] * ratio)) for axis, ratio in zip(axes, ratios, strict=True)
        )
        shapes.append((depth, height, width))
    return shapes


def size_problems(facts: DataFacts, shapes: Sequence[Triple], *, channels: int, cache: Path) -> list[str]:
    """Return a message if the prepared arrays of these sizes don't fit on the disk of `cache`."""
    sizes_bytes = [math.prod(shape) * (channels * IMAGE_BYTES + LABEL_BYTES) for shape in shapes]
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    disk_bytes = shutil.disk_usage(existing).total
    if sum(sizes_bytes) <= disk_bytes:
        return []
    largest = max(range(len(shapes)), key=sizes_bytes.__getitem__)
    shape = " x ".join(f"{size:,}" for size in shapes[largest])
    return [
        f"data.spacing: the resampled volumes of {counted(len(shapes), 'case')} would take "
        f"{show_bytes(sum(sizes_bytes))}, but the disk of {cache} has {show_bytes(disk_bytes)} (case "
        f"{facts.cases[largest].name}: {shape} voxels); choose a coarser spacing, or check the headers' voxel sizes"
    ]
