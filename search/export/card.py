"""The model card of an export: what it is, how good, at what cost, and what it must not be used for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from search.data.prepare import Prepared
from search.export.proof import Proof
from search.export.pt2 import Pt2
from search.plan import Plan
from search.records import Record
from search.study.units import show_bytes, show_count, show_seconds

SOURCES = {
    "isa": 'ISA: Zhang, Yuan, Wang, Zhang, "SAU-Net", MIDL 2020',
    "csam": 'CSAM: Hung et al., "CSAM: A 2.5D Cross-Slice Attention Module", WACV 2024',
}


@dataclass(frozen=True)
class Origin:
    """Where an export comes from: the trial, why that one, its study and its data."""

    record: Record
    why: str
    plan: Plan
    prepared: Prepared


def model_card(origin: Origin, *, pt2: Pt2, proof: Proof, hashes: Mapping[str, str]) -> str:
    """Return the card as Markdown; `hashes` are SHA-256 by file name."""
    classes = ", ".join(origin.prepared.labels[1:])
    sections = [
        f"# {origin.prepared.name}: segmentation of {classes}",
        _about(origin),
        "## How to run it", _usage(origin, pt2),
        "## Data", _data(origin),
        "## Dice", _dice(origin),
        "## Costs", _costs(origin),
        "## Proof", f"Compared with the trained network in voxnas, in float32 on the CPU: {proof}.",
        "## Limits", _limits(origin),
        "## Licences", _licences(origin),
        "## Files", _table(("file", "SHA-256"), [(name, f"`{digest}`") for name, digest in hashes.items()]),
        "## Versions", _versions(origin),
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"


def _about(origin: Origin) -> str:
    record = origin.record
    return (
        "A convolutional network that labels every voxel of a volume, found by architecture search with "
        f"voxnas in the study `{origin.plan.study.name}`.\n\n"
        f"* Chosen: {origin.why}.\n"
        f"* Architecture `{record.architecture.fingerprint}`: {record.architecture.describe()}.\n"
        f"* Labels: {_labels(origin)}."
    )


def _labels(origin: Origin) -> str:
    pairs = zip(origin.prepared.label_values, origin.prepared.labels, strict=True)
    return ", ".join(f"{value} {name}" for value, name in pairs)


def _usage(origin: Origin, pt2: Pt2) -> str:
    channels = origin.prepared.channels
    several = len(channels) > 1
    more = "".join(f" --channel {name}.nii.gz" for name in channels[1:])
    image = f"{channels[0] if several else 'IMAGE'}.nii.gz{more}"
    return (
        "```\npip install -r requirements.txt\n"
        f"python predict.py {image} --out MASK.nii.gz\n```\n\n"
        f"Input: NIfTI of {len(channels)} channel{'s' if several else ''} ({', '.join(channels)}) in any "
        "orientation and spacing. Output: labels on the input's grid and affine. `predict.py --help` lists "
        "the options; it ends with code 2 and a line on stderr where it can't do its work.\n\n"
        f"`model.pt2` takes (B, {len(channels)}, D, H, W) in float32, prepared as preprocessing.json says, "
        f"and gives logits (B, {len(origin.prepared.labels)}, D, H, W): {pt2.note}. predict.py feeds it "
        "windows of the training patch."
    )


def _data(origin: Origin) -> str:
    plan, fold = origin.plan, origin.plan.folds[origin.record.fold]
    return (
        f"{origin.prepared.name} (licence: {origin.prepared.licence}), {len(plan.dataset.cases)} labelled "
        f"cases. Fold {origin.record.fold + 1} of {len(plan.folds)}: trained on {len(fold.train)} cases, "
        f"validated on {len(fold.validation)}; cases of one group are never on both sides. Network grid "
        f"(D, H, W): patches of {_times(plan.context.patch)} voxels of {_times(plan.context.spacing)} mm."
    )


def _dice(origin: Origin) -> str:
    cases, names = origin.record.measurement.cases, origin.prepared.labels[1:]
    rows = []
    for index, name in enumerate(names):
        known = [value for case in cases if (value := case.dice[index]) is not None]
        spread = (float(np.mean(known)), min(known), max(known)) if known else ()
        rows.append((name, *(f"{value:.4f}" for value in spread or [math.nan] * 3), str(len(known))))
    dice = origin.record.measurement.dice
    overall = "" if dice is None else f"Mean over classes, then cases: **{dice:.4f}**. "
    return (
        f"{overall}Measured on whole volumes of the validation cases, on their own grids.\n\n"
        + _table(("class", "mean", "lowest", "highest", "cases"), rows)
    )


def _costs(origin: Origin) -> str:
    costs = origin.record.measurement.costs
    if costs is None:
        return "Not recorded."
    batch = origin.plan.training.batch
    rows = [
        ("parameters", show_count(costs.params)),
        ("multiply-adds of one patch", show_count(costs.macs)),
        ("memory of a training step (predicted)", f"{show_bytes(costs.memory_bytes)} at batch {batch}"),
        ("memory of inference on one patch (predicted)", show_bytes(costs.inference_memory_bytes)),
    ]
    if costs.latency:
        seen = costs.latency
        spread = f"{show_seconds(seen.median_s)} (interquartile range {show_seconds(seen.iqr_s)})"
        where = f"on {seen.device}, {seen.threads} threads, {seen.precision}"
        rows.append(("latency of one patch", f"{spread} {where}"))
    return _table(("cost", "value"), rows)


def _limits(origin: Origin) -> str:
    costs = origin.record.measurement.costs
    precision = costs.latency.precision if costs and costs.latency else "float32"
    other = ""
    if precision != "float32":
        other = f" The Dice above was measured in {precision}; masks may differ a little."
    return (
        "* **Not a medical device.** For research. No regulator has cleared it; no diagnosis or treatment "
        "may rest on it.\n"
        "* The Dice above is that of the validation cases, on which this network was also chosen among "
        "others: expect less on new data. One training with one seed; no external test set.\n"
        "* Volumes unlike the data set's (scanner, protocol, field of view, anatomy, spacing) are not "
        "covered, and predict.py does not notice them.\n"
        "* predict.py computes in float32; on a GPU with torch's defaults, which may round convolutions."
        f"{other}\n"
        f"* predict.py holds {len(origin.prepared.labels)} float32 volumes of the network grid in memory, "
        "and some of the input's."
    )


def _licences(origin: Origin) -> str:
    used = sorted(set(origin.record.architecture.attention().values()))
    papers = "".join(f"\n* {SOURCES[block]}." for block in used if block in SOURCES)
    return (
        "* predict.py and geometry.py: Apache-2.0 (voxnas).\n"
        f"* Weights: learnt from {origin.prepared.name}, whose licence is: {origin.prepared.licence}. Its "
        f"terms may bind what is made from it.{papers}"
    )


def _versions(origin: Origin) -> str:
    trained = ", ".join(" ".join(pair) for pair in origin.record.measurement.versions) or "not recorded"
    exported = ", ".join(f"{name} {version(name)}" for name in ("voxnas", "torch", "numpy", "nibabel"))
    return f"Trained with {trained}. Exported with {exported}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
