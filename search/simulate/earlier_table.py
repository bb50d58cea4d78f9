"""A table that `voxnas tabulate` wrote earlier: what it holds, and whether more trainings may be added to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config.errors import UserError
from search.config.objectives import per_device
from search.runner.plan import Plan
from search.runner.tabulate import Training
from search.storage.identity import CONTENT, key_changes, plain

METADATA = b"voxnas"  # key of the settings in the file's metadata


@dataclass(frozen=True)
class EarlierTable:
    """A table's rows by training, epoch by epoch, and its settings."""

    rows: Mapping[Training, Sequence[dict[str, Any]]]
    settings: Mapping[str, Any]

    @property
    def devices(self) -> list[str]:
        """The devices that the trainings ran on."""
        return list(self.settings.get("devices", ()))

    @property
    def versions(self) -> list[dict[str, str]]:
        """The versions of libraries, one entry per combination."""
        return list(self.settings.get("versions", ()))


def study_identity(plan: Plan) -> dict[str, Any]:
    """Return the values that a table's trainings depend on, with one digest for the content of data and weights.

    Unlike the identity in a database it names no case, since a table may be published.
    """
    values = plain(plan.identity())
    content = json.dumps(values.pop(CONTENT), sort_keys=True)
    return {**values, CONTENT: hashlib.sha256(content.encode()).hexdigest()}


def require_table_of(file: Path, study: str) -> None:
    """Raise UserError if a file exists that is not a table of a study of this name, and would be replaced by one."""
    if file.exists() and _settings(file).get("study") != study:
        raise UserError([f"--out {file}: is not a table of the study {study}, and would be replaced; choose another"])


def read_earlier(file: Path, plan: Plan) -> EarlierTable:
    """Read the table that more trainings are added to; it is empty if there is no such file.

    Raises UserError if the trainings were not the plan's: other data, training or space, or latencies of another
    device.
    """
    import pyarrow.parquet

    if not file.exists():
        return EarlierTable({}, {})
    require_table_of(file, plan.study.name)
    settings = _settings(file)
    _require_same_study(file, settings, plan)
    rows: dict[Training, list[dict[str, Any]]] = {}
    for row in pyarrow.parquet.read_table(file).to_pylist():
        rows.setdefault((row["network"], row["seed"]), []).append(row)
    return EarlierTable(rows, settings)


def _settings(file: Path) -> Mapping[str, Any]:
    """Return the settings in a file's metadata; none if it is not a table of `voxnas tabulate`."""
    import pyarrow
    import pyarrow.parquet

    try:
        found = json.loads((pyarrow.parquet.read_schema(file).metadata or {}).get(METADATA, b"{}"))
    except (pyarrow.ArrowException, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _require_same_study(file: Path, settings: Mapping[str, Any], plan: Plan) -> None:
    known, given = settings.get("identity"), study_identity(plan)
    hint = f"--out {file}: holds trainings that depend on this; undo the change, or choose another file"
    if not isinstance(known, dict):
        raise UserError([f"--out {file}: does not say how its study was trained; choose another file"])
    changes = [*key_changes({**known, CONTENT: None}, {**given, CONTENT: None})]
    if known.get(CONTENT) != given[CONTENT]:
        changes.append("data: cases, labels, splits or initial weights differ from those of the table")
    if changes:
        raise UserError([*changes, hint])
    if per_device(plan.study.objectives.goals):
        from search.runner.pricer import local_device  # imports torch

        others = [each for each in settings.get("devices", ()) if each != local_device(plan).setting]
        if others:
            here = local_device(plan).setting
            reason = f"latencies were measured on {', '.join(others)}, and this is {here}"
            raise UserError([f"--out {file}: {reason}; choose another file"])
