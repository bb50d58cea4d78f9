"""Reference networks: trained first, labelled, compared with the front, and disregarded by the search."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from io import StringIO
from statistics import fmean

import pytest
from conftest import STUDY, quiet_view, write_study
from rich.console import Console

from search.analysis.confirmed_front import confirmed_json, confirmed_table
from search.analysis.front import front_json, front_table
from search.analysis.references import AgainstReference, against_references
from search.analysis.snapshot_reader import snapshot_of
from search.config import UserError, load_study
from search.runner.confirm import confirm_study
from search.runner.local import LocalExecutor, run_study
from search.runner.plan import make_plan
from search.runner.pricer import Pricer, price_table
from search.runner.reference_point import first_networks
from search.runner.references import default_references, reference_requests, require_buildable_references
from search.storage import read_records
from search.trials.records import Record, search_records
from search.visualization.components import Table
from search.visualization.figures.front_data import front_figure_data
from search.visualization.pages.page import Request
from search.visualization.pages.references import references_page
from search.visualization.report import render
from space.presets import PRESETS


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two trials with a reference outside its space."""
    text = STUDY.replace("{proposer: random, trials: 3}", "{proposer: known-cost, trials: 2, references: [nnunet]}")
    made = write_study(tmp_path_factory.mktemp("references"), text)
    run_study(plan_of(made), trials=2, view=quiet_view())
    return made


def test_a_reference_is_trained_first_and_is_no_trial_of_the_search(finished):
    plan = plan_of(finished)
    first, *others = records = read_records(plan.url, "tiny")
    assert (first.reference, first.state, first.decisions, first.is_outside) == ("nnunet", "trained", (), True)
    assert first.architecture == PRESETS["nnunet"].at(plan.context)
    assert [record.reference for record in others] == ["", ""]
    assert search_records(records, seed=0, fold=0) == others
    assert (plan.folder / "trials/000000/best.safetensors").exists()


def test_a_finished_study_trains_no_reference_again(finished):
    outcome = run_study(plan_of(finished), trials=2, view=quiet_view())
    assert outcome.why == "2 trials are done" and len(outcome.records) == 3


def test_the_front_is_compared_with_the_reference_and_does_not_hold_it(finished):
    snapshot = snapshot_of(load_study(finished.file), runs=finished.runs)
    assert [record.number for record in snapshot.networks] == [0] and 0 not in snapshot.numbers
    values = json.loads(front_json(snapshot))
    assert [(each["name"], each["trial"], each["state"]) for each in values["references"]] == [("nnunet", 0, "trained")]
    (reference,) = snapshot.networks
    for row in values["front"]:
        own = next(record for record in snapshot.front() if record.number == row["trial"])
        pairs = row["against"]["nnunet"]
        assert pairs["units"] == len(own.measurement.cases)
        assert pairs["difference"] == pytest.approx(own.measurement.dice - reference.measurement.dice)
        assert pairs["low"] <= pairs["difference"] <= pairs["high"]
    console = Console(width=300, record=True, file=StringIO())
    console.print(front_table(snapshot))
    text = console.export_text()
    assert "Dice against nnunet (95 %)" in text and "reference nnunet: plain x2 32-" in text


def test_figure_and_report_label_the_reference(finished):
    snapshot = snapshot_of(load_study(finished.file), runs=finished.runs)
    data = front_figure_data(snapshot, ["memory", "dice"])
    (reference,) = snapshot.networks
    assert data.references["nnunet"][1] == pytest.approx(reference.measurement.dice)
    report = render(snapshot)
    assert "The front against reference networks" in report and "&quot;nnunet&quot;" in report


