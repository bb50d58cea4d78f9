"""What a study file may say: frozen dataclasses that pydantic fills and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from search.config.augment import STRICT, Augment, Share
from search.config.recipes import LIGHT, RecipeName, with_recipe
from search.config.units import Bytes, Count, Seconds
from space.narrow import Narrowing
from space.presets import PRESETS

Whole = Annotated[int, Field(ge=1, strict=True)]
Index = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
DEVICE_PATTERN = r"^(auto|cpu|cuda(:[0-9]+)?)$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
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
Direction = Literal["maximize", "minimize", "record"]


def _direction_alone(value: Any) -> Any:
    """Let `memory: minimize` and a bare `memory:` stand for the mapping."""
    if value is None:
        return {}
    return {"direction": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class DiceObjective:
    """Mean foreground Dice over validation cases, 0 to 1."""

    __pydantic_config__ = STRICT
    direction: Literal["maximize", "record"] = "maximize"


@dataclass(frozen=True)
class MemoryObjective:
    """Peak bytes, of a training step or of inference on one patch."""

    __pydantic_config__ = STRICT
    direction: Direction = "minimize"
    budget: Bytes | None = None


@dataclass(frozen=True)
class LatencyObjective:
    """Seconds to segment one patch at batch 1."""

    __pydantic_config__ = STRICT
    direction: Direction = "minimize"
    budget: Seconds | None = None


@dataclass(frozen=True)
class CountObjective:
    """Multiply-adds of one patch, or parameters."""

    __pydantic_config__ = STRICT
    direction: Direction = "minimize"
    budget: Count | None = None


MemoryField = Annotated[MemoryObjective | None, BeforeValidator(_direction_alone)]
LatencyField = Annotated[LatencyObjective | None, BeforeValidator(_direction_alone)]
CountField = Annotated[CountObjective | None, BeforeValidator(_direction_alone)]


@dataclass(frozen=True)
class Objectives:
    """What is optimised, limited (`budget`) or just recorded; what is not named is recorded."""

    __pydantic_config__ = STRICT
    dice: Annotated[DiceObjective | None, BeforeValidator(_direction_alone)] = None
    memory: MemoryField = None
    inference_memory: MemoryField = None
    latency: LatencyField = None
    macs: CountField = None
    params: CountField = None


@dataclass(frozen=True)
class Data:
    """Where the volumes are, how they are brought to one grid and split, and what share of a fold is trained on."""

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
    """A combination that a study leaves out, and the reason that a reader of the study is given."""

    __pydantic_config__ = STRICT
    when: dict[str, Any]
    why: str


@dataclass(frozen=True)
class SpaceSection:
    """How the full space is narrowed, or which axes are opened on a paper's network; see `space.narrow`."""

    __pydantic_config__ = STRICT
    placement: Literal["each", "tied"] = "each"
    fix: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, list[Any]] = field(default_factory=dict)
    forbid: tuple[Forbidden, ...] = ()
    base: PresetName | None = None
    open: tuple[str, ...] = ()

    def narrowing(self) -> Narrowing:
        """Return what the section says, as the space takes it."""
        base = PRESETS[self.base].architecture if self.base else None
        forbid = [(each.when, each.why) for each in self.forbid]
        return Narrowing(self.placement, self.fix, self.choices, forbid, base, self.open)


@dataclass(frozen=True)
class Training:
    """One training: a patch is (D, H, W) voxels, an epoch `steps_per_epoch` optimiser steps.

    The defaults are those of the recipe `light-1`; `with_recipe` fills in those of another. `foreground` is the share
    of patches around foreground: each with that probability and the voxel `anywhere` in the patch, or the last of
    each batch with the voxel at the `centre`.
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
    lowest_head: bool = True  # whether the coarsest supervised level has a say in the loss
    batch_dice: bool = True  # soft Dice over the whole batch, or of each sample
    augment: Augment = field(default_factory=Augment)
    overlap: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.5
    validate_every: Whole = 1
    deadline: Seconds | None = None
    init: str | None = None  # weights to start from, as `voxnas import` writes them

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.epochs * self.steps_per_epoch


TrainingField = Annotated[Training, BeforeValidator(with_recipe)]


@dataclass(frozen=True)
class Halving:
    """Who is stopped before the last epoch: first rung, share that goes on at each (1 / reduction), brackets."""

    __pydantic_config__ = STRICT
    min_epochs: Whole = 1
    reduction: Annotated[float, Field(gt=1, le=10, strict=True)] = 3.0
    brackets: Annotated[int, Field(ge=1, le=5, strict=True)] = 1


@dataclass(frozen=True)
class Search:
    """Who proposes, how many trainings (or hours of them), from which seed, and who is stopped early."""

    __pydantic_config__ = STRICT
    proposer: Literal["known-cost", "random", "tpe", "nsga2", "nsga3", "gp", "local"] = "known-cost"
    trials: Whole = 50
    hours: Positive | None = None
    seed: Index = 0
    halving: Annotated[Halving | None, BeforeValidator(lambda value: None if value == "off" else value)] = None


@dataclass(frozen=True)
class Executor:
    """Where trials run; `threads` is the one setting for training and for latency.

    On a Ray cluster also its address, the most trials at a time (what the cluster has room for), where checkpoints
    go (the run's folder, which all machines then share), and the resource or kind of card that latencies are
    measured on.
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
    """One study file, checked.

    With `surface_tolerance`, in mm, validation also gives hd95 and the surface Dice at this tolerance.
    """

    __pydantic_config__ = STRICT
    name: Name
    data: Data
    space: SpaceSection = field(default_factory=SpaceSection)
    objectives: Objectives = field(default_factory=Objectives)
    training: TrainingField = field(default_factory=Training)  # light-1: what `auto` gives for its length
    search: Search = field(default_factory=Search)
    executor: Executor = field(default_factory=Executor)
    storage: str | None = None
    surface_tolerance: Positive | None = None
    keep: Literal["front", "all"] = "front"

    @property
    def directions(self) -> dict[str, str]:
        """The objectives, in the order of the schema, with their directions."""
        named = vars(self.objectives)
        return {name: each.direction for name, each in named.items() if each and each.direction != "record"}

    @property
    def budgets(self) -> dict[str, float]:
        """Hard limits of costs: bytes, seconds, counts."""
        named = vars(self.objectives)
        return {name: float(each.budget) for name, each in named.items() if getattr(each, "budget", None) is not None}
