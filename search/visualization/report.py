"""report.html: one offline file with the dashboard's figures and tables, to send to a colleague."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES, cost_axis, primary
from search.visualization.components import Facts, Figure, Part, Table
from search.visualization.html import ASSETS, render_page, write_whole
from search.visualization.pages.compare import compare_page
from search.visualization.pages.elements import part_element, to_html
from search.visualization.pages.front import front_page
from search.visualization.pages.importance import matters_page
from search.visualization.pages.page import Asked
from search.visualization.pages.progress import progress_page
from search.visualization.pages.trial import trial_page

TEMPLATE = ASSETS / "report.html"


@dataclass(frozen=True)
class Section:
    """A part of the report under its heading."""

    id: str
    title: str
    html: str


def write_report(snapshot: Snapshot, *, slices: bool = False) -> Path:
    """Write the report into the run's folder, whole or not at all, and return its path; patients' slices if asked."""
    return write_whole(snapshot.folder / "report.html", render(snapshot, slices=slices))


def render(snapshot: Snapshot, *, slices: bool = False) -> str:
    """Return the report as one HTML text; every name from the study is escaped."""
    question = ", ".join(f"{way} {OBJECTIVES[name].heading}" for name, way in snapshot.study.directions.items())
    values = {"name": snapshot.label, "question": question, "sections": list(sections(snapshot, slices=slices))}
    return render_page(TEMPLATE, values)


def sections(snapshot: Snapshot, *, slices: bool) -> Iterator[Section]:
    """Yield what the report shows: the dashboard's pages, and the pages of the trials that stand for the front."""
    yield _section("front", "Pareto front", [*_planes(snapshot), *_table(snapshot)])
    if snapshot.on_front.any():
        yield _section("progress", "Progress", _without_facts(progress_page(snapshot, Asked()).parts))
        yield _section("matters", "What matters", matters_page(snapshot, Asked()).parts)
        yield _section("compare", "Compare", compare_page(snapshot, Asked()).parts)
    for number in _chosen(snapshot):
        asked = Asked({"trial": str(number), **({"slices": "shown"} if slices else {})})
        yield _section(f"trial-{number}-page", f"Trial {number}", trial_page(snapshot, asked).parts)


def _planes(snapshot: Snapshot) -> Iterator[Part]:
    """Yield the front on each plane of an objective and the first, and in space where there are three."""
    up = primary(snapshot.objectives)
    across = [name for name in snapshot.objectives if name != up] or [cost_axis(snapshot.objectives)]
    queries = [{"x": name, "y": up} for name in across]
    if len(across) > 1:
        queries.append({"x": across[0], "y": across[1], "z": up})
    for at, query in enumerate(queries):
        for part in front_page(snapshot, Asked({**query, "rows": "front"})).parts:
            if isinstance(part, Figure):
                yield replace(part, name=f"front-{at}")
            elif at == 0 and not isinstance(part, Table):
                yield part


def _table(snapshot: Snapshot) -> Iterator[Part]:
    yield from (
        part for part in front_page(snapshot, Asked({"rows": "all", "papers": "off"})).parts if isinstance(part, Table)
    )


def _chosen(snapshot: Snapshot) -> list[int]:
    """Return the trials with the best first objective, at the front's middle, and with the least of the next."""
    rows = snapshot.front_rows
    return (
        [int(number) for number in dict.fromkeys(snapshot.numbers[rows[[0, len(rows) // 2, -1]]])] if len(rows) else []
    )


def _without_facts(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if not isinstance(part, Facts)]


def _section(name: str, title: str, parts: Sequence[Part]) -> Section:
    unique = [
        replace(part, name=f"{name}-{part.name}") if isinstance(part, (Figure, Table)) else part for part in parts
    ]
    return Section(name, title, "\n".join(to_html(part_element(part, place="")) for part in unique))
