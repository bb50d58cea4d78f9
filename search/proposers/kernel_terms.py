"""The additive kernel (Duvenaud et al., 2011) over coded decisions and log costs, as arrays.

Its terms are single axes, pairs of axes and all axes at once, which share one relevance per axis, and a linear and a
smooth trend in the log costs. This module works without scikit-learn, which takes as long to import as torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
TERMS = ("main", "pairs", "whole", "trend", "smooth")
PRIOR = {  # mean and standard deviation of the logarithms, for observations of variance 1
    "relevance": (0.0, 0.7),
    "main": (np.log(0.5), 1.0),
    "pairs": (np.log(0.15), 1.0),
    "whole": (np.log(0.4), 1.0),
    "trend": (np.log(0.3), 1.0),
    "smooth": (np.log(0.1), 1.0),
    "decay": (np.log(0.15), 0.5),
    "noise": (np.log(0.02), 1.5),  # where no deviation is known beforehand
}
SMOOTH = 1.5  # length scale of the smooth trend, in standard deviations of the log costs


@dataclass(frozen=True)
class KernelTerms:
    """The kernel between two sets of rows: the mean similarity of the axes, a matrix per term of TERMS, their sum."""

    mean: Matrix
    terms: tuple[Matrix, ...]
    total: Matrix


def kernel_terms(
    ones: Matrix, others: Matrix, *, scales: Matrix, spans: tuple[int, ...], hints: int = 0
) -> KernelTerms:
    """Return the kernel between rows of `features`; `spans` are the numbers of columns of each axis."""
    axes, costs, hinted = len(spans), sum(spans), ones.shape[1] - 1 - hints
    relevance, (main, pairs, whole, trend, smooth, decay) = scales[:axes], scales[axes:]
    mean = (ones[:, :costs] * np.repeat(relevance, spans)) @ others[:, :costs].T / max(axes, 1)
    far = np.exp(-decay * (relevance.sum() - axes * mean))
    product, near = _cost_terms(ones[:, costs:hinted], others[:, costs:hinted])
    terms = (main * mean, pairs * mean**2, whole * far, trend * product, smooth * near)
    return KernelTerms(mean, terms, sum(terms) + ones[:, hinted:-1] @ others[:, hinted:-1].T)


def kernel_slopes(
    inputs: Matrix, found: KernelTerms, weights: Matrix, *, scales: Matrix, spans: tuple[int, ...]
) -> Matrix:
    """Return the derivatives of the sum of `weights` times `found`, the kernel of `inputs`, by the log scales.

    The axes' similarities are products of their columns, so one matrix product serves all axes: the kernel's own
    derivatives, a matrix for each scale, are never formed. `weights` is symmetric.
    """
    axes, columns = len(spans), inputs[:, : sum(spans)]
    relevance, (main, pairs, *_, decay) = scales[:axes], scales[axes:]
    far = weights * found.terms[TERMS.index("whole")]
    by_similarity = weights * ((main + 2 * pairs * found.mean) / max(axes, 1)) + decay * far
    by_column = np.append(((by_similarity @ columns) * columns).sum(axis=0), 0.0)  # reduceat needs one more
    by_axis = np.add.reduceat(by_column, np.cumsum((0, *spans)))[:-1]
    by_term = [(weights * term).sum() for term in found.terms]
    by_decay = -decay * (far * (relevance.sum() - axes * found.mean)).sum()
    return np.concatenate([relevance * (by_axis - decay * far.sum()), by_term, [by_decay]])


def _cost_terms(ones: Matrix, others: Matrix) -> tuple[Matrix, Matrix]:
    count = max(ones.shape[1], 1)
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * ones @ others.T
    return ones @ others.T / count, np.exp(-0.5 * np.maximum(squares, 0.0) / count / SMOOTH**2)


def features(
    similarities: Sequence[Matrix],
    codes: Codes,
    costs: Matrix,
    *,
    noise: Matrix | None = None,
    hints: Matrix | None = None,
) -> Matrix:
    """Return rows for the kernel: each axis's columns, whose products are its similarities, then costs and hints.

    The last column holds the weights of each observation's noise; without `noise` they are 0, for predictions.
    """
    axes = [_root(similarity)[codes[:, axis]] for axis, similarity in enumerate(similarities)]
    weights = np.zeros(len(codes)) if noise is None else noise
    hinted = np.empty((len(codes), 0)) if hints is None else hints
    return np.concatenate([*axes, costs, hinted, weights[:, None]], axis=1)


def _root(similarity: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(similarity)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def initial_scales(axes: int) -> Matrix:
    """Return the prior means of the log scales: relevance of each axis, terms, decay, noise."""
    return np.array([PRIOR[name][0] for name in scale_names(axes)])


def scale_names(axes: int) -> list[str]:
    """Return the name in PRIOR of each scale."""
    return ["relevance"] * axes + [*TERMS, "decay", "noise"]
