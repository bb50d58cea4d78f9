"""Optuna's samplers as proposers: a study in memory that mirrors the records, asked and told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search.plan import Plan
from search.records import Record
from search.store import excesses, optuna_directions
from space.architecture import Value
from space.axes import Axis, Decisions
from space.feasible import why_not

if TYPE_CHECKING:
    import optuna


class OptunaProposer:
    """Asks an Optuna sampler; what it repeats, or what can't be built, is answered at once, without a training."""

    def __init__(self, plan: Plan, *, name: str, seed: int) -> None:
        import optuna

        self.plan, self.name, self.seed = plan, name, seed
        self.study = optuna.create_study(directions=optuna_directions(plan.directions), sampler=self._sampler(0))
        self.told: set[int] = set()
        self.pending: dict[str, optuna.Trial] = {}
        self.known: dict[str, Record] = {}

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Tell what is new in the records, then ask."""
        if not self.told and records:  # a restart: go on with other draws than the first ones
            self.study.sampler = self._sampler(len(records))
        for record in records:
            if record.number not in self.told and record.state != "running":
                self._tell(record)
        trial = self.study.ask()
        decisions = self.plan.space.walk(lambda axis: _suggest(trial, axis))
        architecture = self.plan.space.architecture(decisions)
        known = self.known.get(architecture.fingerprint)
        if known:
            self._finish(trial, known)
        elif why_not(architecture, self.plan.context):
            trial.set_constraint("can't be built", 1.0)
            self.study.tell(trial, state=_states().PRUNED)
        else:
            self.pending[architecture.fingerprint] = trial
        return decisions

    def _sampler(self, offset: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(seed=self.seed + offset)

    def _tell(self, record: Record) -> None:
        import optuna

        self.told.add(record.number)
        fingerprint = record.architecture.fingerprint
        self.known[fingerprint] = record
        trial = self.pending.pop(fingerprint, None)
        if trial is None:  # recorded before this process began
            axes: Any = self.plan.space.by_name
            distributions: dict[str, Any] = {
                name: optuna.distributions.CategoricalDistribution(axes[name].choices) for name, _ in record.decisions
            }
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=dict(record.decisions),
                    distributions=distributions,
                )
            )
            added = self.study.get_trials(deepcopy=False)[-1]
            trial = optuna.Trial(self.study, added._trial_id)
        self._finish(trial, record)

    def _finish(self, trial: optuna.Trial, record: Record) -> None:
        values = [record.measurement.value(name) for name in self.plan.directions]
        for name, excess in excesses(record, self.plan.budgets).items():
            trial.set_constraint(name, excess)
        if record.state == "trained" and None not in values:
            self.study.tell(trial, [value for value in values if value is not None])
        else:
            self.study.tell(trial, state=_states().PRUNED if record.state == "over budget" else _states().FAIL)


def _suggest(trial: optuna.Trial, axis: Axis) -> Value:
    choices: Any = axis.choices
    suggested: Value = trial.suggest_categorical(axis.name, choices)
    return suggested


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState
