"""Tables of trainings: the sample, resuming after kill -9, local processes, the file and its card."""

import json
import os
import re
import signal
from contextlib import suppress
from dataclasses import replace

import pyarrow.parquet
import pytest
from conftest import STUDY, quiet_view, write_study
from forked import call_forked, kill_when, started

from search.config import UserError, load_study
from search.runner.local import LocalExecutor
from search.runner.plan import make_plan
from search.runner.processes import MAX_LOSSES, ProcessExecutor
from search.runner.tabulate import read_tabulated, sample_networks, table_requests, tabulate_study, training_of
from search.simulate.card import table_card, write_card
from search.simulate.earlier_table import METADATA, read_earlier
from search.simulate.parquet import read_table
from search.simulate.trained_table import write_trained
from search.storage import read_records
from search.trials.records import Measurement
from search.trials.table_file import read_trainings

UNTIMED = STUDY.replace("latency: {budget: 60 s}", "macs: minimize")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("tabulate"), UNTIMED)


def plan_of(tiny, *overrides):
    return make_plan(load_study(tiny.file, overrides=overrides, data_root=tiny.data), runs=tiny.runs)


def command(tiny, *arguments):
    return ("tabulate", tiny.file, "--data", tiny.data, "--runs", tiny.runs, *arguments)


def fingerprints(plan, count):
    return [plan.space.architecture(each).fingerprint for each in sample_networks(plan, count)]


def test_a_sample_holds_different_networks_that_can_be_built_and_begins_every_larger_one(tiny):
    plan = plan_of(tiny)
    everything = fingerprints(plan, None)
    assert len(everything) == len(set(everything)) == 12
    assert fingerprints(plan, 3) == everything[:3] and fingerprints(plan, 100) == everything
    assert fingerprints(plan_of(tiny, "search.seed=1"), 12) != everything


LARGE = """\
name: large
data: {path: phantom, folds: 3}
objectives: {dice: maximize}
space: {fix: {stages: single, pretrained: false}, choices: {encoder: [plain, residual], levels: [3]}}
training: {patch: [5, 24, 24]}
"""


def test_a_space_too_large_to_list_is_sampled_and_not_listed(tiny):
    file = tiny.data / "large.yaml"
    file.write_text(LARGE)
    plan = make_plan(load_study(file, overrides=(), data_root=tiny.data), runs=tiny.runs)
    found = fingerprints(plan, 12)
    assert len(set(found)) == 12 and fingerprints(plan, 5) == found[:5]
    with pytest.raises(UserError, match=r"tabulate: the space has [\d,]+ combinations; sample it with --networks N"):
        sample_networks(plan, None)


def test_all_seeds_of_a_network_come_one_after_another(tiny):
    plan = plan_of(tiny, "search.seed=5")
    requests = table_requests(plan, sample_networks(plan, 2), seeds=3)
    assert [each.seed for each in requests] == [5, 6, 7, 5, 6, 7]
    assert [each.fold for each in requests] == [0] * 6
    assert requests[0].architecture == requests[2].architecture != requests[3].architecture


def test_halving_is_refused_because_it_stops_trainings(tiny):
    plan = plan_of(tiny, "search.halving={min_epochs: 1}")
    with pytest.raises(UserError, match="search.halving: stops trainings early, and a table needs complete ones"):
        tabulate_study(plan, networks=1, seeds=1, view=quiet_view(), executor=LocalExecutor(plan))


@pytest.fixture(scope="module")
def tabulated(tmp_path_factory):
    """A table of three networks and two seeds, its plan and its records."""
    tiny = write_study(tmp_path_factory.mktemp("tabulated"), UNTIMED)
    plan = plan_of(tiny)
    executor = LocalExecutor(plan, timed=False)
    return tiny, plan, tabulate_study(plan, networks=3, seeds=2, view=quiet_view(), executor=executor)


