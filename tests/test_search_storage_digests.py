"""Digits that change in a study's database are named, with the trial that they belong to, and never ranked."""

import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_study import synthetic_records, synthetic_study, write_synthetic_study
from test_search_cli import call

from search.analysis.snapshot_reader import read_snapshot
from search.config import UserError
from search.files.digests import DigestError, sealed, sealed_value, unsealed, unsealed_text
from search.storage import (
    STUDY,
    Store,
    read_records,
    read_study_attribute,
    read_study_attributes,
    read_study_names,
)
from search.storage.address import sqlite_url
from search.storage.admin import Change, change_studies
from search.storage.held_out import read_test_uses, write_test_use
from search.storage.lock import hold_lock
from search.trials.held_out import HeldOutScore

TRIALS = 6
OF_TRIAL = "trial_id = (SELECT trial_id FROM trials WHERE number = 4)"
RECORD_OF_TRIAL = f"key = 'voxnas:record' AND {OF_TRIAL}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a study of a few trials; copied, never changed."""
    runs = tmp_path_factory.mktemp("sound") / "runs"
    write_synthetic_study(runs, "tiny", synthetic_records(TRIALS, state="trained"))
    return runs


@pytest.fixture
def file(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "runs")) / "tiny/study.db"


def execute(file, statement, values=()):
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def text_of_trial(file):
    return execute(file, f"SELECT value_json FROM trial_user_attributes WHERE {RECORD_OF_TRIAL}")[0][0]


def write_text_of_trial(file, text):
    execute(file, f"UPDATE trial_user_attributes SET value_json = ? WHERE {RECORD_OF_TRIAL}", (text,))


