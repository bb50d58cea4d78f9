"""Reports of a training within an epoch, its estimated time, and how the views show them."""

from dataclasses import replace
from io import StringIO

import pytest
from conftest import write_study

from search.api.progress import RunView
from search.api.terminal import PlainConsole
from search.config import load_study
from search.config.training_section import Training
from search.runner import watch as watching
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.runner.watch import Watch
from search.storage import read_records
from search.trials.activity import Activity, study_left_s
from search.trials.epochs import Epoch

TRAINING = Training(patch=(5, 24, 24), batch=1, epochs=3, steps_per_epoch=10, validate_every=2)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(watching, "working_clock", lambda: now[0])
    return now


def test_stages_and_the_first_step_are_reported_at_once_and_later_steps_at_most_once_a_second(clock):
    seen = []
    watch = Watch(seen.append)
    watch.begin("memory")
    watch.start(TRAINING, ())
    watch.begin("training", epoch=1, total=10)
    for done in range(1, 11):
        clock[0] += 0.4
        watch.advance(done, loss_sum=2.0 * done)
    assert [(each.stage, each.done) for each in seen] == [
        ("memory", 0),
        *(("training", done) for done in (0, 1, 4, 7, 10)),
    ]
    assert seen[2].loss == 2.0 and seen[2].per_second == pytest.approx(2.5)


def test_the_time_left_counts_steps_and_once_timed_the_validations(clock):
    seen = []
    watch = Watch(seen.append, every_s=0.0)
    watch.start(TRAINING, (Epoch(1, 0.5, None, 7.0),))
    watch.begin("training", epoch=2, total=10)
    clock[0] += 1.0
    watch.advance(1)
    assert seen[-1].left_s == pytest.approx(19.0) and seen[-1].spent_s == pytest.approx(8.0)
    clock[0] += 9.0
    watch.advance(10)
    watch.begin("validation", epoch=2, total=4)
    clock[0] += 2.0
    watch.advance(1)  # of four cases: 6 s left here, 10 steps of a second, and 8 s after the last epoch
    assert seen[-1].left_s == pytest.approx(6 + 10 + 8)
    clock[0] += 6.0
    watch.advance(4)
    watch.begin("training", epoch=3, total=10)
    assert seen[-1].left_s == pytest.approx(10 + 8)


def test_a_report_reads_as_a_line():
    step = Activity("training", epoch=3, epochs=20, done=120, total=250, per_second=3.44, loss=0.5312, left_s=725.0)
    assert str(step) == "epoch 3/20, step 120/250, 3.4 steps/s, loss 0.5312, about 12 min left"
    assert "2.5 s/step" in str(replace(step, per_second=0.4))
    case = Activity("validation", epoch=4, epochs=20, done=0, total=7)
    assert str(case) == "epoch 4/20, validating case 0/7"
    assert str(Activity("latency")) == "measuring latency"


def test_the_studys_time_left_follows_ended_trials_and_before_them_the_running_one():
    running = Activity("training", epoch=1, epochs=1, done=1, total=4, spent_s=20.0, left_s=40.0)
    assert study_left_s([], [running], to_do=3) == pytest.approx(40 + 2 * 60)
    assert study_left_s([100.0], [running], to_do=3) == pytest.approx(40 + 2 * 100)
    assert study_left_s([100.0], [running, None], to_do=4) == pytest.approx((40 + 100 + 2 * 100) / 2)
    assert study_left_s([100.0], [running], to_do=1) == pytest.approx(40)
    assert study_left_s([], [None], to_do=3) is None
    assert study_left_s([100.0], [], to_do=0) is None


def test_a_resumed_confirmation_is_not_counted_among_the_searchs_trials(tiny_run):
    plan = make_plan(load_study(tiny_run.file), runs=tiny_run.runs)
    own = read_records(plan.url, "tiny")[0]
    view = RunView(PlainConsole(quiet=True), name="tiny", trials=1, counts=lambda record: record.seed == 0)
    for record in (own, replace(own, seed=1), replace(own, fold=0)):
        view.on_trial_start(record, 2)
        view.on_trial_end(record, 1, None)
    assert view.counted == 2
    console = PlainConsole(file=StringIO(), width=80)
    console.print(view._table())
    assert console.file.getvalue().startswith("tiny: 2 of 2 trials")


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_fits_the_terminal_and_keeps_every_part_on_a_line_of_its_own(tiny_run, width):
    plan = make_plan(load_study(tiny_run.file), runs=tiny_run.runs)
    first, second, *_ = read_records(plan.url, "tiny")
    view = RunView(PlainConsole(quiet=True), name="tiny", trials=3)
    view.on_trial_start(first, 2)
    view.on_trial_end(first, 1, 0.25)
    view.on_trial_start(second, 2)
    view.on_activity(second, Activity("training", epoch=2, epochs=2, done=1, total=4, loss=0.5, left_s=30.0))
    console = PlainConsole(file=StringIO(), width=width)
    console.print(view._table())
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(len, lines)) <= width and lines[0] == "tiny: 1 of 3 trials"
    assert lines[1].split() == ["trial", "state", "Dice", "memory", "latency", "took", "network"]
    assert lines[2].split()[:2] == ["0", "trained"] and lines[3].startswith("trial 1  plain ")
    assert lines[4] == "  epoch 2/2, step 1/4, loss 0.5000, about 30 s left"
    assert set(lines[5]) <= {" ", "━", "╸"} and lines[6].startswith("front 1, hypervolume 0.2500; about ")


def test_a_run_shows_its_first_step_before_the_first_epoch_ends(tmp_path):
    made = write_study(tmp_path)
    plan = make_plan(load_study(made.file), runs=made.runs)
    printed = StringIO()
    view = RunView(PlainConsole(file=printed, width=160), name="tiny", trials=1)
    run_study(plan, trials=1, view=view)
    lines = printed.getvalue().splitlines()
    (first,) = [line for line in lines if "step" in line]
    assert first.startswith("trial 0: epoch 1/2, step 1/4, ") and first.endswith(" left for the study")
    assert lines.index(first) < next(number for number, line in enumerate(lines) if "epoch 1/2, loss" in line)
