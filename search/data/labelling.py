"""The meaning of a data set's label values: exclusive classes, or overlapping regions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Labelling:
    """Names, values and regions of a data set's labels; arrays contain class indices, the positions in `values`.

    `names` are the background and the scored classes (`values[k]` is class k) or regions. `regions` holds the class
    indices of each region, and `order` the index that a mask gets for it, later regions over earlier ones; both are
    empty for classes. `ignore` is the value of unlabelled voxels, which have the index `ignored` in arrays.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    regions: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()
    ignore: int | None = None

    @property
    def outputs(self) -> int:
        """The number of logits: one per class including background, or one per region."""
        return len(self.regions) or len(self.names)

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The class indices of each scored region or class."""
        return self.regions or tuple((index,) for index in range(1, len(self.names)))

    @property
    def ignored(self) -> int | None:
        """The index of voxels with the ignore label; None without one."""
        return None if self.ignore is None else len(self.values)

    @property
    def described(self) -> tuple[str, ...]:
        """The names; regions with their values and the value that masks get for them; and the ignore label."""
        names = list(self.names)
        for place, (members, written) in enumerate(zip(self.regions, self.order, strict=True), start=1):
            values = ", ".join(str(self.values[index]) for index in members)
            names[place] += f" ({values}; written as {self.values[written]})"
        return (*names, *([f"ignore ({self.ignore})"] if self.ignore is not None else []))

    @property
    def value_names(self) -> tuple[str, ...]:
        """A name for each value: the class, or the region that masks mark with it."""
        if not self.regions:
            return self.names
        written = {index: name for index, name in zip(self.order, self.names[1:], strict=True)}
        return tuple(
            written.get(index, f"label {value}") if index else self.names[0] for index, value in enumerate(self.values)
        )
