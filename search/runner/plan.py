"""A study on checked data: its folds, patch, space and budgets. Nothing is trained, torch is not imported."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.config import LoadedStudy, Study, UserError
from search.config.blocks import VERSION_OF
from search.config.load import with_code
from search.config.training_section import Training
from search.data.check import DataFacts, check_folder
from search.data.folds import Fold, make_folds, read_folds, share_of
from search.data.geometry import choose_axes
from search.data.groups import group_warning
from search.data.held_out import HeldOut, choose_test_cases, hold_out
from search.data.parallel import Progress
from search.data.prepare import prepare, prepare_like
from search.data.prepared import Prepared
from search.data.read import DataError, Dataset
from search.runner.fit import fold_problems, network_shapes, patch_problems, size_problems
from search.runner.grid import planned_values, resolve_spacing, resolve_training
from search.storage import stored_values
from search.storage.address import database_url
from search.storage.begun import has_begun
from search.storage.identity import CONTENT, plain, refuse_changes
from search.storage.ownership import require_own_folder
from search.trials.files import run_folder
from search.trials.job import Member, Task
from search.trials.records import Record
from space.canonical import Context
from space.narrow import narrow_space
from space.space import Space

FREE_KEYS = ("executor", "keep", "storage", "track")  # may change between two runs of a study


@dataclass(frozen=True)
class Plan:
    """A checked study on checked data; `dataset` and `facts` are without the test cases, which are `held_out`."""

    loaded: LoadedStudy
    dataset: Dataset
    facts: DataFacts
    folds: tuple[Fold, ...]
    training: Training
    context: Context
    space: Space
    runs: Path
    held_out: HeldOut | None = None

    @property
    def study(self) -> Study:
        """The study, as in its file."""
        return self.loaded.study

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return run_folder(self.runs, self.study)

    @property
    def url(self) -> str:
        """The study's database."""
        return database_url(self.study.storage, self.folder)

    @property
    def cache(self) -> Path:
        """The folder of prepared volumes, shared by all studies of a runs folder."""
        return self.runs / "cache"

    @property
    def fold(self) -> Fold:
        """The cases that this study trains and validates on."""
        return self.folds[self.study.data.fold]

    @property
    def group_warning(self) -> str:
        """What to write if case names look grouped and the study does not group them; else empty."""
        if self.study.data.group is not None:
            return ""
        held_out = self.held_out.names if self.held_out else ()
        return group_warning([*self.facts.groups, *held_out])

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the data before a run."""
        return (*([self.group_warning] if self.group_warning else []), *self.facts.notes)

    @property
    def directions(self) -> dict[str, str]:
        """The objectives with their directions."""
        return self.study.directions

    @property
    def budgets(self) -> dict[str, float]:
        """Hard limits of costs: bytes, seconds, counts."""
        return self.study.budgets

    def identity(self) -> dict[str, Any]:
        """Return the values that the study's records depend on; a study with changed values is refused."""
        values = asdict(self.study)
        for key in FREE_KEYS:
            values.pop(key)
        for key in ("trials", "hours", "references"):
            values["search"].pop(key)
        if not self.training.compiles:  # changes no number
            values["training"].pop("compile")
        for key in ("folds", "seeds"):
            if values["search"][key] == 1:  # as in studies of versions without these keys
                values["search"].pop(key)
        values["data"]["path"] = self.dataset.name
        values[CONTENT] = {
            "cases": {case.name: case.digest for case in self.facts.cases},
            "channels": self.dataset.channels,
            "classes": self.dataset.labelling.described,
            "label_values": self.dataset.label_values,
            "splits": [
                {"validation": fold.validation, "train": _digest("\n".join(fold.train).encode())} for fold in self.folds
            ],
            "init": _digest(Path(self.training.init).read_bytes()) if self.training.init else None,
        }
        planned = planned_values(self.study, self.training, self.context.spacing)
        if planned:
            values[CONTENT]["planned"] = planned
        if self.held_out is not None:
            values[CONTENT]["test"] = {case.name: case.digest for case in self.held_out.facts.cases}
        values.update({f"{VERSION_OF}{code.name}": code.version for code in self.loaded.blocks})
        if not values["blocks"]:
            values.pop("blocks")  # as studies without plug-ins always were
        return values


