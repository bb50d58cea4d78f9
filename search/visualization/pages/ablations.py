"""The page of an ablation: the figures and tables that `voxnas ablate` wrote to the study's folder."""

from __future__ import annotations

from search.analysis.snapshot import Snapshot
from search.files.digests import unsealed_text
from search.visualization.components import Component, Facts, Figure, Figures, Heading, Note, Table
from search.visualization.html import FINDINGS
from search.visualization.pages.page import Page, Request


def ablations_page(snapshot: Snapshot, request: Request) -> Page:
    """Return the page of this study's ablation, or a note if it has none."""
    file = snapshot.folder / FINDINGS
    if not file.is_file():
        text = "This study has no ablation. `voxnas ablate FILE` runs one; its figures then appear here."
        return Page("Ablations", (), (Note(text),))
    try:
        found = unsealed_text(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = f"{file} is damaged ({error}); the command that ran the ablation writes it again, without training."
        return Page("Ablations", (), (Note(said),))
    components: list[Component] = [Facts(tuple((term, value) for term, value in found["tiles"]))]
    for at, table in enumerate(found["tables"]):
        components.append(Table(f"ablation-table-{at}", table["title"], tuple(table["headings"]), table["rows"]))
        components += [Note(note) for note in table["notes"]]
    components.append(Figures(tuple(Figure(**each) for each in found["figures"])))
    if "arms" in found:  # earlier versions wrote none
        arms = found["arms"]
        components.append(Table("ablation-arms", "Arms", tuple(arms["headings"]), arms["rows"]))
    return Page("Ablations", (), (*components, Heading("Methods"), Note(found["methods"])))
