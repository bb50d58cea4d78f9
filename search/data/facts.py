"""What single image and label files hold, read once and remembered until a file changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.geometry import read_volume
from search.data.labels import read_label
from search.data.parallel import Progress, for_each

FORMAT = 2  # of the remembered facts; another number forgets them all
_NO_VALUES: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class FileFacts:
    """What one file holds; where it can't be used, `problem` says why and the rest is empty.

    `shape` is (C, X, Y, Z) of an image, (X, Y, Z) of a label; `affine` 16 numbers by rows. `values` are a
    label's (value, voxels); `filled` the share of an image inside the bounding box of its non-zero voxels. `sha256` is
    of shape, affine and voxels: a file that is compressed again keeps it.
    """

    problem: str = ""
    shape: tuple[int, ...] = ()
    affine: tuple[float, ...] = ()
    values: tuple[tuple[int, int], ...] = ()
    filled: float = 1.0
    sha256: str = ""


def read_facts(
    images: Sequence[str], labels: Sequence[str], *, cache_dir: Path | None, progress: Progress | None = None
) -> dict[str, FileFacts]:
    """Return the facts of all files by path, reading those that are not remembered in `cache_dir`.

    A file is known by path, size and time of change. Problems are never remembered.
    """
    kinds = dict.fromkeys(images, "image") | dict.fromkeys(labels, "label")
    memory = None if cache_dir is None else cache_dir / f"facts-{_short_hash(sorted(kinds))}.json"
    known = _recall(memory)
    stamps = {path: [kind, *_stamp(path)] for path, kind in kinds.items()}
    facts = {path: known[path][1] for path, stamp in stamps.items() if path in known and known[path][0] == stamp}
    unknown = [path for path in kinds if path not in facts]
    read = for_each(lambda path: file_facts(path, kind=kinds[path]), unknown, progress=progress)
    facts |= dict(zip(unknown, read, strict=True))
    if memory is not None and any(not fact.problem for fact in read):
        _remember(memory, {path: (stamps[path], fact) for path, fact in facts.items() if not fact.problem})
    return facts


def file_facts(path: str, *, kind: str) -> FileFacts:
    """Read one file as "image" or "label"."""
    try:
        if kind == "image":
            volume = read_volume(path)
            voxels, affine = volume.data, volume.affine
            values, filled = _NO_VALUES, _filled_share(voxels)
        else:
            voxels, affine = read_label(path)
            values, filled = _counts(voxels), 1.0
    except (ValueError, OSError) as error:
        return FileFacts(problem=str(error))
    return FileFacts(
        shape=tuple(voxels.shape),
        affine=tuple(affine.ravel().tolist()),
        values=values,
        filled=filled,
        sha256=_digest(voxels, affine),
    )


def _digest(voxels: NDArray[Any], affine: NDArray[Any]) -> str:
    """Return the SHA-256 of shape, affine and voxels; labels count by value, whatever their file's type."""
    plain = voxels.astype(np.float32 if voxels.dtype.kind == "f" else np.int64, copy=False)
    found = hashlib.sha256(repr((voxels.shape, affine.ravel().tolist())).encode())
    found.update(np.ascontiguousarray(plain).data)
    return found.hexdigest()


def _counts(label: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    low, high = int(label.min()), int(label.max())
    small = label.astype(np.min_scalar_type(high)) if low >= 0 else label
    values, voxels = np.unique(small, return_counts=True)
    return tuple(zip(values.tolist(), voxels.tolist(), strict=True))


def _filled_share(data: NDArray[np.float32]) -> float:
    """Return the share of (C, X, Y, Z) that lies inside the bounding box of its non-zero voxels."""
    filled = (data != 0).any(axis=0)
    share = 1.0
    for axis in range(3):
        seen = np.flatnonzero(filled.any(axis=tuple(other for other in range(3) if other != axis)))
        share *= (seen[-1] - seen[0] + 1) / filled.shape[axis] if seen.size else 0.0
    return float(share)


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _recall(memory: Path | None) -> dict[str, tuple[list[Any], FileFacts]]:
    try:
        kept = json.loads(memory.read_text()) if memory is not None else {}
        if kept.get("format") != FORMAT:
            return {}
        return {path: (stamp, _from_json(fact)) for path, (stamp, fact) in kept["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # a damaged memory is no memory
        return {}


def _from_json(fact: dict[str, Any]) -> FileFacts:
    values = tuple((int(value), int(voxels)) for value, voxels in fact["values"])
    return FileFacts(**{**fact, "shape": tuple(fact["shape"]), "affine": tuple(fact["affine"]), "values": values})


def _remember(memory: Path, facts: dict[str, tuple[list[Any], FileFacts]]) -> None:
    """Write facts; a cache folder that can't be written costs time on the next reading, nothing else."""
    files = {path: (stamp, asdict(fact)) for path, (stamp, fact) in facts.items()}
    beside = memory.with_name(f".{memory.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"format": FORMAT, "files": files}))
        os.replace(beside, memory)


def _short_hash(paths: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()[:12]