def test_a_table_trains_each_network_with_each_seed_once_and_a_larger_one_only_the_rest(tabulated):
    _, plan, found = tabulated
    assert [record.state for record in found.records] == ["trained"] * 6
    assert len({record.identity for record in found.records}) == 6
    assert all(record.measurement.costs.latency is None for record in found.records)
    assert all(epoch.cpu_s > 0 for record in found.records for epoch in record.measurement.epochs)
    before = {record.identity: record.number for record in found.records}
    executor = LocalExecutor(plan, timed=False)
    again = tabulate_study(plan, networks=3, seeds=3, view=quiet_view(), executor=executor)
    assert len(again.records) == 9 and len(read_records(plan.url, plan.study.name)) == 9
    assert {record.identity: record.number for record in again.records}.items() >= before.items()
    assert read_tabulated(plan, networks=3, seeds=2).records == found.records


def test_weights_of_networks_off_the_front_are_deleted(tabulated):
    _, plan, found = tabulated
    seeds_beyond_the_search = [record.number for record in found.records if record.seed != plan.study.search.seed]
    kept = {int(file.parent.name) for file in plan.folder.glob("trials/*/best.safetensors")}
    last = max(record.number for record in read_records(plan.url, plan.study.name))
    assert not kept & set(seeds_beyond_the_search) - {last}


def test_the_file_holds_curves_costs_classes_and_settings(tabulated, tmp_path):
    _, plan, found = tabulated
    file = tmp_path / "new" / "table.parquet"
    assert write_trained(found, plan, file) == 6
    rows = pyarrow.parquet.read_table(file).to_pylist()
    assert len(rows) == 12 and [row["epoch"] for row in rows[:2]] == [1, 2]
    record = found.records[0]
    first, last = rows[:2]
    assert json.loads(first["architecture"]) == {
        name: value
        for name, value in record.decisions
        if name in ("width", "repeats", "attention@bottleneck", "isa.shared@bottleneck")
    }
    assert first["network"] == record.architecture.fingerprint and first["dice"] == record.measurement.epochs[0].dice
    assert last["dice"] == record.measurement.dice and last["macs"] == record.measurement.costs.macs
    assert first["epoch_s"] == record.measurement.epochs[0].cpu_s and "latency_s" not in first
    classes = [name for name in first if name.startswith("dice_")]
    assert len(classes) == 2 and all(first[name] is None and 0 <= last[name] <= 1 for name in classes)
    settings = json.loads(pyarrow.parquet.read_schema(file).metadata[METADATA])
    assert settings["asked"] == {"networks": 3, "seeds": 2} and settings["states"] == {"trained": 6}
    assert settings["training"]["epochs"] == 2 and settings["devices"][0].endswith("1 thread, float32")
    assert settings["versions"][0]["torch"] and "latency" not in settings
    table = read_table(file)
    assert table.size == 3 and table.epochs == 2 and list(table.directions) == ["dice", "memory"]


def test_a_partial_table_says_what_is_missing(tabulated, tmp_path):
    _, plan, found = tabulated
    file = tmp_path / "table.parquet"
    write_trained(replace(found, records=found.records[:3]), plan, file)
    card = write_card(file).read_text()
    assert "**Partial: 3 of 6 trainings are missing.**" in card
    running = replace(found.records[3], measurement=Measurement("running"))
    write_trained(replace(found, records=(*found.records[:3], running)), plan, file)
    assert "**Partial: 3 of 6 trainings are missing.**" in table_card(file)
    assert "3 trainings of 2 networks (1 network with 2 seeds, 1 network with 1 seed)" in card
    write_trained(found, plan, file)
    assert "Partial" not in table_card(file) and "6 trainings of 3 networks (3 networks with 2 seeds)" in table_card(
        file
    )


def test_the_card_gives_facts_costs_training_space_and_licence(tabulated, tmp_path):
    _, plan, found = tabulated
    file = tmp_path / "table.parquet"
    write_trained(found, plan, file)
    card = table_card(file)
    noise = re.search(
        r"\| standard deviation between seeds of a network \(3 degrees of freedom\) \| (0\.\d{4}) \|", card
    )
    assert noise and float(noise[1]) < 1
    for part in ("| epochs | 2 |", "| width | 2, 4 |", "| MACs |", "Numbers only", "| torch", "time of a training"):
        assert part.replace("| torch", "torch") in card
    assert "Too few networks for a linear model of all choices." in card
    assert len(read_trainings(file).seeds) == 3


