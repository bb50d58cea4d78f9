"""A warp of the log Dice loss, so that networks that fail don't determine the surrogate's scale.

A Gaussian process has one variance for all networks. Where some networks fail, their losses spread far more than those
of the good ones. Differences between good networks, and the noise of their trainings, then look small beside that
variance: effects are missed, and a lucky training is believed. The warp compresses the log losses of the bad networks,
as little as makes the observed ones hardly skewed (a warped process, Snelson et al., 2004, with a warp of one scale).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
MOST_SKEWED = 0.7  # skewness of the log losses above which they are compressed
FEWEST = 8  # observations whose skewness says something
SMALLEST, LARGEST, HALVINGS = 1e-3, 1e3, 24  # scales tried, in units of the range of log losses
FARTHEST = 50.0  # compressed values above this many scales are not expanded further: the exponential would overflow


@dataclass(frozen=True)
class Warp:
    """Linear near the `lowest` log loss, logarithmic beyond `scale`; an infinite scale changes nothing."""

    lowest: float = 0.0
    scale: float = np.inf

    def compress(self, log_loss: Matrix) -> Matrix:
        """Return the values of the surrogate for log Dice losses."""
        if np.isinf(self.scale):
            return log_loss
        return np.asarray(self.lowest + self.scale * np.log1p((log_loss - self.lowest) / self.scale))

    def slope(self, log_loss: Matrix) -> Matrix:
        """Return the derivative of the compressed values with respect to the log loss."""
        if np.isinf(self.scale):
            return np.ones_like(log_loss)
        return np.asarray(1.0 / (1.0 + (log_loss - self.lowest) / self.scale))

    def expand(self, values: Matrix) -> Matrix:
        """Return the log Dice losses of compressed values; no Dice loss is above 1."""
        if not np.isinf(self.scale):
            scales = np.minimum((values - self.lowest) / self.scale, FARTHEST)
            values = np.asarray(self.lowest + self.scale * np.expm1(scales))
        return np.minimum(values, 0.0)


NO_WARP = Warp()


def warp_of(log_loss: Matrix) -> Warp:
    """Return the weakest warp under which the values have at most the skewness MOST_SKEWED."""
    lowest = float(log_loss.min())
    reach = float(np.ptp(log_loss))
    if len(log_loss) < FEWEST or reach == 0.0 or skewness(log_loss) <= MOST_SKEWED:
        return NO_WARP
    low, high = np.log(reach * SMALLEST), np.log(reach * LARGEST)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        too_weak = skewness(Warp(lowest, float(np.exp(middle))).compress(log_loss)) > MOST_SKEWED
        low, high = (low, middle) if too_weak else (middle, high)
    return Warp(lowest, float(np.exp(low)))


def skewness(values: Matrix) -> float:
    """Return the third standardised moment of values that are not all equal."""
    away = values - values.mean()
    return float((away**3).mean() / (away**2).mean() ** 1.5)
