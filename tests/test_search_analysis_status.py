"""`voxnas status` and `voxnas studies`: their output and their changes."""

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from conftest import STUDY, write_study
from test_search_storage import CHOICES, DIRECTIONS, DONE, record

from search.analysis.snapshot_reader import snapshot_of, stored_study
from search.analysis.status import pulse, status_json, status_of, status_view
from search.api.frames import trial_rows
from search.api.terminal import PlainConsole
from search.config import UserError, load_study
from search.runner.plan import make_plan
from search.storage import Store, read_records
from search.storage.admin import Change, change_studies, find_databases
from search.storage.heartbeat import DRIVER
from search.storage.listing import list_studies
from search.storage.reader import optuna_storage
from search.trials.activity import Activity
from search.trials.epochs import Epoch
from search.trials.records import Measurement
from search.visualization.components import Table
from search.visualization.pages.compare import compare_page
from search.visualization.pages.front import summary
from search.visualization.pages.page import Request
from search.visualization.pages.progress import progress_page
from search.visualization.pages.references import references_page
from search.visualization.pages.studies import studies_page
from search.visualization.pages.trial import trial_page
from space.architecture import Architecture

COMMAND = [sys.executable, "-m", "search.cli"]
STEP = Activity("training", epoch=3, epochs=5, done=7, total=100, per_second=2.5, loss=0.41, spent_s=4.0, left_s=12.0)
TRAINED = replace(DONE, costs=replace(DONE.costs, memory_bytes=4000))


def fill(folder, name="tiny"):
    """A study with a trained, a failed and a running trial, and one whose driver has ended."""
    store = Store.open(
        f"sqlite:///{folder / 'runs' / name / 'study.db'}",
        name,
        directions=DIRECTIONS,
        values={
            "name": name,
            "search": {"seed": 0},
            "data": {"fold": 0},
            "objectives": {"dice": {"direction": "maximize"}, "memory": {"direction": "minimize"}},
        },
    )

    def start(number, driver=store.me):
        network = Architecture.of({"encoder": "plain", "repeats": 1, "channels": (8, 16 + number)})
        made = replace(record(width=CHOICES["width"][number % 2]), fold=0, driver=driver, architecture=network)
        return store.write_new(made, choices=CHOICES)

    store.write_finished(
        start(0).finished(TRAINED, ended="2026-01-01T00:10:00+00:00"), objectives=list(DIRECTIONS), budgets={}
    )
    failed = Measurement("failed", "the loss became nan in epoch 2", fault="not a number")
    store.write_finished(
        start(1).finished(failed, ended="2026-01-01T00:10:00+00:00"), objectives=list(DIRECTIONS), budgets={}
    )
    running = start(2)
    epochs = (Epoch(1, 0.5, 0.31, 1.0), Epoch(2, 0.4, None, 1.0))
    so_far = Measurement("running", epochs=epochs)
    store.write_progress(replace(running, measurement=so_far, attempts=("process 7 was lost; went on",)))
    start(3, driver="process 1 on elsewhere")
    store.heartbeat.show(
        machines=2, cpus=16.0, gpus=4.0, used_cpus=3.0, used_gpus=0.5, running=1, queued=1, probes=0, waiting=0
    )
    return store


@pytest.fixture
def study(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY.replace("search: {proposer: random, trials: 3}", "search: {proposer: random, trials: 6}"))
    return file


def test_status_shows_who_works_on_what_and_what_failed_and_why(tmp_path, study):
    store = fill(tmp_path)
    store.heartbeat.show_activity(2, STEP)
    with store.heartbeat:
        status = status_of(snapshot_of(load_study(study, need_data=False), runs=tmp_path / "runs"))
        assert status.counts == {"trained": 1, "failed": 1, "running": 1, "interrupted": 1} and status.planned == 6
        assert status.failures == {"the loss became nan in epoch 2": 1} and status.attempts == {"process 7 was lost": 1}
        mine, lost = status.running
        assert (mine.epoch, mine.dice, mine.lost) == (2, 0.31, False) and (lost.epoch, lost.lost) == (0, True)
        assert mine.activity == STEP and 0 <= mine.seen_s < 30 and lost.activity is None
        assert status.left_s == pytest.approx(12 + 3.5 * 3) and status.state == "running"
        assert json.loads(status_json(status))["drivers"][0]["machines"] == 2
        shown = subprocess.run(
            [*COMMAND, "status", str(study), "--runs", str(tmp_path / "runs")],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        ).stdout
    for words in (
        "tiny: running, 2 of 6 trials (1 trained, 1 failed, 1 running, 1 interrupted); about 22 s left",
        f"driver: process {os.getpid()} on",
        "1 trial on 2 machines, 3 of 16 CPUs and 0.5 of 4 GPUs in use; 1 queued",
        "epoch 3/5, step 7/100, 2.5 steps/s, loss 0.4100, about 12 s left; ",
        "Dice so far 0.3100",
        "interrupted: process 1 on elsewhere has ended",
        "1 x the loss became nan in epoch 2",
        "1 x process 7 was lost",
    ):
        assert words in shown, shown


