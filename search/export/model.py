"""One trial's network as a folder that runs without voxnas: written aside, proved, then put in place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from search.analysis.choose import choose
from search.config.errors import UserError
from search.config.units import show_bytes
from search.data import geometry
from search.data.read import Case
from search.export.bundle import Described, NoBundle, check_bundle, write_bundle
from search.export.card import Origin, model_card
from search.export.forms import FILES as FORM_FILES
from search.export.forms import Forms, write_forms
from search.export.proof import Expected, Proof, expect, prove, require_recorded_dice
from search.export.trained import Packing, pack, trained_network
from search.runner.driver import View
from search.runner.plan import Plan, prepared_data, require_unchanged, task_of
from search.storage import read_records
from search.training.checkpoint import save_file_apart
from search.trials.records import Job, searched

CARD = "MODEL_CARD.md"
STANDALONE = ("predict.py", "forms.py", "volumes.py", "windows.py")
FILES = (
    *FORM_FILES.values(),
    "weights.safetensors",
    "architecture.json",
    "preprocessing.json",
    "requirements.txt",
    *STANDALONE,
    "geometry.py",
    CARD,
)
BUNDLE = "bundle"
BYCATCH = ("__pycache__",)  # what running predict.py may leave beside it
LOWEST = {"numpy": "2.0", "nibabel": "5.3"}
PROOF_CASES = 3


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was proved; as text, the lines that a user reads."""

    folder: Path
    why: tuple[str, ...]
    sizes_bytes: tuple[tuple[str, int], ...]
    forms: Forms
    proofs: tuple[Proof, ...]
    bundle: str
    seconds: float

    def __str__(self) -> str:
        total = sum(size for _, size in self.sizes_bytes)
        written = f"{self.folder}: {len(self.sizes_bytes)} files, {show_bytes(total)}, in {self.seconds:.1f} s"
        proved = [f"proved {proof}" for proof in self.proofs]
        return "\n".join([*self.why, written, *self.forms.lines, *proved, self.bundle])


def export(plan: Plan, pick: str, out: Path, *, packing: Packing = "trial", view: View) -> Exported:
    """Choose a trial of a study that has run, write its network to `out`, and prove it.

    Raises UserError where the pick names no trained network, the study's file has changed since, the weights
    are gone, `out` can't be used, or the proof fails.
    """
    records = read_records(plan.url, plan.study.name)
    # Confirmations are on no front; one is exported where its own number asks for it
    own = searched(records, seed=plan.study.search.seed, fold=plan.study.data.fold)
    named = pick.isdecimal() and int(pick) not in {record.number for record in own}
    choice = choose(pick, records if named else own, plan.directions)
    require_unchanged(plan)  # a changed file would give the network another patch, spacing or fold than its own
    _require_free(out.expanduser().resolve(), out)
    trained = pack(packing, plan, choice.record, records, view=view)
    return export_trained(Origin(choice, trained, plan, prepared_data(plan)), out)


def export_trained(origin: Origin, out: Path) -> Exported:
    """Write a trained network to `out`, which appears proved or not at all.

    An earlier export at `out` is replaced; a folder that holds anything else is refused. Raises UserError.
    """
    began = time.perf_counter()
    final = out.expanduser().resolve()
    _require_free(final, out)
    network = trained_network(origin.record, origin.trained, origin.plan.context)
    beside = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        forms = _write_files(beside, network, origin)
        expected = expect(network, _proof_cases(origin), prepared=origin.prepared, job=_job(origin))
        require_recorded_dice(expected, origin.trained.recorded)
        proofs = tuple(prove(beside, form, expected, prepared=origin.prepared) for form in forms.there)
        bundle = _bundle(beside, network, _described(origin, forms), expected)
        names = [path.relative_to(beside).as_posix() for path in sorted(beside.rglob("*")) if path.is_file()]
        hashes = {name: _sha256(beside / name) for name in names}
        card = model_card(origin, forms=forms, proofs=(*map(str, proofs), bundle), peaks=_peaks(proofs), hashes=hashes)
        (beside / CARD).write_text(card, encoding="utf-8")
        _put_in_place(beside, final)
    except OSError as error:
        raise UserError([f"--out {out}: can't be written: {error}"]) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sizes = tuple((name, (final / name).stat().st_size) for name in (*names, CARD))
    why = (origin.choice.why, *origin.choice.neighbours, origin.trained.how)
    return Exported(out, why, sizes, forms, proofs, bundle, time.perf_counter() - began)


def _bundle(beside: Path, network: nn.Module, said: Described, expected: list[Expected]) -> str:
    """Write and prove the bundle; return what was found, or why it isn't there."""
    try:
        folder = write_bundle(beside, network, said)
    except NoBundle as error:
        return f"bundle/ is not there: {error}"
    return check_bundle(folder, expected)


def _peaks(proofs: tuple[Proof, ...]) -> dict[str, int]:
    return {proof.form: proof.peak_bytes for proof in proofs}


