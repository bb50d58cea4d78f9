"""Uses of a study's test cases in its database: one attribute per use, never changed."""

from __future__ import annotations

from uuid import uuid4

from search.files.digests import sealed
from search.storage.reader import open_storage
from search.storage.study_attributes import read_study_attributes
from search.trials.held_out import HeldOutScore

PREFIX = "voxnas:test:"


def read_test_uses(url: str, name: str) -> list[HeldOutScore]:
    """Return the uses of the test cases, earliest first."""
    found = read_study_attributes(url, name, f"{PREFIX}%")
    return [HeldOutScore.from_values(found[key]) for key in sorted(found)]


def write_test_use(url: str, name: str, use: HeldOutScore) -> None:
    """Write a use under a key of its own; the number in it keeps the order."""
    number = len(read_test_uses(url, name))
    with open_storage(url) as storage:
        study = storage.get_study_id_from_name(name)
        storage.set_study_user_attr(study, f"{PREFIX}{number:06d}-{uuid4().hex[:8]}", sealed(use.to_values()))
