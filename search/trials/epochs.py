"""Epochs of a training as one array of numbers: ten thousand trials have a million, too many to be objects each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

UNKNOWN = -1.0  # stored in place of None; neither a Dice nor a time is negative


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch's outcome; `dice` is None if the epoch was not validated.

    `cpu_s` is the CPU time of the training's process, which other processes hardly change; None in older records.
    """

    number: int
    loss: float
    dice: float | None
    seconds: float
    cpu_s: float | None = None
    member: int = 0


NAMES = tuple(each.name for each in fields(Epoch))
OPTIONAL = ("dice", "cpu_s")
LATER = {"cpu_s": None, "member": 0}  # fields that the first versions did not write
NUMBER, LOSS, DICE, SECONDS, CPU_S, MEMBER = range(len(NAMES))


class Epochs(Sequence[Epoch]):
    """An immutable sequence of epochs; an Epoch is made when it is asked for. It is equal to a tuple of its epochs."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: array[float] | None = None) -> None:
        self._numbers = array("d") if numbers is None else numbers  # all numbers, then all losses, and so on

    @staticmethod
    def of(epochs: Iterable[Epoch]) -> Epochs:
        """Return these epochs; the same object if they are stored like this already."""
        if isinstance(epochs, Epochs):
            return epochs
        kept = tuple(epochs)
        return Epochs.from_values({name: [getattr(each, name) for each in kept] for name in NAMES}) if kept else NONE

    @staticmethod
    def from_values(values: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> Epochs:
        """Return the epochs that `to_values` gave, or those of earlier versions, which wrote a mapping for each epoch.

        Raises LookupError, TypeError or ValueError for other values.
        """
        if not isinstance(values, Mapping):
            return Epochs.from_values({name: [_field(row, name) for row in values] for name in NAMES})
        numbers = array("d")
        for name in NAMES:
            column = values[name]
            if len(column) != len(values[NAMES[0]]):
                raise ValueError(f"the epochs have {len(values[NAMES[0]])} numbers, but {len(column)} values of {name}")
            numbers.extend([UNKNOWN if each is None else each for each in column] if name in OPTIONAL else column)
        return Epochs(numbers)

    def to_values(self) -> dict[str, list[Any]]:
        """Return a list for each field of an epoch, for JSON."""
        return dict(zip(NAMES, map(list, self._columns()), strict=True))

    @property
    def seconds(self) -> float:
        """The seconds of all epochs."""
        return sum(self._column(SECONDS))

    @property
    def first_dice(self) -> list[float | None]:
        """The Dice of each epoch of the first member."""
        dice, members = self._column(DICE), self._column(MEMBER)
        return [_known(each) for each, member in zip(dice, members, strict=True) if not member]

    @property
    def curve(self) -> tuple[tuple[int, float], ...]:
        """The validated epochs of the first member, each with its Dice."""
        return tuple((each.number, each.dice) for each in self if each.dice is not None and not each.member)

    def __len__(self) -> int:
        return len(self._numbers) // len(NAMES)

    def __iter__(self) -> Iterator[Epoch]:
        return map(Epoch, *self._columns())

    @overload
    def __getitem__(self, at: int) -> Epoch: ...
    @overload
    def __getitem__(self, at: slice) -> Epochs: ...
    def __getitem__(self, at: int | slice) -> Epoch | Epochs:
        if isinstance(at, slice):
            return Epochs.of(tuple(self)[at])
        place = range(len(self))[at]
        (found,) = Epochs(self._numbers[place :: len(self)])
        return found

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Epochs):
            return self._numbers == other._numbers
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[type[Epochs], tuple[array[float]]]:
        return Epochs, (self._numbers,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Epochs:
        return self

    def _columns(self) -> tuple[Iterable[Any], ...]:
        numbers, members = map(int, self._column(NUMBER)), map(int, self._column(MEMBER))
        dice, cpu_s = map(_known, self._column(DICE)), map(_known, self._column(CPU_S))
        return numbers, self._column(LOSS), dice, self._column(SECONDS), cpu_s, members

    def _column(self, field: int) -> array[float]:
        return self._numbers[field * len(self) : (field + 1) * len(self)]


NONE = Epochs()


def _field(row: Mapping[str, Any], name: str) -> Any:
    return row.get(name, LATER[name]) if name in LATER else row[name]


def _known(value: float) -> float | None:
    return None if value == UNKNOWN else value
