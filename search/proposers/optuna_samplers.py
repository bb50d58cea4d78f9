"""Optuna's samplers as proposers, on an in-memory study that mirrors the records.

TPE supports conditional axes. NSGA-II, NSGA-III and the Gaussian process would sample them at random, so they get a
flat space in which every axis is always present and an inactive axis has its first choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.proposers.problem import Problem, Proposal
from search.proposers.threads import single_threaded
from search.storage import excesses, optuna_directions
from search.trials.records import Record
from space.architecture import Value
from space.axes import Axis
from space.canonical import Decisions

if TYPE_CHECKING:
    import optuna

NAMES = ("tpe", "nsga2", "nsga3", "gp")
FLAT = ("nsga2", "nsga3", "gp")
POPULATION = 20


class OptunaProposer:
    """Asks an Optuna sampler; repeated networks, and those that can't be built, are answered without a training.

    Every ask starts from a new sampler, seeded by the study's seed and the number of records, and a new study of the
    records alone. So an ask depends on nothing that a killed process would lose: repeats that an earlier ask answered
    are forgotten, and the Gaussian process fits its scales from Optuna's own start.
    """

    def __init__(self, problem: Problem, *, name: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.problem, self.name = problem, name
        self.tries = 1 if name == "gp" else 30  # the Gaussian process takes a second per ask and repeats its answer
        self.axes = [axis for axis in problem.space.axes if len(axis.choices) > 1]
        self.finished: dict[int, optuna.trial.FrozenTrial] = {}

    def proposals(self, records: Sequence[Record]) -> Iterator[Proposal]:
        """Yield what the sampler suggests; a suggestion that is asked for again was known or can't be built."""
        study = self.study_of(records)
        known = {record.architecture: record for record in records}
        while True:
            trial, decisions = self._asked(study)
            yield Proposal(decisions)
            architecture = self.problem.architecture(decisions)
            record = known.get(architecture)
            if record is not None and record.state != "running":
                self._answer(study, trial, record)
            elif self.problem.infeasible(decisions, architecture):
                trial.set_constraint("can't be built", 1.0)
                study.tell(trial, state=_states().PRUNED)

    @single_threaded
    def _asked(self, study: optuna.Study) -> tuple[optuna.Trial, Decisions]:
        trial = study.ask()
        return trial, self._flat(study, trial) if self.name in FLAT else self._conditional(trial)

    def study_of(self, records: Sequence[Record]) -> optuna.Study:
        """Return an in-memory study with one trial for each record."""
        import optuna

        sampler = self._sampler(len(records))
        study = optuna.create_study(directions=optuna_directions(self.problem.directions), sampler=sampler)
        generation, size = 0, 0  # as Optuna counts them: the next one starts when a population is complete
        for record in sorted(records, key=lambda each: each.number):
            if size >= POPULATION:
                generation, size = generation + 1, 0
            trial = self.finished.get(record.number)
            if trial is None:
                trial = self._frozen(record, {f"{type(sampler).__name__}:generation": generation})
            if record.state != "running":
                self.finished[record.number] = trial
            size += trial.state == _states().COMPLETE
            study.add_trial(trial)
        return study

    def _frozen(self, record: Record, attributes: dict[str, Any]) -> optuna.trial.FrozenTrial:
        import optuna

        params, by_name = self._params(dict(record.decisions)), self.problem.space.by_name
        state, values = self._outcome(record)
        return optuna.trial.create_trial(
            state=state,
            values=values,
            params=dict(params),
            distributions={name: _distribution(by_name[name]) for name in params},
            system_attrs=attributes,
            constraints=excesses(record, self.problem.budgets),
        )

    def _sampler(self, count: int) -> optuna.samplers.BaseSampler:
        import warnings

        import optuna

        seed, samplers = int(np.random.SeedSequence([self.problem.seed, count]).generate_state(1)[0]), optuna.samplers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self.name == "tpe":
                return samplers.TPESampler(seed=seed)
            if self.name == "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
            if self.name == "nsga3":
                return samplers.NSGAIIISampler(seed=seed, population_size=POPULATION)
            return samplers.GPSampler(seed=seed)

    def _conditional(self, trial: optuna.Trial) -> Decisions:
        return self.problem.space.walk(lambda axis: _suggest(trial, axis) if len(axis.choices) > 1 else axis.choices[0])

    def _flat(self, study: optuna.Study, trial: optuna.Trial) -> Decisions:
        """Sample every axis, then set inactive ones to their first choice, so equal networks have equal parameters."""
        drawn = {axis.name: _suggest(trial, axis) for axis in self.axes}
        decisions = self.problem.space.walk(lambda axis: drawn.get(axis.name, axis.choices[0]))
        for axis in self.axes:
            if axis.name not in decisions and drawn[axis.name] != axis.choices[0]:
                study._storage.set_trial_param(trial._trial_id, axis.name, 0.0, _distribution(axis))
        return decisions

    def _params(self, decisions: Mapping[str, Value]) -> dict[str, Value]:
        """Return a record's decisions as this sampler's parameters."""
        flat = self.name in FLAT
        return {
            axis.name: decisions.get(axis.name, axis.choices[0]) for axis in self.axes if flat or axis.name in decisions
        }

    def _answer(self, study: optuna.Study, trial: optuna.Trial, record: Record) -> None:
        """Finish a trial as a record with the same network ended."""
        for name, excess in excesses(record, self.problem.budgets).items():
            trial.set_constraint(name, excess)
        state, values = self._outcome(record)
        study.tell(trial, values, state=state)

    def _outcome(self, record: Record) -> tuple[optuna.trial.TrialState, list[float] | None]:
        """Return a record's state in Optuna, and its objectives if it has all of them."""
        values = [record.measurement.value(name) for name in self.problem.directions]
        known = [value for value in values if value is not None]
        if record.state == "trained" and len(known) == len(values):
            return _states().COMPLETE, known
        if record.state == "running":
            return _states().RUNNING, None
        return _states().PRUNED if record.state in ("over budget", "stopped") else _states().FAIL, None


def _distribution(axis: Axis) -> Any:
    import optuna

    choices: Any = axis.choices
    return optuna.distributions.CategoricalDistribution(choices)


def _suggest(trial: optuna.Trial, axis: Axis) -> Value:
    choices: Any = axis.choices
    suggested: Value = trial.suggest_categorical(axis.name, choices)
    return suggested


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState
