"""report.html: one offline file with the dashboard's figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES, cost_axis, primary
from search.files import write_text
from search.visualization.components import Component, Facts, Figure, Table
from search.visualization.html import ASSETS, render_page
from search.visualization.pages.compare import compare_page
from search.visualization.pages.elements import component_element, to_html
from search.visualization.pages.front import front_page
from search.visualization.pages.importance import importance_page
from search.visualization.pages.page import Request
from search.visualization.pages.progress import progress_page
from search.visualization.pages.references import references_page
from search.visualization.pages.trial import trial_page

TEMPLATE = ASSETS / "report.html"


@dataclass(frozen=True)
class Section:
    """A section of the report under its heading."""

    id: str
    title: str
    html: str


def write_report(snapshot: Snapshot, *, slices: bool = False) -> Path:
    """Write the report to the run's folder, atomically, and return its path; `slices` includes patients' images."""
    return write_text(snapshot.folder / "report.html", render(snapshot, slices=slices))


def render(snapshot: Snapshot, *, slices: bool = False) -> str:
    """Return the report as HTML; all text from the study is escaped."""
    question = ", ".join(f"{way} {OBJECTIVES[name].heading}" for name, way in snapshot.study.directions.items())
    values = {"name": snapshot.label, "question": question, "sections": list(sections(snapshot, slices=slices))}
    return render_page(TEMPLATE, values)


def sections(snapshot: Snapshot, *, slices: bool) -> Iterator[Section]:
    """Yield the report's sections: the dashboard's pages, and the pages of representative trials of the front."""
    yield _section("front", "Pareto front", [*_planes(snapshot), *_table(snapshot)])
    if snapshot.on_front.any():
        yield _section("progress", "Progress", _without_facts(progress_page(snapshot, Request()).components))
        yield _section("importance", "Importance", importance_page(snapshot, Request()).components)
        yield _section("compare", "Compare", compare_page(snapshot, Request()).components)
    if snapshot.networks:
        yield _section("references", "References", references_page(snapshot, Request()).components)
    for number in _chosen(snapshot):
        request = Request({"trial": str(number), **({"slices": "shown"} if slices else {})})
        yield _section(f"trial-{number}-page", f"Trial {number}", trial_page(snapshot, request).components)


def _planes(snapshot: Snapshot) -> Iterator[Component]:
    """Yield the front on the first objective with each other one, and in 3D if there are three."""
    up = primary(snapshot.objectives)
    across = [name for name in snapshot.objectives if name != up] or [cost_axis(snapshot.objectives)]
    queries = [{"x": name, "y": up} for name in across]
    if len(across) > 1:
        queries.append({"x": across[0], "y": across[1], "z": up})
    for at, query in enumerate(queries):
        for item in front_page(snapshot, Request({**query, "rows": "front"})).components:
            if isinstance(item, Figure):
                yield replace(item, name=f"front-{at}")
            elif at == 0 and not isinstance(item, Table):
                yield item


def _table(snapshot: Snapshot) -> Iterator[Component]:
    yield from (
        item
        for item in front_page(snapshot, Request({"rows": "all", "papers": "off"})).components
        if isinstance(item, Table)
    )


def _chosen(snapshot: Snapshot) -> list[int]:
    """Return three trials of the front: the best in the first objective, the middle one, the best in the second."""
    rows = snapshot.front_rows
    return (
        [int(number) for number in dict.fromkeys(snapshot.numbers[rows[[0, len(rows) // 2, -1]]])] if len(rows) else []
    )


def _without_facts(components: Sequence[Component]) -> list[Component]:
    return [item for item in components if not isinstance(item, Facts)]


def _section(name: str, title: str, components: Sequence[Component]) -> Section:
    unique = [
        replace(item, name=f"{name}-{item.name}") if isinstance(item, (Figure, Table)) else item for item in components
    ]
    return Section(name, title, "\n".join(to_html(component_element(item, place="")) for item in unique))
