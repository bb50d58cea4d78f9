"""The study's database: records in, records out, on a real SQLite file."""

import math
import sqlite3
from dataclasses import replace

import pytest
import sqlalchemy as sql

from search.config import UserError
from search.storage import Store, excesses, read_records, read_study_attribute, trial_rows
from search.trials.epochs import Epoch
from search.trials.records import CaseDice, Costs, Latency, Measurement, Record
from space.architecture import Architecture

DIRECTIONS = {"dice": "maximize", "memory": "minimize"}
COSTS = Costs(10, 20, 4000, 500, Latency(0.01, 0.001, 20, True, "a device", 2, "float32"))
DONE = Measurement(
    "trained",
    costs=COSTS,
    dice=0.8,
    cases=(CaseDice("a", (0.9, None)), CaseDice("b", (0.7, 0.8))),
    epochs=(Epoch(1, 0.5, None, 1.5), Epoch(2, 0.4, 0.8, 1.0)),
    seconds=3.5,
    versions=(("torch", "2"),),
)


def record(number=0, measurement=None, width=8):
    return Record(
        number=number,
        architecture=Architecture.of({"channels": (width, 16), "pooling": ((1, 2, 2),)}),
        decisions=(("width", width), ("tied", True)),
        seed=0,
        fold=1,
        measurement=measurement or Measurement("running"),
        started="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def open_store(url, **values):
    return Store.open(url, "s", directions=DIRECTIONS, values=values or {"a": {"b": 1}})


CHOICES = {"width": (8, 16), "tied": (True, False)}


def test_a_trial_is_written_with_its_record_and_all_its_parameters_or_not_at_all(url, monkeypatch):
    store = open_store(url)
    failing = sql.text(str(trial_rows.NEW_PARAMETERS).replace("trial_params", "no_such_table"))
    with monkeypatch.context() as broken:
        broken.setattr(trial_rows, "NEW_PARAMETERS", failing)
        with pytest.raises(sql.exc.OperationalError, match="no_such_table"):
            store.write_new(record(), choices=CHOICES)
    assert store.study.get_trials() == [] and store.records() == []
    started = store.write_new(record(), choices=CHOICES)
    (trial,) = store.study.get_trials()
    assert (trial.number, trial.state.name, trial.params) == (0, "RUNNING", {"width": 8, "tied": True})
    assert trial.datetime_start is not None and store.records() == [started]


def test_a_record_survives_the_database(url):
    store = open_store(url)
    started = store.write_new(record(), choices=CHOICES)
    assert read_records(url, "s") == [started]
    told = started.finished(DONE, ended="2026-01-01T00:01:00+00:00")
    store.write_finished(told, objectives=list(DIRECTIONS), budgets={"memory": 5000})
    assert read_records(url, "s") == [told]
    trial = store.study.trials[0]
    assert trial.values == [0.8, 4000.0] and trial.params == {"width": 8, "tied": True}
    assert trial.constraints == {"memory": pytest.approx(-0.2)}


def test_the_dice_of_each_validated_epoch_is_an_intermediate_value_of_optuna(url):
    store = open_store(url)
    started = store.write_new(record(), choices=CHOICES)
    for count in (1, 2):
        store.write_progress(replace(started, measurement=Measurement("running", epochs=DONE.epochs[:count])))
    other = Epoch(1, 0.6, 0.3, 1.0, member=1)  # of another fold
    last = (*DONE.epochs, Epoch(3, 0.3, 0.9, 1.0), other)
    done = started.finished(replace(DONE, epochs=last), ended="2026-01-01T00:00:00+00:00")
    store.write_finished(done, objectives=list(DIRECTIONS), budgets={})
    (trial,) = store.study.get_trials()
    assert trial.intermediate_values == {2: 0.8, 3: 0.9} and trial.state.name == "COMPLETE"


def test_over_budget_is_a_result_and_failure_a_fault(url):
    store = open_store(url)
    for number, state in enumerate(("over budget", "failed")):
        started = store.write_new(record(number), choices=CHOICES)
        told = started.finished(Measurement(state, "why", COSTS if number == 0 else None), ended="2026-01-02")
        store.write_finished(told, objectives=list(DIRECTIONS), budgets={"memory": 1000})
    pruned, failed = store.study.trials
    assert pruned.state.name == "PRUNED" and pruned.constraints == {"memory": pytest.approx(3.0)}
    assert failed.state.name == "FAIL" and failed.constraints == {}
    assert [each.measurement.value("dice") for each in store.records()] == [None, None]


def test_a_record_written_but_not_told_to_optuna_is_found(url):
    store = open_store(url)
    started = store.write_new(record(), choices=CHOICES)
    assert store.orphaned_trial() is None  # it is this driver's
    store.write_progress(started.finished(DONE, ended="2026-01-02"))
    next_driver = open_store(url)
    left = next_driver.orphaned_trial()
    assert left == started.finished(DONE, ended="2026-01-02")
    next_driver.write_finished(left, objectives=list(DIRECTIONS), budgets={})
    assert next_driver.orphaned_trial() is None and open_store(url).orphaned_trial() is None


def test_a_number_taken_by_another_driver_is_not_used_twice(url):
    store = open_store(url)
    numbers = [store.write_new(record(0, width=width), choices=CHOICES).number for width in (8, 16)]
    assert numbers == [0, 1] and [each.number for each in store.records()] == [0, 1]


def test_a_changed_file_is_refused_with_the_changed_keys(url):
    open_store(url, training={"epochs": 3, "patch": (1, 2)}, name="s")
    open_store(url, training={"epochs": 3, "patch": [1, 2]}, name="s").write_new(record(), choices=CHOICES)
    with pytest.raises(UserError, match="training.epochs: the study began with 3, the file now has 4") as error:
        open_store(url, training={"epochs": 4, "patch": [1, 2]}, name="s", more=1)
    assert any("more: the study began without it, the file now has 1" in str(m) for m in error.value.mistakes)


def test_a_missing_study_is_reported_with_the_command_to_start(tmp_path):
    with pytest.raises(UserError, match="nothing has run yet: .*none.db does not exist; start with `voxnas run`"):
        read_records(f"sqlite:///{tmp_path / 'none.db'}", "s")


def test_another_schema_is_read_through_optuna(url, tmp_path, monkeypatch):
    store = open_store(url)
    started = store.write_new(record(), choices=CHOICES)
    monkeypatch.setattr("search.storage.reader.SCHEMA_VERSIONS", ())
    assert read_records(url, "s") == [started]


def test_the_database_is_in_wal_mode_and_keeps_the_reference(url, tmp_path):
    store = open_store(url)
    assert store.reference is None
    store.write_reference({"dice": 0.0, "memory": 5000.0})
    assert read_study_attribute(url, "s", "voxnas:hypervolume_reference") == {"dice": 0.0, "memory": 5000.0}
    assert sqlite3.connect(tmp_path / "study.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_excess_is_relative_to_the_limit():
    assert excesses(record(0, DONE), {"memory": 2000, "latency": 0.02}) == {
        "memory": 1.0,
        "latency": pytest.approx(-0.5),
    }
    assert excesses(record(), {"memory": 2000}) == {}


def test_no_record_contains_nan(url):
    store = open_store(url)
    started = store.write_new(record(), choices=CHOICES)
    with pytest.raises(ValueError, match="JSON"):
        store.write_progress(started.finished(Measurement("trained", dice=math.nan), ended="2026-01-02"))
