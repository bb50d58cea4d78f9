"""A study's trials as compact columns, read without its data: `front`, `report` and the dashboard work from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.analysis.choose import Choice, choose
from search.analysis.confirmation import Confirmed, confirmed_front
from search.analysis.expected import Estimates, Learned, estimate
from search.analysis.references import AgainstReference, against_references, confirmed_against
from search.analysis.trial import Trial
from search.config import Study, UserError
from search.config.objectives import OBJECTIVES, per_device
from search.proposers.observations import training_of
from search.trials.pareto import knee_of, most_frequent_setting, non_dominated, volumes_so_far, worst_losses
from search.trials.records import Record
from space.architecture import Value
from space.canonical import Context

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """The state of a study at one time: the search's trials, confirmation records, and the hypervolume's reference.

    `networks` are the records of its reference networks, those of the search's own space also among its trials.

    `front`, `best`, `knee`, `pick`, `record` and `records` read full records on demand. `context` is None for a study
    of an early version, which stored no patch and channels. `planned` is the number of trials that the last run was to
    reach; `ended` is the reason why that run ended, empty while it runs and if it was interrupted. `learned`
    holds the expected Dice of another snapshot, perhaps an earlier one, as an estimate takes a second for many trials.
    """

    study: Study
    folder: Path
    url: str
    trials: tuple[Trial, ...]
    confirmations: tuple[Record, ...]
    reference: Mapping[str, float]
    context: Context | None
    labels: tuple[str, ...]
    prepared: str
    kind: str
    planned: int
    ended: str
    fetch: Callable[[Sequence[int] | None], list[Record]]
    networks: tuple[Record, ...] = ()
    learned: Learned | None = None

    @property
    def label(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives."""
        return list(self.study.directions)

    @cached_property
    def numbers(self) -> NDArray[np.int32]:
        """The trials' numbers."""
        return np.array([trial.number for trial in self.trials], dtype=np.int32)

    @cached_property
    def states(self) -> NDArray[np.str_]:
        """The trials' states."""
        return np.array([trial.state for trial in self.trials], dtype="U11")

    @cached_property
    def values(self) -> dict[str, Numbers]:
        """Each objective's values by trial, NaN if a trial has none."""
        table = np.array([trial.values for trial in self.trials], dtype=float).reshape(-1, len(OBJECTIVES))
        return {name: table[:, column] for column, name in enumerate(OBJECTIVES)}

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The settings (device, threads, precision) of the trained trials' latencies."""
        return tuple(sorted({each.device for each in self.trials if each.device and each.state == "trained"}))

    @cached_property
    def losses(self) -> Numbers:
        """Losses, a row per trial and a column per objective, all minimised; NaN if a trial can't be on a front."""
        columns = [OBJECTIVES[name].loss(self.values[name]) for name in self.study.directions]
        table = np.column_stack(columns) if columns else np.empty((len(self.trials), 0))
        other_setting = np.array([each.device != self.setting for each in self.trials], dtype=bool)
        left_out = other_setting & per_device(self.study.directions)
        table[(self.states != "trained") | left_out | np.isnan(table).any(axis=1)] = np.nan
        return table

    @cached_property
    def estimates(self) -> Estimates | None:
        """The expected Dice of the trials; None if Dice is no objective or too few networks are trained."""
        return self._estimate() if self.learned is None else self.learned.at(self.numbers)

    def _estimate(self) -> Estimates | None:
        if "dice" not in self.study.directions:
            return None
        repeats = [training_of(each) for each in self.same_fold]
        trainings = [trial.training() for trial in self.trials]
        return estimate(trainings, repeats, self.losses, dice_column=self.objectives.index("dice"))

    def learn(self) -> Learned:
        """Estimate the expected Dice. In Python 3.11 `estimates` would hold a lock that all snapshots share."""
        return Learned(self._estimate(), self.numbers, self.comparable, self.trainings)

    @cached_property
    def trainings(self) -> tuple[Trial | Record, ...]:
        """What the estimates depend on: the trials that were trained to their end or stopped, and the repeats."""
        return (*(each for each in self.trials if each.state in ("trained", "stopped")), *self.same_fold)

    @cached_property
    def not_estimated(self) -> int:
        """The number of trainings that the estimates don't include because they have ended since, or changed."""
        return self.learned.count_others(self.trainings) if self.learned else 0

    @property
    def same_fold(self) -> list[Record]:
        """The repeats and confirmations on the search's own fold."""
        return [each for each in self.confirmations if each.fold == self.study.data.fold and not each.reference]

    @cached_property
    def expected_losses(self) -> Numbers:
        """The losses with the expected Dice in place of the measured, where it is known; the front is theirs."""
        if self.estimates is None:
            return self.losses
        losses, column = self.losses.copy(), self.objectives.index("dice")
        known = self.comparable & ~np.isnan(self.estimates.dice)
        losses[known, column] = 1.0 - self.estimates.dice[known]
        losses[~known] = np.nan
        return losses

    def shown_values(self, name: str) -> Numbers:
        """Return an objective's values by trial, with the expected Dice in place of the measured where it is known."""
        values = self.values[name]
        if name != "dice" or self.estimates is None:
            return values
        return np.where(np.isnan(self.estimates.dice), values, self.estimates.dice)

    @property
    def volume_title(self) -> str:
        """The hypervolume's heading, which says whether its Dice is expected or measured."""
        return "hypervolume" if self.estimates is None else "hypervolume of expected Dice"

    @cached_property
    def repeats(self) -> tuple[Record, ...]:
        """The records of repeats that the search itself proposed."""
        return tuple(record for record in self.confirmations if record.repeat)

    @cached_property
    def setting(self) -> str:
        """The device, threads and precision of most trained trials' latencies; the others are not compared."""
        return most_frequent_setting([each.device for each in self.trials if each.state == "trained"])

    @property
    def left_out(self) -> str:
        """A note on the trained trials that are not compared; empty if all are."""
        if not self.is_mixed:
            return ""
        count = sum(each.state == "trained" and each.device not in ("", self.setting) for each in self.trials)
        others = "; ".join(device for device in self.devices if device != self.setting)
        trials = "1 trained trial is" if count == 1 else f"{count} trained trials are"
        return f"{trials} left out: latency was measured on {others}, not on {self.setting} as for the others"

    @cached_property
    def comparable(self) -> NDArray[np.bool_]:
        """A mask of the fully trained trials with a value for every objective."""
        return np.asarray(~np.isnan(self.losses).any(axis=1))

    @property
    def is_mixed(self) -> bool:
        """Whether latencies were measured on several devices; the front then compares those of only one."""
        return per_device(self.study.directions) and len(self.devices) > 1

    @cached_property
    def on_front(self) -> NDArray[np.bool_]:
        """A mask of the trials on the front of expected Dice."""
        found = np.zeros(len(self.trials), dtype=bool)
        found[self.front_rows] = True
        return found

    @cached_property
    def front_rows(self) -> NDArray[np.int64]:
        """The rows of the front, the best in the first objective first."""
        rows = np.flatnonzero(~np.isnan(self.expected_losses).any(axis=1))
        if not len(rows):
            return rows
        rows = rows[non_dominated(self.expected_losses[rows])]
        return np.asarray(rows[np.lexsort(self.expected_losses[rows].T[::-1])])

    @cached_property
    def _front(self) -> tuple[Record, ...]:
        numbers = self.numbers[self.front_rows].tolist()
        return tuple(sorted(self.fetch(numbers), key=lambda record: numbers.index(record.number)))

    def front(self) -> list[Record]:
        """Return the records of the front, the best in the first objective first."""
        return list(self._front)

    @property
    def knee_row(self) -> int | None:
        """The row of the front's knee; None if the front is empty."""
        rows = self.front_rows
        return int(rows[knee_of(self.expected_losses[rows])]) if len(rows) else None

    def best(self) -> Record:
        """Return the front's record with the best primary objective. Raises UserError if the front is empty."""
        return self.pick("best").record

    def knee(self) -> Record:
        """Return the front's record nearest to its ideal corner. Raises UserError if the front is empty."""
        return self.pick("knee").record

    def pick(self, rule: str) -> Choice:
        """Return the record that a rule of `voxnas export --pick` selects, with the reason. Raises UserError."""
        records = self.records() if rule.isdecimal() else self.front()
        return choose(rule, records, self.study.directions, expected=self.expected)

    def estimate_of(self, number: int) -> dict[str, float]:
        """Return a trial's expected Dice, its interval and the probability of being on the front; empty if unknown."""
        found, row = self.estimates, self.row_of(number)
        if found is None or row is None or np.isnan(found.dice[row]):
            return {}
        columns = {
            "expected_dice": found.dice, "dice_low": found.low, "dice_high": found.high,
            "front_probability": found.probability,
        }  # fmt: skip
        return {name: float(values[row]) for name, values in columns.items()}

    @property
    def expected(self) -> dict[int, float]:
        """The expected Dice by trial number; empty where it is unknown."""
        if self.estimates is None:
            return {}
        known = zip(self.numbers.tolist(), self.estimates.dice.tolist(), strict=True)
        return {number: dice for number, dice in known if not np.isnan(dice)}

    def records(self) -> list[Record]:
        """Read the full records of the search's trials."""
        numbers = set(self.numbers.tolist())
        return [record for record in self.fetch(None) if record.number in numbers]

    @cached_property
    def axes(self) -> dict[str, tuple[Value, ...]]:
        """The axes that differ between trials, with the values that occur."""
        seen: dict[str, set[Value]] = {}
        for name, value in dict.fromkeys(chain.from_iterable(trial.decisions.items() for trial in self.trials)):
            seen.setdefault(name, set()).add(value)
        return {name: tuple(sorted(values, key=_order)) for name, values in seen.items() if len(values) > 1}

    def choices(self, axis: str) -> list[str]:
        """Return each trial's choice on an axis as text; `not present` if the axis is inactive."""
        return [str(each.decisions.get(axis, "not present")) for each in self.trials]

    @cached_property
    def progress(self) -> tuple[NDArray[np.int64], Numbers, Numbers]:
        """Rows in the order of the trials' ends, the hours of trials until then, and the hypervolume reached."""
        order = np.array(sorted(range(len(self.trials)), key=lambda row: self._end(row)), dtype=int)
        ended = order[[self.trials[row].state != "running" for row in order]] if len(order) else order
        hours = np.cumsum([self.trials[row].spent_s for row in ended]) / 3600
        return ended, hours, self.volumes(ended, self.reference)

    def volumes(self, rows: NDArray[np.int64], reference: Mapping[str, float]) -> Numbers:
        """Return the hypervolume after each of these trials, by expected Dice; 0 without a reference.

        A trial counts with what all trainings of the study say about it, also those after it.
        """
        if not reference:
            return np.zeros(len(rows))
        known = self.learned.knows(self.numbers) if self.learned else np.ones(len(self.trials), dtype=bool)
        measured = np.where(known[:, None], self.losses, np.nan)  # of those far behind the front
        losses = np.where(np.isnan(self.expected_losses), measured, self.expected_losses)[rows]
        points = np.where(np.isnan(losses), np.inf, losses)
        return np.array(volumes_so_far(points, worst_losses(reference, self.study.directions)))

    def only(self, kept: NDArray[np.bool_]) -> Snapshot:
        """Return a snapshot with only some of the trials; their expected Dice is what all trainings say about them."""
        chosen = tuple(trial for trial, keep in zip(self.trials, kept, strict=True) if keep)
        learned = self.learned or Learned(self.estimates, self.numbers, self.comparable, self.trainings)
        return replace(self, trials=chosen, learned=learned)

    def _end(self, row: int) -> tuple[float, int]:
        return (self.trials[row].ended or np.inf, self.trials[row].number)

    @property
    def hypervolume(self) -> float | None:
        """The share of the box between ideal point and reference that the front dominates; None without a reference."""
        if not self.reference:
            return None
        volumes = self.progress[2]
        return float(volumes[-1]) if len(volumes) else 0.0

    @cached_property
    def against(self) -> list[AgainstReference]:
        """The front's networks against each reference network, paired over validation cases."""
        return against_references(self.front(), self.networks) if self.networks else []

    @cached_property
    def confirmed(self) -> list[Confirmed]:
        """The front after confirmation; empty if nothing was confirmed."""
        if not self.confirmations:
            return []
        return confirmed_front(self.front(), self.confirmations, self.study.directions)

    @cached_property
    def confirmed_against(self) -> list[AgainstReference]:
        """The confirmed front against each reference network that was confirmed, too."""
        return confirmed_against(self.confirmed, self.confirmations)

    def require_confirmed(self) -> list[Confirmed]:
        """Return the front after confirmation. Raises UserError if nothing was confirmed."""
        if not self.confirmed:
            raise UserError([f"no trial of {self.label} is confirmed yet; run `voxnas confirm`"])
        return self.confirmed

    def record(self, number: int) -> Record | None:
        """Read a trial's full record; None if there is no such trial."""
        found = self.fetch([number])
        return found[0] if found else None

    def row_of(self, number: int) -> int | None:
        """Return the row of a trial; None if the search has no such trial."""
        rows = np.flatnonzero(self.numbers == number)
        return int(rows[0]) if len(rows) else None


def _order(value: Value) -> tuple[bool, Any]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (not is_number, value if is_number else str(value))
