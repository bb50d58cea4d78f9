"""A copied study is whole under its name, or not there at all."""

import resource
import sqlite3
from contextlib import closing, contextmanager

import pytest
from synthetic_study import synthetic_records, write_synthetic_study

from search.config import UserError
from search.storage import read_records, read_study_names
from search.storage.admin import copy_study


@contextmanager
def files_limited_to(size_bytes):
    """Let no file grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def url(tmp_path):
    file = write_synthetic_study(tmp_path / "runs", "tiny", synthetic_records(3))
    read_records(f"sqlite:///{file}", "tiny")
    return f"sqlite:///{file}"


@pytest.mark.parametrize("size_bytes", [0, 100_000])
def test_a_copy_for_which_there_is_no_space_leaves_no_database(size_bytes, url, tmp_path):
    with files_limited_to(size_bytes), pytest.raises(UserError, match="free some space or raise the limit"):
        copy_study(url, "tiny", str(tmp_path / "copy.db"))
    assert not list(tmp_path.glob("copy.db*"))
    copy_study(url, "tiny", str(tmp_path / "copy.db"))
    assert read_records(f"sqlite:///{tmp_path / 'copy.db'}", "tiny") == read_records(url, "tiny")


def test_a_copy_that_was_killed_is_called_incomplete_and_replaced_by_the_next(url, tmp_path):
    target = tmp_path / "copy.db"
    copy_study(url, "tiny", str(target))
    with closing(sqlite3.connect(target)) as connection, connection:  # as a kill leaves it
        connection.execute("UPDATE studies SET study_name = 'tiny (incomplete copy)'")
    assert read_study_names(f"sqlite:///{target}") == ["tiny (incomplete copy)"]
    copy_study(url, "tiny", str(target))
    assert read_study_names(f"sqlite:///{target}") == ["tiny"]
    assert read_records(f"sqlite:///{target}", "tiny") == read_records(url, "tiny")
    with pytest.raises(UserError, match="copy.db already has a study 'tiny'"):
        copy_study(url, "tiny", str(target))
