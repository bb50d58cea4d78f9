"""Parts as elements of a page: a small tree that becomes HTML text here, and components in the dashboard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from search.visualization.components import Command, Facts, Figure, Heading, Note, Part, Picture, Table
from search.visualization.pages.page import Control, Page

VOID = ("img", "input", "br")
HTML_NAMES = {"className": "class", "htmlFor": "for", "tabIndex": "tabindex"}


@dataclass(frozen=True)
class Element:
    """A tag with attributes (as React names them) and children."""

    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: Sequence[Element | str] = ()


def to_html(element: Element | str) -> str:
    """Return an element as HTML, all text and attributes escaped."""
    if isinstance(element, str):
        return escape(element)
    named = "".join(f' {HTML_NAMES.get(name, name)}="{escape(value)}"' for name, value in element.attributes.items())
    if element.tag in VOID:
        return f"<{element.tag}{named}>"
    inner = "".join(to_html(child) for child in element.children)
    return f"<{element.tag}{named}>{inner}</{element.tag}>"


def page_element(page: Page, *, place: str = "") -> Element:
    """Return a page; `place` is the address's path up to a study, empty in a file that has no other pages."""
    controls = [
        Element(
            "form",
            {"className": "controls", "role": "group", "aria-label": "what is shown"},
            [control_element(each) for each in page.controls],
        )
    ]
    parts = [part_element(each, place=place) for each in page.parts]
    return Element("section", {"aria-label": page.title}, [*(controls if page.controls else []), *parts])


def control_element(control: Control) -> Element:
    """Return a labelled choice; the page's script writes it into the address."""
    options = [
        Element("option", {"value": value, **({"selected": "selected"} if value == control.value else {})}, [text])
        for value, text in control.options
    ]
    return Element(
        "label", {}, [control.label, Element("select", {"data-key": control.key, "name": control.key}, options)]
    )


def part_element(part: Part, *, place: str) -> Element:
    """Return a part as an element."""
    if isinstance(part, Figure):
        holder = {
            "className": "figure wide" if part.wide else "figure",
            "data-name": part.name,
            "data-figure": part.drawing,
            "role": "img",
            "aria-label": part.label,
            "data-lasso": part.lasso,
            "data-place": place,
        }
        buttons = [
            Element(
                "button",
                {"type": "button", "data-save": form, "aria-label": f"{part.title} as {form.upper()}"},
                [form.upper()],
            )
            for form in ("svg", "png")
        ]
        title = Element("figcaption", {}, [part.title, Element("span", {"className": "save"}, buttons)])
        return Element("figure", {}, [title, Element("div", holder)])
    if isinstance(part, Table):
        values = {"headings": part.headings, "rows": part.rows, "opens": part.opens, "place": place}
        holder = {
            "className": "table",
            "data-name": part.name,
            "data-title": part.title,
            "data-table": json.dumps(values, separators=(",", ":"), allow_nan=False),
        }
        return Element("div", holder)
    if isinstance(part, Facts):
        return Element(
            "dl",
            {},
            [Element("div", {}, [Element("dt", {}, [term]), Element("dd", {}, [value])]) for term, value in part.pairs],
        )
    if isinstance(part, Command):
        return Element("div", {"className": "command"}, [part.title, Element("code", {"tabIndex": "0"}, [part.line])])
    if isinstance(part, Picture):
        return Element(
            "figure",
            {},
            [Element("figcaption", {}, [part.title]), Element("img", {"src": part.uri, "alt": part.title})],
        )
    if isinstance(part, Heading):
        return Element("h2", {}, [part.text])
    if isinstance(part, Note):
        button = Element("button", {"type": "button", "data-ask": part.ask}, [part.link])
        return Element("p", {"className": "empty"}, [part.text, " ", button] if part.link and place else [part.text])
    raise ValueError(f"no element for {part!r}")
