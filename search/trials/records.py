"""Job, Measurement, Record: plain values that carry everything between the rooms, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import TypeAdapter

from search.config.objectives import OBJECTIVES
from search.config.schema import Training
from space.architecture import Architecture, Value, freeze
from space.plugins import BlockCode

State = Literal["running", "trained", "stopped", "over budget", "failed"]

Fault = Literal["", "error", "not a number", "memory", "deadline", "lost", "storage"]

COUNTED: tuple[State, ...] = ("trained", "stopped", "failed")  # what a study's number of trials counts


@dataclass(frozen=True)
class Task:
    """What is learnt: prepared data, and the cases to train and to validate on.

    `classes` are background and what is scored; `outputs` is how many logits a network gives, where that is not one
    for each.
    """

    prepared: str
    in_channels: int
    classes: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    outputs: int | None = None


@dataclass(frozen=True)
class Latency:
    """Seconds for one patch at batch 1: median and interquartile range, and what they belong to."""

    median_s: float
    iqr_s: float
    repeats: int
    settled: bool
    device: str
    threads: int
    precision: str

    @property
    def setting(self) -> str:
        """What a latency belongs to: device, threads and precision."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.device}, {threads}, {self.precision}"


@dataclass(frozen=True)
class MeasuredMemory:
    """Peak bytes of a real training step: allocated, what was there before subtracted; and reserved, on CUDA."""

    allocated_bytes: int
    reserved_bytes: int | None = None


@dataclass(frozen=True)
class Costs:
    """What an architecture costs at the study's patch and batch, known before it is trained."""

    params: int
    macs: int
    memory_bytes: int
    inference_memory_bytes: int
    latency: Latency | None = None

    def of(self, objective: str) -> float | None:
        """Return the cost that an objective names, None if it wasn't measured."""
        return OBJECTIVES[objective].read(self)


@dataclass(frozen=True)
class Job:
    """One training of one architecture: all that travels to a worker.

    `training.patch` is spelled out; `budgets` are (objective, limit) in bytes, seconds or counts; `folder` is where
    the checkpoint, the weights and the epochs' log go. `costs` are those that are known already, of an interrupted
    attempt say: they are not worked out again. With a `surface_tolerance_mm` surfaces are scored after the last epoch;
    with `timed_elsewhere` the latency is left to a probe. `study_id` is the study's identity in its database: a
    checkpoint of another study is not resumed. `blocks` is the code of plug-in blocks.
    """

    architecture: Architecture
    task: Task
    training: Training
    budgets: tuple[tuple[str, float], ...]
    seed: int
    fold: int
    device: str
    threads: int
    folder: str
    costs: Costs | None = None
    surface_tolerance_mm: float | None = None
    timed_elsewhere: bool = False
    study_id: str = ""
    blocks: tuple[BlockCode, ...] = ()

    @property
    def patch(self) -> tuple[int, int, int]:
        """The training patch (D, H, W) in voxels."""
        if self.training.patch == "auto":
            raise ValueError("a job's patch must be spelled out, not 'auto'")
        return self.training.patch


@dataclass(frozen=True)
class CaseDice:
    """Scores of one validation case, per foreground class; None where truth and mask are both empty.

    `hd95_mm` and `surface_dice` are empty where the study doesn't ask for them.
    """

    case: str
    dice: tuple[float | None, ...]
    hd95_mm: tuple[float | None, ...] = ()
    surface_dice: tuple[float | None, ...] = ()

    @property
    def mean(self) -> float | None:
        """The mean Dice over the classes that the case has; None if it has none."""
        known = [dice for dice in self.dice if dice is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Epoch:
    """One epoch's outcome; dice is None where the epoch was not validated."""

    number: int
    loss: float
    dice: float | None
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """The result of evaluating a job; `reason` says why it was not trained to its end, `fault` the kind of failure.

    `recipe` is the versioned name of the training's recipe, `weights_sha256` the digest of the weights' file.
    """

    state: State
    reason: str = ""
    costs: Costs | None = None
    dice: float | None = None
    cases: tuple[CaseDice, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    measured_memory: MeasuredMemory | None = None
    seconds: float = 0.0
    versions: tuple[tuple[str, str], ...] = ()
    fault: Fault = ""
    weights_sha256: str = ""
    recipe: str = ""

    @property
    def spent_s(self) -> float:
        """Seconds that the job took, with the epochs of attempts that were interrupted."""
        return max(self.seconds, sum(epoch.seconds for epoch in self.epochs))

    def value(self, objective: str) -> float | None:
        """Return an objective's value; what is learned in training is None before the last epoch."""
        described = OBJECTIVES[objective]
        if described.learned:
            return described.read(self) if self.state == "trained" else None
        return described.read(self.costs) if self.costs else None

    def to_json(self) -> str:
        """Write it for another process. Raises ValueError at NaN or infinity."""
        return json.dumps(asdict(self), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Measurement:
        """Read what `to_json` wrote."""
        return _MEASUREMENT.validate_json(text)


@dataclass(frozen=True)
class Wanted:
    """One training that is asked for; `decisions` are those of the study's space that gave the architecture."""

    architecture: Architecture
    seed: int
    fold: int
    decisions: tuple[tuple[str, Value], ...] = ()

    @property
    def identity(self) -> tuple[str, int, int]:
        """As the identity of the record that it becomes."""
        return (self.architecture.fingerprint, self.seed, self.fold)


@dataclass(frozen=True)
class Record:
    """One trial as the study's database keeps it; `driver` is the process that gave it out last."""

    number: int
    architecture: Architecture
    decisions: tuple[tuple[str, Value], ...]
    seed: int
    fold: int
    measurement: Measurement
    started: str
    ended: str = ""
    attempts: tuple[str, ...] = field(default=())
    driver: str = ""

    @property
    def state(self) -> State:
        """running, trained, stopped (before its end, by halving), over budget or failed."""
        return self.measurement.state

    @property
    def identity(self) -> tuple[str, int, int]:
        """What makes a training the same training within a study: architecture, seed and fold."""
        return (self.architecture.fingerprint, self.seed, self.fold)

    def finished(self, measurement: Measurement, *, ended: str) -> Record:
        """Return the record of the finished trial."""
        return replace(self, measurement=measurement, ended=ended)

    def to_values(self) -> dict[str, Any]:
        """Return the record as the plain nested values that JSON holds. Raises ValueError at NaN or infinity."""
        values = asdict(self)
        values["architecture"] = dict(self.architecture.entries)
        values["decisions"] = dict(self.decisions)
        json.dumps(values, allow_nan=False)
        return values

    @staticmethod
    def from_values(values: dict[str, Any]) -> Record:
        """Make a record from what `to_values` gave, also after JSON has made lists of its tuples."""
        measurement = _MEASUREMENT.validate_python(values["measurement"])
        return Record(
            number=values["number"],
            architecture=Architecture.of(values["architecture"]),
            decisions=tuple((name, freeze(value)) for name, value in values["decisions"].items()),
            seed=values["seed"],
            fold=values["fold"],
            measurement=measurement,
            started=values["started"],
            ended=values["ended"],
            attempts=tuple(values["attempts"]),
            driver=values.get("driver", ""),
        )


def searched(records: Sequence[Record], *, seed: int, fold: int) -> list[Record]:
    """Return the records of the search itself; those of other seeds and folds confirm it."""
    return [record for record in records if (record.seed, record.fold) == (seed, fold)]


_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)
