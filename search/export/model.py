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

from safetensors import SafetensorError
from torch import nn

from search.data import geometry
from search.data.prepare import Prepared
from search.data.read import Case
from search.export.card import Origin, model_card
from search.export.choose import choose
from search.export.proof import Proof, prove
from search.export.pt2 import Pt2, write_pt2
from search.plan import Plan, prepared_data, task_of, trial_folder
from search.records import Job, Record
from search.store import Store, read_records
from search.study.mistakes import UserError
from search.study.units import show_bytes
from search.training.checkpoint import load_weights
from search.training.files import WEIGHTS
from space.build import build

CARD = "MODEL_CARD.md"
FILES = (
    "model.pt2", "weights.safetensors", "architecture.json", "preprocessing.json", "requirements.txt",
    "predict.py", "geometry.py", CARD,
)  # fmt: skip
BYCATCH = ("__pycache__",)  # what running predict.py may leave beside it
LOWEST = {"numpy": "2.0", "nibabel": "5.3"}


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was proved; as text, the lines that a user reads."""

    folder: Path
    why: str
    sizes_bytes: tuple[tuple[str, int], ...]
    pt2: Pt2
    proof: Proof
    seconds: float

    def __str__(self) -> str:
        total = sum(size for _, size in self.sizes_bytes)
        return (
            f"{self.why}\n"
            f"{self.folder}: {len(self.sizes_bytes)} files, {show_bytes(total)}, in {self.seconds:.1f} s\n"
            f"model.pt2 takes {self.pt2.note}\n"
            f"proved on {self.proof}"
        )


def export(plan: Plan, pick: str, out: Path) -> Exported:
    """Choose a trial of a study that has run, write its network to `out`, and prove it.

    Raises UserError where the pick names no trained network, the study's file has changed since, the weights
    are gone, `out` can't be used, or the proof fails.
    """
    record, why = choose(pick, read_records(plan.url, plan.study.name), plan.directions)
    # Refuses a changed file, which would give the network another patch, spacing or fold than its own
    Store.open(plan.url, plan.study.name, directions=plan.directions, values=plan.identity()).close()
    folder = trial_folder(plan, record.number)
    return export_trial(record, plan=plan, prepared=prepared_data(plan), folder=folder, out=out, why=why)


def export_trial(record: Record, *, plan: Plan, prepared: Prepared, folder: Path, out: Path, why: str) -> Exported:
    """Write the network whose weights lie in `folder` to `out`, which appears proved or not at all.

    An earlier export at `out` is replaced; a folder that holds anything else is refused. Raises UserError.
    """
    began = time.perf_counter()
    final = out.expanduser().resolve()
    _require_free(final, out)
    origin = Origin(record, why, plan, prepared)
    network = _trained_network(origin, folder)
    beside = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        pt2 = _write_files(beside, network, origin, folder)
        job = _job(origin, folder)
        proof = prove(beside, network, _proof_case(origin), prepared=prepared, job=job)
        hashes = {name: _sha256(beside / name) for name in FILES if name != CARD}
        (beside / CARD).write_text(model_card(origin, pt2=pt2, proof=proof, hashes=hashes), encoding="utf-8")
        _put_in_place(beside, final)
    except OSError as error:
        raise UserError([f"--out {out}: can't be written: {error}"]) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sizes = tuple((name, (final / name).stat().st_size) for name in FILES)
    return Exported(out, why, sizes, pt2, proof, time.perf_counter() - began)


def _require_free(final: Path, out: Path) -> None:
    if not final.exists():
        return
    if not final.is_dir():
        raise UserError([f"--out {out}: is a file; name a folder"])
    inside = {entry.name for entry in final.iterdir()}
    foreign = sorted(inside - {*FILES, *BYCATCH})
    if foreign or (inside and CARD not in inside):
        named = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        what = named or "no model card"
        raise UserError([f"--out {out}: holds files that are no export ({what}); name another folder"])


def _trained_network(origin: Origin, folder: Path) -> nn.Module:
    number = origin.record.number
    if not (folder / WEIGHTS).is_file():
        hint = "only those of the front are kept (`keep: all` in the study file keeps them for later runs)"
        raise UserError([f"trial {number}: its weights are gone: {hint}"])
    network = build(origin.record.architecture, origin.plan.context).eval()
    try:
        load_weights(folder, network)
    except (RuntimeError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError([f"trial {number}: {folder / WEIGHTS} can't be loaded: {reason}"]) from error
    return network


def _job(origin: Origin, folder: Path) -> Job:
    """Return the job as far as inference needs it: on the CPU, in float32."""
    plan, record = origin.plan, origin.record
    return Job(
        architecture=record.architecture, task=task_of(plan, origin.prepared),
        training=replace(plan.training, precision="float32"), budgets=(), seed=record.seed, fold=record.fold,
        device="cpu", threads=1, folder=str(folder),
    )  # fmt: skip


def _proof_case(origin: Origin) -> Case:
    """Return a case that the network was not trained on."""
    name = origin.plan.folds[origin.record.fold].validation[0]
    return next(case for case in origin.plan.dataset.cases if case.name == name)


def _write_files(beside: Path, network: nn.Module, origin: Origin, folder: Path) -> Pt2:
    """Write all but the model card."""
    context = origin.plan.context
    pt2 = write_pt2(
        network, beside / "model.pt2", in_channels=context.in_channels, patch=context.patch,
        strides=origin.record.architecture.strides,
    )  # fmt: skip
    shutil.copyfile(folder / WEIGHTS, beside / "weights.safetensors")
    _write_json(beside / "architecture.json", _architecture(origin, network))
    _write_json(beside / "preprocessing.json", _preprocessing(origin))
    # An older torch may not read model.pt2
    lowest = {"torch": ".".join(version("torch").split(".")[:2]), **LOWEST}
    (beside / "requirements.txt").write_text("".join(f"{name}>={least}\n" for name, least in lowest.items()))
    shutil.copyfile(Path(__file__).with_name("predict.py"), beside / "predict.py")
    (beside / "predict.py").chmod(0o755)
    shutil.copyfile(Path(geometry.__file__), beside / "geometry.py")
    return pt2


def _architecture(origin: Origin, network: nn.Module) -> dict[str, Any]:
    record, context = origin.record, origin.plan.context
    costs = record.measurement.costs
    return {
        "study": origin.plan.study.name,
        "trial": record.number,
        "fingerprint": record.architecture.fingerprint,
        "description": record.architecture.describe(),
        "architecture": dict(record.architecture.entries),
        "in_channels": context.in_channels,
        "classes": context.classes,
        "patch": context.patch,
        "spacing": context.spacing,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": costs.macs if costs else None,
        "voxnas": version("voxnas"),
    }


def _preprocessing(origin: Origin) -> dict[str, Any]:
    prepared, plan = origin.prepared, origin.plan
    return {
        **prepared.preprocessing.to_json(),
        "channels": prepared.channels,
        "labels": prepared.labels,
        "label_values": prepared.label_values,
        "patch": plan.context.patch,
        "overlap": plan.training.overlap,
        "window": "gaussian",
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
