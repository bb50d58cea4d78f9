"""Decide by validation cases whether an export keeps only the largest component of the foreground or of a class.

Follows nnU-Net (Isensee et al., Nature Methods, 2021): first of all foreground as one, then of each class or region.
A step is taken only if it raises the mean Dice and lowers that of no class. The masks are those of the exported weights
on their validation cases; of an ensemble or a trial over several folds, each network's on its own fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search.config.units import counted
from search.costs.device_lock import sharing
from search.data.checked_files import write_array
from search.data.components import keep_largest
from search.data.labelling import Labelling
from search.data.prepared import Prepared, open_truth
from search.export.trained import Trained, load_validated
from search.files import scratch_folder
from search.training.step import to_memory_format
from search.training.validation import mean_dice, score_mask, segment
from search.trials.job import Job
from search.trials.records import CaseDice, Record
from space.canonical import Context

Group = tuple[int, ...]


@dataclass(frozen=True)
class Postprocessing:
    """The groups of class indices of which only the largest component is kept, in their order, and their names.

    `before` and `after` are the scores of the validation cases without and with it; both empty if there were none.
    """

    groups: tuple[Group, ...] = ()
    names: tuple[str, ...] = ()
    before: tuple[CaseDice, ...] = ()
    after: tuple[CaseDice, ...] = ()

    def __str__(self) -> str:
        cases = counted(len(self.before), "validation case")
        if not self.before:
            return "Postprocessing: none, as there were no validation cases to decide it by"
        if not self.groups:
            return f"Postprocessing: none; keeping the largest component did not help on {cases}"
        change = f"Dice {mean_dice(self.before):.4f} without and {mean_dice(self.after):.4f} with it"
        return f"Postprocessing: only the largest component of {', then of '.join(self.names)}; on {cases} {change}"


def decide_postprocessing(
    record: Record, trained: Trained, prepared: Prepared, *, context: Context, job: Job
) -> Postprocessing:
    """Segment the validation cases of the weights, and take the steps that help; `job` names device and training."""
    with scratch_folder() as scratch:
        masks = _Masks(scratch, prepared)
        for case, mask in _segmented(record, trained, prepared, context=context, job=job):
            masks.write(case, mask)
        return _decide(masks, prepared.labelling) if masks.cases else Postprocessing()


def candidate_steps(labelling: Labelling) -> list[tuple[str, Group]]:
    """Return the steps that are tried, in their order: all foreground, then each class or region."""
    classes = list(zip(labelling.names[1:], labelling.members, strict=True))
    foreground = tuple(range(1, len(labelling.values)))
    return [("all foreground", foreground), *(each for each in classes if each[1] != foreground)]


def helps(before: Sequence[CaseDice], after: Sequence[CaseDice]) -> bool:
    """Return whether the mean Dice rises and no class's mean Dice falls."""
    pairs = zip(_class_means(before), _class_means(after), strict=True)
    return mean_dice(after) > mean_dice(before) and all(new >= old for old, new in pairs)


def _class_means(cases: Sequence[CaseDice]) -> list[float]:
    """Return each class's mean over the cases that have a score, 0 without any."""
    columns = [
        [value for value in column if value is not None] for column in zip(*(c.dice for c in cases), strict=True)
    ]
    return [float(np.mean(known)) if known else 0.0 for known in columns]


def _decide(masks: _Masks, labelling: Labelling) -> Postprocessing:
    groups: list[Group] = []
    names: list[str] = []
    first = before = masks.scores(())
    for name, group in candidate_steps(labelling):
        after = masks.scores((*groups, group))
        if helps(before, after):
            groups.append(group)
            names.append(name)
            before = after
    return Postprocessing(tuple(groups), tuple(names), first, before)


@dataclass
class _Masks:
    """Masks of the validation cases, on disk: those of a large data set don't fit into memory."""

    folder: Path
    prepared: Prepared

    def __post_init__(self) -> None:
        self.cases: list[str] = []

    def write(self, case: str, mask: NDArray[Any]) -> None:
        """Keep a case's mask; a case that two networks validate is scored twice."""
        write_array(self.folder / f"{len(self.cases)}.npy", mask)
        self.cases.append(case)

    def scores(self, groups: Sequence[Group]) -> tuple[CaseDice, ...]:
        """Score all masks, with only the largest component of each group."""
        found = []
        for number, case in enumerate(self.cases):
            mask = keep_largest(np.load(self.folder / f"{number}.npy"), groups)
            found.append(score_mask(mask, open_truth(self.prepared, case)[0], self.prepared, case))
        return tuple(found)


def _segmented(
    record: Record, trained: Trained, prepared: Prepared, *, context: Context, job: Job
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield each validation case with the mask of the network that was not trained on it."""
    device, threads = torch.device(job.device), torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        with sharing(device) as shared:
            for validated in trained.validated:
                network = to_memory_format(load_validated(record, validated, context)).to(device)
                for case in validated.cases:
                    yield case, segment(network, prepared, case, job=job, device=device, before_window=shared.pause)[0]
    finally:
        torch.set_num_threads(threads)
