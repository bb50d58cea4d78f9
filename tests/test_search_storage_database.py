"""The databases that a study may name, and the message if one is not available."""

import gc

import pytest
import sqlalchemy as sql
from test_search_storage import CHOICES, DIRECTIONS, DONE, record

from search.config import UserError
from search.storage import Store, database, open_storage, read_records, read_study_attributes, tables
from search.storage.address import database_url
from search.storage.database import is_outage, retry_outages
from search.storage.heartbeat import DRIVER, is_present


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg://me:secret@host/db", "storage: remove the password from the URL; set it in PGPASSWORD"),
        ("postgresql+psycopg://host/db?password=secret", "storage: remove the password from the URL"),
        ("mysql://host/db", "storage: 'mysql' is not supported; write sqlite:///FILE, postgresql"),
        ("postgres", "storage: 'postgres' is not a database URL such as sqlite:///FILE"),
        ("grpc://host", "storage: 'grpc://host' should be grpc://HOST:PORT"),
    ],
)
def test_an_impossible_database_is_refused(tmp_path, url, said):
    with pytest.raises(UserError, match="storage") as error:
        database_url(url, tmp_path)
    assert said in str(error.value) and "secret" not in str(error.value)


def test_a_short_outage_is_waited_out_and_a_long_one_ends_the_run(monkeypatch, tmp_path):
    url = f"postgresql+psycopg://nobody@/none?host={tmp_path}"
    engine, tries = database.make_engine(url), []

    def work():
        tries.append(1)
        if len(tries) < 3:
            engine.connect()
        return "back"

    monkeypatch.setattr(database, "RETRY_S", 0.01)
    assert retry_outages(work, url=url) == "back" and len(tries) == 3
    monkeypatch.setattr(database, "OUTAGE_S", 0.05)
    with pytest.raises(UserError, match="the study's database can't be reached: .*connect"):
        retry_outages(engine.connect, url=url)
    with pytest.raises(ZeroDivisionError):
        retry_outages(lambda: 1 // 0, url=url)


def test_sqlite_has_no_outages():
    full = sql.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))
    assert not is_outage(full, "sqlite:///study.db")


def test_a_wrong_user_or_database_is_no_outage():
    for said in ('role "me" does not exist', 'FATAL: password authentication failed for user "me"'):
        error = sql.exc.OperationalError("", {}, Exception(said))
        assert not is_outage(error, "postgresql+psycopg://me@host/db")
    assert is_outage(sql.exc.OperationalError("", {}, Exception("connection refused")), "postgresql+psycopg://me@h/d")


def test_a_driver_sends_heartbeats_until_it_ends(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    store = Store.open(url, "s", directions=DIRECTIONS, values={"a": 1})
    with store.heartbeat as heartbeat:
        (beat,) = read_study_attributes(url, "s", DRIVER + "%").values()
        assert is_present(beat)
        assert not is_present({**beat, "pid": 2**22 + 1})
        assert not is_present({**beat, "host": "elsewhere", "at": "2026-01-01T00:00:00+00:00"})
        assert not heartbeat.is_alive("process 1 on elsewhere")  # the lock says so for SQLite
    (beat,) = read_study_attributes(url, "s", DRIVER + "%").values()
    assert not is_present(beat)


def test_a_study_behind_optunas_proxy_is_the_same(tmp_path):
    import optuna
    from optuna.storages._grpc.server import make_server

    behind = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'behind.db'}")
    server = make_server(behind, "127.0.0.1", 38471)
    server.start()
    try:
        url = database_url("grpc://127.0.0.1:38471", tmp_path)
        store = Store.open(url, "s", directions=DIRECTIONS, values={"a": 1})
        store.write_reference({"dice": 0.0, "memory": 10.0})
        first = store.write_new(record(), choices=CHOICES)
        told = first.finished(DONE, ended="2026-01-01T00:00:00+00:00")
        store.write_finished(told, objectives=list(DIRECTIONS), budgets={})
        second = store.write_new(record(), choices=CHOICES)
        assert second.number == 1 and store.records() == read_records(url, "s") == [told, second]
        with store.heartbeat:
            assert [is_present(each) for each in read_study_attributes(url, "s", DRIVER + "%").values()] == [True]
        again = Store.open(url, "s", directions=DIRECTIONS, values={"a": 1})
        assert again.reference == store.reference and again.orphaned_trial() == second
        assert store.study.trials[0].params == {"width": 8, "tied": True}
    finally:
        server.stop(0).wait()
        behind.engine.dispose()


@pytest.mark.parametrize("last", [2, 3, 4, 10, 20])
def test_a_process_stopped_while_it_creates_a_database_leaves_no_tables_and_the_next_one_all(tmp_path, last):
    engine, done = sql.create_engine(f"sqlite:///{tmp_path}/study.db"), []

    def stop(*_):
        done.append(1)
        if len(done) == last:
            raise KeyboardInterrupt

    sql.event.listen(engine, "after_cursor_execute", stop)
    with pytest.raises(KeyboardInterrupt):
        tables.create_tables(engine)
    engine.dispose()
    gc.collect()  # the error holds a cursor, and with it the file
    again = sql.create_engine(engine.url)
    assert not sql.inspect(again).get_table_names()
    tables.create_tables(again)
    assert [each["unique"] for each in sql.inspect(again).get_indexes("studies")] == [1]
    before = (tmp_path / "study.db").read_bytes()
    with open_storage(str(engine.url)):  # Optuna finds nothing missing
        assert (tmp_path / "study.db").read_bytes() == before
    again.dispose()
