"""The Parquet file of a study's trainings: a row per validated epoch, and the settings as metadata of the file.

A table that was written earlier, perhaps on another machine, keeps its trainings when more are added.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from search.config.errors import UserError
from search.data.prepared import Prepared
from search.files import replace_file
from search.runner.plan import Plan, prepared_data, task_of
from search.runner.tabulate import Tabulated, training_of
from search.simulate.earlier_table import METADATA, EarlierTable, study_identity
from search.trials.epochs import Epoch
from search.trials.records import Record
from search.trials.table_file import COLUMNS

T = TypeVar("T")
NAMES = ("architecture", "network", "seed", "epoch", "dice", "loss", "epoch_s")
NOTHING = EarlierTable({}, {})


def write_trained(tabulated: Tabulated, plan: Plan, file: Path, *, earlier: EarlierTable = NOTHING) -> int:
    """Write the trained records and the `earlier` trainings as a table; return how many of the requested it holds.

    The requested trainings come first, in their order. The file is replaced at once: a reader finds the old table or
    the new one. Raises UserError if there is no training to write.
    """
    import pyarrow
    import pyarrow.parquet

    prepared = prepared_data(plan)
    classes = prepared.labels[1:]
    trained = {training_of(record): record for record in tabulated.records if record.state == "trained"}
    wanted = [training_of(each) for each in tabulated.requests]
    order = dict.fromkeys([each for each in wanted if each in trained or each in earlier.rows])
    written = len(order)
    order.update(dict.fromkeys(earlier.rows))
    if not order:
        raise UserError([f"tabulate: no training of {plan.study.name} has ended; there is no table to write"])
    rows = [
        row for training in order for row in (earlier.rows.get(training) or _rows(trained[training], plan, classes))
    ]
    known = {name for row in rows for name in row}
    known -= {name for name in COLUMNS if any(row.get(name) is None for row in rows)}  # half a cost is none
    names = [*NAMES, *COLUMNS, *(f"dice_{label}" for label in classes)]
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names if name in known})
    values = json.dumps(settings(tabulated, plan, prepared, earlier)).encode()
    described = table.replace_schema_metadata({METADATA: values})
    replace_file(file, lambda part: pyarrow.parquet.write_table(described, part, compression="zstd"))
    return written


def settings(tabulated: Tabulated, plan: Plan, prepared: Prepared, earlier: EarlierTable) -> dict[str, Any]:
    """Return a table's data, space, training, devices, versions and the states of the requested trainings."""
    task, study = task_of(plan, prepared), plan.study
    own = [record for record in tabulated.records if training_of(record) not in earlier.rows]
    states = Counter(record.state for record in own)
    states["trained"] += sum(training_of(each) in earlier.rows for each in tabulated.requests)
    trained = [record.measurement for record in own if record.state == "trained"]
    versions = [dict(each) for each in dict.fromkeys(measurement.versions for measurement in trained)]
    from search.runner.pricer import local_device  # imports torch

    return {
        "study": study.name,
        "identity": study_identity(plan),
        "data": {
            "name": prepared.name,
            "licence": prepared.licence,
            "classes": list(prepared.labels[1:]),
            "train": len(task.train),
            "validation": list(task.validation),
        },
        "patch": list(plan.context.patch),
        "spacing_mm": list(plan.context.spacing),
        "training": asdict(plan.training),
        "axes": {axis.name: list(axis.choices) for axis in plan.space.axes if len(axis.choices) > 1},
        "combinations": plan.space.size,
        "asked": {"networks": tabulated.networks, "seeds": tabulated.seeds},
        "states": dict(states),
        "devices": _united(earlier.devices, [local_device(plan).setting] if trained else []),
        "versions": _united(earlier.versions, versions),
    }


def _united(earlier: Sequence[T], own: Sequence[T]) -> list[T]:
    return [*earlier, *(each for each in own if each not in earlier)]


def _rows(record: Record, plan: Plan, classes: Sequence[str]) -> list[dict[str, Any]]:
    measurement, costs = record.measurement, record.measurement.costs
    if costs is None:
        raise ValueError(f"trial {record.number} is trained, but has no costs")
    constant = {
        "architecture": json.dumps(open_decisions(plan, dict(record.decisions))),
        "network": record.architecture.fingerprint,
        "seed": record.seed,
        **{column: costs.of(objective) for column, objective in COLUMNS.items() if costs.of(objective) is not None},
        **{f"dice_{label}": None for label in classes},
    }
    validated = [epoch for epoch in measurement.epochs if epoch.dice is not None]
    rows = [
        {**constant, "epoch": each.number, "dice": each.dice, "loss": each.loss, "epoch_s": _seconds(each, plan)}
        for each in validated
    ]
    known = [[case.dice[at] for case in measurement.cases] for at in range(len(classes))]
    for label, dices in zip(classes, known, strict=True):
        present = [dice for dice in dices if dice is not None]
        rows[-1][f"dice_{label}"] = sum(present) / len(present) if present else None
    return rows


def open_decisions(plan: Plan, decisions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decisions on axes with more than one choice."""
    choices = {axis.name: axis.choices for axis in plan.space.axes}
    return {name: value for name, value in decisions.items() if len(choices[name]) > 1}


def _seconds(epoch: Epoch, plan: Plan) -> float:
    """Return the seconds of an epoch: on one CPU thread its CPU time, which other processes hardly change."""
    named = plan.study.executor
    on_one_thread = named.device == "cpu" and named.threads == 1
    return epoch.cpu_s if on_one_thread and epoch.cpu_s is not None else epoch.seconds
