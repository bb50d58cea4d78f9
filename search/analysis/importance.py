"""The importance of each axis for an objective: Optuna's PED-ANOVA over known trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import optuna

MIN_TRIALS = 10


def ped_anova(decisions: Sequence[Mapping[str, str]], values: Sequence[float], *, negate: bool) -> dict[str, float]:
    """Return the importance share of each axis that every trial decided, the largest first.

    PED-ANOVA measures importance for low values, so `negate` a maximised objective. Empty with under MIN_TRIALS trials,
    or if no axis varies.
    """
    names = [name for name in decisions[0] if all(name in each for each in decisions)] if decisions else []
    choices = {name: sorted({each[name] for each in decisions}) for name in names}
    choices = {name: seen for name, seen in choices.items() if len(seen) > 1}
    if len(values) < MIN_TRIALS or not choices or len(set(values)) < 2:
        return {}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(seen) for name, seen in choices.items()
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: each[name] for name in choices},
                distributions=distributions,
                value=-value if negate else value,
            )
            for each, value in zip(decisions, values, strict=True)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
