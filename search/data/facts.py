"""Facts about single image and label files, read once and cached until the file changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from search.data.labels import read_label
from search.data.parallel import Progress, for_each
from search.data.volume_files import NIFTI, read_volume, suffix_of
from search.files import require_regular, write_text
from search.files.digests import sealed, unsealed_text

FORMAT = 4  # version of the cached facts; a new number invalidates the cache
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FileFacts:
    """Facts about one file; if it is unusable, `problem` gives the reason and the other fields are empty.

    `shape` is (C, X, Y, Z) for an image, (X, Y, Z) for a label; `affine` is 16 numbers in row-major order. `values`
    are a label's pairs (value, voxels). `box` is the bounding box of an image's non-zero voxels, (first, end) along X,
    Y and Z; it is empty if all are zero. `sha256` covers shape, affine and voxels; recompressing does not change it.
    `qform_mm` is how far apart the header's two affines, sform and qform, place a corner of the volume.
    """

    problem: str = ""
    shape: tuple[int, ...] = ()
    affine: tuple[float, ...] = ()
    values: Pairs = ()
    box: Pairs = ()
    sha256: str = ""
    qform_mm: float = 0.0

    @property
    def has_only_zeros(self) -> bool:
        """Whether this is a readable image without a non-zero voxel."""
        return not self.problem and not self.box


def read_facts(
    images: Sequence[str], labels: Sequence[str], *, cache_dir: Path | None, progress: Progress | None = None
) -> dict[str, FileFacts]:
    """Return the facts about all files by path; only files that are not cached in `cache_dir` are read.

    A file is identified by path, size and modification time. Problems are never cached.
    """
    kinds = dict.fromkeys(images, "image") | dict.fromkeys(labels, "label")
    cache = None if cache_dir is None else cache_dir / f"facts-{_short_hash(sorted(kinds))}.json"
    known = _load_cache(cache)
    stamps = {path: [kind, *_stamp(path)] for path, kind in kinds.items()}
    facts = {path: known[path][1] for path, stamp in stamps.items() if path in known and known[path][0] == stamp}
    unknown = [path for path in kinds if path not in facts]
    read = for_each(lambda path: file_facts(path, kind=kinds[path]), unknown, progress=progress)
    facts |= dict(zip(unknown, read, strict=True))
    if cache is not None and any(not fact.problem for fact in read):
        _save_cache(cache, {path: (stamps[path], fact) for path, fact in facts.items() if not fact.problem})
    return facts


def file_facts(path: str, *, kind: str) -> FileFacts:
    """Read one file as "image" or "label"."""
    values: Pairs
    box: Pairs
    try:
        if kind == "image":
            volume = read_volume(path)
            voxels, affine = volume.data, volume.affine
            values, box = (), nonzero_box(voxels)
        else:
            voxels, affine = read_label(path)
            values, box = _counts(voxels), ()
    except (ValueError, OSError) as error:
        return FileFacts(problem=str(error))
    return FileFacts(
        shape=tuple(voxels.shape),
        affine=tuple(affine.ravel().tolist()),
        values=values,
        box=box,
        sha256=_digest(voxels, affine),
        qform_mm=qform_distance_mm(Path(path)),
    )


def qform_distance_mm(path: Path) -> float:
    """Return how far apart sform and qform of a NIfTI header place a corner of the volume; 0 unless both are set."""
    if suffix_of(path) not in NIFTI:
        return 0.0
    header: Any = nibabel.load(path).header
    try:
        (sform, one), (qform, other) = header.get_sform(coded=True), header.get_qform(coded=True)
    except HeaderDataError:  # a qform that is none
        return 0.0
    if not one or not other:
        return 0.0
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in header.get_data_shape()[:3]], [1], indexing="ij"), -1)
    return float(np.linalg.norm(corners.reshape(-1, 4) @ (qform - sform).T, axis=1).max())


def _digest(voxels: NDArray[Any], affine: NDArray[Any]) -> str:
    """Return the SHA-256 of shape, affine and voxels; labels are hashed by value, independent of their data type."""
    plain = voxels.astype(np.float32 if voxels.dtype.kind == "f" else np.int64, copy=False)
    found = hashlib.sha256(repr((voxels.shape, affine.ravel().tolist())).encode())
    found.update(np.ascontiguousarray(plain).data)
    return found.hexdigest()


def _counts(label: NDArray[Any]) -> Pairs:
    low, high = int(label.min()), int(label.max())
    small = label.astype(np.min_scalar_type(high)) if low >= 0 else label
    values, voxels = np.unique(small, return_counts=True)
    return tuple(zip(values.tolist(), voxels.tolist(), strict=True))


def nonzero_box(data: NDArray[np.float32]) -> Pairs:
    """Return the bounding box, (first, end) per axis, of the voxels of (C, X, Y, Z) that any channel has non-zero."""
    filled = (data != 0).any(axis=0)
    box = []
    for axis in range(3):
        seen = np.flatnonzero(filled.any(axis=tuple(other for other in range(3) if other != axis)))
        if not seen.size:
            return ()
        box.append((int(seen[0]), int(seen[-1]) + 1))
    return tuple(box)


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _load_cache(cache: Path | None) -> dict[str, tuple[list[Any], FileFacts]]:
    try:
        content = unsealed_text(require_regular(cache).read_text()) if cache is not None else {}
        if content.get("format") != FORMAT:
            return {}
        return {path: (stamp, _from_json(fact)) for path, (stamp, fact) in content["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # ignore a damaged cache
        return {}


def _from_json(fact: dict[str, Any]) -> FileFacts:
    pairs = {name: tuple((int(one), int(other)) for one, other in fact[name]) for name in ("values", "box")}
    return FileFacts(**{**fact, "shape": tuple(fact["shape"]), "affine": tuple(fact["affine"]), **pairs})


def _save_cache(cache: Path, facts: dict[str, tuple[list[Any], FileFacts]]) -> None:
    """Write facts; if the cache folder is not writable, the files are just read again next time."""
    files = {path: (stamp, asdict(fact)) for path, (stamp, fact) in facts.items()}
    with contextlib.suppress(OSError):
        write_text(cache, json.dumps(sealed({"format": FORMAT, "files": files})), ours=True)


def _short_hash(paths: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()[:12]
