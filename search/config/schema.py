"""The schema of a study file: frozen dataclasses that pydantic fills and validates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from search.config.augment import STRICT, Augment, Share
from search.config.errors import nearest
from search.config.objectives import OBJECTIVES, Direction, Objective
from search.config.recipes import LIGHT, RecipeName, with_recipe
from search.config.units import Seconds
from space.narrow import Narrowing
from space.presets import PRESETS
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec

Whole = Annotated[int, Field(ge=1, strict=True)]
Index = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
DEVICE_PATTERN = r"^(auto|cpu|cuda(:[0-9]+)?)$"
RESERVED_NAMES = ("cache",)  # subfolders of the runs folder that are not studies


def _refuse_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved for the folder of prepared volumes; choose another name")
    return name


Name = Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(_refuse_reserved)]
PresetName = Literal[
    "sau_net",
    "csam_unet",
    "joint_denseunet",
    "unetrpp_synapse",
    "unetrpp_acdc",
    "unetrpp_lung",
    "unetrpp_tumor",
    "meunet",
    "meunet_cascade",
]
T = TypeVar("T")


def _goal_type(objective: Objective) -> Any:
    """Return the type of an objective's section: its direction or `record`, and a budget if the objective takes one."""

    def checked(direction: Any) -> Any:
        allowed = (objective.direction, "record")
        if direction in allowed:
            return direction
        if direction in get_args(Direction):
            problem = f"{objective.heading} can't be {direction}d (allowed: {', '.join(allowed)})"
            better = "higher" if objective.is_maximized else "lower"
            raise ValueError(f"{problem}; {better} values are always better")
        raise ValueError(f"{direction!r} is not known{nearest(direction, allowed)}")

    fields: list[Any] = [("direction", Annotated[str, BeforeValidator(checked)], objective.direction)]
    if objective.parse:
        fields.append(("budget", Annotated[float, BeforeValidator(objective.parse)] | None, None))
    named = objective.name.title().replace("_", "") + "Goal"
    return make_dataclass(named, fields, frozen=True, namespace={"__pydantic_config__": STRICT, "__module__": __name__})


def _direction_alone(value: Any) -> Any:
    """Expand the short forms `memory: minimize` and `memory:` to a mapping."""
    if value is None:
        return {}
    return {"direction": value} if isinstance(value, str) else value


GOALS: dict[str, Any] = {name: _goal_type(each) for name, each in OBJECTIVES.items()}
globals().update({goal.__name__: goal for goal in GOALS.values()})  # pickle finds classes by module and name


def _one_key_per_objective(cls: type[T]) -> type[T]:
    """Make a dataclass with a field per entry of OBJECTIVES; None if the study omits the objective."""
    cls.__annotations__ = {
        name: Annotated[goal | None, BeforeValidator(_direction_alone)] for name, goal in GOALS.items()
    }
    for name in GOALS:
        setattr(cls, name, None)
    return dataclass(frozen=True)(cls)


@_one_key_per_objective
class Objectives:
    """Objectives to optimise, to limit (`budget`) or only to record; omitted objectives are recorded."""

    __pydantic_config__ = STRICT

    @property
    def goals(self) -> dict[str, Any]:
        """The listed objectives, each with its direction and, if given, its budget."""
        return {name: goal for name, goal in vars(self).items() if goal is not None}

    @classmethod
    def of(cls, *names: str) -> Objectives:
        """Return these objectives, each optimised in its natural direction."""
        return cls(**{name: GOALS[name]() for name in names})


@dataclass(frozen=True)
class Data:
    """The volumes: their folder, common grid and split, and the share of a fold's training groups to use."""

    __pydantic_config__ = STRICT
    path: str
    group: str | None = None
    spacing: Literal["median"] | tuple[Positive, Positive, Positive] = "median"
    normalisation: Literal["auto", "zscore", "ct"] = "auto"
    folds: Annotated[int, Field(ge=2, le=100, strict=True)] | Annotated[str, Field(strict=True)] = 5
    fold: Index = 0
    seed: Index = 0
    share: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None


@dataclass(frozen=True)
class Forbidden:
    """A combination of choices that a study excludes, with the reason to show to readers."""

    __pydantic_config__ = STRICT
    when: dict[str, Any]
    why: str


@dataclass(frozen=True)
class SpaceSection:
    """Restrictions of the full space, or the axes to vary on a published network; see `space.narrow`."""

    __pydantic_config__ = STRICT
    placement: Literal["each", "tied"] = "each"
    fix: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, list[Any]] = field(default_factory=dict)
    forbid: tuple[Forbidden, ...] = ()
    base: PresetName | None = None
    open: tuple[str, ...] = ()

    def narrowing(self, blocks: Sequence[BlockSpec] = BUILT_IN) -> Narrowing:
        """Convert the section to a `Narrowing` of the space, in which places may hold any of `blocks`."""
        base = PRESETS[self.base].architecture if self.base else None
        forbid = [(each.when, each.why) for each in self.forbid]
        return Narrowing(self.placement, self.fix, self.choices, forbid, base, self.open, blocks)


