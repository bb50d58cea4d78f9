"""Optuna's samplers as proposers, on an in-memory study that mirrors the records.

TPE supports conditional axes. NSGA-II, NSGA-III and the Gaussian process would sample them at random, so they get a
flat space in which every axis is always present and an inactive axis has its first choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.proposers.problem import Problem
from search.storage import excesses, optuna_directions
from search.trials.records import Record
from space.architecture import Architecture, Value
from space.axes import Axis
from space.canonical import Decisions

if TYPE_CHECKING:
    import optuna

NAMES = ("tpe", "nsga2", "nsga3", "gp")
FLAT = ("nsga2", "nsga3", "gp")
POPULATION = 20


class OptunaProposer:
    """Asks an Optuna sampler; known networks, and those that can't be built, are answered without a training."""

    def __init__(self, problem: Problem, *, name: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.problem, self.name = problem, name
        self.tries = 1 if name == "gp" else 30  # the Gaussian process takes a second per ask and repeats its answer
        self.study = optuna.create_study(directions=optuna_directions(problem.directions), sampler=self._sampler(0))
        self.axes = [axis for axis in problem.space.axes if len(axis.choices) > 1]
        self.reported: set[int] = set()
        self.pending: dict[Architecture, list[optuna.Trial]] = {}
        self.known: dict[Architecture, Record] = {}

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Add new records to the study, then ask it."""
        if not self.reported and records:  # a resumed study must not repeat the first draws
            self.study.sampler = self._sampler(len(records))
        for record in records:
            if record.number not in self.reported and record.state != "running":
                self._tell(record)
        trial = self.study.ask()
        decisions = self._flat(trial) if self.name in FLAT else self._conditional(trial)
        architecture = self.problem.architecture(decisions)
        known = self.known.get(architecture)
        if known:
            self._finish(trial, known)
        elif self.problem.infeasible(decisions, architecture):
            trial.set_constraint("can't be built", 1.0)
            self.study.tell(trial, state=_states().PRUNED)
        else:
            self.pending.setdefault(architecture, []).append(trial)
        return decisions

    def _sampler(self, offset: int) -> optuna.samplers.BaseSampler:
        import warnings

        import optuna

        seed, samplers = self.problem.seed + offset, optuna.samplers
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

    def _flat(self, trial: optuna.Trial) -> Decisions:
        """Sample every axis, then set inactive ones to their first choice, so equal networks have equal parameters."""
        drawn = {axis.name: _suggest(trial, axis) for axis in self.axes}
        decisions = self.problem.space.walk(lambda axis: drawn.get(axis.name, axis.choices[0]))
        for axis in self.axes:
            if axis.name not in decisions and drawn[axis.name] != axis.choices[0]:
                self.study._storage.set_trial_param(trial._trial_id, axis.name, 0.0, _distribution(axis))
        return decisions

    def _params(self, decisions: Mapping[str, Value]) -> dict[str, Value]:
        """Return a record's decisions as this sampler's parameters."""
        flat = self.name in FLAT
        return {
            axis.name: decisions.get(axis.name, axis.choices[0]) for axis in self.axes if flat or axis.name in decisions
        }

    def _tell(self, record: Record) -> None:
        import optuna

        self.reported.add(record.number)
        self.known[record.architecture] = record
        trials = self.pending.pop(record.architecture, [])
        if not trials:  # recorded before this process started
            params = self._params(dict(record.decisions))
            by_name = self.problem.space.by_name
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=dict(params),
                    distributions={name: _distribution(by_name[name]) for name in params},
                )
            )
            added = self.study.get_trials(deepcopy=False)[-1]
            trials = [optuna.Trial(self.study, added._trial_id)]
        for trial in trials:
            self._finish(trial, record)

    def _finish(self, trial: optuna.Trial, record: Record) -> None:
        values = [record.measurement.value(name) for name in self.problem.directions]
        for name, excess in excesses(record, self.problem.budgets).items():
            trial.set_constraint(name, excess)
        if record.state == "trained" and None not in values:
            self.study.tell(trial, [value for value in values if value is not None])
        else:
            pruned = record.state in ("over budget", "stopped")
            self.study.tell(trial, state=_states().PRUNED if pruned else _states().FAIL)


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