def test_a_table_from_another_machine_is_extended_and_loses_nothing(tabulated, tmp_path):
    _, plan, found = tabulated
    file = tmp_path / "table.parquet"
    write_trained(replace(found, records=found.records[:3]), plan, file)
    before = pyarrow.parquet.read_table(file).to_pylist()
    elsewhere = write_study(tmp_path / "elsewhere", UNTIMED)
    other = plan_of(elsewhere)
    earlier = read_earlier(file, other)
    assert set(earlier.rows) == {training_of(record) for record in found.records[:3]}
    executor = LocalExecutor(other, timed=False)
    more = tabulate_study(other, networks=3, seeds=2, known=earlier.rows.keys(), view=quiet_view(), executor=executor)
    assert [record.identity for record in more.records] == [record.identity for record in found.records[3:]]
    assert write_trained(more, other, file, earlier=earlier) == 6
    after = pyarrow.parquet.read_table(file).to_pylist()
    whole = tmp_path / "whole.parquet"
    write_trained(found, plan, whole)
    known = [{**row, "epoch_s": 0} for row in pyarrow.parquet.read_table(whole).to_pylist()]
    assert after[: len(before)] == before and [{**row, "epoch_s": 0} for row in after] == known
    assert "Partial" not in table_card(file) and "6 trainings of 3 networks" in table_card(file)
    assert write_trained(replace(more, records=()), other, file, earlier=read_earlier(file, other)) == 6


def test_a_smaller_request_keeps_the_other_trainings_of_a_table_and_trains_nothing(tabulated, tmp_path):
    _, plan, found = tabulated
    file = tmp_path / "table.parquet"
    write_trained(found, plan, file)
    earlier, unused = read_earlier(file, plan), LocalExecutor(plan, timed=False)
    less = tabulate_study(plan, networks=1, seeds=1, known=earlier.rows.keys(), view=quiet_view(), executor=unused)
    assert less.records == () and less.networks == 1
    before = pyarrow.parquet.read_table(file).to_pylist()
    assert write_trained(less, plan, file, earlier=earlier) == 1
    after = pyarrow.parquet.read_table(file).to_pylist()
    assert after[:2] == before[:2] and sorted(map(str, after)) == sorted(map(str, before))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=3", "training.epochs: the study began with 2, the file now has 3"),
        ("search.seed=7", "search.seed: the study began with 0, the file now has 7"),
        ("data.folds=2", "data: cases, labels, splits or initial weights differ from those of the table"),
        ("space.fix.growth=1.5", "space.fix.growth: the study began"),
    ],
)
def test_a_table_of_other_trainings_is_not_extended(tabulated, tmp_path, override, message):
    tiny, plan, found = tabulated
    file = tmp_path / "table.parquet"
    write_trained(found, plan, file)
    with pytest.raises(UserError) as refused:
        read_earlier(file, plan_of(tiny, override))
    assert message in str(refused.value)
    assert f"--out {file}: holds trainings that depend on this; undo the change, or choose another file" in str(
        refused.value
    )


def test_latencies_of_another_device_are_not_extended(tabulated, tmp_path):
    tiny, plan, found = tabulated
    timed = plan_of(tiny, "objectives.latency=minimize")
    file = tmp_path / "table.parquet"
    write_trained(found, timed, file)
    assert len(read_earlier(file, timed).rows) == 6
    described = pyarrow.parquet.read_table(file)
    settings = json.loads(described.schema.metadata[METADATA])
    changed = described.replace_schema_metadata({METADATA: json.dumps({**settings, "devices": ["another GPU"]})})
    pyarrow.parquet.write_table(changed, file)
    with pytest.raises(UserError, match="latencies were measured on another GPU, and this is .*; choose another file"):
        read_earlier(file, timed)


