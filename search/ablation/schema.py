"""What an ablation file may say: frozen dataclasses that pydantic fills and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from search.ablation.metrics import CASE_METRICS, METRICS
from search.config.augment import STRICT
from search.config.errors import nearest
from search.config.schema import Data, Executor, Index, Name, Positive, PresetName, Training, TrainingField

Correction = Literal["holm", "bonferroni", "fdr_bh", "none"]


def _counted(value: Any) -> Any:
    """Let `seeds: 3` stand for the seeds 0, 1 and 2."""
    return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{list(values)} names one twice")
    return values


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"{metric!r} is not known{nearest(metric, METRICS)}")
    return metric


def _paired(metrics: tuple[str, ...]) -> tuple[str, ...]:
    if not set(metrics) & set(CASE_METRICS):
        raise ValueError(f"one of {', '.join(CASE_METRICS)} is needed, to pair the arms case by case")
    return metrics


Several = Annotated[tuple[Index, ...], BeforeValidator(_counted), Field(min_length=1), AfterValidator(_distinct)]
Metric = Annotated[str, AfterValidator(_known)]
Metrics = Annotated[tuple[Metric, ...], AfterValidator(_distinct), AfterValidator(_paired)]


@dataclass(frozen=True)
class Base:
    """What every arm changes: a paper's network, one of a study's front, or axes spelled out (also over these)."""

    __pydantic_config__ = STRICT
    preset: PresetName | None = None
    study: str | None = None
    pick: Literal["knee", "best"] | Index = "knee"
    axes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.preset and self.study:
            raise ValueError("a base is a preset or comes from a study, not both")
        if not (self.preset or self.study or self.axes):
            raise ValueError("name a preset, a study or axes")


@dataclass(frozen=True)
class Arms:
    """How the base is changed; see `search.ablation.arms` for what each kind gives."""

    __pydantic_config__ = STRICT
    remove: tuple[str, ...] = ()
    replace: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    add: tuple[str, ...] | dict[str, Any] = ()
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    list: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """One ablation file, checked.

    The first of `metrics` that is scored case by case is the primary one. `folds` are those of `data.folds` to
    train on, [data.fold] where nothing is said. `surface_tolerance` is in mm. `blocks` names plug-in blocks, as in a
    study.
    """

    __pydantic_config__ = STRICT
    name: Name
    data: Data
    base: Base
    arms: Arms
    training: TrainingField = field(default_factory=Training)
    seeds: Several = (0, 1, 2)
    folds: Several | None = None
    baseline: str = "base"
    metrics: Metrics = ("dice", "memory", "latency")
    surface_tolerance: Positive = 1.0
    correction: Correction = "holm"
    alpha: Annotated[float, Field(gt=0, lt=0.5, strict=True)] = 0.05
    retries: Annotated[int, Field(ge=0, le=10, strict=True)] = 1
    executor: Executor = field(default_factory=Executor)
    storage: str | None = None
    blocks: tuple[str, ...] = ()

    @property
    def case_metrics(self) -> tuple[str, ...]:
        """The metrics that are scored case by case, the primary one first."""
        return tuple(metric for metric in self.metrics if metric in CASE_METRICS)

    @property
    def cost_metrics(self) -> tuple[str, ...]:
        """The metrics that are costs of the network."""
        return tuple(metric for metric in self.metrics if metric not in CASE_METRICS)

    @property
    def trained_folds(self) -> tuple[int, ...]:
        """Numbers of the folds that are trained on."""
        return self.folds or (self.data.fold,)
