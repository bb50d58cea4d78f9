"""Reading never lies: each database that can't be read is called what it is, and the others are shown."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from synthetic_study import synthetic_records, synthetic_study, write_synthetic_study
from test_search_cli import call

from search.analysis.snapshot_reader import read_snapshot
from search.cli import main
from search.config import UserError
from search.config.errors import RunError
from search.files.digests import sealed, unsealed_text
from search.storage import Store, read_records, read_study_attribute, read_study_names
from search.storage.address import database_url, show_url, sqlite_file, sqlite_url
from search.storage.listing import list_studies

ODD_NAMES = ["plain", "a b", "100%", "50%20x", "what?", "no#1", "a{b}", "[x]", "müller", "a&b=c", "'quoted'", "x;y"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a study of 12 trials; copied, never changed."""
    runs = tmp_path_factory.mktemp("sound") / "runs"
    write_synthetic_study(runs, "tiny", synthetic_records(12))
    return runs


@pytest.fixture
def runs(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "runs"))


def damage(file, how):
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[:5000])
    elif how == "zeros":
        file.write_bytes(b"\0" * 4096)
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "text":
        file.write_text("study: tiny\n")
    elif how == "scribbled":
        file.write_bytes(content[:1024] + os.urandom(len(content) - 1024))
    elif how == "foreign":
        file.unlink()
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE bookmarks (id INTEGER)")
    elif how == "other schema":
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE version_info SET schema_version = 99, library_version = '99.0.0'")
            connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    elif how == "folder":
        file.unlink()
        file.mkdir()
    elif how == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif how in ("link to itself", "link to nothing"):
        file.unlink()
        file.symlink_to(file if how == "link to itself" else file.with_name("nothing"))


DAMAGES = {
    "cut": r"study.db is damaged \(.*malformed\); restore a copy, or try `sqlite3 study.db .recover`",
    "zeros": r"study.db is not an SQLite database",
    "empty": r"nothing has run yet: .*study.db is empty; start with `voxnas run`",
    "text": r"study.db is not an SQLite database",
    "scribbled": r"study.db (is damaged|is not an SQLite database)",
    "foreign": r"study.db is a database of another program, not one of studies \(its tables: bookmarks\)",
    "other schema": r"study.db was written by Optuna 99.0.0, but .* is installed; upgrade optuna",
    "folder": r"study.db: can't be read: Is a directory",
    "pipe": r"study.db is a pipe, a socket or a device, not an SQLite database",
    "link to itself": r"study.db is a link that leads to no file",
    "link to nothing": r"study.db is a link that leads to no file",
}


@pytest.mark.parametrize("how", [each for each in DAMAGES if each != "scribbled"])
def test_each_damage_has_its_sentence_where_a_study_is_read_by_its_file(how, runs):
    damage(runs / "tiny/study.db", how)
    with pytest.raises(UserError, match=DAMAGES[how]):
        read_snapshot(synthetic_study("tiny"), runs / "tiny")


@pytest.mark.parametrize("how", DAMAGES)
def test_each_damage_has_its_sentence(how, runs):
    file = runs / "tiny/study.db"
    damage(file, how)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(UserError, match=DAMAGES[how]):
        read_records(sqlite_url(file), "tiny")
    if how not in ("scribbled", "cut"):  # these may still have whole pages with the names
        with pytest.raises(UserError, match=DAMAGES[how].split(" (")[0] if how == "foreign" else DAMAGES[how]):
            list_studies(sqlite_url(file))
    assert before is None or file.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        "{}",
        '{"measurement": {}}',
        '{"measurement": 3}',
        '{"measurement": {"epochs": [[]]}}',
    ],
)
def test_a_record_that_is_none_is_named_and_hides_no_other_study(text, runs, monkeypatch, capsys):
    shutil.copytree(runs / "tiny", runs / "other")
    with closing(sqlite3.connect(runs / "tiny/study.db")) as connection, connection:
        where = "key = 'voxnas:record' AND trial_id = (SELECT trial_id FROM trials WHERE number = 4)"
        connection.execute(f"UPDATE trial_user_attributes SET value_json = ? WHERE {where}", (text,))
    with pytest.raises(UserError, match=r"the record of trial 4 can't be read \(.*\): it is damaged, or a newer"):
        read_records(sqlite_url(runs / "tiny/study.db"), "tiny")
    said = call(monkeypatch, capsys, "studies", "--runs", runs, code=1)
    assert (
        said.out.startswith("2 studies")
        and "can't be read" in said.out
        and "the record of trial 4 can't be read" in said.err
    )


