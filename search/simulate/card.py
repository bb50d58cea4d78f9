"""The data card of a table of trainings, as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.config.objectives import OBJECTIVES
from search.config.units import counted
from search.files import write_text
from search.simulate.earlier_table import METADATA
from search.simulate.table_facts import (
    ChoiceEffect,
    Results,
    choice_effects,
    explained_by_costs,
    network_deviation,
    noise_deviation,
    seed_correlation,
    typical_noise,
)
from search.trials.table_file import COLUMNS, Trainings, read_trainings

COLUMN_MEANINGS = (
    ("architecture", "JSON of the decisions on the open axes"),
    ("network", "fingerprint of the network; equal for equal networks"),
    ("seed", "seed of the training"),
    ("epoch", "epoch, from 1; only validated epochs have a row"),
    ("dice", "mean Dice over classes and validation cases, on whole volumes"),
    ("loss", "mean training loss of the epoch"),
    ("epoch_s", "seconds of the epoch; CPU time where a training has one CPU thread"),
    ("params, macs", "parameters; multiply-adds of one patch at batch 1"),
    ("memory_bytes, inference_memory_bytes", "predicted peak memory of a training step, and of one patch at batch 1"),
    ("latency_s", "median time of one patch at batch 1, where it was measured"),
    ("dice_CLASS", "Dice of a class, in the row of the last epoch"),
)


def write_card(file: Path) -> Path:
    """Write a table's card beside it, and return the card's path."""
    return write_text(file.with_suffix(".md"), table_card(file))


def table_card(file: Path) -> str:
    """Return the card of a table that `voxnas tabulate` wrote."""
    settings, trainings = _settings(file), read_trainings(file)
    results = results_of(trainings)
    sections = [
        f"# {settings['data']['name']}: a table of trained networks",
        _about(settings, trainings, results),
        "## What it shows",
        _facts(results),
        "## Main effects on Dice",
        _effects(choice_effects(results)),
        "## Costs",
        _costs(trainings),
        "## How the networks were trained",
        _training(settings),
        "## Space",
        _space(settings),
        "## Columns",
        _markdown(("column", "meaning"), COLUMN_MEANINGS),
        "## Licence",
        f"Numbers only: the table holds no image, label or weight. They were measured on {settings['data']['name']} "
        f"(licence: {settings['data']['licence']}).",
    ]
    return "\n\n".join(sections) + "\n"


def results_of(trainings: Trainings) -> Results:
    """Return final Dice and costs, with a column per seed of the table."""
    seeds = sorted({seed for each in trainings.seeds for seed in each})
    dice = np.full((len(trainings.entries), len(seeds)), np.nan)
    for row, (own, curves) in enumerate(zip(trainings.seeds, trainings.curves, strict=True)):
        dice[row, [seeds.index(seed) for seed in own]] = curves[:, -1]
    return Results(trainings.entries, dice, trainings.costs)


def _settings(file: Path) -> dict[str, Any]:
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(file).metadata or {}
    found: dict[str, Any] = json.loads(metadata[METADATA])
    return found


def _about(settings: Mapping[str, Any], trainings: Trainings, results: Results) -> str:
    counts = (~np.isnan(results.dice)).sum(axis=1)
    asked, states = settings["asked"], settings["states"]
    wanted = asked["networks"] * asked["seeds"]
    by_seeds = ", ".join(
        f"{counted(int((counts == number).sum()), 'network')} with {counted(number, 'seed')}"
        for number in sorted(set(counts.tolist()), reverse=True)
    )
    missing = wanted - sum(number for state, number in states.items() if state != "running")
    partial = f"**Partial: {missing:,} of {wanted:,} trainings are missing.** " if missing else ""
    lost = ", ".join(f"{number} {state}" for state, number in states.items() if state not in ("trained", "running"))
    return (
        f"{partial}{int(counts.sum()):,} trainings of {counted(len(counts), 'network')} ({by_seeds}), each with its "
        f"learning curve of {counted(trainings.epochs, 'epoch')}: a random sample of the {settings['combinations']:,} "
        f"combinations of the study `{settings['study']}`.{f' Not in the table: {lost}.' if lost else ''}\n\n"
        "`voxnas simulate --table FILE` compares proposers on it."
    )


def _facts(results: Results) -> str:
    noise, freedom = noise_deviation(results.dice)
    low, middle, high = np.quantile(results.means, [0.0, 0.5, 1.0])
    rows = [
        ("mean Dice of a network: lowest, median, highest", f"{low:.4f}, {middle:.4f}, {high:.4f}"),
        ("standard deviation between networks, noise removed", _number(network_deviation(results.dice))),
        (f"standard deviation between seeds of a network ({freedom} degrees of freedom)", _number(noise)),
        ("the same, from the median difference of two seeds", _number(typical_noise(results.dice))),
        ("Spearman's correlation between two seeds", _number(seed_correlation(results.dice), 2)),
        ("share of the variance that costs explain, left-out networks", _number(explained_by_costs(results), 2)),
    ]
    return _markdown(("fact", "value"), rows)


def _effects(effects: Sequence[ChoiceEffect]) -> str:
    if not effects:
        return "Too few networks for a linear model of all choices."
    rows = []
    for each in effects:
        interval = f"{each.low:+.4f} to {each.high:+.4f}"
        rows.append((each.axis, each.choice, each.against, f"{each.mean:+.4f}", interval, each.networks))
    return (
        "Least squares over the networks' mean Dice, other choices equal, with 95 % intervals; a block's effect is "
        "per place that has it.\n\n" + _markdown(("axis", "choice", "instead of", "Dice", "interval", "networks"), rows)
    )


def _costs(trainings: Trainings) -> str:
    rows = []
    for column, values in trainings.costs.items():
        objective = OBJECTIVES[COLUMNS[column]]
        low, middle, high = (objective.show(float(value)) for value in np.quantile(values, [0.0, 0.5, 1.0]))
        rows.append((objective.heading, low, middle, high, f"{values.max() / values.min():.0f}"))
    seconds = trainings.epoch_s * trainings.epochs
    low, middle, high = (f"{value:.1f} s" for value in np.quantile(seconds, [0.0, 0.5, 1.0]))
    rows.append(("time of a training", low, middle, high, f"{seconds.max() / max(seconds.min(), 1e-9):.0f}"))
    return _markdown(("cost", "lowest", "median", "highest", "highest / lowest"), rows)


def _training(settings: Mapping[str, Any]) -> str:
    data, training = settings["data"], settings["training"]
    shown = {name: value for name, value in training.items() if name not in ("augment", "init", "deadline")}
    versions = "; ".join(
        ", ".join(f"{name} {number}" for name, number in each.items()) for each in settings["versions"]
    )
    rows = [
        ("data", f"{data['train']} training cases, {len(data['validation'])} validation cases"),
        ("classes", ", ".join(data["classes"])),
        ("validation cases", ", ".join(data["validation"])),
        ("spacing (D, H, W)", f"{settings['spacing_mm']} mm"),
        *((name.replace("_", " "), value) for name, value in shown.items()),
        ("device", "; ".join(settings["devices"])),
        ("versions", versions),
    ]
    return _markdown(("setting", "value"), rows)


def _space(settings: Mapping[str, Any]) -> str:
    rows = [(name, ", ".join(str(choice) for choice in choices)) for name, choices in settings["axes"].items()]
    return _markdown(("axis", "choices"), rows)


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "too few trainings"


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
