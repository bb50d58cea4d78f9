"""The scores of an ablation, one per case, class, seed and fold, and their Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from search.ablation.metrics import CASE_METRICS
from search.ablation.results import Result
from search.analysis.statistics.scores import Score
from search.files import replace_file


def scores_of(
    results: Sequence[Result], *, metrics: Sequence[str], labels: Sequence[str], units: Mapping[str, str]
) -> list[Score]:
    """Return the score of each class of each validation case; `units` maps a case to its patient (or to itself)."""
    return [
        Score(each.arm, each.seed, each.fold, case.case, units[case.case], metric, label, value)
        for each in results
        for case in each.record.measurement.cases
        for metric in metrics
        for label, value in zip(labels, getattr(case, CASE_METRICS[metric].attribute), strict=True)
    ]


def write_cases(scores: Sequence[Score], file: Path) -> None:
    """Write scores as Parquet, one per row."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([asdict(each) for each in scores])
    replace_file(file, lambda part: parquet.write_table(table, part))


def read_cases(file: Path) -> list[Score]:
    """Read the scores that `write_cases` wrote."""
    from pyarrow import parquet

    return [Score(**row) for row in parquet.read_table(file).to_pylist()]
