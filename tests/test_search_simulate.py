"""Searches on tables: formulas against the real counters, synthetic tables, clock, statistics, Parquet, command."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from test_search_cli import call, words

from search.config.schema import Halving
from search.config.training_section import Training
from search.costs.memory import CPU
from search.costs.price import predict_costs
from search.proposers.problem import Problem
from search.proposers.propose import PROPOSERS, ask_new, make_proposer
from search.simulate.clock import Rules, Run, Step, problem_of_table, simulate
from search.simulate.compare import anytime, best_ratio, compare, comparison, holm, less, share_after
from search.simulate.compare_reports import report_summaries, reports_tables
from search.simulate.formulas import formula_costs
from search.simulate.noise import with_noise
from search.simulate.parquet import read_table, write_table
from search.simulate.reported import volume_beyond
from search.simulate.show import comparison_tables, comparisons_json
from search.simulate.synthetic import RECIPES, synthetic_table
from search.trials.pareto import non_dominated, volume
from space.architecture import Architecture

SMALL = "noisy"


@pytest.fixture(scope="module")
def table():
    return synthetic_table(SMALL)


def test_formulas_give_the_counted_parameters_and_macs_and_the_same_memory_ranks():
    pairs = []
    for name, rows in (("noisy", (3, 700)), ("additive", (5200,)), ("places", (40, 5500))):
        table = synthetic_table(name)
        training = Training(patch=table.space.context.patch, batch=2)
        for row in rows:
            counted = predict_costs(table.architectures[row], table.space.context, training, device=CPU)
            pairs.append((table.costs[row], counted))
    for made, counted in pairs:
        assert (made.params, made.macs) == (counted.params, counted.macs)
        assert 0.5 < made.memory_bytes / counted.memory_bytes < 2
    orders = [np.argsort(np.argsort([pair[which].memory_bytes for pair in pairs])) for which in (0, 1)]
    assert np.corrcoef(*orders)[0, 1] > 0.8


def test_a_block_without_a_formula_is_refused(table):
    strange = Architecture.of({**dict(table.architectures[0].entries), "attention@bottleneck": "epa"})
    with pytest.raises(ValueError, match="no formula for attention 'epa' at bottleneck"):
        formula_costs(strange, table.space.context)


def recipes(*fast):
    """Return all recipes, those that take long with the marker."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.long) for name in RECIPES]


@pytest.mark.parametrize("name", recipes(SMALL, "additive", "places", "bumps", "noisy-trees", "noisy-network"))
def test_a_synthetic_table_has_many_networks_each_once(name):
    table = synthetic_table(name)
    assert 1_000 <= table.size <= 50_000
    assert len(set(table.architectures)) == table.size
    assert ((table.truth > 0.4) & (table.truth < 0.97)).all()
    assert (table.curve(5, 1) == table.curve(5, 1)).all() and (table.curve(5, 1) != table.curve(5, 2)).any()
    assert np.corrcoef(table.truth, np.log([costs.macs for costs in table.costs]))[0, 1] > 0.2


@pytest.mark.parametrize("name", recipes(SMALL, "noisy-trees"))
def test_a_synthetic_table_is_reproducible(name):
    table, again = synthetic_table(name), synthetic_table.__wrapped__(name)
    assert (again.truth == table.truth).all() and again.architectures == table.architectures


def test_at_least_two_tables_are_held_out_from_tuning_one_not_additive_one_noisy():
    unseen = {name: recipe for name, recipe in RECIPES.items() if recipe.unseen}
    assert "bumps" in unseen and unseen["noisy-trees"].noise[1] > 0.01 and len(RECIPES) - len(unseen) >= 4
    links = [recipe.link for recipe in RECIPES.values()]
    assert links.count("share") <= len(links) / 2  # that which the surrogate assumes too