def test_a_trial_that_ends_leaves_no_activity_behind(tmp_path, study):
    store = fill(tmp_path)
    store.heartbeat.show_activity(2, STEP)
    store.heartbeat.drop_activity(2)
    with store.heartbeat:
        status = status_of(snapshot_of(load_study(study, need_data=False), runs=tmp_path / "runs"))
    assert [each.doing for each in status.running] == ["epoch 2/2", "epoch 0/2"]


def test_a_study_is_read_back_from_its_database_with_its_budgets_and_its_deadline(tmp_path):
    overrides = ["objectives.memory.budget=1.5 GiB", "objectives.params={budget: 2.5 M}", "training.deadline=90 min"]
    text = STUDY.replace("memory: minimize", "memory: {direction: minimize}")
    made = write_study(tmp_path, text)
    plan = make_plan(load_study(made.file, overrides=overrides), runs=made.runs)
    Store.open(plan.url, "tiny", directions=plan.directions, values=plan.identity()).close()
    stored = stored_study(plan.url, "tiny")
    assert stored.budgets == plan.budgets == {"memory": 1.5 * 2**30, "latency": 60.0, "params": 2.5e6}
    assert stored.training.deadline == 5400.0


def state_of(study, runs):
    return status_of(snapshot_of(load_study(study, need_data=False), runs=runs))


def test_a_study_is_running_while_its_driver_lives_and_then_stopped_or_done(tmp_path, study, monkeypatch):
    store, runs = fill(tmp_path), tmp_path / "runs"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/voxnas", "run", "my study.yaml", "--trials", "4"])
    store.write_goal(4)
    with store.heartbeat:
        assert state_of(study, runs).state == "running"
    stopped = state_of(study, runs)
    assert (stopped.state, stopped.done, stopped.planned) == ("stopped", 2, 4)
    assert stopped.command == "voxnas run 'my study.yaml' --trials 4"
    store.write_goal(4, ended="every network of the space has been tried")
    assert state_of(study, runs).state == "done"


def test_a_driver_of_another_machine_is_gone_after_a_minute_without_heartbeat(tmp_path, study):
    store, runs = fill(tmp_path), tmp_path / "runs"
    for age_s, state in ((50, "running"), (70, "stopped")):
        at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
        store.study.set_user_attr(f"{DRIVER}far", {"host": "elsewhere", "pid": 1, "at": at, "ended": False})
        assert state_of(study, runs).state == state


def test_a_study_that_was_run_further_than_its_file_says_counts_no_more_trials_than_planned(tmp_path, study):
    store, runs = fill(tmp_path), tmp_path / "runs"
    store.write_goal(1)  # the file says 6
    status = state_of(study, runs)
    assert (status.done, status.planned, status.state) == (2, 2, "done")


