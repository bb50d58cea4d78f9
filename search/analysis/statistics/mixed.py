"""A linear mixed model with the unit and the training (seed and fold) as random effects.

Signed ranks over cases compare the networks that were trained; only this model tests whether another seed would give
the same result. statsmodels fits it by REML. An arm's estimate over its standard error is compared with Student's t
with (trainings - arms) degrees of freedom, because there are only a few seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from search.analysis.statistics.scores import Scored


@dataclass(frozen=True)
class Mixed:
    """An arm's difference to the baseline in the mixed model, with its standard error and two-sided p."""

    difference: float
    error: float
    p: float


def mixed_model(scored: Mapping[str, Scored], *, baseline: str) -> dict[str, Mixed]:
    """Fit all arms at once.

    Empty if each arm was trained only once, since arm and training noise can't be separated, or if no value differs.
    """
    freedom = sum(len(trainings) for trainings in scored.values()) - len(scored)
    if freedom < 1 or len(scored) < 2:
        return {}
    import pandas
    from scipy.stats import t
    from statsmodels.regression.mixed_linear_model import MixedLM
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    names = {arm: f"arm{number}" for number, arm in enumerate(sorted(scored, key=lambda arm: arm != baseline))}
    rows = [
        (value, names[arm], unit, f"{names[arm]} {seed} {fold}")
        for arm, trainings in scored.items()
        for (seed, fold), units in trainings.items()
        for unit, value in units.items()
    ]
    frame = pandas.DataFrame(rows, columns=["value", "arm", "unit", "training"])
    frame["all"] = 1
    scale = float(frame["value"].std())
    if scale == 0:
        return {}
    frame["value"] /= scale  # the optimiser expects values of order one
    effects = {"unit": "0 + C(unit)", "training": "0 + C(training)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a variance of zero, its bound, is a valid result
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        fitted = MixedLM.from_formula("value ~ C(arm)", frame, groups="all", vc_formula=effects).fit()
    found = {}
    for arm, name in names.items():
        if arm != baseline:
            difference, error = (float(part[f"C(arm)[T.{name}]"]) for part in (fitted.fe_params, fitted.bse_fe))
            p = float(2 * t.sf(abs(difference / error), freedom))
            found[arm] = Mixed(scale * difference, scale * error, p)
    return found