@pytest.mark.parametrize(("name", "low", "high"), [("noisy", 0.005, 0.02), ("additive", 0.0, 0.002)])
def test_two_trainings_differ_by_the_tables_noise(name, low, high):
    table = synthetic_table(name)
    gaps = [abs(table.curve(row, 0)[-1] - table.curve(row, 1)[-1]) for row in range(0, 300)]
    assert low <= np.sqrt(np.mean(np.square(gaps))) <= high


def test_learning_curves_sometimes_cross(table):
    curves = np.array([table.curve(row, 0) for row in range(100)])
    early, late = curves[:, 2].argsort().argsort(), curves[:, -1].argsort().argsort()
    assert 0.2 < np.corrcoef(early, late)[0, 1] < 0.98


@pytest.mark.parametrize("name", PROPOSERS)
def test_every_proposer_searches_a_conditional_table_and_repeats_nothing(name):
    table = synthetic_table("places")
    run = simulate(table, name, seed=0, rules=Rules(trainings=12))
    assert len(run.steps) == 12 and len(run.ask_s) == 12
    shares = [step.share for step in run.steps]
    assert shares == sorted(shares) and 0 < shares[-1] <= 1
    again = simulate(table, name, seed=0, rules=Rules(trainings=12))
    assert [step.share for step in again.steps] == shares


@pytest.mark.parametrize("name", [name for name in PROPOSERS if name != "gp"])
def test_a_proposer_finds_every_network_of_a_small_space(table, name):
    kept = [row for row in range(table.size) if "width" in table.decisions[row]][:7]
    few = {table.architectures[row] for row in kept}
    problem = problem_of_table(table, seed=0)
    narrowed = Problem(
        table.space,
        table.directions,
        {},
        table.reference,
        0,
        table.architecture,
        lambda architecture: None if architecture in few else "not among the seven",
        problem.price,
    )
    proposer, found = make_proposer(name, narrowed), []
    while (proposal := ask_new(proposer, narrowed, found)[0]) is not None:
        row = table.row_of[table.architecture(proposal.decisions)]
        assert proposal.repeat == (table.architectures[row] in {each.architecture for each in found})
        found.append(_record(table, len(found), row))
    assert {each.architecture for each in found} == few and len(found) < 20


def _record(table, number, row):
    from search.trials.records import Measurement, Record

    measurement = Measurement("trained", costs=table.costs[row], dice=float(table.truth[row]))
    return Record(number, table.architectures[row], tuple(table.decisions[row].items()), 0, 0, measurement, "")


def test_an_unknown_proposer_is_refused(table):
    with pytest.raises(ValueError, match="there is no proposer 'best'; available: known-cost, random"):
        make_proposer("best", problem_of_table(table, seed=0))


def test_training_every_network_gives_the_whole_hypervolume(table):
    assert volume(table.losses, table.worst) == table.best_volume
    run = simulate(table, "random", seed=0, rules=Rules(trainings=table.size, enough=1.0))
    assert run.steps[-1].share == pytest.approx(1.0)


def test_workers_run_in_parallel_and_are_busy(table):
    alone = simulate(table, "random", seed=0, rules=Rules(trainings=64, enough=1.1))
    many = simulate(table, "random", seed=0, rules=Rules(trainings=64, enough=1.1, workers=16))
    assert alone.steps[-1].at_s == pytest.approx(alone.steps[-1].trained_s, rel=0.01)
    assert many.steps[-1].at_s < alone.steps[-1].at_s / 8
    assert many.busy > 0.95


def test_halving_trains_more_networks_in_the_same_hours(table):
    plain = simulate(table, "random", seed=0, rules=Rules(trainings=60, enough=1.1))
    halved = simulate(table, "random", seed=0, rules=Rules(trainings=60, enough=1.1, halving=Halving(3, 3.0)))
    assert halved.steps[-1].trained_s < 0.6 * plain.steps[-1].trained_s
    assert halved.steps[-1].trainings == plain.steps[-1].trainings == 60


