"""Pareto halving: asynchronous successive halving (ASHA) over several objectives.

A trial that reaches a rung continues if it is among the best 1/reduction of all trials that have reached it. Trials are
ranked by non-dominated sorting (as in NSGA-II) of the Dice so far and the exact costs, and within a rank by
contribution to its hypervolume. The rule depends only on the losses at a rung, so every executor applies the same one.
With brackets (Li et al., ASHA, 2020), the first rung of bracket b is rung b + 1 of bracket 0, so fewer trials stop.

A trial over several folds or seeds is judged by its first training alone. All trials have that one on the same fold and
seed, so a rung compares equals, and the other trainings are spent only on trials that pass every rung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from search.config.objectives import OBJECTIVES, costs_among
from search.config.schema import Halving
from search.trials.records import Record

Matrix = NDArray[np.float64]


def rungs(*, epochs: int, least: int, reduction: float, bracket: int) -> tuple[int, ...]:
    """Return the epochs after which a trial may be stopped, all before the last epoch."""
    found, epoch = [], float(least) * reduction**bracket
    while round(epoch) < epochs:
        found.append(round(epoch))
        epoch *= reduction
    return tuple(dict.fromkeys(found))


def stop_reason(
    records: Sequence[Record],
    record: Record,
    *,
    halving: Halving,
    epochs: int,
    every: int,
    directions: Mapping[str, str],
) -> str | None:
    """Return why a trial stops at its last epoch so far; None if it continues.

    `records` are the study's, in any state. Dice is known only every `every` epochs, so each rung is moved to the next
    epoch with a validation. All objectives except Dice are exact costs.
    """
    epoch = record.measurement.epochs[-1]
    if epoch.member:
        return None
    own = rungs(
        epochs=epochs, least=halving.min_epochs, reduction=halving.reduction, bracket=record.number % halving.brackets
    )
    if epoch.dice is None or epoch.number not in {-(-rung // every) * every for rung in own}:
        return None
    rows = [_losses(each, epoch.number, directions) for each in records if each.number != record.number]
    rung = [row for row in rows if row is not None]
    mine = _losses(record, epoch.number, directions)
    if mine is None:
        return None
    losses = np.array([*rung, mine])
    if is_promoted(losses, which=len(rung), reduction=halving.reduction):
        return None
    rank = ranked_rows(losses).tolist().index(len(rung)) + 1
    compared = [OBJECTIVES[name] for name in directions]
    named = ", ".join(f"{each.heading} so far" if each.learned else each.heading for each in compared)
    promoted = max(1, int(len(losses) / halving.reduction))
    best = "only the best continues" if promoted == 1 else f"the best {promoted} continue"
    return f"stopped after epoch {epoch.number}: ranked {rank} of {len(losses)} by {named}; {best}"


def _losses(record: Record, epoch: int, directions: Mapping[str, str]) -> list[float] | None:
    """Return a record's losses after an epoch, the Dice loss first; None if any of them is unknown."""
    dice = next((each.dice for each in record.measurement.first_epochs if each.number == epoch), None)
    values = {"dice": dice, **{name: record.measurement.value(name) for name in costs_among(directions)}}
    found = [OBJECTIVES[name].loss(value) for name, value in values.items() if value is not None]
    return found if len(found) == len(values) else None


def is_promoted(rung: Matrix, *, which: int, reduction: float) -> bool:
    """Return whether row `which` of a rung's losses (n, objectives) is among the best 1/reduction of its rows.

    At least one row is promoted, so the first trial to reach a rung always continues.
    """
    promoted = max(1, int(len(rung) / reduction))
    return which in ranked_rows(rung)[:promoted].tolist()


def ranked_rows(losses: Matrix) -> NDArray[np.int64]:
    """Return the row numbers, best first: by non-dominated rank, then by contribution to the rank's hypervolume."""
    ranks = moocore.pareto_rank(losses)
    order: list[int] = []
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        added = _contributions(losses[members])
        order.extend(members[np.argsort(-added, kind="stable")].tolist())
    return np.array(order, dtype=np.int64)


def _contributions(losses: Matrix) -> Matrix:
    """Return each point's hypervolume contribution, with losses scaled to [0, 1] and the reference at 1.1.

    With a single objective the points of a rank are equal, and none contributes alone.
    """
    if losses.shape[1] == 1:
        return np.zeros(len(losses))
    span = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    return np.asarray(moocore.hv_contributions(scaled, ref=np.full(losses.shape[1], 1.1)))
