"""The keys of an ablation file, as frozen dataclasses that pydantic fills and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from search.ablation.metrics import CASE_METRICS, METRICS
from search.config.augment import STRICT
from search.config.errors import nearest
from search.config.keys import Key
from search.config.numbers import Index, Positive
from search.config.schema import BlocksField, DataField, Executor, ExecutorField, NameField, StorageField, TrackField
from search.config.space_section import PresetName
from search.config.training_section import Training, TrainingField

Correction = Literal["holm", "bonferroni", "fdr_bh", "none"]


def _from_count(value: Any) -> Any:
    """Expand a count: `seeds: 3` means the seeds 0, 1 and 2."""
    return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{list(values)} contains a value twice")
    return values


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}{nearest(metric, METRICS)}")
    return metric


def _paired(metrics: tuple[str, ...]) -> tuple[str, ...]:
    if not set(metrics) & set(CASE_METRICS):
        raise ValueError(f"at least one of {', '.join(CASE_METRICS)} is required, to compare the arms case by case")
    return metrics


Several = Annotated[tuple[Index, ...], BeforeValidator(_from_count), Field(min_length=1), AfterValidator(_distinct)]
COUNT = {"type": "integer", "minimum": 1}  # `seeds: 3`
Metric = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(METRICS)})]
Metrics = Annotated[tuple[Metric, ...], AfterValidator(_distinct), AfterValidator(_paired)]


@dataclass(frozen=True)
class Base:
    """The network that every arm changes: a paper's, one of a study's front, or given by axes (also over those)."""

    __pydantic_config__ = STRICT
    preset: Annotated[
        PresetName | None, Key("A paper's network. Without it, `study` or `axes` gives the base.", "csam_unet")
    ] = None
    study: Annotated[
        str | None, Key("A study's file, whose front gives the base. Without it, `preset` or `axes` does.", "acdc.yaml")
    ] = None
    pick: Annotated[
        Literal["knee", "best"] | Index, Key("Network of the study's front, or the number of a trial.", "best")
    ] = "knee"
    axes: Annotated[
        dict[str, Any], Key("Axes of the base; they replace those of a preset or study.", {"width": 16, "levels": 4})
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.preset and self.study:
            raise ValueError("a base can have a preset or a study, not both")
        if not (self.preset or self.study or self.axes):
            raise ValueError("a base needs a preset, a study or axes")


@dataclass(frozen=True)
class Arms:
    """The changes of the base; `search.ablation.arms` describes each kind."""

    __pydantic_config__ = STRICT
    remove: Annotated[
        tuple[str, ...], Key("Components to remove, one at a time.", ["csam.semantic", "attention@skips"])
    ] = ()
    replace: Annotated[
        dict[str, tuple[Any, ...]],
        Key("Axes or settings to change, one value at a time.", {"norm": ["batch", "group"]}),
    ] = field(default_factory=dict)
    add: Annotated[
        tuple[str, ...] | dict[str, Any],
        Key(
            "Components to leave out together, then to restore one by one.", ["attention@skips", "attention@bottleneck"]
        ),
    ] = ()
    grid: Annotated[
        dict[str, tuple[Any, ...]],
        Key("Axes or settings in all combinations.", {"width": [8, 16], "levels": [4, 5]}),
    ] = field(default_factory=dict)
    list: Annotated[
        dict[str, dict[str, Any]], Key("Arms by name, each with its changes.", {"half the data": {"data.share": 0.5}})
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """A checked ablation file."""

    __pydantic_config__ = STRICT
    name: NameField
    data: DataField
    base: Annotated[Base, Key("The network that all arms change.", {"preset": "csam_unet"})]
    arms: Annotated[Arms, Key("The changes to compare.", {"remove": ["csam.semantic"]})]
    training: TrainingField = field(default_factory=Training)
    seeds: Annotated[Several, Key("Seeds of each arm's trainings, or how many.", 5, also=(COUNT,))] = (0, 1, 2)
    folds: Annotated[
        Several | None,
        Key("Folds to train on, or how many. Without it, `data.fold` alone.", [0, 1, 2, 3, 4], also=(COUNT,)),
    ] = None
    baseline: Annotated[str, Key("Arm that the others are compared with.", "bare")] = "base"
    metrics: Annotated[
        Metrics, Key("What is compared; the first one scored case by case is primary.", ["dice", "hd95", "memory"])
    ] = ("dice", "memory", "latency")
    surface_tolerance: Annotated[Positive, Key("Tolerance of the surface Dice.", 2.0, "mm")] = 1.0
    correction: Annotated[Correction, Key("Correction of p-values for several arms.", "fdr_bh")] = "holm"
    alpha: Annotated[Annotated[float, Field(gt=0, lt=0.5, strict=True)], Key("Significance level.", 0.01)] = 0.05
    retries: Annotated[
        Annotated[int, Field(ge=0, le=10, strict=True)], Key("How often a failed training is repeated.", 2)
    ] = 1
    executor: ExecutorField = field(default_factory=Executor)
    storage: StorageField = None
    track: TrackField = ()
    blocks: BlocksField = ()

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
        """The numbers of the folds to train on."""
        return self.folds or (self.data.fold,)
