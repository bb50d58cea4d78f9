"""Store Records in an Optuna database; only this package knows its tables and attribute names.

A running trial is written in one transaction, a Record is one JSON attribute, and one query reads all records.
"""

from search.storage.address import show_url
from search.storage.reader import (
    CONTEXT,
    GOAL,
    RECORD,
    REFERENCE,
    STUDY,
    STUDY_ID,
    Row,
    close_storage,
    open_storage,
    read_records,
    read_rows,
    read_studies,
    read_study_attribute,
    read_study_attributes,
    read_study_names,
    reading,
    stored_values,
)
from search.storage.store import Store, excesses, now, optuna_directions

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