def test_wilcoxon_counts_the_unreached_as_censored_and_holm_steps_down():
    assert less([1.0] * 8, [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, math.inf, math.inf]) < 0.01
    assert less([math.inf] * 5, [math.inf] * 5) == 1.0
    assert less([math.inf] * 8, [1.0] * 8) > 0.9
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {
        "a": pytest.approx(0.03),
        "b": pytest.approx(0.06),
        "c": pytest.approx(0.06),
    }


def test_a_comparison_shows_medians_ratios_and_budgets(table):
    rules, heard = Rules(trainings=30), []
    compared = compare(table, ["known-cost", "random"], seeds=2, rules=rules, each=heard.append)
    assert len(heard) == 4 and [each.proposer for each in compared.summaries] == ["known-cost", "random"]
    assert compared.rivals[0].proposer == "random" and 0 <= compared.rivals[0].p <= 1
    ours = compared.summaries[0]
    assert ours.trainings[0] <= ours.trainings[1] and ours.shares[0] <= ours.shares[1] <= 1
    assert share_after(compared.runs[0], 30) == max(step.share for step in compared.runs[0].steps)
    counts, low, middle, high = anytime(compared.runs[:2], until=30)
    assert counts[-1] == 30 and all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True))
    assert json.loads(comparisons_json([compared]))[0]["table"] == SMALL
    assert len(comparison_tables(compared)) == 3
    alone = comparison(table, {"random": compared.runs[2:]}, rules=rules)
    assert alone.rivals == () and math.isnan(best_ratio(alone)) and len(comparison_tables(alone)) == 2


def test_a_table_survives_parquet(table, tmp_path):
    rows = range(0, 1200, 30)
    small = replace(
        table,
        decisions=tuple(table.decisions[row] for row in rows),
        truth=table.truth[list(rows)],
        architectures=tuple(table.architectures[row] for row in rows),
        costs=tuple(table.costs[row] for row in rows),
        epoch_s=table.epoch_s[list(rows)],
        curve=lambda row, seed: table.curve(rows[row], seed),
    )
    write_table(small, tmp_path / "known.parquet", seeds=2)
    read = read_table(tmp_path / "known.parquet")
    assert read.size == small.size and read.epochs == small.epochs
    assert np.allclose(read.losses[:, 1:], small.losses[:, 1:])
    assert np.allclose(read.curve(3, 1), small.curve(3, 1))
    assert np.allclose(read.truth[3], (small.curve(3, 0)[-1] + small.curve(3, 1)[-1]) / 2)
    for name in ("random", "known-cost", "nsga2"):
        assert len(simulate(read, name, seed=0, rules=Rules(trainings=12, enough=1.1)).steps) == 12


def test_the_command_prints_json_and_draws_anytime_curves(monkeypatch, capsys, tmp_path):
    figure = tmp_path / "anytime.html"
    arguments = ["--synthetic", "--only", SMALL, "--proposers", "random,local", "--seeds", "2", "--trainings", "20"]
    options = "--jobs", "2", "--json", "--figure", figure
    out = call(monkeypatch, capsys, "simulate", *arguments, *options).out
    assert [each["proposer"] for each in json.loads(out)[0]["summaries"]] == ["random", "local"]
    html = figure.read_text()
    assert "share of the true hypervolume" in html and html.count('data-figure="{') == 1


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["pass either --synthetic or --table FILE"]),
        (["--synthetic", "--only", "additiv"], ["there is no synthetic table 'additiv'; did you mean 'additive'?"]),
        (
            ["--synthetic", "--proposers", "nsga,known"],
            ["there is no proposer 'nsga'; did you mean", "there is no proposer 'known'"],
        ),
        (["--synthetic", "--halving", "3"], ["'3' is neither off nor MIN_EPOCHS,REDUCTION[,BRACKETS]"]),
    ],
)
def test_all_conflicting_options_are_reported(arguments, messages, monkeypatch, capsys):
    printed = call(monkeypatch, capsys, "simulate", *arguments, code=2)
    assert all(message in words(printed.err) for message in messages), printed.err