def _require_free(final: Path, out: Path) -> None:
    if not final.exists():
        return
    if not final.is_dir():
        raise UserError([f"--out {out}: is a file; name a folder"])
    inside = {entry.name for entry in final.iterdir()}
    foreign = sorted(inside - {*FILES, BUNDLE, *BYCATCH})
    if foreign or (inside and CARD not in inside):
        named = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        what = named or "no model card"
        raise UserError([f"--out {out}: holds files that are no export ({what}); name another folder"])


def _job(origin: Origin) -> Job:
    """Return the job as far as inference needs it: on the CPU, in float32."""
    plan, record = origin.plan, origin.record
    return Job(
        architecture=record.architecture,
        task=task_of(plan, origin.prepared),
        training=replace(plan.training, precision="float32"),
        budgets=(),
        seed=record.seed,
        fold=record.fold,
        device="cpu",
        threads=1,
        folder="",
    )


def _proof_cases(origin: Origin) -> list[Case]:
    """Return three cases, those first that the trial was not trained on."""
    fold = origin.plan.folds[origin.record.fold]
    names = [*fold.validation, *fold.train][:PROOF_CASES]
    return [next(case for case in origin.plan.dataset.cases if case.name == name) for name in names]


def _write_files(beside: Path, network: nn.Module, origin: Origin) -> Forms:
    """Write all but the model card and the bundle."""
    record, here = origin.record, Path(__file__).parent / "standalone"
    save_file_apart(network, beside / "weights.safetensors")
    forms = write_forms(
        network,
        beside,
        architecture=record.architecture,
        context=origin.plan.context,
        count=len(origin.trained.folders),
        title=_title(origin),
    )
    _write_json(beside / "architecture.json", _architecture(origin, network))
    _write_json(beside / "preprocessing.json", _preprocessing(origin))
    # An older torch may not read model.pt2
    lowest = {"torch": ".".join(version("torch").split(".")[:2]), **LOWEST}
    other = ["# or, in place of torch, for --form onnx: onnxruntime>=1.20"] if forms.onnx else []
    lines = [*(f"{name}>={least}" for name, least in lowest.items()), *other]
    (beside / "requirements.txt").write_text("\n".join(lines) + "\n")
    for name in STANDALONE:
        shutil.copyfile(here / name, beside / name)
    (beside / "predict.py").chmod(0o755)
    shutil.copyfile(Path(geometry.__file__), beside / "geometry.py")
    return forms


def _title(origin: Origin) -> str:
    labels = ", ".join(origin.prepared.labels[1:])
    return (
        f"The network of this folder as source: {origin.prepared.name}, segmentation of {labels}.\n\n"
        f"{origin.record.architecture.describe()}. Input (B, {origin.plan.context.in_channels}, D, H, W), prepared as "
        f"preprocessing.json says; output logits (B, {origin.plan.context.classes}, D, H, W). "
        '`load_network("weights.safetensors")` gives it with its weights.'
    )


def _described(origin: Origin, forms: Forms) -> Described:
    prepared, plan = origin.prepared, origin.plan
    labels, network = ", ".join(prepared.labels[1:]), forms.source.network if forms.source else ""
    return Described(
        name=prepared.name,
        network=network,
        licence=prepared.licence,
        channels=prepared.channels,
        labels=prepared.labels,
        patch=plan.context.patch,
        overlap=plan.training.overlap,
        description=f"Segments {labels}. {origin.record.architecture.describe()}. The model card says more.",
    )


def _architecture(origin: Origin, network: nn.Module) -> dict[str, Any]:
    record, context = origin.record, origin.plan.context
    costs = record.measurement.costs
    return {
        "study": origin.plan.study.name,
        "trial": record.number,
        "fingerprint": record.architecture.fingerprint,
        "description": record.architecture.describe(),
        "architecture": dict(record.architecture.entries),
        "networks": len(origin.trained.folders),
        "in_channels": context.in_channels,
        "classes": context.classes,
        "patch": context.patch,
        "spacing": context.spacing,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": costs.macs if costs else None,
        "voxnas": version("voxnas"),
    }


def _preprocessing(origin: Origin) -> dict[str, Any]:
    prepared, plan, costs = origin.prepared, origin.plan, origin.record.measurement.costs
    return {
        **prepared.preprocessing.to_json(),
        "channels": prepared.channels,
        "labels": prepared.labels,
        "label_values": prepared.label_values,
        "patch": plan.context.patch,
        "overlap": plan.training.overlap,
        "window": "gaussian",
        "window_bytes": costs.inference_memory_bytes if costs else 0,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(beside: Path, final: Path) -> None:
    """Rename the finished folder to its name; what was there goes only after that."""
    if not final.exists():
        beside.rename(final)
        return
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    final.rename(old)
    try:
        beside.rename(final)
    except OSError:
        old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
