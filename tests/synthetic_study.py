"""Synthetic studies of any size, written to a database: real networks and costs, Dice from a known function."""

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from search.config.goals import GOALS, Objectives
from search.config.schema import Data, Search, Study
from search.config.training_section import Training
from search.files.digests import sealed
from search.simulate.synthetic import RECIPES, synthetic_table
from search.storage import RECORD, Store
from search.storage.address import sqlite_url
from search.trials.epochs import Epoch
from search.trials.records import CaseDice, Costs, Latency, Measurement, Record

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = ("background", "left ventricle", "right ventricle", "myocardium")
EPOCHS = 9
BUDGET = 1600 * 2**20
STATES = {"trained": 1, "over budget": 2, "failed": 3, "stopped": 2, "running": 0}  # Optuna's: the latter as text


def synthetic_records(count: int, *, seed: int = 0, table: str = "places", first: int = 0, state: str | None = None):
    """Return records of random networks from a synthetic table, four fifths of them trained."""
    networks, rng = synthetic_table(table), np.random.default_rng(seed)
    return [_record(networks, number, rng, state) for number in range(first, first + count)]


def _record(table, number, rng, forced):
    row = int(rng.integers(len(table.decisions)))
    known = table.costs[row]
    state = forced or str(rng.choice(["trained", "failed", "stopped"], p=[0.88, 0.02, 0.1]))
    if forced is None and known.memory_bytes > BUDGET:
        state = "over budget"
    latency = Latency(known.latency.median_s * float(rng.normal(1, 0.02)), 1e-4, 30, True, "a device", 2, "float32")
    costs = Costs(known.params, known.macs, known.memory_bytes, known.inference_memory_bytes, latency)
    dice = float(np.clip(table.truth[row] + rng.normal(0, 0.004), 0.01, 0.99))
    epochs = tuple(
        Epoch(each, 1 - dice * each / EPOCHS, dice * (1 - 0.6**each), 30.0)
        for each in range(1, 1 + (EPOCHS if state == "trained" else 3))
    )
    cases = tuple(
        CaseDice(f"case_{each}", tuple(float(np.clip(dice + rng.normal(0, 0.03), 0, 1)) for _ in LABELS[1:]))
        for each in range(8)
    )
    reason = {
        "over budget": "training memory is over the budget of 1.6 GiB",
        "failed": "out of memory: synthetic",
        "stopped": "behind two thirds at epoch 3",
    }.get(state, "")
    measurement = Measurement(
        state,
        reason,
        costs if state != "failed" else None,
        dice if state == "trained" else None,
        cases if state == "trained" else (),
        epochs if state in ("trained", "stopped", "running") else (),
        seconds=300.0,
    )
    started = BEGAN + timedelta(seconds=300 * number)
    ended = "" if state == "running" else (started + timedelta(seconds=300)).isoformat(timespec="seconds")
    return Record(
        number,
        table.architectures[row],
        tuple(table.decisions[row].items()),
        0,
        0,
        measurement,
        started.isoformat(timespec="seconds"),
        ended,
    )


def synthetic_study(name: str, **objectives) -> Study:
    """Return the study of the synthetic records."""
    context = RECIPES["places"].context
    named = objectives or {
        "dice": GOALS["dice"](),
        "memory": GOALS["memory"](budget=BUDGET),
        "latency": GOALS["latency"](),
    }
    return Study(
        name,
        Data("synthetic"),
        objectives=Objectives(**named),
        training=Training(patch=context.patch, epochs=EPOCHS),
        search=Search(trials=100),
    )


def write_synthetic_study(runs: Path, name: str, records, *, study: Study | None = None) -> Path:
    """Write a study with its records; return its database."""
    study = study or synthetic_study(name)
    file = runs / name / "study.db"
    values = {key: each for key, each in asdict(study).items() if key not in ("executor", "keep", "storage")}
    store = Store.open(sqlite_url(file), name, directions=study.directions, values=values)
    costs = [each.measurement.costs for each in records if each.measurement.costs]
    reference = {
        each: 0.0 if each == "dice" else 1.2 * max((cost.of(each) for cost in costs), default=1.0)
        for each in study.directions
    }
    store.write_reference(reference)
    store.write_context({**asdict(RECIPES["places"].context), "labels": LABELS})
    store.close()  # a connection that is closed later would write its log into the file then
    add_records(file, records, list(study.directions))
    return file


def add_records(file: Path, records, objectives) -> None:
    """Write records as finished trials directly into Optuna's tables."""
    with closing(sqlite3.connect(file)) as connection, connection:
        last = connection.execute("SELECT COALESCE(MAX(trial_id), 0) FROM trials").fetchone()[0]
        trials, params, values, attributes, choices = [], [], [], [], _choices(records)
        for trial, record in enumerate(records, start=last + 1):
            measured = [record.measurement.value(each) for each in objectives]
            word = {"trained": "COMPLETE", "failed": "FAIL", "running": "RUNNING"}.get(record.state, "PRUNED")
            began, ended = (
                text.replace("T", " ")[:19] + ".000000" if text else None for text in (record.started, record.ended)
            )
            trials.append((trial, record.number, 1, word, began, ended))
            attributes.append((trial, RECORD, json.dumps(sealed(record.to_values()))))
            if word == "COMPLETE":
                values += [(trial, at, value, "FINITE") for at, value in enumerate(measured)]
            for key, value in record.decisions:
                choice = json.dumps(value) if isinstance(value, tuple) else value
                kind = {"name": "CategoricalDistribution", "attributes": {"choices": choices[key]}}
                params.append((trial, key, choices[key].index(choice), json.dumps(kind)))
        connection.executemany(
            "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete)"
            " VALUES (?,?,?,?,?,?)",
            trials,
        )
        connection.executemany(
            "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?,?,?,?)", values
        )
        connection.executemany(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?,?,?)", attributes
        )
        connection.executemany(
            "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?,?,?,?)", params
        )


def _choices(records):
    """Return the choices of each parameter that occur in records, as Optuna stores them."""
    found = {}
    for each in records:
        for name, value in each.decisions:
            found.setdefault(name, set()).add(json.dumps(value) if isinstance(value, tuple) else value)
    return {name: sorted(values, key=str) for name, values in found.items()}
