"""One trial's network as a folder that runs without voxnas: written to a staging folder, verified, put in place."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from search.config.errors import RunError, UserError
from search.config.units import counted, show_bytes
from search.data.layouts import Case
from search.export.bundle import BundleError, BundleInfo, check_bundle, write_bundle
from search.export.card import model_card
from search.export.contents import CARD, FILES, write_files
from search.export.forms import Forms
from search.export.job import job_of
from search.export.origin import Origin
from search.export.postprocessing import Postprocessing, decide_postprocessing
from search.export.quality import quality_warnings
from search.export.standalone.forms import LISTED
from search.export.trained import MakeExecutor, Packing, choose_trial, pack, trained_network
from search.export.verification import FormCheck, Reference, check_form, reference_results, require_recorded_dice
from search.files import partial_path, remove_partials, require_writable, write_text
from search.files.home import absolute
from search.runner.devices import resolve_device, resolve_threads
from search.runner.local import LocalExecutor
from search.runner.plan import Plan, prepared_data, require_unchanged, task_of
from search.runner.view import View
from search.storage.held_out import read_test_uses
from search.trials.job import Job

BUNDLE = "bundle"
IGNORED = ("__pycache__",)  # written by running predict.py
CHECKED_CASES = 3

Stage = Callable[..., None]


def _silent(stage: str, done: int = 0, total: int = 0) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Exported:
    """A written and verified export; its text is the summary for the user."""

    folder: Path
    why: tuple[str, ...]
    sizes_bytes: tuple[tuple[str, int], ...]
    forms: Forms
    checks: tuple[FormCheck, ...]
    bundle: str
    seconds: float
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = sum(size for _, size in self.sizes_bytes)
        files = f"{counted(len(self.sizes_bytes), 'file')}, {show_bytes(total)}"
        written = f"{self.folder}: {files}, written and verified in {self.seconds:.1f} s"
        checked = [f"verified {check}" for check in self.checks]
        warnings = [f"warning: {each}" for each in self.warnings]
        return "\n".join([*self.why, written, *self.forms.lines, *checked, self.bundle, *warnings])


def export(
    plan: Plan,
    pick: str,
    out: Path,
    *,
    packing: Packing = "trial",
    contact: str = "",
    force: bool = False,
    view: View,
    make_executor: MakeExecutor = LocalExecutor,
) -> Exported:
    """Choose a trial of a study that has run, write its network to `out`, and verify it.

    What `packing` requires and no trial has is trained with the executor of `make_executor`.
    Raises UserError if the pick matches no trained network, the study file has changed since, the weights were
    deleted, `out` can't be used, or the verification fails.
    """
    records, choice = choose_trial(plan, pick)
    require_unchanged(plan)  # a changed file may have another patch, spacing or fold than the network's training
    _require_free(absolute(out), out, force=force)
    trained = pack(packing, plan, choice.record, records, view=view, make_executor=make_executor)
    uses = tuple(read_test_uses(plan.url, plan.study.name)) if plan.held_out else ()
    origin = Origin(choice, trained, plan, prepared_data(plan), contact=contact, uses=uses)
    return export_trained(origin, out, force=force, stage=view.on_stage)


def export_trained(origin: Origin, out: Path, *, force: bool = False, stage: Stage = _silent) -> Exported:
    """Write a trained network to `out`, which is created only if the export passes the verification.

    With `force`, an earlier export at `out` is replaced; a folder with any other files is always refused. `stage` is
    called with what is under way. Raises UserError.
    """
    began = time.perf_counter()
    final = absolute(out)
    _require_free(final, out, force=force)
    network = trained_network(origin.record, origin.trained, origin.plan.context)
    staging = partial_path(final)
    try:
        staging.mkdir(parents=True)
        remove_partials(staging.parent)
        stage("deciding the postprocessing on the validation cases")
        origin = replace(origin, postprocessing=_postprocessing(origin))
        stage("writing the network's source, PT2 and ONNX forms")
        forms = write_files(staging, network, origin)
        cases = _checked_cases(origin)
        stage(f"segmenting {counted(len(cases), 'case')} with the trained network")
        references = reference_results(
            network, cases, prepared=origin.prepared, job=_job(origin), groups=origin.postprocessing.groups
        )
        require_recorded_dice(references, origin.trained.recorded, labelling=origin.prepared.labelling)
        checks = []
        for number, form in enumerate(forms.written, start=1):
            stage(f"verifying the form {form} in a process without voxnas", number, len(forms.written))
            checks.append(check_form(staging, form, references, prepared=origin.prepared))
        stage("writing and verifying the MONAI bundle")
        bundle = _bundle(staging, network, _bundle_info(origin, forms), references)
        names = [path.relative_to(staging).as_posix() for path in sorted(staging.rglob("*")) if path.is_file()]
        hashes = {name: _sha256(staging / name) for name in names}
        peaks = {check.form: check.peak_bytes for check in checks}
        card = model_card(origin, forms=forms, checks=(*map(str, checks), bundle), peaks=peaks, hashes=hashes)
        write_text(staging / CARD, card)
        _put_in_place(staging, final)
    except OSError as error:
        said = f"--out {out}: can't be written: {error.strerror or error}"
        said += f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError([f"{said}; free some space or raise the limit, then rerun the same command"]) from error
        raise UserError([said]) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sizes = tuple((name, (final / name).stat().st_size) for name in (*names, CARD))
    why = (origin.choice.why, *origin.choice.neighbours, origin.trained.how, str(origin.postprocessing))
    warnings = quality_warnings(origin.trained.estimate, origin.prepared.labels[1:])
    return Exported(out, why, sizes, forms, tuple(checks), bundle, time.perf_counter() - began, warnings)


def _postprocessing(origin: Origin) -> Postprocessing:
    """Decide the postprocessing on the study's device and in its precision, as in validation."""
    plan, executor = origin.plan, origin.plan.study.executor
    job = replace(
        _job(origin),
        training=plan.training,
        device=resolve_device(executor.device),
        threads=resolve_threads(executor.threads),
    )
    return decide_postprocessing(origin.record, origin.trained, origin.prepared, context=plan.context, job=job)


