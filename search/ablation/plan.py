"""Plan an ablation on checked data: complete every arm, find equal arms, reject arms that can't be built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.ablation.load import LoadedAblation
from search.config import UserError
from search.data.parallel import Progress
from search.runner.fit import require_scorable
from search.runner.plan import Plan, make_plan
from search.storage.address import database_url
from search.trials.records import TrainingRequest
from space.architecture import Architecture
from space.feasible import why_not


@dataclass(frozen=True)
class Arm:
    """A network with a setting; `plan` is the index of the setting's plan, `same_as` names an earlier equal arm."""

    name: str
    changes: tuple[tuple[str, object], ...]
    architecture: Architecture
    plan: int
    same_as: str = ""


@dataclass(frozen=True)
class AblationPlan:
    """A checked ablation: its arms, and a plan for each setting of training and data, the base's first."""

    loaded: LoadedAblation
    plans: tuple[Plan, ...]
    arms: tuple[Arm, ...]

    @property
    def folder(self) -> Path:
        """The folder of the ablation's files."""
        return self.plans[0].folder

    @property
    def distinct(self) -> tuple[Arm, ...]:
        """The arms that are trained: of equal arms, the first."""
        return tuple(arm for arm in self.arms if not arm.same_as)

    @property
    def baseline(self) -> Arm:
        """The arm that the others are compared with; of equal arms, the first."""
        named = next(arm for arm in self.arms if arm.name == self.loaded.ablation.baseline)
        return next(arm for arm in self.arms if arm.name == (named.same_as or named.name))

    def requests(self, arm: Arm) -> list[TrainingRequest]:
        """List an arm's trainings, seed by seed."""
        ablation = self.loaded.ablation
        return [
            TrainingRequest(arm.architecture, seed, fold) for seed in ablation.seeds for fold in ablation.trained_folds
        ]


def make_ablation_plan(loaded: LoadedAblation, *, runs: Path, progress: Progress | None = None) -> AblationPlan:
    """Check the data and complete every arm for them.

    Raises UserError with all problems of the data, or with every arm that can't be built for them.
    """
    ablation = loaded.ablation
    url = database_url(ablation.storage, runs / ablation.name)
    studies = [loaded.study(setting, storage=url) for setting in loaded.settings]
    plans = tuple(make_plan(study, runs=runs, progress=progress) for study in studies)
    problems = [
        f"folds: {fold} is not one of the {len(plans[0].folds)} folds, numbered from 0"
        for fold in ablation.trained_folds
        if fold >= len(plans[0].folds)
    ]
    if not problems:
        require_scorable(plans[0].facts, plans[0].folds, ablation.trained_folds)
    arms: list[Arm] = []
    for requested in loaded.requested:
        number = loaded.settings.index(loaded.setting_of(requested))
        architecture = loaded.architecture(requested, plans[number].context)
        reason = why_not(architecture, plans[number].context)
        if reason:
            problems.append(f"arm {requested.name!r} can't be built: {reason}")
        equal = [arm.name for arm in arms if (arm.architecture, arm.plan) == (architecture, number)]
        arms.append(Arm(requested.name, requested.changes, architecture, number, equal[0] if equal else ""))
    if problems:
        raise UserError(problems)
    return AblationPlan(loaded, plans, tuple(arms))
