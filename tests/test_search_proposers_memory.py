"""Memory of earlier studies: axes by name, costs by rank, and weights by what the new trainings show."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config.objectives import COSTS
from search.proposers.gaussian import kernel_of
from search.proposers.kernel_terms import features, initial_scales
from search.proposers.known_cost import KnownCostProposer, source_weights
from search.proposers.memory import MAX_LEARNED, normal_scores, recall, remember
from search.proposers.observations import Training, cost_row
from search.proposers.sources import Source, shared_axes, source_of_records, source_of_table
from search.proposers.surrogate import Evidence, condition_dice, fit_dice
from search.simulate.clock import problem_of_table
from search.simulate.parquet import write_table
from search.simulate.synthetic import synthetic_table
from search.trials.epochs import Epoch
from search.trials.records import Measurement, Record
from search.trials.table_file import read_trainings
from space.axes import Axis
from space.canonical import Context
from space.encoding import Coded
from space.space import Space

ANYWHERE = Context((1, 1, 1), (1.0, 1.0, 1.0), 1, 1)


@pytest.fixture(scope="module", autouse=True)
def created_table():
    """Create the table for the first test, not when the tests are collected."""
    global TABLE, CODED, EVERY
    TABLE = synthetic_table("noisy")
    CODED = Coded(TABLE.space)
    EVERY = CODED.encode(TABLE.decisions)[:, CODED.free]


def some_rows(count, seed=0):
    return np.random.default_rng(seed).permutation(TABLE.size)[:count]


def training(row, dice):
    return Training(str(row), TABLE.decisions[row], cost_row(TABLE.costs[row]), "trained", dice, np.array([dice]))


def earlier(count=60, *, seed=1, dice=lambda row: float(TABLE.truth[row])):
    """Return a study on the same space."""
    return Source("earlier", tuple(training(row, dice(row)) for row in some_rows(count, seed)))


def reversed_dice(row):
    return float(TABLE.truth.max() + TABLE.truth.min() - TABLE.truth[row])


def record(number, row, state="trained"):
    measurement = Measurement(
        state, costs=TABLE.costs[row], dice=float(TABLE.truth[row]) if state == "trained" else None
    )
    return Record(number, TABLE.architectures[row], tuple(TABLE.decisions[row].items()), 0, 0, measurement, "")


def log_costs(rows):
    costs = np.array([cost_row(TABLE.costs[row]) for row in rows])
    return np.log(np.delete(costs, COSTS.index("latency"), axis=1))


def memory_of(*sources):
    rows = some_rows(300, seed=5)
    codes = CODED.encode([TABLE.decisions[row] for row in rows])[:, CODED.free]
    exact = {row.tobytes(): cost_row(TABLE.costs[number]) for number, row in enumerate(EVERY)}
    predict = lambda codes: np.stack([exact[row.tobytes()] for row in codes])  # noqa: E731
    return remember(sources, CODED, codes=codes, predict=predict, listed=EVERY[:0])


def predicted(memory, rows):
    codes = CODED.encode([TABLE.decisions[row] for row in rows])[:, CODED.free]
    evidence = Evidence(codes, log_costs(rows), TABLE.truth[rows], np.zeros(len(rows)), np.zeros(len(rows), dtype=bool))
    rng = np.random.default_rng(0)
    scales = fit_dice(CODED.similarities, evidence, rng=rng, memory=memory)
    surrogate = condition_dice(CODED.similarities, evidence, scales=scales, rng=rng, memory=memory)
    others = some_rows(400, seed=9)
    codes = CODED.encode([TABLE.decisions[row] for row in others])[:, CODED.free]
    return surrogate, np.corrcoef(surrogate.mean(codes, log_costs(others)), np.log(1 - TABLE.truth[others]))[0, 1]


def test_the_kernel_with_hints_is_symmetric_and_positive():
    rows = some_rows(12)
    codes = CODED.encode([TABLE.decisions[row] for row in rows])[:, CODED.free]
    hints = np.random.default_rng(0).standard_normal((12, 2))
    inputs = features(CODED.similarities, codes, log_costs(rows), noise=np.ones(12), hints=hints)
    plain = features(CODED.similarities, codes, log_costs(rows), noise=np.ones(12))
    scales = initial_scales(len(CODED.free))
    matrix = kernel_of(CODED.similarities, scales, hints=2)(inputs)
    assert np.allclose(matrix, kernel_of(CODED.similarities, scales)(plain) + hints @ hints.T)
    assert np.allclose(np.diag(matrix), kernel_of(CODED.similarities, scales, hints=2).diag(inputs))
    assert np.linalg.eigvalsh(matrix).min() > -1e-8


def test_a_study_of_the_same_effects_predicts_better_after_few_trainings_at_any_level_of_dice():
    few = some_rows(5)
    _, alone = predicted(None, few)
    same, better = predicted(memory_of(earlier()), few)
    lower, also = predicted(memory_of(earlier(dice=lambda row: 0.5 * float(TABLE.truth[row]))), few)
    assert better > alone + 0.1 and also > alone + 0.1
    assert same.weights > 0.4 and lower.weights > 0.4
    codes = CODED.encode([TABLE.decisions[row] for row in few])[:, CODED.free]
    assert np.exp(lower.mean(codes, log_costs(few))) == pytest.approx(1 - TABLE.truth[few], abs=0.03)


@pytest.mark.parametrize("dice", [reversed_dice, lambda row: float(np.random.default_rng(row).uniform(0.5, 0.9))])
def test_a_misleading_study_is_ignored_within_few_trainings(dice):
    rows = some_rows(16)
    _, alone = predicted(None, rows)
    misled, with_it = predicted(memory_of(earlier(dice=dice)), rows)
    trusted, _ = predicted(memory_of(earlier()), rows)
    assert misled.weights[0] < 0.3 * trusted.weights[0]
    assert with_it > alone - 0.05


def test_the_useful_source_of_two_has_the_weight():
    surrogate, _ = predicted(memory_of(earlier(dice=reversed_dice), earlier(seed=2)), some_rows(16))
    assert surrogate.weights[1] > surrogate.weights[0] + 0.3


@settings(max_examples=8, deadline=None)
@given(st.deferred(lambda: st.permutations(range(len(TABLE.space.axes)))), st.integers(0, 1000))
def test_axes_are_matched_by_name_whatever_their_order_and_whatever_else_the_source_varied(order, seed):
    names = [TABLE.space.axes[place].name for place in order]
    source = earlier(20, seed=seed)
    shuffled = Source(
        "shuffled",
        tuple(
            replace(
                each,
                decisions={
                    "elsewhere": place % 3,
                    **{name: each.decisions[name] for name in names if name in each.decisions},
                },
            )
            for place, each in enumerate(source.trainings)
        ),
    )
    assert shared_axes(TABLE.space, shuffled) == shared_axes(TABLE.space, source)
    rows = some_rows(30, seed=3)
    codes = CODED.encode([TABLE.decisions[row] for row in rows])[:, CODED.free]
    scores = normal_scores(log_costs(rows), among=log_costs(rows))
    one, other = (recall(each, CODED).expected(codes, scores) for each in (source, shuffled))
    assert np.allclose(one, other)


def test_only_axes_with_two_choices_in_common_are_shared():
    space = Space(
        (Axis("width", (8, 16, 32), ""), Axis("skip", ("add", "concat"), ""), Axis("norm", ("a", "b"), "")), ANYWHERE
    )
    decisions = [{"width": width, "skip": "add", "levels": width} for width in (16, 32, 64)]
    source = Source(
        "other",
        tuple(Training(str(n), each, np.ones(5), "trained", 0.5, np.array([0.5])) for n, each in enumerate(decisions)),
    )
    assert shared_axes(space, source) == ("width",) and set(source.axes) == {"width", "levels"}


def test_a_choice_that_a_source_never_trained_counts_as_its_average():
    space = Coded(Space((Axis("block", ("none", "isa", "new"), ""),), ANYWHERE))
    trainings = [
        Training(str(n), {"block": name}, np.ones(5), "trained", dice, np.array([dice]))
        for n, (name, dice) in enumerate([("none", 0.6), ("isa", 0.8), ("old", 0.7)] * 4)
    ]
    none, isa, new = recall(Source("other", tuple(trainings)), space).expected(
        np.array([[1], [2], [3]]), np.zeros((3, 4))
    )
    assert isa < new < none


def test_ranks_of_costs_do_not_depend_on_their_unit_and_equal_costs_have_one_rank():
    costs = np.random.default_rng(0).lognormal(size=(9, 2))
    costs[:, 1] = 7.0
    scores = normal_scores(np.log(costs), among=np.log(costs))
    assert np.allclose(scores, normal_scores(np.log(1e6 * costs), among=np.log(1e6 * costs)))
    assert np.allclose(scores[:, 1], 0.0) and len(set(scores[:, 0])) == 9
    assert np.isfinite(normal_scores(np.full((1, 2), 99.0), among=np.log(costs))).all()


def test_a_large_source_is_reduced_to_its_front_and_a_random_part():
    big, small = (recall(earlier(count), CODED).surrogate.posterior.process for count in (MAX_LEARNED + 50, 20))
    assert len(big.X_train_) == MAX_LEARNED and len(small.X_train_) == 20


def test_proposals_with_a_source_depend_on_the_records_alone():
    problem = replace(problem_of_table(TABLE, seed=3), sources=(earlier(30),))
    ever, records = KnownCostProposer(problem), []
    for number in range(6):
        proposal = next(ever.proposals(records))
        assert proposal == next(KnownCostProposer(problem).proposals(records))  # as after a kill
        records.append(record(number, TABLE.row_of[TABLE.architecture(proposal.decisions)]))
    assert source_weights(problem, records) == source_weights(problem, records)


def test_a_source_changes_the_first_proposals_and_without_an_objective_dice_none():
    problem = problem_of_table(TABLE, seed=3)
    informed = replace(problem, sources=(earlier(),))
    records = [record(number, row) for number, row in enumerate(some_rows(4))]
    first, other = (next(KnownCostProposer(each).proposals(records)) for each in (problem, informed))
    assert first != other
    costs_only = {"memory": "minimize", "latency": "minimize"}
    both = [replace(each, directions=costs_only) for each in (problem, informed)]
    first, other = (next(KnownCostProposer(each).proposals(records)) for each in both)
    assert first == other and source_weights(both[1], records) == []


def test_many_workers_start_on_different_networks_before_any_training_has_ended():
    proposer, records = KnownCostProposer(replace(problem_of_table(TABLE, seed=0), sources=(earlier(),))), []
    for number in range(6):
        row = TABLE.row_of[TABLE.architecture(next(proposer.proposals(records)).decisions)]
        records.append(record(number, row, "running"))
    assert len({each.architecture for each in records}) == 6
    assert source_weights(proposer.problem, records) == []


def test_studies_and_tables_become_sources_with_equal_digests_for_equal_trainings(tmp_path):
    write_table(TABLE, tmp_path / "table.parquet", seeds=2)
    table = source_of_table("table", read_trainings(tmp_path / "table.parquet"))
    assert len(table.trainings) == 2 * TABLE.size
    assert table.digest == source_of_table("renamed", read_trainings(tmp_path / "table.parquet")).digest
    stopped = replace(
        record(2, 7), measurement=Measurement("stopped", costs=TABLE.costs[7], epochs=(Epoch(1, 0.5, 0.3, 1.0),))
    )
    outside = replace(record(3, 8), reference="nnunet", decisions=())
    study = source_of_records("study", [record(0, 5), record(1, 6, "running"), stopped, outside])
    assert [each.state for each in study.trainings] == ["trained", "stopped"]
    changed = source_of_records(
        "study", [replace(record(0, 5), measurement=Measurement("trained", costs=TABLE.costs[5], dice=0.1)), stopped]
    )
    assert len({study.digest, changed.digest, table.digest}) == 3
