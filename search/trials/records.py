"""Costs, Measurement, Record: the plain values that evaluations return and studies store, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from statistics import stdev
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic_core import from_json

from search.config.objectives import OBJECTIVES
from search.config.units import counted
from search.trials.epochs import Epoch, Epochs
from space.architecture import Architecture, Value, freeze

State = Literal["running", "trained", "stopped", "over budget", "failed"]

Fault = Literal["", "error", "not a number", "memory", "deadline", "lost", "storage"]

COUNTED: tuple[State, ...] = ("trained", "stopped", "failed")  # states that count towards `search.trials`


def show_setting(device: str, threads: int, precision: str) -> str:
    """Return what a latency depends on besides the network and its patch, for people."""
    return f"{device}, {counted(threads, 'thread')}, {precision}"


@dataclass(frozen=True)
class Latency:
    """Seconds for one patch at batch 1: median and interquartile range, and the setting they were measured in.

    `settled` is False if the median was still uncertain at the time limit.
    """

    median_s: float
    iqr_s: float
    repeats: int
    settled: bool
    device: str
    threads: int
    precision: str
    torch: str = ""  # its version; empty in records of earlier versions

    @property
    def setting(self) -> str:
        """Device, threads and precision: latencies compare only within one setting."""
        return show_setting(self.device, self.threads, self.precision)


@dataclass(frozen=True)
class MeasuredMemory:
    """Peak bytes that a real training step allocates and, on CUDA, reserves, beyond those held before it."""

    allocated_bytes: int
    reserved_bytes: int | None = None


@dataclass(frozen=True)
class Costs:
    """An architecture's costs at the study's patch and batch, known before training."""

    params: int
    macs: int
    memory_bytes: int
    inference_memory_bytes: int
    latency: Latency | None = None

    def of(self, objective: str) -> float | None:
        """Return the cost that an objective names; None if it wasn't measured."""
        return OBJECTIVES[objective].read(self)


