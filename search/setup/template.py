"""The text of a study file that `voxnas init` writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from shlex import quote

from search.config.clone import as_comment
from search.config.units import counted, show_bytes, show_seconds
from search.data.geometry import Triple
from search.setup.machine import Machine

GIB, MIB = 2**30, 2**20
ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")  # no YAML file may hold them


@dataclass(frozen=True)
class Outline:
    """What a study file is written from; the fields from `trials` on depend on how fast this machine is.

    Without `file`, the study's name names it.
    """

    name: str
    folder: Path
    cases: int
    groups: int
    group: str | None
    folds: int
    shape: Triple
    spacing_mm: tuple[float, float, float]
    patch: Triple
    levels: int
    machine: Machine
    hours: float
    widths: tuple[int, ...]
    file: Path | None = None
    trials: int = 4
    epochs: int = 4
    steps_per_epoch: int = 10
    validate_every: int = 1
    step_s: float = 0.0
    expected_s: float = 0.0


def study_text(outline: Outline) -> str:
    """Return the study file."""
    return "\n".join([*_head(outline), *_data(outline), *_space(outline), *_goals(outline), *_run(outline)]) + "\n"


def _head(outline: Outline) -> list[str]:
    machine, file = outline.machine, str(outline.file or f"{outline.name}.yaml")
    threads = f", {counted(machine.threads, 'thread')}" if machine.device == "cpu" else ""
    return [
        "# Question: which attention block, at which place, improves Dice, and at what cost?",
        f"# Run:      voxnas run {as_comment(quote(file))}     (voxnas check first: it trains nothing)",
        f"# Time:     about {show_seconds(outline.expected_s)} on {machine.name}{threads}",
        f"#           (the widest network took {show_seconds(outline.step_s)} a step)",
        "# Keys:     voxnas help, or voxnas help training.patch for one of them",
        f"name: {outline.name}",
    ]


def _quoted(text: str) -> str:
    """Return a text as a YAML scalar: as in JSON, which would split characters beyond 16 bits."""
    return ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", dumps(text, ensure_ascii=False))


def _data(outline: Outline) -> list[str]:
    cases = counted(outline.cases, "case")
    lines = ["data:", f"  path: {_quoted(str(outline.folder))}"]
    if outline.group is None:
        lines.append(
            f"  # {cases}, each taken as a patient of its own; if several belong to one patient, name what they share:"
        )
        lines.append(r"  # group: patient\d+")
    else:
        lines.append(
            f"  # {cases} of {counted(outline.groups, 'patient')} by their names; they stay on one side of a split"
        )
        quoted = outline.group.replace("'", "''")
        lines.append(f"  group: '{quoted}'")
    lines.append(f"  folds: {outline.folds}    # trains on all folds but the first, validates on that")
    lines.append(f"  # spacing: median, here {_triple(outline.spacing_mm)} mm (D, H, W); volumes are resampled to it")
    return lines


def _space(outline: Outline) -> list[str]:
    return [
        "space:",
        "  fix:    # one value each; move a key to `choices` to search it (voxnas space shows all axes)",
        "    encoder: plain",
        f"    levels: {outline.levels}",
        "    growth: 2.0",
        "    width_cap: 320",
        "    repeats: 2",
        "    kernels: auto    # flat where slices are thick",
        "    norm: instance",
        "    activation: leakyrelu",
        "    dropout: 0.0",
        "    downsampling: strided",
        "    upsampling: transposed",
        "    skip: concat",
        "    deep_supervision: false",
        "    stages: single",
        "    stem_stride: 1",
        "    attention@encoders: none",
        "    attention@decoders: none",
        "    isa.shared: true",
        "    csam.semantic: true",
        "    csam.positional: true",
        "    csam.uncertainty: false",
        "  choices:",
        f"    width: [{', '.join(map(str, outline.widths))}]    # channels at full resolution",
        "    attention@bottleneck: [none, isa, csam]",
        "    attention@skips: [none, isa, csam]",
    ]


def _goals(outline: Outline) -> list[str]:
    usable = outline.machine.usable_bytes
    budget = f"{usable / GIB:.1f} GiB" if usable >= GIB else f"{usable / MIB:.0f} MiB"
    return [
        "objectives:",
        "  dice: maximize",
        f"  # peak of one training step; this device has {show_bytes(outline.machine.memory_bytes)}",
        f"  memory: {{direction: minimize, budget: {budget}}}",
        "  latency: minimize    # one patch at batch 1; a budget such as 50 ms may be added like that of memory",
    ]


def _run(outline: Outline) -> list[str]:
    patch, gpus = ", ".join(map(str, outline.patch)), outline.machine.gpus
    several = (
        [f"# executor: {{gpus: all}}    # trains on all {gpus} GPUs of this machine at a time"] if gpus > 1 else []
    )
    return [
        "training:",
        f"  patch: [{patch}]    # (D, H, W) voxels; the median volume has {_triple(outline.shape)}",
        "  batch: 2",
        f"  epochs: {outline.epochs}",
        f"  steps_per_epoch: {outline.steps_per_epoch}",
        f"  validate_every: {outline.validate_every}    # epochs",
        "search:",
        "  proposer: known-cost",
        f"  trials: {outline.trials}",
        f"  hours: {outline.hours:g}    # no trial starts once trials took this long in total",
        "  seed: 0",
        *several,
    ]


def _triple(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