def test_confirmations_are_counted_apart_from_the_searchs_trials(tmp_path, study):
    store, runs = fill(tmp_path), tmp_path / "runs"
    network = Architecture.of({"encoder": "plain", "repeats": 1, "channels": (8, 16)})
    other = replace(record(width=CHOICES["width"][0]), seed=1, fold=0, driver=store.me, architecture=network)
    store.write_finished(
        store.write_new(other, choices=CHOICES).finished(TRAINED, ended="2026-01-01T00:20:00+00:00"),
        objectives=list(DIRECTIONS),
        budgets={},
    )
    store.write_new(replace(other, fold=1, driver="process 1 on elsewhere"), choices=CHOICES)
    outside = replace(other, seed=0, decisions=(), reference="nnunet", driver="process 1 on elsewhere")
    store.write_new(outside, choices=CHOICES)
    status = state_of(study, runs)
    assert status.done == 2 and status.confirmations == {"trained": 1, "interrupted": 1}
    assert status.references == {"interrupted": 1} and [each.trial for each in status.running] == [2, 3, 5, 6]
    console = PlainConsole(file=StringIO(), width=120)
    console.print(status_view(status))
    shown = console.file.getvalue()
    assert "confirmations: 1 trained, 1 interrupted\nreference networks: 1 interrupted" in shown
    assert "no driver is running; to resume, run:\n  voxnas run with the file of tiny" in shown


def test_a_repeat_is_one_of_the_trials_and_named(tmp_path, study):
    store, runs = fill(tmp_path), tmp_path / "runs"
    network = Architecture.of({"encoder": "plain", "repeats": 1, "channels": (8, 16)})
    again = replace(record(width=CHOICES["width"][0]), seed=1, fold=0, repeat=True, architecture=network)
    store.write_finished(
        store.write_new(again, choices=CHOICES).finished(TRAINED, ended="2026-01-01T00:20:00+00:00"),
        objectives=list(DIRECTIONS),
        budgets={},
    )
    status = state_of(study, runs)
    assert (status.counts["trained"], status.repeats, status.confirmations) == (2, 1, {})
    console = PlainConsole(file=StringIO(), width=120)
    console.print(status_view(status))
    assert "3 of 6 trials (2 trained, 1 failed, 2 interrupted, 1 of them a repeat)" in console.file.getvalue()


def test_the_dashboard_shows_the_same_state_and_steps(tmp_path, study):
    store, runs = fill(tmp_path), tmp_path / "runs"
    store.heartbeat.show_activity(2, STEP)
    store.write_goal(4)
    with store.heartbeat:
        snapshot = snapshot_of(load_study(study, need_data=False), runs=runs)
        (table,) = [each for each in progress_page(snapshot, Request()).components if isinstance(each, Table)]
        (listed,) = [each for each in studies_page([snapshot], [], Request()).components if isinstance(each, Table)]
        assert pulse(snapshot)[0] == 1
    (mine, lost) = table.rows
    assert mine[1] == str(STEP) and mine[2][1].endswith(" ago") and mine[3][1] == "0.3100"
    assert lost[1] == "interrupted" and lost[2][1] == ""
    assert listed.rows[0][1] == "running"
    assert listed.rows[0][2][1] == "2 of 4 (1 trained, 1 failed, 1 running, 1 interrupted)"
    assert pulse(snapshot)[0] == 0


def test_a_trial_whose_driver_has_ended_is_interrupted_in_every_view(tmp_path, study):
    store, runs = fill(tmp_path), tmp_path / "runs"
    network = Architecture.of({"encoder": "plain", "repeats": 1, "channels": (8, 16)})
    reference = replace(record(width=CHOICES["width"][1]), seed=0, fold=0, decisions=(), reference="nnunet")
    reference = replace(reference, architecture=network)
    store.write_new(replace(reference, driver="process 1 on elsewhere"), choices=CHOICES)
    with store.heartbeat:
        snapshot = snapshot_of(load_study(study, need_data=False), runs=runs)
        shown = [row["state"] for row in trial_rows(snapshot)]
        facts = dict(summary(snapshot).pairs)
        (table,) = [each for each in progress_page(snapshot, Request()).components if isinstance(each, Table)]
        compared = compare_page(snapshot, Request({"a": "2", "b": "3"})).components[0]
        own, note = references_page(snapshot, Request()).components
        pages = [trial_page(snapshot, Request({"trial": each})).components[0] for each in "23"]
        (listed,) = list_studies(snapshot.url)
    assert listed.states == {"trained": 1, "failed": 1, "running": 1, "interrupted": 2}
    assert shown == ["trained", "failed", "running", "interrupted"]
    assert (facts["trained"], facts["running"], facts["interrupted"]) == ("1", "1", "1")
    assert table.title == "1 running, 2 interrupted" and compared.rows[0] == ["state", "running", "interrupted"]
    assert own.rows[0][:2] == ["nnunet", "interrupted"]
    assert note.text == "No difference yet: that needs a fully trained reference, and another network on the front."
    assert [dict(each.pairs)["state"] for each in pages] == ["running", "interrupted"]
    ended = dict(summary(snapshot).pairs)
    assert ended["interrupted"] == "2" and "running" not in ended