@dataclass(frozen=True, slots=True)
class CaseDice:
    """Scores of one validation case, per foreground class; None for a class that truth and mask both lack.

    `hd95_mm` and `surface_dice` are empty if the study doesn't request them.
    """

    case: str
    dice: tuple[float | None, ...]
    hd95_mm: tuple[float | None, ...] = ()
    surface_dice: tuple[float | None, ...] = ()

    @property
    def mean(self) -> float | None:
        """The mean Dice over the classes that have a score; None if none has."""
        known = [dice for dice in self.dice if dice is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class MemberScore:
    """The result of one of a trial's trainings: the mean Dice of its fold's validation cases, None without any."""

    seed: int
    fold: int
    dice: float | None
    cases: tuple[CaseDice, ...]
    weights_sha256: str


@dataclass(frozen=True)
class Measurement:
    """The result of evaluating a job.

    `reason` says why a training did not complete, `fault` is the kind of failure. `recipe` is the versioned name of the
    training recipe, `weights_sha256` the digest of the weights file. With several `members`, `dice` is their mean,
    `cases` holds each case's mean over its members, and the epochs of all members follow each other. `members` holds
    those that were trained to their end; `reason` then says why others were not. A failed trial keeps them, too.
    `machine` is the host, and the GPU if any, of the last attempt; empty in older records.
    """

    state: State
    reason: str = ""
    costs: Costs | None = None
    dice: float | None = None
    cases: tuple[CaseDice, ...] = ()
    epochs: Sequence[Epoch] = ()
    measured_memory: MeasuredMemory | None = None
    seconds: float = 0.0
    versions: tuple[tuple[str, str], ...] = ()
    fault: Fault = ""
    weights_sha256: str = ""
    recipe: str = ""
    members: tuple[MemberScore, ...] = ()
    machine: str = ""

    def __post_init__(self) -> None:
        """Store the epochs as `Epochs`, whatever sequence is given."""
        object.__setattr__(self, "epochs", Epochs.of(self.epochs))

    @property
    def dice_sd(self) -> float | None:
        """Standard deviation of the Dice over the trial's trainings; None of a single training or a failed trial."""
        dice = [member.dice for member in self.members if member.dice is not None]
        return stdev(dice) if self.dice is not None and len(dice) > 1 else None

    @property
    def weights_dice(self) -> float | None:
        """The Dice of the weights that `weights_sha256` names, those of the first member."""
        return self.members[0].dice if self.members else self.dice

    @property
    def weights_cases(self) -> tuple[CaseDice, ...]:
        """The scores of these weights, on cases that they were not trained on."""
        return self.members[0].cases if self.members else self.cases

    @property
    def first_epochs(self) -> tuple[Epoch, ...]:
        """The epochs of the first member."""
        return tuple(epoch for epoch in self.epochs if not epoch.member)

    @property
    def first_dice(self) -> list[float | None]:
        """The Dice of each of them; None if it was not validated."""
        return Epochs.of(self.epochs).first_dice

    @property
    def spent_s(self) -> float:
        """Seconds that the job took, including the epochs of interrupted attempts."""
        return max(self.seconds, Epochs.of(self.epochs).seconds)

    @property
    def latency(self) -> Latency | None:
        """The measured latency, if there is one."""
        return self.costs.latency if self.costs else None

    def value(self, objective: str) -> float | None:
        """Return an objective's value; None for a learned objective until training is complete."""
        described = OBJECTIVES[objective]
        if described.learned:
            return described.read(self) if self.state == "trained" else None
        return described.read(self.costs) if self.costs else None

    def to_json(self) -> str:
        """Return the measurement as JSON. Raises ValueError on NaN or infinity."""
        return json.dumps(self.to_values(), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Measurement:
        """Return the measurement that `to_json` wrote."""
        return Measurement.from_values(from_json(text))

    def to_values(self) -> dict[str, Any]:
        """Return the measurement as plain nested values."""
        return {**asdict(self), "epochs": Epochs.of(self.epochs).to_values()}

    @staticmethod
    def from_values(values: dict[str, Any]) -> Measurement:
        """Return the measurement that `to_values` gave; its tuples may have become lists in JSON."""
        epochs = Epochs.from_values(values.get("epochs", ()))
        return replace(_MEASUREMENT.validate_python({**values, "epochs": ()}), epochs=epochs)


@dataclass(frozen=True)
class TrainingRequest:
    """A training to run; `decisions` are the choices in the study's space that gave the architecture.

    `reference` names the published network that is trained for comparison.
    """

    architecture: Architecture
    seed: int
    fold: int
    decisions: tuple[tuple[str, Value], ...] = ()
    reference: str = ""
    repeat: bool = False

    @property
    def identity(self) -> tuple[str, int, int]:
        """Architecture, seed and fold, as in the resulting record."""
        return (self.architecture.fingerprint, self.seed, self.fold)


@dataclass(frozen=True)
class Record:
    """One trial as stored in the study's database; `driver` names the process that last started it.

    `reference` names the published network that the trial trains for comparison; empty for a trial of the search.
    """

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
    reference: str = ""
    repeat: bool = False

    @property
    def weights_seed(self) -> int:
        """The seed of the weights that `weights_sha256` names, those of the first member that did not fail."""
        members = self.measurement.members
        return members[0].seed if members else self.seed

    @property
    def is_outside(self) -> bool:
        """Whether this is a reference network outside the study's space, which the search disregards."""
        return bool(self.reference) and not self.decisions

    @property
    def state(self) -> State:
        """running, trained, stopped (early, by halving), over budget or failed."""
        return self.measurement.state

    @property
    def identity(self) -> tuple[str, int, int]:
        """Architecture, seed and fold: two trainings of a study with equal identities are the same."""
        return (self.architecture.fingerprint, self.seed, self.fold)

    def finished(self, measurement: Measurement, *, ended: str) -> Record:
        """Return the record of the finished trial."""
        return replace(self, measurement=measurement, ended=ended)

    def to_values(self) -> dict[str, Any]:
        """Return the record as plain nested values for JSON. Raises ValueError on NaN or infinity."""
        values = asdict(self)
        values["measurement"]["epochs"] = Epochs.of(self.measurement.epochs).to_values()
        values["architecture"] = dict(self.architecture.entries)
        values["decisions"] = dict(self.decisions)
        json.dumps(values, allow_nan=False)
        return values

    @staticmethod
    def from_values(values: dict[str, Any]) -> Record:
        """Return the record that `to_values` gave; its tuples may have become lists in JSON."""
        measurement = Measurement.from_values(values["measurement"])
        for date in (values["started"], values["ended"]):
            if date:
                datetime.fromisoformat(date)  # raises for text that is no date
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
            reference=values.get("reference", ""),
            repeat=values.get("repeat", False),
        )


def search_records(records: Sequence[Record], *, seed: int, fold: int) -> list[Record]:
    """Return the records of the search itself: no confirmation trainings (other seeds and folds), no references."""
    return [record for record in records if (record.seed, record.fold) == (seed, fold) and not record.is_outside]


_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)
