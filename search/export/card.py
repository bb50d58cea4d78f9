"""The model card of an export: what it is, how good, at what cost, and what it must not be used for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from search.analysis.choose import Choice
from search.analysis.confirmation import interval
from search.config.units import show_bytes, show_count, show_seconds
from search.data.prepare import Prepared
from search.export.forms import Forms
from search.export.trained import Trained
from search.runner.plan import Plan
from search.training.validation import mean_dice
from search.trials.records import Record
from space.timm_info import is_timm

SOURCES = {
    "isa": 'ISA: Zhang, Yuan, Wang, Zhang, "SAU-Net", MIDL 2020',
    "csam": 'CSAM: Hung et al., "CSAM: A 2.5D Cross-Slice Attention Module", WACV 2024 (released code: MIT)',
    "joint": "Joint attention: Zhang, Dong, Li, ISBI 2022 (a reading of a closed paper)",
    "epa": "UNETR++: Shaker et al., IEEE TMI 2024 (released code: Apache-2.0)",
    "unetrpp": "UNETR++: Shaker et al., IEEE TMI 2024 (released code: Apache-2.0)",
    "me": "meU-net: Wang, Blackie, Miguel-Aliaga, Bai, MIDL 2022, PMLR 172",
    "two-patch": "meU-net: Wang, Blackie, Miguel-Aliaga, Bai, MIDL 2022, PMLR 172",
    "cascade": "meU-net: Wang, Blackie, Miguel-Aliaga, Bai, MIDL 2022, PMLR 172",
    "dense": "SAU-Net: Zhang, Yuan, Wang, Zhang, MIDL 2020",
}


@dataclass(frozen=True)
class Origin:
    """Where an export comes from: the trial and why that one, its weights, its study and its data."""

    choice: Choice
    trained: Trained
    plan: Plan
    prepared: Prepared

    @property
    def record(self) -> Record:
        """The trial."""
        return self.choice.record


def model_card(
    origin: Origin, *, forms: Forms, proofs: Sequence[str], peaks: Mapping[str, int], hashes: Mapping[str, str]
) -> str:
    """Return the card as Markdown; `peaks` are predict.py's bytes by form, `hashes` SHA-256 by file name."""
    classes = ", ".join(origin.prepared.labels[1:])
    proved = "\n".join(f"* {proof}." for proof in proofs if proof)
    sections = [
        f"# {origin.prepared.name}: segmentation of {classes}",
        _about(origin),
        "## Intended use",
        _intended(origin),
        "## How to run it",
        _usage(origin, forms),
        "## Data",
        _data(origin),
        "## Training",
        _training(origin),
        "## Dice",
        _dice(origin),
        "## Costs",
        _costs(origin, peaks),
        "## Place on the front",
        _place(origin),
        "## Proof",
        f"Compared with the trained network in voxnas, in float32 on the CPU:\n\n{proved}",
        "## Limits",
        _limits(origin),
        "## Licences",
        _licences(origin),
        "## Files",
        _table(("file", "SHA-256"), [(name, f"`{digest}`") for name, digest in hashes.items()]),
        "## Versions",
        _versions(origin),
    ]
    return "\n\n".join(sections) + "\n"


def _about(origin: Origin) -> str:
    record = origin.record
    return (
        "A convolutional network that labels every voxel of a volume, found by architecture search with "
        f"voxnas in the study `{origin.plan.study.name}`.\n\n"
        f"* Chosen: {origin.choice.why}.\n"
        f"* Weights: {origin.trained.how}.\n"
        f"* Architecture `{record.architecture.fingerprint}`: {record.architecture.describe()}.\n"
        f"* Labels: {_labels(origin)}."
    )


def _intended(origin: Origin) -> str:
    classes, channels = ", ".join(origin.prepared.labels[1:]), ", ".join(origin.prepared.channels)
    return (
        f"Research on the segmentation of {classes} in volumes like those of {origin.prepared.name} ({channels}): "
        "measuring, annotating with a person's correction, comparing methods. Not diagnosis, not treatment, not "
        "volumes of another kind."
    )


def _training(origin: Origin) -> str:
    training, epochs = origin.plan.training, origin.record.measurement.epochs
    last = f" The last epoch's loss was {epochs[-1].loss:.4f}." if epochs else ""
    start = origin.plan.training.init
    return (
        f"Recipe `{training.recipe}`: {training.epochs} epochs of {training.steps_per_epoch} steps, batch "
        f"{training.batch}, patches of "
        f"{_times(origin.plan.context.patch)} voxels; {training.optimiser}, learning rate {training.learning_rate:g} "
        f"({training.schedule}), weight decay {training.weight_decay:g}; seed {origin.record.seed}."
        f"{f' Started from `{start}`.' if start else ''}{last}"
    )