def make_plan(loaded: LoadedStudy, *, runs: Path, progress: Progress | None = None) -> Plan:
    """Check the data that a study names and derive folds, patch and space.

    Raises UserError with all mistakes of the data, or of the study's settings for this data.
    """
    loaded = with_code(loaded)
    data = loaded.study.data
    if loaded.data_folder is None:
        raise ValueError("a plan needs a study that was loaded with its data")
    try:
        dataset, facts = check_folder(
            loaded.data_folder,
            group=data.group,
            affine_tolerance=data.affine_tolerance,
            cache_dir=runs / "cache",
            progress=progress,
        )
        held_out = None
        if data.test is not None:
            names = choose_test_cases(facts.groups, data.test, seed=data.seed)
            dataset, facts, held_out = hold_out(dataset, facts, names)
        folds = _folds(loaded, facts, test=held_out.names if held_out else ())
    except DataError as error:
        raise UserError(error.problems) from None
    if data.fold >= len(folds):
        raise UserError([f"data.fold: there is no fold {data.fold}; the folds are numbered from 0 to {len(folds) - 1}"])
    if not isinstance(data.normalisation, str) and len(data.normalisation) != len(dataset.channels):
        channels = ", ".join(dataset.channels)
        raise UserError([f"data.normalisation: lists {len(data.normalisation)} rules, the channels are: {channels}"])
    used = loaded.study.search.folds
    if used > len(folds):
        raise UserError([f"search.folds: {used} exceeds the number of folds, {len(folds)}"])
    spacing = resolve_spacing(data.spacing, dataset, facts)
    shapes = network_shapes(facts, choose_axes(facts.spacing_median), spacing)
    numbers = [(data.fold + step) % len(folds) for step in range(used)]
    problems = [
        problem
        for number in numbers
        for problem in fold_problems(facts, folds[number], dataset.labelling, number=number)
    ]
    problems += size_problems(facts, shapes, channels=len(dataset.channels), cache=runs / "cache")
    patch = loaded.study.training.patch
    if not isinstance(patch, str):
        problems += patch_problems(patch, shapes)
    if problems:
        raise UserError(problems)
    training = resolve_training(loaded.study.training, dataset, facts, spacing=spacing)
    context = Context(training.size, spacing, len(dataset.channels), dataset.labelling.outputs)
    space = narrow_space(context, loaded.study.space.narrowing(context, loaded.specs))
    if dataset.regions and "cascade" in next(axis.choices for axis in space.axes if axis.name == "stages"):
        raise UserError(["space: a cascade passes classes on, and this data set has regions; fix stages: single"])
    if all(len(axis.choices) == 1 for axis in space.axes):
        raise UserError(["space: `fix` leaves nothing to choose, so no objective can differ; open an axis"])
    training = replace(training, init=_initial_weights(loaded))
    return Plan(loaded, dataset, facts, folds, training, context, space, runs, held_out)


def require_unchanged(plan: Plan) -> None:
    """Raise UserError if values that the records depend on have changed, or the folder belongs to another study.

    A study that stopped before its first trial has no records, so its values may change.
    """
    require_own_folder(plan.folder, study=plan.study.name, url=plan.url)
    known, given = stored_values(plan.url, plan.study.name), plain(plan.identity())
    if known is not None and known != given and has_begun(plan.url, plan.study.name):
        refuse_changes(plan.study.name, known, given)


def prepared_data(plan: Plan, *, progress: Progress | None = None) -> Prepared:
    """Return the study's volumes as arrays, from the cache or prepared now."""
    rule = plan.study.data.normalisation
    return prepare(
        plan.dataset,
        plan.facts,
        spacing="median" if plan.study.data.spacing == "median" else plan.context.spacing,
        normalisation=(rule,) * plan.context.in_channels if isinstance(rule, str) and rule != "auto" else rule,
        cache_dir=plan.cache,
        shared=plan.study.executor.share_volumes,
        progress=progress,
    )


def prepared_test_data(plan: Plan, prepared: Prepared, *, progress: Progress | None = None) -> Prepared:
    """Return the test cases as arrays, with the grid and the intensity statistics of what the search sees.

    Raises UserError if the study has no test cases.
    """
    if plan.held_out is None:
        hint = "add data.test, a share or names of cases, to the file of a new study"
        raise UserError([f"study {plan.study.name!r} has no test cases; {hint}"])
    held_out = plan.held_out
    return prepare_like(
        prepared,
        held_out.dataset,
        held_out.facts,
        cache_dir=plan.cache,
        shared=plan.study.executor.share_volumes,
        progress=progress,
    )


def task_of(plan: Plan, prepared: Prepared, *, fold: int | None = None) -> Task:
    """Return the task of the study's own fold, or of another fold."""
    cases = plan.fold if fold is None else plan.folds[fold]
    return Task(
        prepared=prepared.folder,
        in_channels=plan.context.in_channels,
        classes=prepared.labels,
        spacing_mm=plan.context.spacing,
        train=cases.train,
        validation=cases.validation,
        outputs=prepared.labelling.outputs,
    )


def other_members(plan: Plan, record: Record) -> tuple[Member, ...]:
    """Return the trainings of a trial beside its first: further folds from the study's own on, each with all seeds.

    A repeat uses the same folds, with seeds from its own on. A confirmation (other seed or fold) is one training.
    """
    search, count = plan.study.search, len(plan.folds)
    if (record.seed, record.fold) != (search.seed, plan.study.data.fold) and not record.repeat:
        return ()
    found = []
    for step in range(search.folds):
        number = (plan.study.data.fold + step) % count
        fold = plan.folds[number]
        for seed in range(record.seed, record.seed + search.seeds):
            found.append(Member(seed, number, fold.train, fold.validation))
    return tuple(found[1:])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _initial_weights(loaded: LoadedStudy) -> str | None:
    """Return the path of the initial weights, relative to the study's file or else to the current folder."""
    named = loaded.study.training.init
    if named is None:
        return None
    from search.training.initial import weights_file

    beside = loaded.file.parent / named
    return str(weights_file(beside if beside.exists() else Path(named)).resolve())


def _folds(loaded: LoadedStudy, facts: DataFacts, *, test: Sequence[str]) -> tuple[Fold, ...]:
    share, seed = loaded.study.data.share, loaded.study.data.seed
    folds = _whole_folds(loaded, facts, test)
    return folds if share is None else tuple(share_of(fold, facts.groups, share=share, seed=seed) for fold in folds)


def _whole_folds(loaded: LoadedStudy, facts: DataFacts, test: Sequence[str]) -> tuple[Fold, ...]:
    folds = loaded.study.data.folds
    if isinstance(folds, int):
        try:
            return make_folds(facts.groups, folds=folds, seed=loaded.study.data.seed)
        except ValueError as error:
            raise UserError([f"data.folds: {error}"]) from None
    return read_folds(loaded.file.parent / folds, facts.groups, test=test)
