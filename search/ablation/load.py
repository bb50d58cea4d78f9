"""Load an ablation file with its overrides: checked arms, or every mistake at once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.ablation.arms import BASE, RequestedArm, requested_arms
from search.ablation.metrics import use_surfaces
from search.ablation.schema import Ablation
from search.analysis.snapshot_reader import snapshot_of
from search.config.blocks import load_named_blocks
from search.config.errors import Mistake, UserError, nearest
from search.config.goals import Objectives
from search.config.load import ANY_CONTEXT, LoadedStudy, find_data, load_study
from search.config.schema import Data, Search, Study
from search.config.training_section import Training
from search.config.validate import raise_mistakes, read_as
from search.config.yaml_source import KeyPath, Source, read_source, set_value
from space.architecture import Architecture
from space.axes import DecisionError
from space.canonical import Context
from space.narrow import Narrowing, narrow_space, overlaid
from space.plugins import BlockCode, load_blocks
from space.presets import PRESETS
from space.specs.spec import BlockSpec

OBJECTIVES = Objectives.of("dice", "memory", "latency")  # recorded in any case; the file's metrics may differ


@dataclass(frozen=True)
class Setting:
    """The training and data settings that some arms share; `changes` are the differences from the base, by key."""

    changes: tuple[tuple[str, Any], ...]
    data: Data
    training: Training

    @property
    def name(self) -> str:
        """The changes from the base's setting, as text; empty for the base."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.changes)).replace(" ", "").replace("/", "_")


@dataclass(frozen=True)
class LoadedAblation:
    """An ablation, its file, its arms and their settings; `base` is the network of a preset or of a study's front."""

    ablation: Ablation
    file: Path
    data_folder: Path
    requested: tuple[RequestedArm, ...]
    settings: tuple[Setting, ...]
    base: Architecture | None
    blocks: tuple[BlockCode, ...] = ()

    def study(self, setting: Setting, *, storage: str) -> LoadedStudy:
        """Return the study, in the ablation's database, that trains the arms of a setting."""
        ablation = self.ablation
        study = Study(
            name=ablation.name + (f"/{setting.name}" if setting.changes else ""),
            data=setting.data,
            training=setting.training,
            objectives=OBJECTIVES,
            search=Search(seed=ablation.seeds[0]),
            executor=ablation.executor,
            storage=storage,
            surface_tolerance=ablation.surface_tolerance if use_surfaces(ablation.metrics) else None,
            track=ablation.track,
            blocks=ablation.blocks,
        )
        return LoadedStudy(study, self.file, self.data_folder, self.blocks)

    def setting_of(self, requested: RequestedArm) -> Setting:
        """Return an arm's setting."""
        changes = tuple(sorted(requested.settings.items()))
        return next(each for each in self.settings if each.changes == changes)

    def architecture(self, requested: RequestedArm, context: Context) -> Architecture:
        """Complete an arm's network for this data. Raises DecisionError."""
        return complete(self.ablation, self.base, requested, context, load_blocks(self.blocks))


def load_ablation(
    file: Path,
    *,
    runs: Path,
    overrides: Sequence[str] = (),
    data_root: Path | None = None,
    allow_code: bool = False,
) -> LoadedAblation:
    """Read and check an ablation file, as `load_study` does a study's; read a base from the study that it names.

    Raises UserError with every mistake that can be found without opening the data.
    """
    source = read_source(file, overrides)
    source.values.setdefault("name", file.stem)
    ablation, mistakes = read_as(Ablation, source)
    folder, missing = find_data(source, file, data_root)
    mistakes += source.mistakes + missing
    codes, specs, wrong = load_named_blocks(source, file, allow_code=allow_code)
    mistakes += wrong
    drafted = ablation or _draft(source)
    if drafted is not None:
        requested, problems = requested_arms(drafted, specs)
        mistakes += [source.mistake(path, message) for path, message in problems]
        base = _base(drafted, source, runs, mistakes)
        settings = _settings(source, requested, mistakes)
        if not wrong:
            mistakes += [each for arm in requested for each in _network_mistakes(drafted, base, arm, source, specs)]
        if drafted.baseline not in [each.name for each in requested]:
            hint = nearest(drafted.baseline, [each.name for each in requested])
            mistakes.append(source.mistake(("baseline",), f"there is no arm {drafted.baseline!r}{hint}"))
    raise_mistakes(mistakes)
    if ablation is None or folder is None:
        raise ValueError(f"{file} gave neither an ablation nor a mistake")
    return LoadedAblation(ablation, file, folder, tuple(requested), tuple(settings), base, codes)