CHANGES = {
    "a Dice": (r'("measurement".*?"dice": 0\.)(\d)', "9"),
    "a state": (r'("state": ")(trained)', "stopped"),
    "memory": (r'("memory_bytes": )(\d)', "7"),
    "a latency": (r'("median_s": 0\.)(\d)', "7"),
    "the Dice of an epoch": (r'("epochs".*"dice": \[0\.)(\d)', "9"),
    "the Dice of a case": (r'("cases".*?"dice": \[0\.)(\d)', "7"),
    "a decision": (r'("decisions".*?: )(\d+)', "64"),
    "an architecture": (r'("architecture".*?: )(\d+)', "64"),
    "a seed": (r'("seed": )(\d)', "7"),
    "the digest itself": (r'("digest": ")(.)', "-"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_digit_that_changes_in_a_record_is_named_with_its_trial(what, file):
    pattern, digit = CHANGES[what]
    text = text_of_trial(file)
    changed = re.sub(pattern, rf"\g<1>{digit}", text, count=1)
    if changed == text:  # the digit was that one already
        changed = re.sub(pattern, r"\g<1>3", text, count=1)
    assert changed != text
    write_text_of_trial(file, changed)
    message = "the record of trial 4 is not what was written: the database was damaged, or changed by another program;"
    with pytest.raises(UserError, match=message):
        read_records(sqlite_url(file), "tiny")
    with pytest.raises(UserError, match=message):
        read_snapshot(synthetic_study("tiny"), file.parent)


def test_every_changed_byte_of_a_record_is_found_or_changes_nothing(file):
    before, text = read_records(sqlite_url(file), "tiny"), text_of_trial(file)
    for at in range(0, len(text), 97):
        write_text_of_trial(file, text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])
        try:
            assert read_records(sqlite_url(file), "tiny") == before
        except UserError as error:
            assert "the record of trial 4" in str(error)


DAMAGES = {
    f"DELETE FROM trials WHERE {OF_TRIAL}": "trial 4 is missing: the database was damaged",
    "UPDATE trials SET number = 3 WHERE number = 4": "two trials have the number 3",
    f"DELETE FROM trial_user_attributes WHERE {OF_TRIAL}": "trial 4 has ended without a record",
    f"UPDATE trial_user_attributes SET key = 'voxnas:racord' WHERE {OF_TRIAL}": "trial 4 has ended without a record",
    "UPDATE trials SET number = 9 - number WHERE number IN (4, 5)": (
        r"the record of trial 4 can't be read \(ValueError: it is that of trial 5\)"
    ),
}


@pytest.mark.parametrize("statement", DAMAGES)
def test_a_trial_that_is_lost_or_mixed_up_is_named(statement, file):
    execute(file, statement)
    with pytest.raises(UserError, match=DAMAGES[statement]):
        read_records(sqlite_url(file), "tiny")


def discard(file, number=4, name="tiny"):
    return change_studies([sqlite_url(file)], Change(discard=(name, number)), runs=file.parents[1])


DISCARDABLE = {
    "a digit of its record": lambda file: write_text_of_trial(file, text_of_trial(file).replace("7", "8")),
    "no record": lambda file: execute(file, f"DELETE FROM trial_user_attributes WHERE {OF_TRIAL}"),
    "no JSON": lambda file: write_text_of_trial(file, text_of_trial(file)[:40]),
    "no date": lambda file: write_text_of_trial(
        file, re.sub(r'("started": ").*?"(.*), "digest".*', r'\1yesterday"\2}', text_of_trial(file))
    ),
}


@pytest.mark.parametrize("damage", DISCARDABLE)
def test_a_damaged_trial_can_be_left_out_and_the_study_goes_on(damage, file, monkeypatch, capsys):
    url, before = sqlite_url(file), read_records(sqlite_url(file), "tiny")
    DISCARDABLE[damage](file)
    with pytest.raises(
        UserError, match=f"trial 4 .*go on without this trial: `voxnas studies {file} --discard tiny 4`"
    ):
        read_records(url, "tiny")
    said = call(monkeypatch, capsys, "studies", file, "--discard", "tiny", "4", "--runs", file.parents[1]).out
    assert "tiny: trial 4 is left out from now on" in said and "5 trained" in said
    assert read_records(url, "tiny") == before[:4] + before[5:]
    assert [each.number for each in read_snapshot(synthetic_study("tiny"), file.parent).trials] == [0, 1, 2, 3, 5]
    store = Store.open(url, "tiny", directions={"dice": "maximize"}, values=read_study_attribute(url, "tiny", STUDY))
    with closing(store):
        assert store.orphaned_trial() is None
        new = replace(before[1], number=0, measurement=replace(before[1].measurement, state="running"), ended="")
        assert store.write_new(new, choices={name: [choice] for name, choice in new.decisions}).number == TRIALS
    with pytest.raises(UserError, match="trial 4 of tiny does not exist, or is discarded"):
        discard(file)


def test_only_damaged_trials_of_a_study_that_is_not_running_are_left_out(file):
    with pytest.raises(UserError, match="trial 4 of tiny can be read; only damaged trials are discarded"):
        discard(file)
    with pytest.raises(UserError, match="trial 9 of tiny does not exist"):
        discard(file, number=9)
    with pytest.raises(UserError, match="there is no study 'tinny'; did you mean 'tiny'"):
        discard(file, name="tinny")
    execute(file, f"DELETE FROM trial_user_attributes WHERE {OF_TRIAL}")
    with hold_lock(sqlite_url(file), file.parent, "tiny"), pytest.raises(UserError, match="already running"):
        discard(file)
    assert execute(file, f"SELECT COUNT(*) FROM trial_user_attributes WHERE {OF_TRIAL}") == [(0,)]


def test_a_damaged_open_trial_that_is_left_out_is_not_resumed(tmp_path):
    file = write_synthetic_study(tmp_path, "tiny", synthetic_records(6, state="running"))
    write_text_of_trial(file, "{}")
    discard(file)
    assert execute(file, "SELECT state FROM trials WHERE number = 4") == [("FAIL",)]
    assert [each.number for each in read_records(sqlite_url(file), "tiny")] == [0, 1, 2, 3, 5]


def test_a_damaged_study_does_not_hide_the_others_of_its_database(file, monkeypatch, capsys):
    url = sqlite_url(file)
    change_studies([url], Change(copy=("tiny", url.replace("study.db", "both.db"))), runs=file.parents[1])
    both = file.with_name("both.db")
    execute(both, "UPDATE studies SET study_name = 'broken'")
    execute(both, f"DELETE FROM trial_user_attributes WHERE {OF_TRIAL}")
    change_studies([url], Change(copy=("tiny", sqlite_url(both))), runs=file.parents[1])
    said = call(monkeypatch, capsys, "studies", both, "--runs", file.parents[1], code=1)
    assert "can't be read" in said.out and "6 trained" in said.out
    assert "both.db: broken: trial 4 has ended without a record" in said.err
    change_studies([sqlite_url(both)], Change(delete="tiny"), runs=file.parents[1])
    assert read_study_names(sqlite_url(both)) == ["broken"]


def test_a_trial_that_would_never_be_resumed_is_named(tmp_path):
    file = write_synthetic_study(tmp_path, "tiny", synthetic_records(2, state="running"))
    execute(file, "UPDATE trials SET state = 'FAIL' WHERE number = 1")
    with pytest.raises(UserError, match="trial 1 has ended, but its record says that it is running"):
        read_records(sqlite_url(file), "tiny")


def test_records_without_a_digest_are_read_and_so_are_those_that_a_program_formatted_again(file):
    before = read_records(sqlite_url(file), "tiny")
    text = text_of_trial(file)
    write_text_of_trial(file, text.replace(", ", ",  "))
    assert read_records(sqlite_url(file), "tiny") == before
    write_text_of_trial(file, re.sub(r', "digest": "\w+"}$', "}", text))  # of an earlier version
    assert read_records(sqlite_url(file), "tiny") == before


ATTRIBUTES = ("voxnas:study", "voxnas:context", "voxnas:hypervolume_reference")


@pytest.mark.parametrize("key", ATTRIBUTES)
def test_a_digit_that_changes_in_what_a_study_began_with_is_named(key, file, monkeypatch, capsys):
    shutil.copytree(file.parent, file.parents[1] / "other")
    ((text,),) = execute(file, "SELECT value_json FROM study_user_attributes WHERE key = ?", (key,))
    changed = re.sub(r"([1-9])(\d*[,.}\]])", r"4\2", text, count=1)
    execute(file, "UPDATE study_user_attributes SET value_json = ? WHERE key = ?", (changed, key))
    message = f"study.db: the attribute '{key}' is not what was written: the database was damaged"
    with pytest.raises(UserError, match=message):
        if key == "voxnas:study":
            Store.open(sqlite_url(file), "tiny", directions={"dice": "maximize"}, values={})
        else:
            read_snapshot(synthetic_study("tiny"), file.parent)
    assert "tiny" in call(monkeypatch, capsys, "studies", "--runs", file.parents[1]).out


def test_attributes_of_an_earlier_version_have_no_digest(file):
    before = read_study_attributes(sqlite_url(file), "tiny", "voxnas:%")
    execute(file, "UPDATE study_user_attributes SET value_json = json_remove(value_json, '$.digest')")
    assert read_study_attributes(sqlite_url(file), "tiny", "voxnas:%") == before


def test_a_score_of_the_test_cases_that_changes_is_named(file):
    url = sqlite_url(file)
    use = HeldOutScore(4, "a network", "its weights", "knee", "now", 0.75, ())
    write_test_use(url, "tiny", use)
    assert read_test_uses(url, "tiny") == [use]
    changes = "SET value_json = replace(value_json, '0.75', '0.85')"
    execute(file, f"UPDATE study_user_attributes {changes} WHERE key LIKE 'voxnas:test:%'")
    with pytest.raises(UserError, match="the attribute 'voxnas:test:000000-.*' is not what was written"):
        read_test_uses(url, "tiny")


def test_a_store_reads_what_it_wrote_also_lists_and_empty_values(tmp_path):
    url = sqlite_url(tmp_path / "study.db")
    store = Store.open(url, "s", directions={"dice": "maximize"}, values={"a": 1})
    store.write_reference({"dice": 0.5}, timed={})
    store.write_default_references(["nnunet"])
    store.write_source_weights([0.25, 1.0])
    again = Store.open(url, "s", directions={"dice": "maximize"}, values={"a": 1})
    assert (again.reference, again.timed, again.default_references) == ({"dice": 0.5}, {}, ("nnunet",))
    assert read_study_attributes(url, "s", "voxnas:source_weights") == {"voxnas:source_weights": [0.25, 1.0]}


@pytest.mark.parametrize("value", [{}, [], [1, 2.5], "a text", {"a": {"b": None}}, 0.1 + 0.2])
def test_what_is_sealed_is_unsealed(value):
    import json

    sealed_text = json.dumps(sealed_value(value))
    assert unsealed_text(sealed_text) == unsealed(json.loads(sealed_text)) == value
    assert unsealed_text(json.dumps(value)) == value  # of an earlier version
    with pytest.raises(DigestError, match="the content differs from its digest"):
        unsealed({**sealed({"a": 1}), "a": 2})


def test_a_record_that_a_study_copies_keeps_its_digest(file, tmp_path):
    from search.storage.admin import copy_study

    copy_study(sqlite_url(file), "tiny", str(tmp_path / "copy.db"))
    assert text_of_trial(tmp_path / "copy.db") == text_of_trial(file)
    records = read_records(sqlite_url(tmp_path / "copy.db"), "tiny")
    assert [replace(each, number=0) for each in records] == [
        replace(each, number=0) for each in read_records(sqlite_url(file), "tiny")
    ]
