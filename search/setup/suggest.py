"""From a data folder, a machine and hours to a study: patch, groups, folds, widths, budget, and length of trainings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from search.config import UserError, load_study
from search.config.schema import NAME_PATTERN
from search.costs.memory import training_memory_bytes
from search.data.check import DataFacts, check_folder
from search.data.geometry import Triple, choose_axes
from search.data.read import DataError, Dataset
from search.files import scratch_folder, write_text
from search.runner.grid import AUTO_PATCH_VOXELS, auto_patch, in_axis_order
from search.runner.plan import Plan, make_plan
from search.setup.groups import guess_group
from search.setup.machine import Machine, step_seconds
from search.setup.template import Outline, study_text
from space.architecture import Architecture, Value
from space.axes import Axis
from space.feasible import why_not
from space.pooling import level_sizes, pooling_from_spacing

CPU_PATCH_VOXELS = 2**17  # a CPU takes seconds for a step on a larger patch
WIDTHS = {"cuda": ((16, 24, 32), (8, 12, 16), (4, 6, 8)), "cpu": ((8, 12, 16), (4, 6, 8))}
MOST_LEVELS, FEWEST_LEVELS, SMALLEST_MAP = 5, 3, 4
TRIALS = (20, 12, 8, 4)  # the most that leave each training enough steps
ENOUGH_STEPS, FEWEST_STEPS = 2500, 40
SHARE_FOR_STEPS = 0.7  # of the hours; the rest goes to validation, attention blocks and measured costs

Stage = Callable[..., None]
Number = TypeVar("Number", int, float)


def suggest_study(
    folder: Path, machine: Machine, *, hours: float, runs: Path, stage: Stage, out: Path | None = None
) -> tuple[str, str]:
    """Return the name and the text of a study file for a data folder, with comments that explain each choice.

    The study is named after `out`, the file to write; without it, after the data.

    One network is built and trained for a step to learn how long steps take here. Raises UserError with all problems
    of the data. `stage` is called with what is under way, and how far.
    """
    try:
        progress = partial(stage, "checking volumes")
        dataset, facts = check_folder(folder, group=None, cache_dir=runs / "cache", progress=progress)
    except DataError as error:
        raise UserError(error.problems) from None
    outline = _first_outline(folder, dataset, facts, machine, hours=hours)
    if out is not None:
        outline = replace(outline, name=out.stem, file=out)
    stage("predicting the memory of networks")
    outline, plan, network = _fitting(outline, machine, runs=runs)
    stage("timing an optimiser step")
    step_s = step_seconds(plan, network, machine)
    return outline.name, study_text(_with_length(outline, step_s))


def _first_outline(folder: Path, dataset: Dataset, facts: DataFacts, machine: Machine, *, hours: float) -> Outline:
    """Return what the data alone decides; the length of trainings is a placeholder."""
    group = guess_group([case.name for case in facts.cases])
    groups = {_group(case.name, group) for case in facts.cases}
    if len(groups) < 2:
        raise UserError([f"{folder}: contains only one case; a study trains on some cases and validates on others"])
    axes = choose_axes(facts.spacing_median)
    shape, spacing = in_axis_order(facts.shape_median, axes), in_axis_order(facts.spacing_median, axes)
    voxels = CPU_PATCH_VOXELS if machine.device == "cpu" else AUTO_PATCH_VOXELS
    patch = auto_patch(shape, spacing, target_mm=spacing, voxels=voxels)
    return Outline(
        name=_study_name(dataset, folder),
        folder=folder,
        cases=len(facts.cases),
        groups=len(groups),
        group=group,
        folds=5 if len(groups) >= 10 else 2,
        shape=shape,
        spacing_mm=spacing,
        patch=patch,
        levels=_levels(patch, spacing),
        machine=machine,
        hours=hours,
        widths=WIDTHS[torch.device(machine.device).type][0],
    )


def _fitting(outline: Outline, machine: Machine, *, runs: Path) -> tuple[Outline, Plan, Architecture]:
    """Return the outline with the largest widths whose networks fit the machine, its plan, and its widest network."""
    for widths in WIDTHS[torch.device(machine.device).type]:
        outline = replace(outline, widths=widths)
        plan = _plan(outline, runs=runs)
        network = plan.space.architecture(plan.space.walk(_widest))
        if reason := why_not(network, plan.context):
            raise UserError([f"{outline.folder}: the volumes are too small: {reason}"])
        needed = training_memory_bytes(network, plan.context, plan.training, device=torch.device(machine.device))
        if needed <= machine.usable_bytes:
            break
    return outline, plan, network


def _plan(outline: Outline, *, runs: Path) -> Plan:
    with scratch_folder() as folder:
        file = write_text(folder / "study.yaml", study_text(replace(outline, folder=outline.folder.resolve())))
        return make_plan(load_study(file), runs=runs)


def _widest(axis: Axis) -> Value:
    """Choose the largest width, and no attention: its options are not decided then."""
    if axis.name == "width":
        return max(axis.choices, key=lambda width: int(str(width)))
    return "none" if "none" in axis.choices else axis.choices[0]


def _with_length(outline: Outline, step_s: float) -> Outline:
    """Choose trials, epochs and steps that fill the hours."""
    available = outline.hours * 3600 * SHARE_FOR_STEPS / step_s
    trials = next((each for each in TRIALS if available / each >= ENOUGH_STEPS), TRIALS[-1])
    steps = max(FEWEST_STEPS, int(available / trials))
    per_epoch = 250 if steps >= 5000 else 100 if steps >= 1000 else 10
    epochs = max(4, steps // per_epoch)
    return replace(
        outline,
        trials=trials,
        epochs=epochs,
        steps_per_epoch=per_epoch,
        validate_every=max(1, epochs // 10),
        step_s=step_s,
        expected_s=trials * epochs * per_epoch * step_s / SHARE_FOR_STEPS,
    )


def _levels(patch: Triple, spacing_mm: tuple[float, float, float]) -> int:
    """Return the most levels that all pool some axis, and whose coarsest map is not tiny."""
    for levels in range(MOST_LEVELS, FEWEST_LEVELS, -1):
        pooling = pooling_from_spacing(patch, spacing=spacing_mm, levels=levels)
        pools = all(max(stride) > 1 for stride in pooling)
        if pools and min(level_sizes(patch, pooling)[-1][1:]) >= SMALLEST_MAP:
            return levels
    return FEWEST_LEVELS


def _group(name: str, pattern: str | None) -> str:
    found = re.search(pattern, name) if pattern else None
    return (found[1] if found.re.groups else found[0]) if found else name


def _study_name(dataset: Dataset, folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.name.strip().lower()).strip("-._")
    return name if re.fullmatch(NAME_PATTERN, name) and name != "cache" else f"study-{folder.resolve().name}"[:64]