def _draft(source: Source) -> Ablation | None:
    """Read only what the arms need, so that their mistakes are reported together with those of other sections."""
    values: dict[str, Any] = {"name": "draft", "data": {"path": "."}}
    values |= {key: source.values[key] for key in ("base", "arms", "baseline") if key in source.values}
    return read_as(Ablation, Source(source.file, values, source.places))[0]


def complete(
    ablation: Ablation,
    base: Architecture | None,
    requested: RequestedArm,
    context: Context,
    blocks: Sequence[BlockSpec],
) -> Architecture:
    """Return an arm's network: the arm's changes override the base's axes, all other axes take their first choice.

    If the base is a complete network (`base`), all other axes keep its values. Raises DecisionError.
    """
    if ablation.base.preset:
        base = PRESETS[ablation.base.preset].at(context)
    fix = overlaid(ablation.base.axes, requested.axes)
    space = narrow_space(context, Narrowing(fix=fix, base=base, open=tuple(fix) if base else (), blocks=blocks))
    return space.architecture(space.complete({}))


def _base(ablation: Ablation, source: Source, runs: Path, mistakes: list[Mistake]) -> Architecture | None:
    base = ablation.base
    if base.preset:
        return PRESETS[base.preset].architecture  # `complete` derives it from the data where its rules do so
    if base.study is None:
        return None
    file = Path(source.file).parent / base.study
    try:
        snapshot = snapshot_of(load_study(file, need_data=False), runs=runs)
        return snapshot.pick(str(base.pick)).record.architecture
    except UserError as error:
        mistakes += [source.mistake(("base", "study"), str(each)) for each in error.mistakes]
        return None


def _settings(source: Source, requested: Sequence[RequestedArm], mistakes: list[Mistake]) -> list[Setting]:
    """Return the distinct settings, the base's first; invalid ones are added to `mistakes`."""
    found: dict[tuple[tuple[str, Any], ...], Setting] = {}
    for each in requested:
        changes = tuple(sorted(each.settings.items()))
        if changes in found:
            continue
        changed = deepcopy(source)
        for key, value in changes:
            set_value(changed, tuple(key.split(".")), value, place=source.place(each.place))
        read, wrong = read_as(Ablation, changed)
        mistakes += wrong
        if read:
            found[changes] = Setting(changes, read.data, read.training)
    return list(found.values())


def _network_mistakes(
    ablation: Ablation, base: Architecture | None, requested: RequestedArm, source: Source, blocks: Sequence[BlockSpec]
) -> list[Mistake]:
    """Check an arm's axes and values without data; mistakes in the base's own axes point to the base."""
    try:
        complete(ablation, base, requested, ANY_CONTEXT, blocks)
    except DecisionError as error:
        names = list(overlaid(ablation.base.axes, requested.axes))
        problems = dict.fromkeys((_axis_of(key, names), message) for key, message in error.problems)
        return [source.mistake(_where(axis, requested), message) for axis, message in problems]
    return []


def _axis_of(key: str, names: Sequence[str]) -> str:
    kind, _, rest = key.partition(".")
    if kind == "base":
        return kind
    return names[int(rest)] if kind == "open" else rest


def _where(axis: str, requested: RequestedArm) -> KeyPath:
    if axis not in requested.axes:
        return (BASE, "axes", axis)
    return (*requested.place, axis) if requested.place[1] in ("list", "grid") else requested.place
