"""Read JSON that other programs or people wrote: `dataset.json`, nnU-Net's splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.data.volume_files import why_no_file


def read_foreign_json(file: Path) -> Any:
    """Return the values of a JSON file. Raises ValueError, naming the file, if it is none, or gives a key twice."""
    if why := why_no_file(file):
        raise ValueError(f"{file}: {why}")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_mapping)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}:{error.colno}: is not valid JSON ({error.msg})") from error
    except RecursionError as error:
        raise ValueError(f"{file}: is not valid JSON (it is nested too deeply)") from error
    except (OSError, ValueError) as error:  # also text that is no UTF-8, and a number of thousands of digits
        raise ValueError(f"{file}: cannot be read ({error})") from error


def _mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise ValueError(f"the key {key!r} is given twice, with different values")
        values[key] = value
    return values
