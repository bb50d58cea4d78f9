"""A warp of the log Dice loss under which networks far from the best do not decide the surrogate's scale.

A Gaussian process has one variance for all networks. Where some networks fail, their losses spread far more than those
of the good ones, and the noise of a good network looks small beside that variance: its lucky training is believed. The
warp compresses the log losses of the bad networks (a warped process, Snelson et al., 2004, with a fixed warp).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
REACH = 1.5  # scale of the warp, in units of the median distance from the lowest log loss
LARGEST = 50.0  # compressed values above this many scales are not expanded further: the exponential would overflow


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
            scales = np.minimum((values - self.lowest) / self.scale, LARGEST)
            values = np.asarray(self.lowest + self.scale * np.expm1(scales))
        return np.minimum(values, 0.0)


NO_WARP = Warp()


def warp_of(log_loss: Matrix) -> Warp:
    """Return the warp for these log Dice losses: half of them lie within about one scale of the lowest."""
    lowest = float(log_loss.min())
    middle = float(np.median(log_loss)) - lowest
    return Warp(lowest, REACH * middle) if middle > 0 else NO_WARP
