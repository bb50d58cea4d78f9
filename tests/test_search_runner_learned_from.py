"""What a study learns from: found when it starts, pinned by digest, and refused with a message if it is of no use."""

import json
import re
import sqlite3

import pytest
from conftest import STUDY, quiet_view, write_study
from earlier_study import COSTS, write_earlier
from typer.testing import CliRunner

from search.cli.app import app
from search.config import UserError, load_study
from search.config.schema import Search
from search.files.digests import sealed, unsealed_text
from search.proposers.observations import FEWEST
from search.runner.learned_from import describe_sources, learned_from
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.storage import RECORD, Store, read_records, stored_values
from search.storage.address import sqlite_url
from search.storage.identity import plain, refuse_changes
from search.trials.records import Measurement, Record

LEARNING = STUDY.replace("proposer: random", "proposer: known-cost")


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


@pytest.fixture
def made(tmp_path):
    return write_study(tmp_path, LEARNING)


def refused(plan, message):
    with pytest.raises(UserError, match=message) as error:
        learned_from(plan)
    return error.value


def test_auto_finds_the_finished_studies_of_the_runs_folder_that_vary_the_same_axes(made):
    assert learned_from(plan_of(made)) == ()
    assert describe_sources(plan_of(made), ()).startswith("Learns from no earlier study: none in")
    assert "has ended with 8 or more trained networks" in describe_sources(plan_of(made), ())
    write_earlier(made)
    write_earlier(made, "few", count=FEWEST - 1)
    write_earlier(made, "stopped", ended="")
    (made.runs / "text").mkdir()
    (made.runs / "text/study.db").write_text("not a database")
    plan = plan_of(made)
    (found,) = learned_from(plan)
    assert found.pinned.name == "earlier" and set(found.axes) > {"width", "repeats", "attention@bottleneck"}
    assert describe_sources(plan, [found]) == "Learns from earlier (8 trainings, 4 shared axes)."
    assert learned_from(plan_of(made, "search.learn_from=none")) == ()
    assert learned_from(plan_of(made, "search.proposer=random")) == ()
    assert describe_sources(plan_of(made, "search.proposer=random"), ()) == ""


def test_sources_are_named_by_folder_by_run_or_by_file(made):
    folder = write_earlier(made)
    for named in (str(folder), "earlier", "runs/earlier"):
        (found,) = learned_from(plan_of(made, f"search.learn_from={named}"))
        assert found.pinned.place == str(folder.resolve())
    assert [each.pinned.name for each in learned_from(plan_of(made, "search.learn_from=[earlier, earlier]"))] == [
        "earlier"
    ] * 2


def test_sources_of_no_use_are_refused_with_the_reason_all_at_once(made):
    import pyarrow
    import pyarrow.parquet

    (made.file.parent / "notes.txt").write_text("width 8 is best")
    (made.file.parent / "empty").mkdir()
    columns = {
        "architecture": [json.dumps({"colour": each}) for each in range(FEWEST)],
        "seed": [0] * FEWEST,
        "epoch": [1] * FEWEST,
        "dice": [0.5] * FEWEST,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), made.file.parent / "colours.parquet")
    write_earlier(made, "few", count=2)
    said = str(
        refused(plan_of(made, "search.learn_from=[gone, notes.txt, empty, colours.parquet, few]"), "search.learn_from")
    )
    for line, message in zip(
        said.splitlines(),
        (
            "search.learn_from: no such study or file: gone .looked for .*gone, gone, .*runs/gone",
            "search.learn_from: .*notes.txt: not a Parquet file",
            "search.learn_from: .*empty is not the folder of a study",
            "search.learn_from: colours.parquet shares no axis with this study: it varies colour; here width, ",
            "search.learn_from: few has 2 trained networks; a study learns from 8 or more",
        ),
        strict=True,
    ):
        assert re.match(message, line), line
    refused(
        plan_of(made, "search.learn_from=few", "search.proposer=random"), "only the proposer known-cost learns from"
    )


def test_a_running_study_is_refused_and_auto_leaves_it_out(made):
    def while_running():
        refused(plan_of(made, "search.learn_from=earlier"), "earlier is running; wait for its end, or leave it out")
        assert learned_from(plan_of(made)) == ()

    write_earlier(made, beat=while_running)
    assert len(learned_from(plan_of(made))) == 1


def test_a_study_of_a_newer_version_is_refused(made):
    folder = write_earlier(made)
    with sqlite3.connect(folder / "study.db") as connection:
        text = json.dumps({"written by": "a newer version"})
        connection.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = ?", (text, RECORD))
    message = "earlier: the record of trial 0 can't be read .*: it is damaged, or a newer version of voxnas wrote it"
    refused(plan_of(made, "search.learn_from=earlier"), message)
    assert learned_from(plan_of(made)) == ()