def test_a_published_table_names_no_training_case(tabulated, tmp_path):
    _, plan, found = tabulated
    file = tmp_path / "table.parquet"
    write_trained(found, plan, file)
    text = pyarrow.parquet.read_schema(file).metadata[METADATA].decode()
    training = [case for case in plan.folds[0].train if case not in plan.folds[0].validation]
    assert training and not any(case in text for case in training)


def test_nothing_is_written_before_a_training_has_ended(tiny, tmp_path):
    plan = plan_of(tiny, "name=untouched")
    with pytest.raises(UserError, match="untouched"):
        read_tabulated(plan, networks=1, seeds=1)
    assert not list(tmp_path.iterdir())


def test_the_command_resumes_after_kill_9_and_loses_no_finished_training(tmp_path):
    tiny = write_study(tmp_path, UNTIMED.replace("epochs: 2", "epochs: 3"))
    arguments = command(tiny, "--networks", 2, "--seeds", 2, "--quiet")
    plan, finished = plan_of(tiny), {}

    def one_has_ended():
        with suppress(UserError):  # nothing has run yet
            records = read_records(plan.url, "tiny")
            finished.update({record.number: record for record in records if record.state == "trained"})
        return bool(finished)

    with started(*arguments) as first:
        kill_when(one_has_ended, first)
    done = call_forked(*arguments)
    assert done.returncode == 0, done.stderr
    records = {record.number: record for record in read_records(plan.url, "tiny")}
    assert [record.state for record in records.values()] == ["trained"] * 4
    assert all(records[number] == record for number, record in finished.items())
    file = tiny.runs / "tiny" / "table.parquet"
    assert done.stdout.strip() == f"{file}: 4 of 4 trainings; data card: {file.with_suffix('.md')}"
    assert len(read_trainings(file).entries) == 2 and file.with_suffix(".md").exists()
    again = call_forked(*command(tiny, "--networks", 2, "--seeds", 1, "--no-train"))
    assert again.stdout.startswith(f"{file}: 2 of 2 trainings")


def test_several_processes_train_the_same_as_one(tabulated, tmp_path):
    _, _, alone = tabulated
    tiny = write_study(tmp_path, UNTIMED)
    plan = plan_of(tiny)
    executor = ProcessExecutor(plan, processes=2, timed=False)
    found = tabulate_study(plan, networks=3, seeds=2, view=quiet_view(), executor=executor)
    scores = [[(each.identity, each.measurement.dice) for each in one.records] for one in (alone, found)]
    assert scores[0] == scores[1]


def test_by_default_processes_share_the_threads(tiny):
    plan = plan_of(tiny, "executor.threads=null")
    cpus = len(os.sched_getaffinity(0))
    assert ProcessExecutor(plan, processes=2).threads == max(1, cpus // 2)
    assert ProcessExecutor(plan_of(tiny), processes=2).threads == 1


class Killer:
    """A view that ends the processes of trainings: a named number of times."""

    def __init__(self, executor_children, times):
        self.children, self.times = executor_children, times

    def __getattr__(self, name):
        return lambda *_: None

    def on_epoch(self, record, epoch):
        if self.times:
            self.times -= 1
            os.kill(self.children()[0].pid, signal.SIGKILL)


@pytest.mark.parametrize(("times", "state"), [(1, "trained"), (MAX_LOSSES + 1, "failed")])
def test_a_trial_whose_process_is_killed_is_tried_again_and_fails_after_several(tmp_path, times, state):
    import multiprocessing

    tiny = write_study(tmp_path, UNTIMED.replace("epochs: 2", "epochs: 8"))
    plan = plan_of(tiny)
    view = Killer(multiprocessing.active_children, times)
    found = tabulate_study(plan, networks=1, seeds=1, view=view, executor=ProcessExecutor(plan, processes=1))
    (record,) = found.records
    assert record.state == state
    if state == "trained":
        assert re.match(r"its process ended with exit code -9; tried again", record.attempts[0])
        assert [epoch.number for epoch in record.measurement.epochs] == list(range(1, 9))
    else:
        assert record.measurement.reason == f"its process ended with exit code -9, {MAX_LOSSES + 1} times"
