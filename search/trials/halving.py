"""Pareto halving: asynchronous successive halving that ranks by dominance over Dice so far and exact costs.

A trial that reaches a rung continues if it is among the best 1/reduction of all that have reached it: by
non-dominated rank (NSGA-II's), ties by what it adds to the hypervolume of its own rank. The rule sees a rung's
losses alone, so that every executor calls the same one. Brackets (Li et al., ASHA, 2020) start later and stop less:
bracket b has its first rung where bracket 0 has its (b + 1)th.
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
    """Return the epochs after which a trial may be stopped; none at the last epoch."""
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
    """Return why a trial stops at its last epoch so far, None if it continues.

    `records` are those of the study, whatever their state; Dice is known every `every` epochs, so that a rung lies
    at the first such epoch from it on. Objectives other than Dice are exact costs.
    """
    epoch = record.measurement.epochs[-1]
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
    place = best_rows(losses).tolist().index(len(rung)) + 1
    compared = [OBJECTIVES[name] for name in directions]
    named = ", ".join(f"{each.heading} so far" if each.learned else each.heading for each in compared)
    promoted = max(1, int(len(losses) / halving.reduction))
    return (
        f"stopped after epoch {epoch.number}: place {place} of {len(losses)} by {named}; the best {promoted} continue"
    )


def _losses(record: Record, epoch: int, directions: Mapping[str, str]) -> list[float] | None:
    """Return a record's losses after an epoch, Dice always among them; None if one of them is unknown there."""
    dice = next((each.dice for each in record.measurement.epochs if each.number == epoch), None)
    values = {"dice": dice, **{name: record.measurement.value(name) for name in costs_among(directions)}}
    found = [OBJECTIVES[name].loss(value) for name, value in values.items() if value is not None]
    return found if len(found) == len(values) else None


def is_promoted(rung: Matrix, *, which: int, reduction: float) -> bool:
    """Tell whether row `which` of a rung's losses (n, objectives) is among the best 1/reduction of its rows.

    At least one row is promoted, so the first to reach a rung always is.
    """
    promoted = max(1, int(len(rung) / reduction))
    return which in best_rows(rung)[:promoted].tolist()


def best_rows(losses: Matrix) -> NDArray[np.int64]:
    """Return the rows from best to worst: by non-dominated rank, within one by contribution to its hypervolume."""
    ranks = moocore.pareto_rank(losses)
    order: list[int] = []
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        added = _contributions(losses[members])
        order.extend(members[np.argsort(-added, kind="stable")].tolist())
    return np.array(order, dtype=np.int64)


def _contributions(losses: Matrix) -> Matrix:
    """What each point adds to the hypervolume, losses scaled to their own range, the reference a tenth beyond it."""
    span = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    return np.asarray(moocore.hv_contributions(scaled, ref=np.full(losses.shape[1], 1.1)))
