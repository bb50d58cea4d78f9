"""What the values of a data set's labels mean: classes that exclude each other, or regions that overlap."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Labelling:
    """Names, values and regions of a data set's labels; arrays hold the places of `values`, the class indices.

    `names` are background and what is scored: classes, so that `values[k]` is class k, or regions. `regions` hold the
    class indices of each region, and `order` the one that is written for it, later regions over earlier ones; both
    are empty for classes. `ignore` is the value of voxels that nobody labelled; arrays hold `ignored` there.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    regions: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()
    ignore: int | None = None

    @property
    def outputs(self) -> int:
        """Channels of a network's logits: one a class with background, or one a region."""
        return len(self.regions) or len(self.names)

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The class indices of each scored name: of a region several, of a class its own."""
        return self.regions or tuple((index,) for index in range(1, len(self.names)))

    @property
    def ignored(self) -> int | None:
        """The index that arrays hold where the file has the ignore label."""
        return None if self.ignore is None else len(self.values)

    @property
    def described(self) -> tuple[str, ...]:
        """The names, each region with its values and the one that is written for it, and the ignore label."""
        names = list(self.names)
        for place, (members, written) in enumerate(zip(self.regions, self.order, strict=True), start=1):
            values = ", ".join(str(self.values[index]) for index in members)
            names[place] += f" ({values}; written as {self.values[written]})"
        return (*names, *([f"ignore ({self.ignore})"] if self.ignore is not None else []))

    @property
    def value_names(self) -> tuple[str, ...]:
        """A name for each value: the class, or the region that it is written for."""
        if not self.regions:
            return self.names
        written = {index: name for index, name in zip(self.order, self.names[1:], strict=True)}
        return tuple(
            written.get(index, f"label {value}") if index else self.names[0] for index, value in enumerate(self.values)
        )
