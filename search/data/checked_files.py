"""Files that are written atomically, and checked by digest when they are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.files import replace_file, require_regular, write_text
from search.files.digests import DigestError, sealed, unsealed_text


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy."""

    def write(part: Path) -> None:
        with part.open("wb") as file:  # given a path, numpy appends an ending
            np.save(file, array)

    replace_file(path, write, ours=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values together with their digest."""
    write_text(path, json.dumps(sealed(values)), ours=True)


def read_json(path: Path) -> dict[str, Any]:
    """Return the values that `write_json` wrote. Raises ValueError if they differ from their digest."""
    try:
        values: dict[str, Any] = unsealed_text(require_regular(path).read_bytes().decode())
    except DigestError as error:
        raise ValueError(f"{path}: {error}") from None
    return values


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with require_regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