@pytest.mark.parametrize("started", ["2026", "yesterday", 5])
def test_a_record_with_a_date_that_is_none_is_named(started, runs):
    with closing(sqlite3.connect(runs / "tiny/study.db")) as connection, connection:
        where = "key = 'voxnas:record' AND trial_id = (SELECT trial_id FROM trials WHERE number = 4)"
        (text,) = connection.execute(f"SELECT value_json FROM trial_user_attributes WHERE {where}").fetchone()
        changed = json.dumps(sealed({**unsealed_text(text), "started": started}))
        connection.execute(f"UPDATE trial_user_attributes SET value_json = ? WHERE {where}", (changed,))
    with pytest.raises(UserError, match=r"the record of trial 4 can't be read \(.*\): it is damaged, or a newer"):
        read_snapshot(synthetic_study("tiny"), runs / "tiny")


def test_an_attribute_that_is_no_json_is_called_damaged(runs):
    with closing(sqlite3.connect(runs / "tiny/study.db")) as connection, connection:
        connection.execute("UPDATE study_user_attributes SET value_json = '{' WHERE key = 'voxnas:study'")
    with pytest.raises(
        UserError, match="study.db is damaged .the attribute 'voxnas:study' is no JSON: .*; restore a copy"
    ):
        read_study_attribute(sqlite_url(runs / "tiny/study.db"), "tiny", "voxnas:study")


def test_a_transaction_that_a_process_left_when_it_died_is_rolled_back(runs, tmp_path):
    file = runs / "tiny/study.db"
    connection = sqlite3.connect(file, isolation_level=None)
    for statement in ("journal_mode=DELETE", "cache_size=1"):
        connection.execute(f"PRAGMA {statement}")
    connection.execute("BEGIN")
    connection.execute("DELETE FROM trial_user_attributes")
    numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000) SELECT i FROM n"
    connection.execute(f"CREATE TABLE more AS {numbers}")
    for path in (file, file.with_name("study.db-journal")):
        shutil.copy(path, tmp_path / path.name)  # as a kill would leave them
    connection.execute("ROLLBACK")
    connection.close()
    assert (tmp_path / "study.db-journal").stat().st_size
    assert len(read_records(sqlite_url(tmp_path / "study.db"), "tiny")) == 12


def test_a_study_whose_file_is_gone_is_not_called_one_that_has_not_run(runs, monkeypatch, capsys):
    said = call(monkeypatch, capsys, "front", "tiny", "--runs", runs, code=2)
    assert f"{runs}/tiny has a database, but no study.yaml; give the study's file instead of its name" in said.err


