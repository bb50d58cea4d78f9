"""The trained weights of an export: the trial's own, a retraining on all cases, or an ensemble of one per fold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from torch import Tensor, nn

from search.analysis.choose import Choice, choose
from search.analysis.expected import estimate_records
from search.config.errors import RunError, UserError
from search.config.units import counted
from search.export.job import job_of
from search.files import require_regular, write_text
from search.runner.answers import Done, Train
from search.runner.driver import Executor
from search.runner.fit import require_scorable
from search.runner.local import LocalExecutor
from search.runner.opening import driver_lock, open_driver
from search.runner.plan import Plan, prepared_data, task_of
from search.runner.view import View
from search.runner.watch import Watch
from search.storage import STUDY_ID, read_records, read_study_attribute
from search.training.checkpoint import (
    ReplacedWeights,
    checkpoint_binding,
    delete_checkpoints,
    file_sha256,
    load_weights,
)
from search.trials.files import WEIGHTS, trial_folder, weights_name
from search.trials.job import Job
from search.trials.records import CaseDice, Measurement, Record, TrainingRequest, search_records
from space.architecture import Architecture
from space.build import Network, build
from space.canonical import Context

Packing = Literal["trial", "full", "folds"]
MakeExecutor = Callable[[Plan], Executor]
LOGGER = logging.getLogger("voxnas.export")
DONE = "done.txt"  # of a training on all cases: its binding and the digest of its weights


@dataclass(frozen=True)
class Validated:
    """The weights of one of a trial's trainings, with their scores on the cases that they were validated on."""

    trial: int
    fold: int
    folder: Path
    member: int
    sha256: str
    scores: tuple[CaseDice, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the validation cases."""
        return tuple(score.case for score in self.scores)


@dataclass(frozen=True)
class Trained:
    """Folders with weights of one architecture, how they were trained, and the Dice estimate.

    `sha256` are the digests of the weights in the records, empty for records of earlier versions. `estimate` holds the
    Dice of each case, from a network that was not trained on that case; `recorded` the record's Dice of these weights.
    `validated` are the weights whose validation cases decide the postprocessing. `members` are the numbers of the
    trainings in their trials, 0 by default.
    """

    folders: tuple[Path, ...]
    sha256: tuple[str, ...]
    how: str
    estimate: tuple[CaseDice, ...]
    recorded: tuple[CaseDice, ...] = ()
    validated: tuple[Validated, ...] = ()
    members: tuple[int, ...] = ()


class Ensemble(nn.Module):
    """The mean of the logits of several trainings of one architecture."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, in_channels, D, H, W) to logits (B, classes, D, H, W)."""
        total: Tensor = self.networks[0](x)
        for network in list(self.networks)[1:]:
            total = total + network(x)  # (B, classes, D, H, W)
        return total / len(self.networks)


def untrained_network(architecture: Architecture, context: Context, *, count: int) -> nn.Module:
    """Return the network of an export of `count` trainings, with initial weights."""
    networks = [build(architecture, context) for _ in range(count)]
    return networks[0] if count == 1 else Ensemble(networks)


def load_validated(record: Record, validated: Validated, context: Context) -> Network:
    """Return the network with a member's weights, in eval mode."""
    network = build(record.architecture, context).eval()
    load_weights(validated.folder, network, sha256=validated.sha256, member=validated.member)
    return network


def trained_network(record: Record, trained: Trained, context: Context) -> nn.Module:
    """Return the network with its weights, in eval mode. Raises UserError if they are missing or damaged."""
    networks = []
    members = trained.members or (0,) * len(trained.folders)
    for folder, sha256, member in zip(trained.folders, trained.sha256, members, strict=True):
        file = folder / weights_name(member)
        if not file.is_file():
            raise UserError([f"trial {record.number}: {_why_missing(file)}"])
        network = build(record.architecture, context).eval()
        try:
            load_weights(folder, network, sha256=sha256, member=member)
        except ReplacedWeights as error:
            raise UserError([f"trial {record.number}: {error}; rerun the trial in another study"]) from error
        except (RuntimeError, OSError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise UserError([f"trial {record.number}: {file} can't be loaded: {reason}"]) from error
        networks.append(network)
    return networks[0] if len(networks) == 1 else Ensemble(networks).eval()


def _why_missing(file: Path) -> str:
    """Return why a training's weights are missing, and what to do."""
    trial = file.parent
    if trial.is_dir():
        hint = "only the front's weights are kept; `keep: all` in the study file keeps all weights of later runs"
        return f"its weights were deleted: {hint}"
    if trial.parent.is_dir():
        return f"{trial} is missing; restore it, or pick another trial"
    return f"{trial.parent} is missing; restore it, or give the folder of runs that has it with --runs"


def choose_trial(plan: Plan, pick: str) -> tuple[list[Record], Choice]:
    """Return a study's records and the trial that a rule chooses; a number may also name one outside the search.

    Raises UserError if nothing has run, or the pick matches no trained network.
    """
    records = read_records(plan.url, plan.study.name)
    own = search_records(records, seed=plan.study.search.seed, fold=plan.study.data.fold)
    named = pick.isdecimal() and int(pick) not in {record.number for record in own}
    repeats = [each for each in records if each.fold == plan.study.data.fold and each not in own and not each.reference]
    expected = estimate_records(own, repeats, plan.directions)
    return records, choose(pick, records if named else own, plan.directions, expected=expected)


def pack(
    packing: Packing,
    plan: Plan,
    record: Record,
    records: Sequence[Record],
    *,
    view: View,
    make_executor: MakeExecutor = LocalExecutor,
) -> Trained:
    """Find the weights, or train them with an executor. Raises UserError if a training fails."""
    if packing == "folds":
        return _folds(plan, record, records, view=view, make_executor=make_executor)
    known = {case.case: case for each in _same(record, records) for case in each.measurement.cases}
    if packing == "full":
        kept = f" except {counted(len(plan.held_out.names), 'test case')}" if plan.held_out else ""
        how = f"retrained on all {counted(len(plan.dataset.cases), 'case')}{kept}"
        folder, digest = _train_on_all(plan, record, view=view, make_executor=make_executor)
        return Trained((folder,), (digest,), how, tuple(known.values()), validated=_validated(plan, record))
    fold = plan.folds[record.fold]
    how = (
        f"trained on fold {record.fold} (of 0 to {len(plan.folds) - 1}): {counted(len(fold.train), 'case')}, validated "
        f"on {len(fold.validation)}"
    )
    found = record.measurement
    if found.dice_sd is not None:
        spread = f"their Dice is {found.dice:.4f} ± {found.dice_sd:.4f}"
        how += f"; the first of the trial's {len(found.members)} trainings over folds and seeds ({spread})"
    if found.reason:
        how += f"; {found.reason}"
    folder = trial_folder(plan.folder, record.number)
    validated = _validated(plan, record)
    return Trained((folder,), (found.weights_sha256,), how, found.cases, found.weights_cases, validated)


def _validated(plan: Plan, record: Record) -> tuple[Validated, ...]:
    """Return a trial's weights that are still there, one per fold, with their scores on that fold."""
    found, folder = record.measurement, trial_folder(plan.folder, record.number)
    members = [(each.fold, each.weights_sha256, each.cases) for each in found.members]
    folds: dict[int, Validated] = {}
    for number, (fold, sha256, scores) in enumerate(members or [(record.fold, found.weights_sha256, found.cases)]):
        if (folder / weights_name(number)).is_file():
            folds.setdefault(fold, Validated(record.number, fold, folder, number, sha256, scores))
    return tuple(folds.values())


def _same(record: Record, records: Sequence[Record]) -> list[Record]:
    """Return the trained records of the same architecture; the record itself comes last, so its scores prevail."""
    fingerprint = record.architecture.fingerprint
    others = [each for each in records if each.architecture.fingerprint == fingerprint and each.state == "trained"]
    return [*(each for each in others if each.number != record.number), record]


def _train_on_all(plan: Plan, record: Record, *, view: View, make_executor: MakeExecutor) -> tuple[Path, str]:
    """Train the architecture on all cases, or resume; return the folder and the digest of its weights.

    A finished training of an earlier export is reused if study, training and data are the same.
    """
    folder = plan.folder / "exports" / f"full-{record.architecture.fingerprint}"
    prepared = prepared_data(plan, progress=partial(view.on_stage, "preparing volumes"))
    task = replace(task_of(plan, prepared), train=tuple(case.name for case in prepared.cases), validation=())
    executor = make_executor(plan)
    job = replace(
        job_of(plan, record, task, device=executor.device, threads=executor.threads),
        folder=str(folder),
        costs=record.measurement.costs,
        blocks=plan.loaded.blocks,
        study_id=read_study_attribute(plan.url, plan.study.name, STUDY_ID) or "",
    )
    done = folder / DONE
    if digest := _finished_digest(job, done):
        delete_checkpoints(folder)  # a process may have ended before it did
        return folder, digest
    view.on_trial_start(record, plan.training.epochs)

    def show_epoch(measurement: Measurement) -> None:
        if measurement.epochs:
            view.on_epoch(record, measurement.epochs[-1])

    measurement = executor.train(job, show_epoch, Watch(partial(view.on_activity, record)))
    if measurement.fault == "storage":
        raise RunError([f"--retrain full: {measurement.reason}; fix this, then rerun the same command to resume"])
    if measurement.state != "trained":
        raise UserError([f"--retrain full: the training {measurement.state}: {measurement.reason}"])
    write_text(done, f"{checkpoint_binding(job)} {measurement.weights_sha256}\n", ours=True)
    delete_checkpoints(folder)
    return folder, measurement.weights_sha256


def _finished_digest(job: Job, done: Path) -> str:
    """Return the digest of the weights of a job that has ended; empty if it has not, or if its files are damaged."""
    weights = done.with_name(WEIGHTS)
    try:
        binding, _, digest = require_regular(done).read_text(errors="replace").strip().partition(" ")
        if binding != checkpoint_binding(job):
            return ""
        if file_sha256(weights) == digest:
            return digest
    except FileNotFoundError:
        return ""
    except OSError as error:
        LOGGER.warning("%s is damaged (%s): the network is trained again", error.filename or done, error.strerror)
        return ""
    LOGGER.warning("%s differs from its digest in %s: the network is trained again", weights, done)
    return ""


def _folds(
    plan: Plan, record: Record, records: Sequence[Record], *, view: View, make_executor: MakeExecutor
) -> Trained:
    """Return one training per fold; train the missing ones."""
    found = _by_fold(plan, _same(record, records))
    missing = [fold for fold in range(len(plan.folds)) if fold not in found]
    if missing:
        require_scorable(plan.facts, plan.folds, missing)
        found |= _train_folds(plan, record, missing, view=view, make_executor=make_executor)
    members = [found[fold] for fold in range(len(plan.folds))]
    cases = {score.case: score for each in members for score in each.scores}
    trials = ", ".join(str(each.trial) for each in members)
    return Trained(
        tuple(each.folder for each in members),
        tuple(each.sha256 for each in members),
        f"ensemble of {counted(len(members), 'network')}, one per fold (trials {trials}), logits averaged",
        tuple(cases.values()),
        validated=tuple(members),
        members=tuple(each.member for each in members),
    )


def _train_folds(
    plan: Plan, record: Record, missing: Sequence[int], *, view: View, make_executor: MakeExecutor
) -> dict[int, Validated]:
    """Train the architecture on each of these folds. Raises UserError if a training fails."""
    seed = plan.study.search.seed + plan.study.search.seeds
    left = [TrainingRequest(record.architecture, seed, fold, record.decisions) for fold in missing]
    with driver_lock(plan):
        executor = make_executor(plan)
        driver = open_driver(plan, view, executor)
        with closing(driver), driver.store.heartbeat:
            executor.run(driver, lambda _: Train(left.pop(0)) if left else Done("all folds are trained"))
            ended = [each for each in _same(record, driver.store.records()) if each.seed == seed]
    found = _by_fold(plan, ended)
    for fold in missing:
        if fold not in found:
            raise UserError([f"--ensemble folds: the training on fold {fold} failed; `voxnas status` shows why"])
    return {fold: found[fold] for fold in missing}


def _by_fold(plan: Plan, records: Sequence[Record]) -> dict[int, Validated]:
    """Return trained weights for each fold that has some; those of later records prevail."""
    found = [each for record in records for each in _validated(plan, record)]
    return {each.fold: each for each in found if each.fold < len(plan.folds)}