def _place(origin: Origin) -> str:
    said = origin.choice.neighbours
    beside = "\n".join(f"* {each}." for each in said) if said else "No other network stands beside it."
    return f"{origin.choice.why[:1].upper()}{origin.choice.why[1:]}. Its neighbours on the front:\n\n{beside}"


def _labels(origin: Origin) -> str:
    pairs = zip(origin.prepared.label_values, origin.prepared.labels, strict=True)
    return ", ".join(f"{value} {name}" for value, name in pairs)


def _usage(origin: Origin, forms: Forms) -> str:
    channels = origin.prepared.channels
    several = len(channels) > 1
    more = "".join(f" --channel {name}.nii.gz" for name in channels[1:])
    image = f"{channels[0] if several else 'IMAGE'}.nii.gz{more}"
    said = "\n".join(f"* {line}." for line in forms.lines)
    return (
        "```\npip install -r requirements.txt\n"
        f"python predict.py {image} --out MASK.nii.gz\npython predict.py FOLDER --out MASKS\n```\n\n"
        f"Input: {len(channels)} channel{'s' if several else ''} ({', '.join(channels)}) in any orientation and "
        "spacing: NIfTI, or .mha, .nrrd (with SimpleITK), or DICOM series (with pydicom). Output: labels on the "
        "input's grid and affine, their names in the header. `predict.py --help` lists the options; it ends with 0, "
        "with 1 where some inputs failed, with 2 where nothing could be done, and a line on stderr for each.\n\n"
        f"Forms (`--form`), each fed with windows of the training patch:\n\n{said}\n\n"
        "`bundle/` is the same as a MONAI bundle; its docs/README.md says how it is run."
    )


def _data(origin: Origin) -> str:
    plan = origin.plan
    return (
        f"{origin.prepared.name} (licence: {origin.prepared.licence}), {len(plan.dataset.cases)} labelled cases in "
        f"{len(plan.folds)} folds; cases of one group are never on both sides. Weights: {origin.trained.how}. Network "
        f"grid (D, H, W): patches of {_times(plan.context.patch)} voxels of {_times(plan.context.spacing)} mm."
    )


def _dice(origin: Origin) -> str:
    cases, names = origin.trained.estimate, origin.prepared.labels[1:]
    rows = []
    for index, name in enumerate(names):
        known = [value for case in cases if (value := case.dice[index]) is not None]
        low, high = interval(known) if known else (None, None)
        between = f"{low:.4f} to {high:.4f}" if low is not None and high is not None else "-"
        numbers = (float(np.mean(known)), min(known), max(known)) if known else (math.nan,) * 3
        spread = [f"{value:.4f}" for value in numbers]
        rows.append((name, spread[0], between, *spread[1:], str(len(known))))
    return (
        f"Mean over classes, then cases: **{mean_dice(cases):.4f}**. Measured on whole volumes, on their own grids, "
        "each case by a network that was not trained on it.\n\n"
        + _table(("class", "mean", "95 % interval", "lowest", "highest", "cases"), rows)
    )


def _costs(origin: Origin, peaks: Mapping[str, int]) -> str:
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
    for form, peak in peaks.items():
        rows.append((f"peak memory of predict.py, form {form}, on the proof's cases", show_bytes(peak)))
    if len(origin.trained.folders) > 1:
        rows.append(("networks, each at these costs", str(len(origin.trained.folders))))
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
        "* The Dice above is that of validation cases, on which this network was also chosen among others: expect "
        "less on new data. No external test set.\n"
        "* Volumes unlike the data set's (scanner, protocol, field of view, anatomy, spacing) are not "
        "covered, and predict.py does not notice them.\n"
        "* predict.py computes in float32 on a CPU, in float16 on a GPU (`--precision float32` for the other)."
        f"{other}\n"
        "* predict.py holds the image, and slab after slab of the logits; `--max-memory` cuts planes into strips."
    )


def _licences(origin: Origin) -> str:
    architecture = origin.record.architecture
    used = [*architecture.attention().values(), architecture["encoder"], architecture.get("stages", "single")]
    papers = "".join(f"\n* {said}." for said in dict.fromkeys(SOURCES[each] for each in used if each in SOURCES))
    if is_timm(architecture["encoder"]):
        papers += f"\n* Encoder: {architecture['encoder']} of timm (Wightman), Apache-2.0; its source is in model.py."
    return (
        "* All Python files: Apache-2.0 (voxnas).\n"
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
