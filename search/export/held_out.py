"""`voxnas test`: score one trained network on the test cases, once, and record it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from search.analysis.choose import Choice
from search.config.errors import UserError
from search.config.units import counted
from search.costs.device_lock import sharing
from search.data.components import keep_largest
from search.data.prepared import Prepared
from search.export.job import job_of
from search.export.postprocessing import decide_postprocessing
from search.export.trained import choose_trial, pack, trained_network
from search.files import write_text
from search.runner.devices import resolve_device, resolve_threads
from search.runner.evaluate import versions
from search.runner.plan import Plan, prepared_data, prepared_test_data, require_unchanged, task_of
from search.runner.view import View
from search.storage import now
from search.storage.held_out import read_test_uses, write_test_use
from search.training.step import to_memory_format
from search.training.validation import mean_dice, score_mask, segment
from search.trials.held_out import FILE, HeldOutScore, score_of
from search.trials.job import Job
from search.trials.records import CaseDice, Record

BIASED = "choosing between networks by their test scores makes these scores too high"


@dataclass(frozen=True)
class HeldOutResult:
    """The test scores of one network; `uses` counts all uses of the test cases.

    `fresh` is false if these weights had been scored before: they are not scored again.
    """

    choice: Choice
    score: HeldOutScore
    classes: tuple[str, ...]
    uses: int
    fresh: bool

    @property
    def validation_dice(self) -> float | None:
        """The Dice of these weights in the search."""
        return self.choice.record.measurement.weights_dice

    def __str__(self) -> str:
        validation = "" if self.validation_dice is None else f" (validation {self.validation_dice:.4f})"
        before = "" if self.fresh else f"; scored on {self.score.at}, not again"
        after = self.score.postprocessed
        with_it = f"Dice {mean_dice(after):.4f} with the postprocessing of an export, all else is without it\n"
        return (
            f"{self.choice.why}\n"
            f"Dice {self.score.dice:.4f} on {counted(len(self.score.cases), 'test case')}{validation}{before}\n"
            f"{with_it if after else ''}"
            f"The test cases were used {counted(self.uses, 'time')}."
        )


def score_held_out(plan: Plan, pick: str, *, again: bool = False, view: View) -> HeldOutResult:
    """Choose a trial, score its weights on the test cases as in validation, and write the scores down.

    Weights that were scored before are not scored again. Another network is scored only with `again`, and counts as a
    further use. Raises UserError if the study has no test cases, its file has changed, the pick matches no trained
    network, its weights were deleted, or the test cases were used before.
    """
    records, choice = choose_trial(plan, pick)
    require_unchanged(plan)
    record = choice.record
    uses = read_test_uses(plan.url, plan.study.name)
    known = score_of(uses, trial=record.number, weights_sha256=record.measurement.weights_sha256)
    if known is None and uses and not again:
        raise UserError([_refusal(uses, record)])
    score = known or _scored(plan, record, records, pick, view=view)
    if known is None:
        write_test_use(plan.url, plan.study.name, score)
        uses = read_test_uses(plan.url, plan.study.name)
        _write_file(plan.folder / FILE, uses)
    return HeldOutResult(choice, score, plan.dataset.labels[1:], len(uses), fresh=known is None)


def _refusal(uses: Sequence[HeldOutScore], record: Record) -> str:
    last = uses[-1]
    return (
        f"the test cases were used {counted(len(uses), 'time')}, last on {last.at} for trial {last.trial} (Dice "
        f"{last.dice:.4f}): {BIASED}; --again (again=True) scores trial {record.number} too, and records it"
    )


def _scored(plan: Plan, record: Record, records: Sequence[Record], pick: str, *, view: View) -> HeldOutScore:
    progress = partial(view.on_stage, "preparing volumes")
    seen = prepared_data(plan, progress=progress)
    prepared = prepared_test_data(plan, seen, progress=progress)
    trained = pack("trial", plan, record, records, view=view)
    network, job = trained_network(record, trained, plan.context), _job(plan, prepared, record)
    view.on_stage("deciding the postprocessing")
    groups = decide_postprocessing(record, trained, seen, context=plan.context, job=job).groups
    cases, postprocessed = _validated(network, prepared, job, groups, view=view)
    return HeldOutScore(
        trial=record.number,
        fingerprint=record.architecture.fingerprint,
        weights_sha256=record.measurement.weights_sha256,
        pick=pick,
        at=now(),
        dice=mean_dice(cases),
        cases=cases,
        versions=versions(),
        keep_largest=groups,
        postprocessed=postprocessed,
    )


def _job(plan: Plan, prepared: Prepared, record: Record) -> Job:
    """Return the job that segments all prepared cases as after the last epoch of a training."""
    executor = plan.study.executor
    cases = tuple(case.name for case in prepared.cases)
    task = replace(task_of(plan, prepared, fold=record.fold), train=(), validation=cases)
    device, threads = resolve_device(executor.device), resolve_threads(executor.threads)
    job = job_of(plan, record, task, device=device, threads=threads)
    return replace(job, surface_tolerance_mm=plan.study.surface_tolerance)


def _validated(
    network: torch.nn.Module, prepared: Prepared, job: Job, groups: Sequence[Sequence[int]], *, view: View
) -> tuple[tuple[CaseDice, ...], tuple[CaseDice, ...]]:
    """Score the network on the job's cases, without and with postprocessing; the latter is empty without groups."""
    device, threads = torch.device(job.device), torch.get_num_threads()
    torch.set_num_threads(job.threads)
    raw, postprocessed = [], []
    score = partial(score_mask, prepared=prepared, tolerance_mm=job.surface_tolerance_mm)
    try:
        with sharing(device) as shared:
            network = to_memory_format(network).to(device).eval()
            for case in job.task.validation:
                mask, truth = segment(network, prepared, case, job=job, device=device, before_window=shared.pause)
                raw.append(score(mask, truth, case=case))
                if groups:
                    postprocessed.append(score(keep_largest(mask, groups), truth, case=case))
                view.on_stage("scoring test cases", len(raw), len(job.task.validation))
    finally:
        torch.set_num_threads(threads)
    return tuple(raw), tuple(postprocessed)


def _write_file(file: Path, uses: Sequence[HeldOutScore]) -> None:
    """Write all uses beside the study's other files, as a copy for readers without the database."""
    write_text(file, json.dumps([use.to_values() for use in uses], indent=1) + "\n")
