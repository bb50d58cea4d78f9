"""Components as a tree of HTML elements, rendered to text here and to Dash components in the dashboard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from search.visualization.components import Command, Component, Facts, Figure, Figures, Heading, Note, Picture, Table
from search.visualization.pages.page import Control, Page

VOID = ("img", "input", "br")
HTML_NAMES = {"className": "class", "htmlFor": "for", "tabIndex": "tabindex"}


@dataclass(frozen=True)
class Element:
    """A tag with attributes (by their React names) and children."""

    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: Sequence[Element | str] = ()


def to_html(element: Element | str) -> str:
    """Render an element as HTML, with text and attributes escaped."""
    if isinstance(element, str):
        return escape(element)
    named = "".join(f' {HTML_NAMES.get(name, name)}="{escape(value)}"' for name, value in element.attributes.items())
    if element.tag in VOID:
        return f"<{element.tag}{named}>"
    inner = "".join(to_html(child) for child in element.children)
    return f"<{element.tag}{named}>{inner}</{element.tag}>"


def page_element(page: Page, *, place: str = "") -> Element:
    """Return a page as an element; `place` is the URL path up to the study, empty in a file without other pages."""
    controls = [
        Element(
            "form",
            {"className": "controls", "role": "group", "aria-label": "what is shown"},
            [control_element(each) for each in page.controls],
        )
    ]
    components = [component_element(each, place=place) for each in page.components]
    return Element("section", {"aria-label": page.title}, [*(controls if page.controls else []), *components])


def control_element(control: Control) -> Element:
    """Return a labelled selector; the page's script writes the choice to the URL."""
    options = [
        Element("option", {"value": value, **({"selected": "selected"} if value == control.value else {})}, [text])
        for value, text in control.options
    ]
    return Element(
        "label", {}, [control.label, Element("select", {"data-key": control.key, "name": control.key}, options)]
    )


def component_element(item: Component, *, place: str) -> Element:
    """Return a component as an element."""
    if isinstance(item, Figure):
        holder = {
            "className": "figure wide" if item.wide else "figure",
            "data-name": item.name,
            "data-figure": item.drawing,
            "role": "img",
            "aria-label": item.label,
            "data-lasso": item.lasso,
            "data-place": place,
        }
        buttons = [
            Element(
                "button",
                {"type": "button", "data-save": form, "aria-label": f"{item.title} as {form.upper()}"},
                [form.upper()],
            )
            for form in ("svg", "png")
        ]
        title = Element("figcaption", {}, [item.title, Element("span", {"className": "save"}, buttons)])
        return Element("figure", {}, [title, Element("div", holder)])
    if isinstance(item, Figures):
        return Element("div", {"className": "figures"}, [component_element(each, place=place) for each in item.figures])
    if isinstance(item, Table):
        values = {"headings": item.headings, "rows": item.rows, "opens": item.opens, "place": place}
        holder = {
            "className": "table",
            "data-name": item.name,
            "data-title": item.title,
            "data-table": json.dumps(values, separators=(",", ":"), allow_nan=False),
        }
        return Element("div", holder)
    if isinstance(item, Facts):
        return Element(
            "dl",
            {},
            [Element("div", {}, [Element("dt", {}, [term]), Element("dd", {}, [value])]) for term, value in item.pairs],
        )
    if isinstance(item, Command):
        return Element("div", {"className": "command"}, [item.title, Element("code", {"tabIndex": "0"}, [item.line])])
    if isinstance(item, Picture):
        return Element(
            "figure",
            {},
            [
                Element("figcaption", {}, [item.title]),
                Element("img", {"src": item.uri, "alt": item.title}),
            ],
        )
    if isinstance(item, Heading):
        return Element("h2", {}, [item.text])
    if isinstance(item, Note):
        button = Element("button", {"type": "button", "data-ask": item.ask}, [item.link])
        return Element("p", {"className": "empty"}, [item.text, " ", button] if item.link and place else [item.text])
    raise ValueError(f"no element for {item!r}")