def _bundle(staging: Path, network: nn.Module, info: BundleInfo, references: list[Reference]) -> str:
    """Write and verify the bundle; return the result, or why it was not written."""
    try:
        folder = write_bundle(staging, network, info)
    except BundleError as error:
        return f"bundle/ was not written: {error}"
    return check_bundle(folder, references)


def _require_free(final: Path, out: Path, *, force: bool) -> None:
    if final.is_symlink():
        raise UserError([f"--out {out}: is a loop of links"])  # other links are resolved
    if not final.exists():
        require_writable(final)
        return
    if not final.is_dir():
        raise UserError([f"--out {out}: is a file; give a folder"])
    inside = {entry.name for entry in final.iterdir()}
    if foreign := sorted(inside - {*FILES, BUNDLE, *IGNORED}) or _foreign_in_bundle(final):
        named = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UserError([f"--out {out}: contains files that no export writes ({named}); choose another folder"])
    if inside and CARD not in inside:
        raise UserError([f"--out {out}: is not an export ({CARD} is missing); choose another folder"])
    if inside and not force:
        raise UserError([f"--out {out}: holds an earlier export; choose another folder, or replace it with --force"])


def _foreign_in_bundle(export: Path) -> list[str]:
    """Return the files in an export's bundle that its card doesn't list, such as masks in the bundle's own output."""
    files = [
        path for path in sorted((export / BUNDLE).rglob("*")) if path.is_file() and path.parent.name not in IGNORED
    ]
    card = export / CARD
    listed = dict(LISTED.findall(card.read_text(encoding="utf-8", errors="replace"))) if card.is_file() else {}
    return [name for path in files if (name := path.relative_to(export).as_posix()) not in listed]


def _job(origin: Origin) -> Job:
    """Return a job for inference on the CPU in float32."""
    plan, record = origin.plan, origin.record
    job = job_of(plan, record, task_of(plan, origin.prepared), device="cpu", threads=1)
    return replace(job, training=replace(plan.training, precision="float32"))


def _checked_cases(origin: Origin) -> list[Case]:
    """Return up to three cases, validation cases first."""
    fold = origin.plan.folds[origin.record.fold]
    names = [*fold.validation, *fold.train][:CHECKED_CASES]
    return [next(case for case in origin.plan.dataset.cases if case.name == name) for name in names]


def _bundle_info(origin: Origin, forms: Forms) -> BundleInfo:
    prepared, plan = origin.prepared, origin.plan
    labels, network = ", ".join(prepared.labels[1:]), forms.source.network if forms.source else ""
    return BundleInfo(
        name=prepared.name,
        network=network,
        licence=prepared.licence,
        channels=prepared.channels,
        labels=prepared.labels,
        outputs=prepared.labels[1:] if prepared.regions else prepared.labels,
        patch=plan.context.patch,
        overlap=plan.training.overlap,
        description=f"Segments {labels}. {origin.record.architecture.describe()}. Details: the export's {CARD}.",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(staging: Path, final: Path) -> None:
    """Rename the finished folder to its final name; delete an earlier export only after that."""
    if not final.exists():
        staging.rename(final)
        return
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    final.rename(old)
    try:
        staging.rename(final)
    except OSError:
        old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
