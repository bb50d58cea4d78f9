"""The schema of a study file: frozen dataclasses that pydantic fills and validates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from search.config.augment import STRICT
from search.config.goals import Objectives
from search.config.keys import Key
from search.config.numbers import Index, Positive, Whole
from search.config.space_section import PresetName, SpaceSection
from search.config.training_section import Training, TrainingField

LARGEST_SEED = 2**32 - 1  # what every generator takes
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, strict=True)]
Rule = Literal["zscore", "zscore_nonzero", "ct", "none", "rescale_to_0_1", "rgb_to_0_1"]
TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
DEVICE_PATTERN = r"^(auto|cpu|cuda(:[0-9]+)?)$"
RESERVED_NAMES = ("cache",)  # subfolders of the runs folder that are not studies


def _refuse_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved for the folder of prepared volumes; choose another name")
    return name


Name = Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(_refuse_reserved)]


@dataclass(frozen=True)
class Data:
    """The volumes: their folder and common grid, their folds and test cases, and the share to train on."""

    __pydantic_config__ = STRICT
    path: Annotated[
        str,
        Key(
            "Data folder, looked up under --data; without that option, under VOXNAS_DATA, the file's folder and the "
            "current folder.",
            "Task27_ACDC",
        ),
    ]
    group: Annotated[
        str | None,
        Key(
            "Regular expression; cases with the same match stay in one fold. Without it, cases are split individually.",
            r"patient\d+",
        ),
    ] = None
    spacing: Annotated[
        Literal["median", "nnunet"] | tuple[Positive, Positive, Positive],
        Key(
            "Voxel size (D, H, W) that volumes are resampled to; `median` is that of the data, `nnunet` follows "
            "nnU-Net's rule, finer through thick slices.",
            [5.0, 1.5, 1.5],
            "mm",
        ),
    ] = "median"
    normalisation: Annotated[
        Literal["auto"] | Rule | Annotated[tuple[Rule, ...], Field(min_length=1)],
        Key(
            "How intensities are normalised, one rule or one per channel; `auto` goes by the channels' names, like "
            "nnU-Net.",
            ["ct", "none"],
        ),
    ] = "auto"
    affine_tolerance: Annotated[
        Annotated[float, Field(gt=0, le=10, strict=True)],
        Key("Largest distance between the corners of a case's files, in smallest voxel sizes.", 0.5),
    ] = 0.1
    folds: Annotated[
        Annotated[int, Field(ge=2, le=100, strict=True)] | Annotated[str, Field(strict=True)],
        Key("Number of folds, or an nnU-Net file of splits beside the study.", "splits_final.json"),
    ] = 5
    fold: Annotated[Index, Key("Number of the fold to validate on, from 0.", 1)] = 0
    seed: Annotated[Seed, Key("Seed of the split into folds.", 1)] = 0
    share: Annotated[
        Annotated[float, Field(gt=0, le=1, strict=True)] | None,
        Key("Share of the fold's training groups to train on. Without it, all of them.", 0.5),
    ] = None
    test: Annotated[
        Annotated[float, Field(gt=0, lt=1, strict=True)] | Annotated[tuple[str, ...], Field(min_length=1)] | None,
        Key("Cases kept for `voxnas test`: a share of the groups, or names. Without it, there are none.", 0.2),
    ] = None


@dataclass(frozen=True)
class Halving:
    """Early stopping by successive halving: first rung in epochs, share kept per rung (1 / reduction), brackets."""

    __pydantic_config__ = STRICT
    min_epochs: Annotated[Whole, Key("Epochs before the first decision.", 15, "epochs")] = 1
    reduction: Annotated[
        Annotated[float, Field(gt=1, le=10, strict=True)],
        Key("One in this many trials continues past a rung; the next rung is this many times the epochs away.", 2.0),
    ] = 3.0
    brackets: Annotated[
        Annotated[int, Field(ge=1, le=5, strict=True)],
        Key("Number of brackets, which trials take in turn; each starts at the second rung of the previous one.", 2),
    ] = 1


def _as_list(value: Any) -> Any:
    """Return a single source as a list, `none` as an empty one."""
    return value if value == "auto" or not isinstance(value, str) else [] if value == "none" else [value]


@dataclass(frozen=True)
class Search:
    """The proposer, the budget in trials or hours, the seed, and early stopping."""

    __pydantic_config__ = STRICT
    proposer: Annotated[
        Literal["known-cost", "random", "tpe", "nsga2", "nsga3", "gp", "local"],
        Key("Method that chooses the next network.", "random"),
    ] = "known-cost"
    trials: Annotated[Whole, Key("Number of trainings, including those already done and repeats.", 20, "trials")] = 50
    hours: Annotated[
        Positive | None,
        Key("No trial starts once trials took this long in total. Without it, only `trials` limits.", 12.0, "hours"),
    ] = None
    seed: Annotated[Seed, Key("Seed of proposals and trainings; a repeat uses the next ones.", 1)] = 0
    references: Annotated[
        Literal["auto"] | tuple[PresetName, ...],
        BeforeValidator(lambda value: () if value == "none" else value),
        Key(
            "Published networks to train first and compare the front with; they don't count as `trials`. `auto` trains "
            "`nnunet` if it meets the budgets and isn't far larger than the networks of the space.",
            ["nnunet", "csam_unet"],
            also=({"const": "none"},),
        ),
    ] = "auto"
    folds: Annotated[
        Whole,
        Key("Folds that each trial is trained on, from `data.fold` on; its Dice is the mean.", 3, "folds"),
    ] = 1
    seeds: Annotated[Whole, Key("Seeds that each trial is trained with on each fold, from `seed` on.", 2, "seeds")] = 1
    halving: Annotated[
        Halving | None,
        BeforeValidator(lambda value: None if value == "off" else value),
        Key(
            "Early stopping of poor trials. Without it, all train to the end.",
            {"min_epochs": 15},
            also=({"const": "off"},),
        ),
    ] = None
    learn_from: Annotated[
        Literal["auto"] | tuple[str, ...],
        BeforeValidator(_as_list),
        Key(
            "Earlier studies (folders, or names in the runs folder) and tables of trainings (Parquet) whose effects "
            "guide the first trainings. `auto` takes the finished studies of the runs folder that have 8 trained "
            "networks or more and vary an axis of this one.",
            ["hippocampus", "table.parquet"],
            also=({"const": "none"},),
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        last = self.seed + self.seeds * self.trials - 1  # every trial may be a repeat of one network
        if last > LARGEST_SEED:
            raise ValueError(
                f"{self.trials} trials of {self.seeds} seeds from {self.seed} on may need the seed {last}, but the "
                f"largest is {LARGEST_SEED}; choose a seed of at most {LARGEST_SEED - (last - self.seed)}"
            )

    @property
    def trainings(self) -> int:
        """Trainings in a trial."""
        return self.folds * self.seeds


@dataclass(frozen=True)
class Executor:
    """Where trials run; `threads` applies to both training and latency measurements."""

    __pydantic_config__ = STRICT
    kind: Annotated[Literal["local", "ray"], Key("Where trials run: in this process, or on a Ray cluster.", "ray")] = (
        "local"
    )
    device: Annotated[
        Annotated[str, Field(pattern=DEVICE_PATTERN)],
        Key("Device of trainings; `auto` is a GPU if there is one.", "cpu"),
    ] = "auto"
    threads: Annotated[
        Whole | None,
        Key(
            "CPU threads of a training and of a latency measurement. Without it, all CPUs, or a share of them per GPU.",
            4,
        ),
    ] = None
    gpus: Annotated[
        Literal["all"] | Whole | Annotated[tuple[Index, ...], Field(min_length=1)] | None,
        Key(
            "GPUs of this machine to train on at the same time: all, how many, or their numbers. A run starts Ray for "
            "them and ends it. Without it, `device` names one.",
            "all",
        ),
    ] = None
    address: Annotated[str, Key("Ray cluster; `auto` is the running one.", "head:6379")] = "auto"
    workers: Annotated[
        Whole | None,
        Key("Maximum number of trials at a time. Without it, as many as fit on a cluster, or 1 locally.", 32, "trials"),
    ] = None
    storage_path: Annotated[
        str | None,
        Key(
            "Where a cluster keeps checkpoints. Without it, the runs folder, shared by all machines.",
            "s3://bucket/runs",
        ),
    ] = None
    share_volumes: Annotated[
        bool, Key("Whether other users of the machine may read the prepared volumes, as the umask allows.", True)
    ] = False
    latency_on: Annotated[
        str | None,
        Key("Type of GPU or Ray resource that measures latencies. Without it, the device of the trial.", "A100"),
    ] = None

    def __post_init__(self) -> None:
        if self.gpus is not None and (self.kind != "local" or self.device == "cpu"):
            other = "kind: ray uses the GPUs of its cluster" if self.kind != "local" else "device: cpu uses none"
            raise ValueError(f"gpus starts Ray for GPUs of this machine, but {other}; remove one of the two")


# Keys that studies and ablations share
NameField = Annotated[Name, Key("Name of the run and of its folder in runs/. Without it, the file's name.", "acdc")]
DataField = Annotated[Data, Key("The volumes, their grid and their folds.", {"path": "Task27_ACDC", "folds": 5})]
ExecutorField = Annotated[Executor, Key("Where trials run.", {"device": "cpu", "threads": 4})]
StorageField = Annotated[
    str | None,
    Key("Address of the database. Without it, study.db in the run's folder.", "postgresql+psycopg://me@host/studies"),
]
TrackField = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Key(
        "Experiment trackers, each an extra of the installation, that show every trial as a run with its curves, costs "
        "and architecture. They write to the runs folder unless their own settings name a server.",
        ["tensorboard", "mlflow"],
        also=({"enum": list(get_args(TrackerName))},),
    ),
]
BlocksField = Annotated[
    tuple[str, ...], Key("Your own blocks: files beside this one, or names of installed packages.", ["./my_block.py"])
]


@dataclass(frozen=True)
class Study:
    """A validated study file."""

    __pydantic_config__ = STRICT
    name: NameField
    data: DataField
    space: Annotated[
        SpaceSection, Key("How the full space of networks is narrowed.", {"fix": {"levels": 5}, "placement": "tied"})
    ] = field(default_factory=SpaceSection)
    objectives: Annotated[
        Objectives, Key("Quantities to optimise, limit or record.", {"dice": "maximize", "memory": "minimize"})
    ] = field(default_factory=Objectives)
    training: TrainingField = field(default_factory=Training)  # `auto` resolves to light-1 at the default length
    search: Annotated[Search, Key("How networks are proposed, and how many are trained.", {"trials": 20})] = field(
        default_factory=Search
    )
    executor: ExecutorField = field(default_factory=Executor)
    storage: StorageField = None
    surface_tolerance: Annotated[
        Positive | None,
        Key("Validation also gives hd95 and surface Dice at this tolerance. Without it, neither.", 1.0, "mm"),
    ] = None
    keep: Annotated[
        Literal["front", "all"],
        Key("Trials whose weights are kept; `front` includes networks near it, which noise may hide.", "all"),
    ] = "front"
    track: TrackField = ()
    blocks: BlocksField = ()

    @property
    def directions(self) -> dict[str, str]:
        """The optimised objectives with their directions, in the order of the table."""
        return {name: goal.direction for name, goal in self.objectives.goals.items() if goal.direction != "record"}

    @property
    def budgets(self) -> dict[str, float]:
        """Hard limits of costs: bytes, seconds, counts."""
        limits = {name: getattr(goal, "budget", None) for name, goal in self.objectives.goals.items()}
        return {name: float(limit) for name, limit in limits.items() if limit is not None}