def test_confirming_trains_the_reference_too_and_compares_it_over_seeds_and_folds(finished, tmp_path):
    shutil.copytree(finished.runs, tmp_path / "runs")
    plan = make_plan(load_study(finished.file), runs=tmp_path / "runs")
    before = snapshot_of(plan.loaded, runs=plan.runs)
    assert before.confirmed_against == []
    executor = {"view": quiet_view(), "executor": LocalExecutor(plan)}
    assert confirm_study(plan, top=1, seeds=1, folds=2, **executor) == 4
    assert confirm_study(plan, top=1, seeds=1, folds=2, **executor) == 0
    after = snapshot_of(plan.loaded, runs=plan.runs)
    assert {(each.reference, each.seed, each.fold) for each in after.confirmations} == {
        (name, 1, fold) for name in ("nnunet", "") for fold in (0, 1)
    }
    assert after.networks == before.networks and after.front() == before.front()
    (point,), (found,) = after.confirmed, after.confirmed_against
    reference = [each.measurement.dice for each in after.confirmations if each.reference]
    assert (found.number, found.reference, found.pairs.units) == (point.record.number, "nnunet", 4)
    assert found.pairs.difference == pytest.approx(point.mean - fmean(reference))  # folds of equal size
    console = Console(width=300, record=True, file=StringIO())
    console.print(confirmed_table("tiny", after.confirmed, plan.directions, after.confirmed_against))
    assert "Dice against nnunet (95 %)" in (text := console.export_text()) and found.shown in text
    (row,) = json.loads(confirmed_json("tiny", after.confirmed, after.confirmed_against))["confirmed"]
    assert row["against"]["nnunet"]["difference"] == found.pairs.difference
    tables = [each for each in references_page(after, Request()).components if isinstance(each, Table)]
    assert [each.name for each in tables] == ["values", "references", "confirmed"]
    assert tables[2].rows[0][2] == (found.pairs.difference, f"{found.pairs.difference:+.4f}")


def test_a_study_without_references_says_so_on_their_page(tiny_run):
    (note,) = references_page(snapshot_of(load_study(tiny_run.file), runs=tiny_run.runs), Request()).components
    assert note.text == "This study trains no reference network (search.references)."


def test_a_reference_without_shared_cases_or_training_gives_no_difference(finished):
    plan = plan_of(finished)
    reference, one, _ = read_records(plan.url, "tiny")
    bare = replace(reference, measurement=replace(reference.measurement, cases=()))
    (found,) = against_references([one], [bare])
    assert found == AgainstReference(one.number, "nnunet", None) and found.shown == "no shared case"
    failed = replace(reference, measurement=replace(reference.measurement, state="failed"))
    assert against_references([one], [failed]) == []


def test_records_of_earlier_versions_have_no_reference(finished):
    plan = plan_of(finished)
    values = read_records(plan.url, "tiny")[1].to_values()
    del values["reference"]
    assert Record.from_values(values).reference == ""


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ()),  # the networks of the space are far smaller
        (["space.choices.width=[24, 32]", "space.fix.width_cap=320"], ("nnunet",)),
        (["space.choices.width=[24, 32]", "space.fix.width_cap=320", "search.references=none"], ()),
        (["space.choices.width=[24, 32]", "space.fix.width_cap=320", "objectives.memory.budget=1 MiB"], ()),
        (["space.choices.width=[24, 32]", "space.fix.width_cap=320", "objectives.latency.budget=1 ms"], ()),
    ],
)
def test_without_a_word_nnunet_is_the_reference_where_it_is_affordable(overrides, expected, tmp_path):
    text = STUDY.replace("memory: minimize", "memory: {direction: minimize}")
    plan = plan_of(write_study(tmp_path, text), *overrides)
    plan.folder.mkdir(parents=True)
    with closing(Pricer(plan, "cpu", price_table(plan, device="cpu", threads=1))) as pricer:
        assert default_references(plan, pricer, first_networks(plan, pricer)) == expected


def test_a_reference_that_cannot_be_built_is_refused_with_the_reason(tmp_path):
    plan = plan_of(write_study(tmp_path), "training.patch=[4, 7, 7]", "search.references=[nnunet]")
    with pytest.raises(UserError, match="search.references: nnunet: a patch of 4x7x7 is too small for a U"):
        require_buildable_references(plan)


def test_an_unknown_reference_is_refused(tmp_path):
    with pytest.raises(UserError, match="search.references"):
        plan_of(write_study(tmp_path), "search.references=[nnunett]")


def test_the_base_of_a_space_as_its_reference_is_one_of_its_trials(tmp_path):
    begin, end = STUDY.index("space:"), STUDY.index("objectives:")
    text = STUDY[:begin] + "space: {base: nnunet, open: [attention@bottleneck]}\n" + STUDY[end:]
    plan = plan_of(write_study(tmp_path, text))
    inside, outside = reference_requests(plan, ["nnunet", "meunet"])
    assert dict(inside.decisions) == plan.space.complete({}) and inside.reference == "nnunet"
    assert outside.decisions == ()
