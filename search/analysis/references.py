"""The front against the study's reference networks: the paired difference of Dice over the validation cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.analysis.confirmation import Confirmed
from search.analysis.statistics.pairs import Pairs, compare_pairs
from search.analysis.statistics.scores import case_differences
from search.trials.records import Record


@dataclass(frozen=True)
class AgainstReference:
    """A network of the front against a reference; `pairs` is None if they share no validation case."""

    number: int
    reference: str
    pairs: Pairs | None

    @property
    def shown(self) -> str:
        """The mean difference with its 95 % interval."""
        if self.pairs is None:
            return "no shared case"
        return f"{self.pairs.difference:+.4f} ({self.pairs.low:+.4f} to {self.pairs.high:+.4f})"


def against_references(front: Sequence[Record], references: Sequence[Record]) -> list[AgainstReference]:
    """Compare each network of a front with each reference that was trained to its end, one training each."""
    trained = [record for record in references if record.state == "trained"]
    found = []
    for record in front:
        for reference in trained:
            if record.number == reference.number:
                continue
            differences = [*case_differences([record], [reference]).values()]
            pairs = compare_pairs(differences) if differences else None
            found.append(AgainstReference(record.number, reference.reference, pairs))
    return found


def confirmed_against(points: Sequence[Confirmed], confirmations: Sequence[Record]) -> list[AgainstReference]:
    """Compare each confirmed network with each reference that was confirmed, over the seeds and folds of both."""
    trained: dict[str, list[Record]] = {}
    again: dict[str, list[Record]] = {}
    for record in confirmations:
        if record.state == "trained":
            again.setdefault(record.architecture.fingerprint, []).append(record)
            if record.reference:
                trained.setdefault(record.reference, []).append(record)
    found = []
    for point in points:
        fingerprint = point.record.architecture.fingerprint
        for name, trainings in trained.items():
            if trainings[0].architecture.fingerprint == fingerprint:
                continue
            differences = [*case_differences(again[fingerprint], trainings).values()]
            found.append(
                AgainstReference(point.record.number, name, compare_pairs(differences) if differences else None)
            )
    return found
