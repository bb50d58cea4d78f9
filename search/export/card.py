"""The model card of an export: intended use, data, training, Dice, costs, limits, licences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from search.config.units import counted, show_bytes, show_count, show_seconds
from search.export.card_dice import dice_section, table
from search.export.forms import Forms
from search.export.origin import Origin
from search.export.quality import quality_warnings
from space.specs.csam import CSAM
from space.specs.registry import spec_at
from space.timm_info import is_timm

UNETRPP = "UNETR++: Shaker et al., IEEE TMI 2024 (released code: Apache-2.0)"
MEUNET = "meU-net: Wang, Blackie, Miguel-Aliaga, Bai, MIDL 2022, PMLR 172"
SOURCES = {  # of encoders and training schemes; those of blocks are in their specs
    "csam": CSAM.citation,
    "unetrpp": UNETRPP,
    "me": MEUNET,
    "two-patch": MEUNET,
    "cascade": MEUNET,
    "dense": "SAU-Net: Zhang, Yuan, Wang, Zhang, MIDL 2020",
}


def model_card(
    origin: Origin, *, forms: Forms, checks: Sequence[str], peaks: Mapping[str, int], hashes: Mapping[str, str]
) -> str:
    """Return the card as Markdown.

    `checks` are the verification's results, `peaks` predict.py's peak memory in bytes by form, `hashes` the SHA-256
    by file name.
    """
    classes = ", ".join(origin.prepared.labels[1:])
    verified = "\n".join(f"* {check}." for check in checks if check)
    bundled = any(name.startswith("bundle/") for name in hashes)
    sections = [
        f"# {origin.prepared.name}: segmentation of {classes}",
        _about(origin),
        "## Intended use",
        _intended(origin),
        "## How to run it",
        _usage(origin, forms, bundled=bundled),
        "## Data",
        _data(origin),
        "## Training",
        _training(origin),
        "## Dice",
        dice_section(origin),
        *_warnings(origin),
        "## Costs",
        _costs(origin, peaks),
        "## Place on the Pareto front",
        _place(origin),
        "## Verification",
        f"Compared with the trained network in voxnas, in float32 on the CPU:\n\n{verified}",
        "## Limits",
        _limits(origin),
        "## Licences",
        _licences(origin),
        "## Files",
        table(("file", "SHA-256"), [(name, f"`{digest}`") for name, digest in hashes.items()]),
        "## Versions",
        _versions(origin),
    ]
    return "\n\n".join(sections) + "\n"


def _about(origin: Origin) -> str:
    record = origin.record
    return (
        "A convolutional network that assigns a label to every voxel of a volume. voxnas found it by architecture "
        f"search in the study `{origin.plan.study.name}`.\n\n"
        f"* Selection: {origin.choice.why}.\n"
        f"* Weights: {origin.trained.how}.\n"
        f"* Architecture `{record.architecture.fingerprint}`: {record.architecture.describe()}.\n"
        f"* Labels: {_labels(origin)}.\n"
        f"* Exported on {datetime.now(UTC):%Y-%m-%d}.\n"
        f"* Contact: {origin.contact or 'to be filled in by whoever passes this network on'}."
    )


def _warnings(origin: Origin) -> list[str]:
    found = quality_warnings(origin.trained.estimate, origin.prepared.labels[1:])
    return ["\n".join(f"* **Warning:** {each}." for each in found)] if found else []


def _intended(origin: Origin) -> str:
    classes, channels = ", ".join(origin.prepared.labels[1:]), ", ".join(origin.prepared.channels)
    return (
        f"Research on the segmentation of {classes} in volumes like those of {origin.prepared.name} ({channels}): "
        "measurement, annotation with manual correction, comparison of methods. Not for diagnosis, treatment, or "
        "other kinds of volumes."
    )


def _training(origin: Origin) -> str:
    training, epochs = origin.plan.training, origin.record.measurement.epochs
    last = f" Loss of the last epoch: {epochs[-1].loss:.4f}." if epochs else ""
    start = origin.plan.training.init
    length = f"{counted(training.epochs, 'epoch')} of {counted(training.steps_per_epoch, 'step')}"
    return (
        f"Recipe `{training.recipe}`: {length}, "
        f"batch size {training.batch}, patches of {_times(origin.plan.context.patch)} voxels; {training.optimiser}, "
        f"learning rate {training.learning_rate:g} ({training.schedule}), weight decay {training.weight_decay:g}; seed "
        f"{origin.record.weights_seed}.{f' Initialised from `{start}`.' if start else ''}{last}"
        f"{_mirroring(training.mirror)}"
    )


def _mirroring(axes: Sequence[str]) -> str:
    if not axes:
        return ""
    return (
        f" At inference, logits are averaged over the {2 ** len(axes)} mirrorings of a window along {', '.join(axes)}."
    )


def _place(origin: Origin) -> str:
    why = f"{origin.choice.why[:1].upper()}{origin.choice.why[1:]}."
    if not origin.choice.neighbours:
        return f"{why} It has no neighbours on the front."
    neighbours = "\n".join(f"* {each}." for each in origin.choice.neighbours)
    return f"{why} Its neighbours on the front:\n\n{neighbours}"


def _labels(origin: Origin) -> str:
    labelling = origin.prepared.labelling
    pairs = zip(labelling.values, labelling.value_names, strict=True)
    written = ", ".join(f"{value} = {name}" for value, name in pairs)
    if not labelling.regions:
        return written
    regions = [
        f"{name} ({', '.join(str(labelling.values[index]) for index in members)})"
        for name, members in zip(labelling.names[1:], labelling.regions, strict=True)
    ]
    return f"{written}; regions that may overlap, each by its own sigmoid: {', '.join(regions)}"


def _usage(origin: Origin, forms: Forms, *, bundled: bool) -> str:
    channels = origin.prepared.channels
    more = "".join(f" --channel {name}.nii.gz" for name in channels[1:])
    image = f"{channels[0] if len(channels) > 1 else 'IMAGE'}.nii.gz{more}"
    lines = "\n".join(f"* {line}." for line in forms.lines)
    bundle = "\n\n`bundle/` is the same network as a MONAI bundle; `bundle/docs/README.md` explains how to run it."
    return (
        "```\npip install -r requirements.txt\n"
        f"python predict.py {image} --out MASK.nii.gz\npython predict.py FOLDER --out MASKS\n```\n\n"
        f"Input: {counted(len(channels), 'channel')} ({', '.join(channels)}) in any orientation and spacing, as NIfTI, "
        ".mha or .nrrd (with SimpleITK), or DICOM series (with pydicom). Output: label values on the input's grid and "
        "affine, with the label names in the header. `predict.py --help` lists the options. Exit codes: 0 success; "
        "1 some inputs failed or were left out, or the machine failed; 2 no input could be used or the command is "
        "invalid. Each failure is one line on stderr.\n\n"
        "Forms of the network (`--form`); predict.py applies each to sliding windows of the training patch size:\n\n"
        f"{lines}{bundle if bundled else ''}"
    )


def _data(origin: Origin) -> str:
    plan = origin.plan
    cases, folds = counted(len(plan.dataset.cases), "labelled case"), counted(len(plan.folds), "fold")
    return (
        f"{origin.prepared.name} (licence: {origin.prepared.licence}), {cases} in {folds}; no fold splits a group of "
        f"cases. Weights: {origin.trained.how}. Network grid (D, H, W): patches of {_times(plan.context.patch)} voxels "
        f"of {_times(plan.context.spacing)} mm."
    )


def _costs(origin: Origin, peaks: Mapping[str, int]) -> str:
    costs = origin.record.measurement.costs
    if costs is None:
        return "Not recorded."
    batch = origin.plan.training.batch
    rows = [
        ("parameters", show_count(costs.params)),
        ("multiply-adds per patch", show_count(costs.macs)),
        ("peak memory of a training step (predicted)", f"{show_bytes(costs.memory_bytes)} at batch size {batch}"),
        ("peak memory of inference on one patch (predicted)", show_bytes(costs.inference_memory_bytes)),
    ]
    if costs.latency:
        latency = costs.latency
        spread = f"{show_seconds(latency.median_s)} (interquartile range {show_seconds(latency.iqr_s)})"
        where = f"on {latency.device}, {counted(latency.threads, 'thread')}, {latency.precision}"
        rows.append(("latency per patch", f"{spread} {where}"))
    for form, peak in peaks.items():
        rows.append((f"peak memory of `predict.py --form {form}` on the verification's cases", show_bytes(peak)))
    if len(origin.trained.folders) > 1:
        rows.append(("networks in the ensemble, each with these costs", str(len(origin.trained.folders))))
    return table(("cost", "value"), rows)


def _limits(origin: Origin) -> str:
    costs = origin.record.measurement.costs
    precision = costs.latency.precision if costs and costs.latency else "float32"
    other = ""
    if precision != "float32":
        other = f" The Dice above was measured in {precision}; masks may differ slightly."
    external = "There was no external test set."
    if origin.test_score is not None:
        external = "The test cases come from the same data set; there was no external test set."
    return (
        "* **Not a medical device.** For research only. No regulator has cleared it: do not base diagnosis or "
        "treatment on it.\n"
        "* The validation Dice above was measured on cases that were also used to select this network: expect a "
        f"lower Dice on new data. {external}\n"
        "* Volumes that differ from the training data (scanner, protocol, field of view, anatomy, spacing) are not "
        "covered, and predict.py does not detect them.\n"
        "* predict.py computes in float32 on a CPU and in float16 on a GPU (float32 with `--precision float32`)."
        f"{other}\n"
        "* predict.py keeps the image and one slab of the logits in memory; `--max-memory` splits slabs into strips."
    )


def _licences(origin: Origin) -> str:
    architecture = origin.record.architecture
    specs = list(dict.fromkeys(spec_at(architecture, place) for place in architecture.attention()))
    sources = [spec.citation for spec in specs]
    own = [f"{spec.name} (its author's licence: {spec.licence or 'not stated'})" for spec in specs if spec.code]
    excepted = f", except the source of {', '.join(own)} in model.py" if own else ""
    used = (architecture["encoder"], architecture.get("stages", "single"))
    sources += [SOURCES[each] for each in used if each in SOURCES]
    papers = "".join(f"\n* {each}." for each in dict.fromkeys(sources))
    if is_timm(architecture["encoder"]):
        papers += f"\n* Encoder: {architecture['encoder']} of timm (Wightman), Apache-2.0; its source is in model.py."
    return (
        f"* All Python files: Apache-2.0 (voxnas){excepted}.\n"
        f"* Weights: trained on {origin.prepared.name} (licence: {origin.prepared.licence}). The terms of that "
        f"licence may also apply to the weights.{papers}"
    )


def _versions(origin: Origin) -> str:
    trained = ", ".join(" ".join(pair) for pair in origin.record.measurement.versions) or "not recorded"
    exported = ", ".join(f"{name} {version(name)}" for name in ("voxnas", "torch", "numpy", "nibabel"))
    return f"Trained with {trained}. Exported with {exported}."


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