MirrorField = Annotated[
    tuple[Literal["D", "H", "W"], ...], BeforeValidator(lambda value: () if value == "none" else value)
]


@dataclass(frozen=True)
class Training:
    """Training settings: a patch is (D, H, W) voxels, an epoch `steps_per_epoch` optimiser steps.

    The defaults are those of the recipe `light-1`; `with_recipe` fills in those of other recipes. `foreground` is the
    share of patches sampled around a foreground voxel. `foreground_at: anywhere` samples each patch with this
    probability and puts the voxel anywhere in the patch. `centre` uses the last patches of each batch and centres them
    on the voxel.
    """

    __pydantic_config__ = STRICT
    recipe: RecipeName = LIGHT
    patch: Literal["auto"] | tuple[Whole, Whole, Whole] = "auto"
    batch: Whole = 2
    epochs: Whole = 50
    steps_per_epoch: Whole = 250
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0, strict=True)] = 1e-5
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    clip_gradient: Positive = 12.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    foreground: Share = 0.5
    foreground_at: Literal["anywhere", "centre"] = "anywhere"
    lowest_head: bool = True  # whether the coarsest supervised level counts in the loss
    batch_dice: bool = True  # soft Dice over the whole batch, else per sample
    augment: Augment = field(default_factory=Augment)
    mirror: MirrorField = ()  # axes along which windows are mirrored at inference, and the logits averaged
    overlap: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.5
    validate_every: Whole = 1
    deadline: Seconds | None = None
    init: str | None = None  # initial weights, as written by `voxnas import`

    @property
    def steps(self) -> int:
        """Total number of optimiser steps."""
        return self.epochs * self.steps_per_epoch


TrainingField = Annotated[Training, BeforeValidator(with_recipe)]


@dataclass(frozen=True)
class Halving:
    """Early stopping by successive halving: first rung in epochs, share kept per rung (1 / reduction), brackets."""

    __pydantic_config__ = STRICT
    min_epochs: Whole = 1
    reduction: Annotated[float, Field(gt=1, le=10, strict=True)] = 3.0
    brackets: Annotated[int, Field(ge=1, le=5, strict=True)] = 1


@dataclass(frozen=True)
class Search:
    """The proposer, the budget in trials or hours, the seed, and early stopping."""

    __pydantic_config__ = STRICT
    proposer: Literal["known-cost", "random", "tpe", "nsga2", "nsga3", "gp", "local"] = "known-cost"
    trials: Whole = 50
    hours: Positive | None = None
    seed: Index = 0
    halving: Annotated[Halving | None, BeforeValidator(lambda value: None if value == "off" else value)] = None


@dataclass(frozen=True)
class Executor:
    """Where trials run; `threads` applies to both training and latency measurements.

    For a Ray cluster: `address`; `workers`, the maximum number of concurrent trials (default: as many as fit);
    `storage_path` for checkpoints (default: the run's folder, which all machines must then share); and `latency_on`,
    the resource or GPU model on which latencies are measured.
    """

    __pydantic_config__ = STRICT
    kind: Literal["local", "ray"] = "local"
    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] = "auto"
    threads: Whole | None = None
    address: str = "auto"
    workers: Whole | None = None
    storage_path: str | None = None
    latency_on: str | None = None


@dataclass(frozen=True)
class Study:
    """A validated study file.

    `surface_tolerance`, in mm, adds hd95 and the surface Dice at this tolerance to validation. `blocks` lists plug-in
    blocks: files next to the study, such as ./my_block.py, and entry points of installed packages.
    """

    __pydantic_config__ = STRICT
    name: Name
    data: Data
    space: SpaceSection = field(default_factory=SpaceSection)
    objectives: Objectives = field(default_factory=Objectives)
    training: TrainingField = field(default_factory=Training)  # `auto` resolves to light-1 at the default length
    search: Search = field(default_factory=Search)
    executor: Executor = field(default_factory=Executor)
    storage: str | None = None
    surface_tolerance: Positive | None = None
    keep: Literal["front", "all"] = "front"
    blocks: tuple[str, ...] = ()

    @property
    def directions(self) -> dict[str, str]:
        """The optimised objectives with their directions, in the order of the table."""
        return {name: goal.direction for name, goal in self.objectives.goals.items() if goal.direction != "record"}

    @property
    def budgets(self) -> dict[str, float]:
        """Hard limits of costs: bytes, seconds, counts."""
        limits = {name: getattr(goal, "budget", None) for name, goal in self.objectives.goals.items()}
        return {name: float(limit) for name, limit in limits.items() if limit is not None}