def test_known_cost_needs_far_fewer_trainings_than_local_search(table):
    compared = compare(table, ["known-cost", "local"], seeds=5, rules=Rules(trainings=150, enough=0.95))
    assert best_ratio(compared) < 0.5 and compared.rivals[0].p < 0.05


def test_a_rival_censored_before_our_finish_does_not_count_as_beaten(table):
    def runs(name, trainings, share):
        return [
            Run(name, seed, (Step(1.0, trainings + seed, 60.0 * trainings, share),), 0, (0.1,), 1.0)
            for seed in range(8)
        ]

    made = comparison(table, {"known-cost": runs("known-cost", 70, 0.96), "gp": runs("gp", 50, 0.9)}, rules=Rules())
    assert made.rivals[0].p > 0.9 and made.rivals[0].hours_p > 0.9
    made = comparison(table, {"known-cost": runs("known-cost", 30, 0.96), "gp": runs("gp", 50, 0.9)}, rules=Rules())
    assert made.rivals[0].p < 0.01


def test_noise_replaces_the_tables_own_and_a_run_reports_what_the_user_gets():
    table = synthetic_table("additive")
    noisy = with_noise(table, 0.0078)
    ends = np.array([noisy.curve(row, seed)[-1] - table.truth[row] for row in range(200) for seed in (0, 1)])
    assert 0.007 < ends.std() < 0.0086 and abs(ends.mean()) < 0.001
    run = simulate(table, "known-cost", seed=0, rules=Rules(trainings=26, enough=0.1, noise=0.0078))
    assert run.steps[-1].trainings == 26  # a share that ends a run without noise doesn't with it
    (found,) = run.reports
    assert found.trainings == 25 and found.repeated >= 1
    assert 0.5 < found.expected.share <= 1 and 0.003 < found.expected.noise < 0.02
    assert abs(found.expected.best_optimism) < 0.03 and 0 <= found.expected.best_regret < 0.1
    assert found.expected.best_gap >= found.expected.best_regret
    exact = simulate(table, "random", seed=0, rules=Rules(trainings=25, enough=1.0, noise=0.0)).reports[0]
    assert exact.measured.optimism == 0 and exact.measured.best_regret == 0 and exact.measured.knee_regret >= 0


def test_the_pick_knee_loses_no_hypervolume_on_the_true_front():
    table = synthetic_table("additive")
    front = np.flatnonzero(non_dominated(table.losses))
    assert all(volume_beyond(table, int(row)) == 0 for row in front)
    behind = int(np.argmax(table.losses[:, 0]))
    assert 0 < volume_beyond(table, behind) <= 1


def test_reports_are_compared_and_shown(table):
    rules = Rules(trainings=25, noise=0.0078)
    made = compare(table, ["known-cost", "random"], seeds=2, rules=rules)
    ours, other = report_summaries(made)
    assert (ours.proposer, ours.trainings, ours.runs, ours.p) == ("known-cost", 25, 2, None)
    assert other.repeated == 0 and 0 < other.p <= 1
    drawn = Console(width=160, record=True, file=io.StringIO())
    drawn.print(*reports_tables(made))
    text = drawn.export_text()
    assert max(map(len, map(str.rstrip, text.splitlines()))) <= 100 and "lost by knee" in text
    assert "by expected Dice (by measured Dice), noise 0.0078" in text and "known-cost" in text
    assert reports_tables(compare(table, ["random"], seeds=1, rules=Rules(trainings=5))) == []
    first, _ = json.loads(comparisons_json([made]))[0]["reports"]
    assert (first["proposer"], first["trainings"], first["p"]) == ("known-cost", 25, None)
    assert first["expected"]["share"] == pytest.approx(ours.expected.share)
    assert first["measured"]["noise"] is None and first["expected"]["best_regret"] >= 0
