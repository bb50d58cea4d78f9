"""A study as its records show it, without its data: what `front`, `report` and the dashboard read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from search.analysis.confirmation import Confirmed, confirmed_front
from search.config import LoadedStudy, Study, UserError
from search.config.objectives import OBJECTIVES, show, show_point
from search.config.validate import read_as
from search.config.yaml_source import Source
from search.storage import REFERENCE, STUDY, read_records, read_study_attribute
from search.storage.database import database_url
from search.trials.files import run_folder
from search.trials.pareto import hypervolume, pareto_front
from search.trials.records import Record, searched


@dataclass(frozen=True)
class Look:
    """A study, its search's records and front, what confirms them, and its hypervolume's reference."""

    study: Study
    folder: Path
    records: tuple[Record, ...]
    front: tuple[Record, ...]
    reference: dict[str, float]
    confirmations: tuple[Record, ...] = ()


def look(loaded: LoadedStudy, *, runs: Path) -> Look:
    """Read a study's records. Raises UserError where nothing has run yet."""
    return look_at(loaded.study, run_folder(runs, loaded.study))


def kept_study(url: str, name: str, *, storage: str | None = None) -> Study | None:
    """Return a study as its database keeps it, overrides included; None where none was started there.

    Raises UserError for what another version, or another program, keeps under this name.
    """
    values = read_study_attribute(url, name, STUDY)
    if not isinstance(values, dict):
        return None
    parts = {key: part for key, part in values.items() if isinstance(part, dict)}
    parts.get("data", {}).pop("cases", None)
    if "objectives" in parts:
        values["objectives"] = {key: each for key, each in parts["objectives"].items() if each is not None}
    source = Source(f"study {name!r} in its database", {**values, "name": "study", "storage": storage})
    study, mistakes = read_as(Study, source)
    if study is None:
        raise UserError([*mistakes, f"this version of voxnas can't read study {name!r}: another one wrote it"])
    return replace(study, name=name)  # an ablation's settings have names that no file could give


def look_at(study: Study, folder: Path) -> Look:
    """Read the records that a study left in its folder. Raises UserError where nothing has run yet."""
    url = database_url(study.storage, folder)
    everything = read_records(url, study.name)
    records = searched(everything, seed=study.search.seed, fold=study.data.fold)
    numbers = {record.number for record in records}
    front = pareto_front(records, study.directions)
    reference = read_study_attribute(url, study.name, REFERENCE) or {}
    confirmations = tuple(record for record in everything if record.number not in numbers)
    return Look(study, folder, tuple(records), tuple(front), reference, confirmations)


def confirmed(looked: Look) -> list[Confirmed]:
    """Return the front as confirmation left it. Raises UserError where nothing was confirmed."""
    points = confirmed_front(looked.front, looked.confirmations, looked.study.directions)
    if not points:
        raise UserError([f"nothing of {looked.study.name} was confirmed yet; start with `voxnas confirm`"])
    return points


def front_table(looked: Look) -> Table:
    """Return the front as a table, objectives first."""
    states = [record.state for record in looked.records]
    trained = states.count("trained")
    title = f"{looked.study.name}: front of {len(looked.front)} among {trained} trained trials{_volume(looked)}"
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    columns = [
        *looked.study.directions,
        *(name for name in OBJECTIVES if name not in looked.study.directions),
    ]
    for name in columns:
        arrow = f" {OBJECTIVES[name].arrow}" if name in looked.study.directions else ""
        table.add_column(OBJECTIVES[name].heading + arrow, justify="right")
    table.add_column("network")
    for record in looked.front:
        values = [show(name, record.measurement.value(name)) for name in columns]
        table.add_row(str(record.number), *values, record.architecture.describe())
    return table


def _volume(looked: Look) -> str:
    """Say the hypervolume and the reference that it was measured from since the study began."""
    if not looked.reference:
        return ""
    share = hypervolume(looked.records, looked.study.directions, looked.reference)
    return f"\nhypervolume {share:.4f} from {show_point(looked.reference)}"


def front_json(looked: Look) -> str:
    """Return the front as JSON: values in bytes, seconds and counts."""
    rows = [
        {
            "trial": record.number,
            **{name: record.measurement.value(name) for name in OBJECTIVES},
            "fingerprint": record.architecture.fingerprint,
            "architecture": dict(record.architecture.entries),
        }
        for record in looked.front
    ]
    share = hypervolume(looked.records, looked.study.directions, looked.reference) if looked.reference else None
    values = {
        "study": looked.study.name,
        "objectives": looked.study.directions,
        "reference": looked.reference,
        "hypervolume": share,
        "front": rows,
    }
    return json.dumps(values, indent=2)
