"""The paired difference: interval, test, effect size, and the detectable difference.

Every comparison of two networks over the same cases comes from `compare_pairs`: ablations, confirmed fronts, and the
dashboard's comparison of trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 9999
POWER = 0.8
SIMULATED = 1000  # repetitions behind a computed power
STEPS = 10  # bisections for the detectable difference
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """One network against another over `units` paired units (cases, or patients).

    `low` and `high` are the 95 % BCa bootstrap interval of the mean difference (`bootstrap_interval`), `p` is
    Wilcoxon's signed-rank test (two-sided), `rank_biserial` the matched-pairs rank-biserial correlation, `cohens_d` the
    mean over the differences' sd (None if they don't vary).
    """

    units: int
    difference: float
    low: float
    high: float
    p: float
    rank_biserial: float
    cohens_d: float | None


def compare_pairs(differences: Sequence[float]) -> Pairs:
    """Compare paired differences with zero. Raises ValueError if there are none."""
    values = np.asarray(differences, dtype=float)
    if not len(values):
        raise ValueError("no pair to compare")
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    mean = float(values.mean())
    low, high = bootstrap_interval(values)
    p, effect = signed_ranks(values)
    return Pairs(len(values), mean, low, high, p, effect, mean / sd if sd > 0 else None)


def bootstrap_interval(values: Vector) -> tuple[float, float]:
    """Return the 95 % interval of the mean by the bias-corrected and accelerated (BCa) bootstrap.

    9,999 resamples, by SciPy, from a fixed seed. BCa (Efron, JASA 1987) because differences of Dice over few cases are
    skewed and bounded: Student's t interval assumes that they are normal, the percentile bootstrap that their mean is
    unbiased. If nothing varies, both ends are the mean itself.
    """
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def signed_ranks(values: Vector) -> tuple[float, float]:
    """Return Wilcoxon's two-sided p and the rank-biserial correlation; (1, 0) if all differences are zero."""
    moved = values[values != 0]
    if not len(moved):
        return 1.0, 0.0
    from scipy.stats import wilcoxon

    above = wilcoxon(moved, alternative="greater").statistic  # the sum of the positive ranks
    return float(wilcoxon(moved).pvalue), float(4 * above / (len(moved) * (len(moved) + 1)) - 1)


def adjust(p: Mapping[str, float], *, correction: str) -> dict[str, float]:
    """Return p-values corrected for multiple tests (`holm`, `bonferroni`, `fdr_bh`), or uncorrected (`none`).

    statsmodels has the same, but collects all garbage at each call, which takes longer than the rest of a comparison.
    """
    values, count = np.array([*p.values()]), len(p)
    order, ranks = np.argsort(values), np.arange(1, count + 1)
    match correction:
        case "bonferroni":
            values = count * values
        case "holm":
            values[order] = np.maximum.accumulate((count + 1 - ranks) * values[order])
        case "fdr_bh":
            values[order] = np.minimum.accumulate((count / ranks * values[order])[::-1])[::-1]
    return dict(zip(p, np.minimum(values, 1.0).tolist(), strict=True))


def power_of(differences: Sequence[float], *, shift: float, alpha: float) -> float:
    """Return the power of Wilcoxon's test for a true mean difference of `shift`, at level alpha, by simulation.

    As many pairs are resampled from the observed differences, centred and with random signs, which is the test's null
    hypothesis. Zero if even differences of one sign could not reach alpha.
    """
    from scipy.stats import power, wilcoxon

    seen = np.asarray(differences, dtype=float)
    centred, rng = seen - seen.mean(), np.random.default_rng(0)
    apart = 1e-6 * (centred.std() or 1.0)  # no ties, so that the exact distribution applies

    def draw(size: Any = None) -> Vector:
        found: Vector = rng.choice(centred, size) * rng.choice([-1, 1], size) + apart * rng.standard_normal(size)
        return found + shift

    def test(sample: Vector, axis: int = -1) -> Vector:
        found: Vector = wilcoxon(sample, axis=axis).pvalue
        return found

    return float(power(test, draw, len(seen), significance=alpha, n_resamples=SIMULATED).power)


def detectable(differences: Sequence[float], *, alpha: float) -> float | None:
    """Return the smallest true difference that is detected with a power of 0.8; None if no difference would be."""
    sd = float(np.std(differences))
    if sd == 0:
        return None
    low, high = 0.0, 4 * sd
    if power_of(differences, shift=high, alpha=alpha) < POWER:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(differences, shift=middle, alpha=alpha) >= POWER else (middle, high)
    return high