def test_a_locked_database_is_called_locked(runs, monkeypatch):
    monkeypatch.setattr("search.storage.database.READ_TIMEOUT_S", 0.1)
    file = runs / "tiny/study.db"
    holder = sqlite3.connect(file, isolation_level=None)
    try:
        holder.execute("PRAGMA journal_mode=DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        message = "study.db is locked by another program; wait until that ends, or stop it"
        with pytest.raises(UserError, match=message):
            read_records(sqlite_url(file), "tiny")
        with pytest.raises(UserError, match=message):
            read_snapshot(synthetic_study("tiny"), file.parent)
    finally:
        holder.close()


@pytest.mark.parametrize("full", [False, True])
def test_reading_leaves_this_process_its_locks_so_that_another_reader_deletes_no_writes(full, runs, monkeypatch):
    if full:  # the database is read from a copy
        monkeypatch.setattr("search.storage.database.BESIDE_BYTES", 2**62)
    file = runs / "tiny/study.db"
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE before_reading (a)")
    assert len(read_records(sqlite_url(file), "tiny")) == 12 and read_study_names(sqlite_url(file)) == ["tiny"]
    list_tables = f"import sqlite3; print(*sqlite3.connect({str(file)!r}).execute('SELECT name FROM sqlite_master'))"
    for table in ("after_reading", "after_another_process"):
        writer.execute(f"CREATE TABLE {table} (a)")
        seen = subprocess.run([sys.executable, "-c", list_tables], capture_output=True, text=True, check=True).stdout
        assert table in seen and file.with_name("study.db-wal").exists()
    writer.close()


def test_a_failing_disk_is_not_called_damage_to_the_file(runs):
    (runs / "tiny/study.db-journal").mkdir()  # SQLite fails to read it, as it would from a failing disk
    message = r"study.db: its disk or file system failed \(disk I/O error, SQLITE_IOERR_READ\); check them, then rerun"
    with pytest.raises(RunError, match=message):
        read_records(sqlite_url(runs / "tiny/study.db"), "tiny")


def test_a_listing_names_the_damaged_and_shows_the_others(runs, capsys, monkeypatch):
    shutil.copytree(runs / "tiny", runs / "broken")
    damage(runs / "broken/study.db", "text")
    monkeypatch.setattr(sys, "argv", ["voxnas", "studies", "--runs", str(runs)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 1 and "tiny" in said.out
    assert said.err == f"voxnas: {runs}/broken/study.db is not an SQLite database\n"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_may_hold_any_characters(name, tmp_path):
    file = write_synthetic_study(tmp_path / name / "runs", "tiny", synthetic_records(3))
    url = database_url(None, tmp_path / name / "runs/tiny")
    assert sqlite_file(url) == file and show_url(url) == str(file) and file.exists()
    assert read_study_names(url) == ["tiny"] and len(read_records(url, "tiny")) == 3
    assert [each.name for each in list_studies(url)] == ["tiny"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


READER = """
import os, sys
from search.storage import read_records
from search.storage.address import sqlite_url
from pathlib import Path
read = lambda file: len(read_records(sqlite_url(Path(file)), "tiny"))
read(sys.argv[1])  # imports all modules: root's may lie in a folder that is private to root
if os.geteuid() == 0:  # root may write to any folder
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(read(sys.argv[2]))
"""


@pytest.mark.parametrize("log", ["no log", "a log"])
def test_a_study_in_a_folder_that_may_only_be_read_is_read_without_writing_beside_it(log, sound):
    # A folder that everyone may enter: pytest's own are private to their user
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(shutil.copytree(sound, Path(folder) / "runs"))
        file = runs / "tiny/study.db"
        holder = sqlite3.connect(file)
        holder.execute("PRAGMA journal_mode=WAL")
        if log == "a log":  # a driver that runs: its last writes are in the log
            holder.execute("UPDATE studies SET study_name = 'tiny'")
            holder.commit()
        else:
            holder.close()
        Path(folder).chmod(0o755)
        for path in Path(folder).rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = sorted(path.name for path in file.parent.iterdir())
        command = [sys.executable, "-c", READER, str(sound / "tiny/study.db"), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOME": folder})
        assert done.returncode == 0 and done.stdout == "12\n", done.stderr
        assert sorted(path.name for path in file.parent.iterdir()) == before
        for path in (runs, file.parent):  # so that the folder can be deleted
            path.chmod(0o755)
        holder.close()


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("postgresql+psycopg://me:s3cret@host/db", "remove the password from the URL"),
        ("postgresql+psycopg://host/db?password=s3cret", "remove the password from the URL"),
        ("postgresql+psycopg://host/db?sslpassword=s3cret", "remove the password from the URL"),
        ("mysql://me:s3cret@host/db", "remove the password"),
        ("://me:s3cret@host", "is not a database URL such as sqlite:///FILE"),
        ("postgresql+psycopg://me:s3cret@host:port/db", "is not a database URL"),
        ("postgresql+psycopg://me:s3c@ret@host:55x/db", "is not a database URL"),
        ("grpc://me:s3cret@host:1", "should be grpc://HOST:PORT"),
        ("grpc://host:0", "with a port from 1 to 65535"),
        ("grpc://host:99999", "with a port from 1 to 65535"),
        ("grpc://host:１２", "with a port from 1 to 65535"),
        ("grpc://:50051", "should be grpc://HOST:PORT"),
        ("study.db", "is not a database URL such as sqlite:///FILE"),
        ("sqlite://", "names no file; write sqlite:///FILE"),
        ("sqlite:///:memory:", "names no file"),
        ("oracle://host/db", "'oracle' is not supported; write sqlite:///FILE"),
    ],
)
def test_each_wrong_address_is_refused_without_its_password(storage, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        database_url(storage, tmp_path)
    assert "s3c" not in str(caught.value) and "ret@" not in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_a_traceback(tmp_path):
    url = database_url("postgresql+psycopg://me@127.0.0.1:9/none?connect_timeout=2", tmp_path)
    with pytest.raises(UserError, match=r"127.0.0.1:9/none.* can't be reached: .*"):
        read_records(url, "tiny")


def test_a_run_does_not_write_into_a_file_that_is_no_database(runs):
    file = runs / "tiny/study.db"
    damage(file, "text")
    with pytest.raises(UserError, match="study.db is not an SQLite database"):
        Store.open(sqlite_url(file), "tiny", directions={"dice": "maximize"}, values={})
    assert file.read_text() == "study: tiny\n"
