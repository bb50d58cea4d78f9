"""The model card's section on Dice: validation cases, test cases, postprocessing."""

from __future__ import annotations

from collections.abc import Sequence

from search.analysis.class_dice import BOTH_EMPTY, HEADINGS, dice_by_class
from search.config.units import counted
from search.export.origin import Origin
from search.training.validation import mean_dice
from search.trials.held_out import HeldOutScore
from search.trials.records import CaseDice


def dice_section(origin: Origin) -> str:
    """Return the section on Dice as Markdown."""
    cases, names = origin.trained.estimate, origin.prepared.labels[1:]
    return (
        f"Mean over classes, then over cases: **{mean_dice(cases):.4f}**. Measured on whole volumes on their original "
        "grids; each case was segmented by a network that was not trained on it. "
        f"{BOTH_EMPTY}\n\n"
        + _by_class(cases, names)
        + _test(origin)
        + f"\n\n### Postprocessing\n\n{_postprocessing(origin)}"
    )


def _postprocessing(origin: Origin) -> str:
    found = origin.postprocessing
    if not found.groups:
        return f"{found}."
    return (
        f"{found}. Each step raised the mean Dice there and lowered that of no class. predict.py and the bundle apply "
        "it to masks; probabilities, and the Dice of the tables above, are without it.\n\n"
        + _by_class(found.after, origin.prepared.labels[1:])
    )


def _by_class(cases: Sequence[CaseDice], names: Sequence[str]) -> str:
    return table(HEADINGS, [row.cells for row in dice_by_class(cases, names)])


def _test(origin: Origin) -> str:
    """State the Dice on the test cases, if these very weights were scored, and how often the cases were used."""
    held_out, uses, score = origin.plan.held_out, origin.uses, origin.test_score
    if held_out is None:
        return ""
    kept = f"{counted(len(held_out.names), 'case')} that no training, validation or choice of the search saw"
    often = f"The test cases were used {counted(len(uses), 'time')}"
    trials = ", ".join(f"trial {use.trial} on {use.at}" for use in uses)
    if score is None:
        used = f" {often}: {trials}." if uses else ""
        return f"\n\n### Test\n\nThese weights were not scored on the test cases, {kept}.{used}"
    bias = "." if len(uses) == 1 else f": {trials}. Choosing by test scores makes them too high."
    return (
        f"\n\n### Test\n\n**{score.dice:.4f}** on {kept}; the validation Dice of these weights is "
        f"{mean_dice(origin.trained.recorded):.4f}. Scored on {score.at} as in validation. {often}{bias}\n\n"
        + _by_class(score.cases, origin.prepared.labels[1:])
        + _postprocessed_test(origin, score)
    )


def _postprocessed_test(origin: Origin, score: HeldOutScore) -> str:
    """State the Dice on the test cases with this export's postprocessing, if they were scored with it."""
    if not score.postprocessed or score.keep_largest != origin.postprocessing.groups:
        return ""
    return (
        f"\n\nThe above is without postprocessing; with that of this export, the Dice on the same cases is "
        f"**{mean_dice(score.postprocessed):.4f}**:\n\n" + _by_class(score.postprocessed, origin.prepared.labels[1:])
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