def test_tables_of_a_newer_optuna_are_refused(made):
    folder = write_earlier(made)
    with sqlite3.connect(folder / "study.db") as connection:
        connection.execute("UPDATE version_info SET schema_version = 99, library_version = '99.0.0'")
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    refused(
        plan_of(made, "search.learn_from=earlier"),
        "search.learn_from: .*study.db was written by Optuna 99.0.0, but .* is installed",
    )
    assert learned_from(plan_of(made)) == ()


def test_a_study_keeps_the_sources_that_it_began_with(made):
    write_earlier(made)
    run_study(plan_of(made), trials=1, view=quiet_view())
    write_earlier(made, "later")
    (kept,) = learned_from(plan_of(made))
    assert kept.pinned.name == "earlier" and kept.weight is not None
    assert f"weight {kept.weight:.2f}" in describe_sources(plan_of(made), [kept])
    with sqlite3.connect(made.runs / "earlier/study.db") as connection:
        (text,) = connection.execute("SELECT value_json FROM trial_user_attributes WHERE key = ?", (RECORD,)).fetchone()
        values = unsealed_text(text)
        values["measurement"]["dice"] = 0.123
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE value_json = ?", (json.dumps(sealed(values)), text)
        )
    error = refused(plan_of(made), "the trainings of earlier have changed since the study began")
    assert "study 'tiny' already has records that depend on this" in str(error)
    with pytest.raises(UserError, match="have changed since the study began"):
        run_study(plan_of(made), trials=2, view=quiet_view())
    (made.runs / "earlier").rename(made.runs / "moved")
    refused(plan_of(made), "earlier was there when the study began; now there is no .*earlier")
    assert len(read_records(plan_of(made).url, "tiny")) == 1


def test_trials_that_an_earlier_study_runs_later_do_not_count(made):
    folder = write_earlier(made)
    run_study(plan_of(made), trials=1, view=quiet_view())
    before = learned_from(plan_of(made))
    plan = plan_of(made)
    store = Store.open(
        sqlite_url(folder / "study.db"),
        "earlier",
        directions=plan.directions,
        values=stored_values(sqlite_url(folder / "study.db"), "earlier"),
    )
    last = store.records()[-1]
    choices = {axis: each.choices for axis, each in plan.space.by_name.items()}
    new = store.write_new(
        Record(0, last.architecture, last.decisions, 7, 0, Measurement("running", costs=COSTS), "2026-01-02"),
        choices=choices,
    )
    store.write_finished(
        new.finished(Measurement("trained", costs=COSTS, dice=0.9), ended="2026-01-02"),
        objectives=[],
        budgets={},
    )
    store.close()
    assert learned_from(plan_of(made)) == before and len(read_records(sqlite_url(folder / "study.db"), "earlier")) == 9


def test_a_study_of_an_earlier_version_learns_from_nothing_and_is_unchanged(made):
    write_earlier(made)
    plan = plan_of(made)
    values = plan.identity()
    assert values["search"].pop("learn_from") == Search().learn_from == "auto"
    store = Store.open(plan.url, "tiny", directions=plan.directions, values=values)
    store.write_reference({"dice": 0.0, "memory": 1.0})
    store.close()
    refuse_changes("tiny", stored_values(plan.url, "tiny"), plain(plan.identity()))
    assert learned_from(plan) == ()
    with pytest.raises(UserError, match="search.learn_from: the study began without it, the file now has"):
        refuse_changes(
            "tiny", stored_values(plan.url, "tiny"), plain(plan_of(made, "search.learn_from=earlier").identity())
        )


def test_check_says_in_a_line_what_a_study_learns_from(made):
    write_earlier(made)
    ran = CliRunner().invoke(app, ["check", str(made.file), "--runs", str(made.runs)])
    assert ran.exit_code == 0 and "Learns from earlier (8 trainings, 4 shared axes)." in ran.output
    ran = CliRunner().invoke(app, ["check", str(made.file), "--runs", str(made.runs), "--json"])
    (source,) = json.loads(ran.stdout)["search"]["learns_from"]
    assert source["name"] == "earlier" and source["trainings"] == 8 and source["weight"] is None


@pytest.mark.parametrize(
    ("written", "kept"),
    [("auto", "auto"), ("none", ()), ("runs/one", ("runs/one",)), ("[a, b.parquet]", ("a", "b.parquet"))],
)
def test_the_key_takes_one_source_several_or_none(made, written, kept):
    assert load_study(made.file, overrides=[f"search.learn_from={written}"]).study.search.learn_from == kept
