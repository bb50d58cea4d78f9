"""Whether anything depends on the values of a study: until then, its file may change."""

from __future__ import annotations

from search.storage.heartbeat import present_drivers
from search.storage.reader import read_records
from search.storage.study_attributes import REFERENCE, stored_attribute


def has_begun(url: str, name: str) -> bool:
    """Return whether a study has a reference point, a trial, or a driver that is about to write them."""
    if stored_attribute(url, name, REFERENCE) is not None or present_drivers(url, name):
        return True
    return bool(read_records(url, name))
