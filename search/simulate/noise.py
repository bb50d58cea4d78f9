"""Tables whose trainings have noise of a known standard deviation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search.simulate.tables import Table

Matrix = NDArray[np.float64]


def with_noise(table: Table, deviation: float) -> Table:
    """Return a table in which a training ends at the network's expected Dice plus normal noise."""

    def curve(row: int, seed: int) -> Matrix:
        drawn = np.random.default_rng([seed, row]).standard_normal()
        own = table.curve(row, seed)
        return np.asarray(np.clip(own + (table.truth[row] + deviation * drawn - own[-1]), 0.0, 1.0))

    return replace(table, curve=curve)
