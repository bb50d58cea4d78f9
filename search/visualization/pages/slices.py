"""Slices of a trial's worst, median and best case, drawn on request and never stored."""

from __future__ import annotations

import base64
from pathlib import Path

from search.analysis.snapshot import Snapshot
from search.trials.files import WEIGHTS
from search.trials.records import Record
from search.visualization.components import Component, Heading, Note, Picture
from search.visualization.pages.page import Request
from search.visualization.slow_tasks import slices_of
from space.architecture import Architecture
from space.specs.registry import plugin_blocks


def slice_components(snapshot: Snapshot, record: Record, request: Request) -> list[Component]:
    """Return the pictures, a note why there are none, or the link that requests them."""
    cases, shown = ranked_cases(record), request.choose("slices", ("shown",), "") == "shown"
    if not cases or snapshot.context is None or not (shown or request.place):
        return []
    components: list[Component] = [Heading("Slices of the worst, median and best case")]
    folder = snapshot.folder / "trials" / f"{record.number:06d}"
    if not (folder / WEIGHTS).is_file():
        return [*components, Note("This trial's weights were not kept, so it can't segment its cases.")]
    prepared = _prepared(snapshot)
    if prepared is None:
        return [
            *components,
            Note("The study's prepared volumes are not in the runs folder, so slices can't be drawn."),
        ]
    if not shown:
        return [
            *components,
            Note(
                "Patients' images are drawn only on request and are not stored.",
                ask="slices=shown",
                link="Draw slices",
            ),
        ]
    unknown = needs_code(record.architecture)
    if unknown:
        return [*components, Note(unknown)]
    names = tuple(dict.fromkeys(cases.values()))
    found = request.work(
        slices_of, record, names, str(prepared), str(folder), snapshot.context, snapshot.study.training
    )
    if found is None:
        return [*components, Note("The cases are being segmented; they appear here in a moment.")]
    for which, case in cases.items():
        mean = next(each.mean for each in record.measurement.weights_cases if each.case == case) or 0.0
        title = f"{which}: {case}, Dice {mean:.3f}; truth orange, prediction blue, both white"
        components.append(Picture(title, "data:image/png;base64," + base64.b64encode(found[case]).decode()))
    return components


def needs_code(architecture: Architecture) -> str:
    """Return a note that a network's slices need plug-in code, which is not run to show results; else empty."""
    blocks = ", ".join(plugin_blocks(architecture))
    return f"Slices are not drawn: the code of plug-in blocks ({blocks}) is not run to show results." if blocks else ""


def ranked_cases(record: Record) -> dict[str, str]:
    """Return the names of the worst, median and best case; fewer if there are fewer cases."""
    scored = sorted((mean, each.case) for each in record.measurement.weights_cases if (mean := each.mean) is not None)
    if not scored:
        return {}
    found = {"worst": scored[0][1], "median": scored[len(scored) // 2][1], "best": scored[-1][1]}
    return {which: case for at, (which, case) in enumerate(found.items()) if case not in list(found.values())[:at]}


def _prepared(snapshot: Snapshot) -> Path | None:
    """Return the folder of the prepared volumes in the cache of the study's runs folder; None if it is not there."""
    cache = (snapshot.folder.parent / "cache").resolve()
    folder = (cache / snapshot.prepared).resolve()
    return (
        folder if snapshot.prepared and folder.is_relative_to(cache) and (folder / "prepared.json").is_file() else None
    )
