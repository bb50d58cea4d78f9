"""Store Records in an Optuna database; only this package knows its tables and attribute names.

A running trial is written in one transaction, a Record is one JSON attribute, and one query reads all records.
"""

from search.storage.address import show_url
from search.storage.optuna_values import excesses, optuna_directions
from search.storage.reader import RECORD, Row, close_storage, each_row, open_storage, read_records, read_rows, reading
from search.storage.store import Store, now
from search.storage.study_attributes import (
    CONTEXT,
    GOAL,
    REFERENCE,
    STUDY,
    STUDY_ID,
    read_studies,
    read_study_attribute,
    read_study_attributes,
    read_study_names,
    stored_values,
)

__all__ = [
    "CONTEXT",
    "GOAL",
    "RECORD",
    "REFERENCE",
    "STUDY",
    "STUDY_ID",
    "Row",
    "Store",
    "close_storage",
    "each_row",
    "excesses",
    "stored_values",
    "now",
    "open_storage",
    "optuna_directions",
    "read_records",
    "read_rows",
    "read_studies",
    "read_study_attribute",
    "read_study_attributes",
    "read_study_names",
    "reading",
    "show_url",
]
