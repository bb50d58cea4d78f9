"""What nnU-Net's planner takes from a data set: shapes without empty margins, spacings, channels and classes."""

from __future__ import annotations

from search.data.check import DataFacts
from search.data.geometry import choose_axes
from search.data.read import Dataset
from space.nnunet.planner import Fingerprint


def fingerprint_of(dataset: Dataset, facts: DataFacts) -> Fingerprint:
    """Return the fingerprint of checked data, with axes in the order (D, H, W).

    As in nnU-Net, every listed label counts as a class.
    """
    d, h, w = choose_axes(facts.spacing_median)
    shapes = [case.cropped for case in facts.cases]
    return Fingerprint(
        shapes=tuple((shape[d], shape[h], shape[w]) for shape in shapes),
        spacings=tuple((case.spacing[d], case.spacing[h], case.spacing[w]) for case in facts.cases),
        channels=len(dataset.channels),
        classes=len(dataset.labelling.described),
    )