def test_watching_ends_with_the_study(tmp_path, study):
    store = fill(tmp_path)
    for each in store.records():
        if each.state == "running":
            store.write_finished(
                each.finished(TRAINED, ended="2026-01-01T00:10:00+00:00"), objectives=list(DIRECTIONS), budgets={}
            )
    command = [*COMMAND, "status", str(study), "--set", "search.trials=4", "--runs", str(tmp_path / "runs"), "--watch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "tiny: done, 4 of 4 trials (3 trained, 1 failed)" in done.stdout and "no driver" not in done.stdout


def test_studies_are_listed_renamed_copied_freed_and_deleted(tmp_path):
    runs = tmp_path / "runs"
    fill(tmp_path).close()
    (url,) = find_databases(None, runs)
    (listed,) = list_studies(url)
    assert listed.name == "tiny" and listed.states == {"trained": 1, "failed": 1, "interrupted": 2}
    for number, file in ((0, "best.safetensors"), (0, "last.pt"), (1, "best.safetensors"), (2, "last.pt")):
        path = runs / "tiny" / "trials" / f"{number:06d}" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))
    (said,) = change_studies([url], Change(free="tiny"), runs=runs)
    assert float(said.removeprefix("tiny: ").partition(" ")[0]) >= 9.7 and said.endswith(" KiB freed")
    left = {f"{path.parent.name}/{path.name}" for path in runs.rglob("*") if path.stat().st_size == 5000}
    assert left == {"000000/best.safetensors", "000002/last.pt"}
    records = read_records(url, "tiny")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    change_studies([url], Change(copy=("tiny", other)), runs=runs)
    assert read_records(other, "tiny") == records
    change_studies([url], Change(rename=("tiny", "small")), runs=runs)
    (url,) = find_databases(None, runs)
    assert url.endswith("small/study.db") and read_records(url, "small") == records
    with pytest.raises(UserError, match="studies: there is no study 'smal'; did you mean 'small'"):
        change_studies([url], Change(delete="smal"), runs=runs)
    change_studies([url], Change(delete="small"), runs=runs)
    with pytest.raises(
        UserError, match=r"studies: no \*/study.db in .*; give a database, or the runs folder with --runs"
    ):
        find_databases(None, runs)


def test_a_study_is_not_deleted_without_confirmation_or_while_it_runs(tmp_path):
    fill(tmp_path).close()
    command = [*COMMAND, "studies", "--delete", "tiny", "--runs", str(tmp_path / "runs")]
    asked = subprocess.run(command, capture_output=True, text=True, input="n\n")
    assert asked.returncode == 1 and "Delete study tiny" in asked.stdout
    from search.storage.lock import hold_lock

    folder = tmp_path / "runs" / "tiny"
    with hold_lock(f"sqlite:///{folder / 'study.db'}", folder, "tiny"):
        held = subprocess.run([*command, "--yes"], capture_output=True, text=True)
        assert held.returncode == 2 and "tiny is already running" in held.stderr
    done = subprocess.run([*command, "--yes"], capture_output=True, text=True)
    assert not folder.exists() and "tiny is deleted" in done.stdout


def test_an_older_database_is_refused_with_the_command_that_upgrades_it(tmp_path):
    runs = tmp_path / "runs"
    fill(tmp_path).close()
    (url,) = find_databases(None, runs)
    records = read_records(url, "tiny")
    with sqlite3.connect(runs / "tiny" / "study.db") as database:  # as Optuna 3.1 left it
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    assert list_studies(url)[0].name == "tiny"  # its tables are the same: they are read, but not written
    with pytest.raises(UserError, match="was written by an older version; `voxnas studies .*study.db --upgrade`"):
        optuna_storage(url)
    command = [*COMMAND, "studies", str(runs / "tiny" / "study.db"), "--upgrade", "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "is up to date" in done.stdout, done.stderr
    assert read_records(url, "tiny") == records and list_studies(url)[0].name == "tiny"
