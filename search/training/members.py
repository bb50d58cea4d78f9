"""The trainings of one trial over folds and seeds; those that have ended are kept in a file until all have."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter

from search.files import require_regular, write_text
from search.files.digests import sealed_value, unsealed_text
from search.training.checkpoint import checkpoint_binding
from search.trials.epochs import Epoch
from search.trials.files import FINISHED
from search.trials.job import Job
from search.trials.records import CaseDice, Measurement, MemberScore

LOGGER = logging.getLogger("voxnas.members")


@dataclass(frozen=True)
class FinishedMember:
    """A training that has ended; `binding` is the digest of the settings that it is valid for.

    A training that failed has no score, but a `failure`: the reason.
    """

    binding: str
    score: MemberScore | None
    epochs: tuple[Epoch, ...]
    failure: str = ""


_FINISHED: TypeAdapter[list[FinishedMember]] = TypeAdapter(list[FinishedMember])


def save_finished(job: Job, finished: Sequence[FinishedMember]) -> None:
    """Write the members that have ended."""
    text = json.dumps(sealed_value([asdict(each) for each in finished]), allow_nan=False)
    write_text(Path(job.folder) / FINISHED, text, ours=True)


def load_finished(job: Job) -> list[FinishedMember]:
    """Return the job's first members that have ended; those of other settings are ignored, and so is a damaged file."""
    file = Path(job.folder) / FINISHED
    if not job.others or not file.exists():
        return []
    try:
        found = _FINISHED.validate_python(unsealed_text(require_regular(file).read_bytes().decode()))
    except (ValueError, OSError) as error:
        LOGGER.warning("%s is damaged (%s): the trial's trainings start over", file, str(error).splitlines()[0])
        return []
    valid = []
    for number, each in enumerate(found[: len(job.others)]):
        if each.binding != checkpoint_binding(job.of_member(number)):
            break
        valid.append(each)
    return valid


def scores_of(finished: Sequence[FinishedMember]) -> tuple[MemberScore, ...]:
    """Return the scores of the members that did not fail."""
    return tuple(each.score for each in finished if each.score is not None)


def is_fold_lost(job: Job, finished: Sequence[FinishedMember]) -> bool:
    """Return whether every training of some fold has failed, so that the mean over the folds can't be known."""
    folds = [job.of_member(number).fold for number in range(1 + len(job.others))]
    failed = {number for number, each in enumerate(finished) if each.score is None}
    return any(all(number in failed for number, own in enumerate(folds) if own == fold) for fold in set(folds))


def outcome(so_far: Measurement, finished: Sequence[FinishedMember]) -> Measurement:
    """Return the measurement of a trained trial; the first score's weights are its own.

    Its Dice is the mean over the folds of the mean over a fold's seeds, of which some may have failed.
    """
    scores = scores_of(finished)
    epochs = tuple(epoch for each in finished for epoch in each.epochs)
    trained = replace(so_far, state="trained", epochs=epochs, weights_sha256=scores[0].weights_sha256)
    if len(finished) == 1:
        return replace(trained, dice=scores[0].dice, cases=scores[0].cases)
    by_fold: dict[int, list[float]] = {}
    for score in scores:
        if score.dice is not None:
            by_fold.setdefault(score.fold, []).append(score.dice)
    dice = fmean(fmean(found) for found in by_fold.values())
    cases = mean_cases([case for score in scores for case in score.cases])
    return replace(trained, dice=dice, cases=cases, members=scores, reason=_failures(finished))


def _failures(finished: Sequence[FinishedMember]) -> str:
    """Return which trainings failed and why; empty if none did."""
    reasons = [each.failure for each in finished if each.failure]
    if not reasons:
        return ""
    return f"{len(reasons)} of {len(finished)} trainings failed ({'; '.join(reasons)}); the Dice is that of the others"


def mean_cases(cases: Sequence[CaseDice]) -> tuple[CaseDice, ...]:
    """Return one entry per case: the mean of its scores over seeds, in the order of first appearance."""
    found: dict[str, list[CaseDice]] = {}
    for case in cases:
        found.setdefault(case.case, []).append(case)
    return tuple(_mean_case(group) for group in found.values())


def _mean_case(group: Sequence[CaseDice]) -> CaseDice:
    if len(group) == 1:
        return group[0]
    return CaseDice(
        group[0].case,
        dice=_means([each.dice for each in group]),
        hd95_mm=_means([each.hd95_mm for each in group]),
        surface_dice=_means([each.surface_dice for each in group]),
    )


def _means(rows: Sequence[tuple[float | None, ...]]) -> tuple[float | None, ...]:
    """Return the mean of each column over its known values; None without any."""
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return tuple(fmean(known) if known else None for known in columns)
