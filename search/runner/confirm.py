"""`voxnas confirm`: retrain the front's networks and the references at full length, over seeds and folds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from search.analysis.expected import estimate_records, with_expected
from search.config.errors import UserError
from search.config.schema import LARGEST_SEED
from search.config.units import counted
from search.runner.answers import Done, Train
from search.runner.driver import Executor
from search.runner.fit import require_scorable
from search.runner.opening import driver_lock, open_driver
from search.runner.plan import Plan
from search.runner.view import View
from search.storage import read_records
from search.trials.halving import ranked_rows
from search.trials.pareto import losses, pareto_front
from search.trials.records import Record, TrainingRequest, search_records


def to_confirm(plan: Plan, records: Sequence[Record], *, top: int | None) -> list[Record]:
    """Return the front's records, or the `top` of them that add most to its hypervolume.

    Raises UserError if the front is empty.
    """
    search, fold = plan.study.search, plan.study.data.fold
    own = search_records(records, seed=search.seed, fold=fold)
    repeats = [each for each in records if each.fold == fold and each.seed != search.seed and not each.reference]
    expected = with_expected(own, estimate_records(own, repeats, plan.directions))
    front = pareto_front(expected, plan.directions)
    if not front:
        raise UserError(["there is nothing to confirm: no trial was trained to its end within the budgets"])
    if top is None or top >= len(front):
        return front
    chosen = set(ranked_rows(losses(front, plan.directions))[:top].tolist())
    return [record for number, record in enumerate(front) if number in chosen]


def confirmation_requests(
    plan: Plan, chosen: Sequence[Record], records: Sequence[Record], *, seeds: int, folds: int
) -> list[TrainingRequest]:
    """List the missing trainings of the chosen records and the study's references.

    Seeds follow the search's own seed, folds start at its own fold. Raises UserError if there are too few of either.
    """
    search, own, count = plan.study.search, plan.study.data.fold, len(plan.folds)
    if folds > count:
        raise UserError([f"confirm: --folds {folds}: the study has only {counted(count, 'fold')}"])
    last = search.seed + search.seeds + seeds - 1
    if last > LARGEST_SEED:
        raise UserError([f"confirm: --seeds {seeds}: needs the seed {last}, but the largest is {LARGEST_SEED}"])
    existing = {record.identity for record in records if record.state != "over budget"}
    grid = [(search.seed + search.seeds + seed, (own + fold) % count) for seed in range(seeds) for fold in range(folds)]
    retrained = [*chosen, *_references(plan, chosen, records)]
    asked = [
        TrainingRequest(each.architecture, seed, fold, each.decisions, reference=each.reference)
        for seed, fold in grid
        for each in retrained
    ]
    return [each for each in asked if each.identity not in existing]


def _references(plan: Plan, chosen: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """Return the study's references that were trained to their end and are not among the chosen records."""
    own, known = (plan.study.search.seed, plan.study.data.fold), {each.architecture for each in chosen}
    found = [each for each in records if each.reference and each.state == "trained"]
    return [each for each in found if (each.seed, each.fold) == own and each.architecture not in known]


def confirm_study(plan: Plan, *, top: int | None, seeds: int, folds: int, view: View, executor: Executor) -> int:
    """Do the missing trainings, interrupted ones first; return the number of new trials.

    Raises UserError if nothing has run, the front is empty, or another driver runs the study.
    """
    read_records(plan.url, plan.study.name)  # raises before data is prepared if nothing has run
    own, count = plan.study.data.fold, len(plan.folds)
    require_scorable(plan.facts, plan.folds, {(own + fold) % count for fold in range(folds)})
    with driver_lock(plan):
        driver = open_driver(plan, view, executor)
        begun, chosen, asked = len(driver.store.records()), list[Record](), set[tuple[str, int, int]]()

        def ask(records: Sequence[Record]) -> Train | Done:
            if not chosen:  # chosen late: interrupted trials may still join the front
                chosen.extend(to_confirm(plan, records, top=top))
            for each in confirmation_requests(plan, chosen, records, seeds=seeds, folds=folds):
                if each.identity not in asked:  # an over-budget trial is not requested again
                    asked.add(each.identity)
                    return Train(each)
            return Done("every point of the front is confirmed")

        with closing(driver), driver.store.heartbeat:
            executor.run(driver, ask)
            return len(driver.store.records()) - begun
