"""The Dash application. The URL holds the state, a page is a function of the URL, and a timer polls for changes."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from dash import Dash, Input, Output, State, dcc, html, no_update
from flask import Response, request

from search.analysis.snapshot import Snapshot
from search.analysis.status import interrupted_trials, pulse
from search.dashboard.calls import refuse_malformed
from search.dashboard.library import Library
from search.dashboard.security import secure
from search.dashboard.server import BODY_BYTES
from search.dashboard.worker import Worker
from search.visualization.components import Figure, Note
from search.visualization.html import ASSETS, FINDINGS
from search.visualization.pages.ablations import ablations_page
from search.visualization.pages.compare import compare_page
from search.visualization.pages.elements import Element, page_element, to_html
from search.visualization.pages.front import front_page
from search.visualization.pages.importance import importance_page
from search.visualization.pages.page import Page, Request
from search.visualization.pages.progress import progress_page
from search.visualization.pages.references import references_page
from search.visualization.pages.studies import studies_page
from search.visualization.pages.trial import trial_page

TICK_MS = 2000
VERSION = importlib.metadata.version("voxnas")
SCRIPTS = {name: ASSETS / name for name in ("plotly.js", "figures.js", "tables.js", "style.css")}
SCRIPTS["start.js"] = Path(__file__).with_name("start.js")
INDEX = """\
<!DOCTYPE html>
<html lang="en"><head>{metas}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>{favicon}{css}<link rel="stylesheet" href="{base}/voxnas/style.css?{version}">
<link rel="preload" as="script" href="{base}/voxnas/plotly.js?{version}"></head>
<body><div id="first">{first}</div><div id="react-entry-point"></div>
<script src="{base}/voxnas/plotly.js?{version}"></script><script src="{base}/voxnas/figures.js?{version}"></script>
<footer hidden>{config}{scripts}</footer>
<script defer src="{base}/voxnas/tables.js?{version}"></script>
<script defer id="_dash-renderer" src="{base}/voxnas/start.js?{version}"></script>
</body></html>"""
VIEWS: dict[str, tuple[str, Callable[[Snapshot, Request], Page]]] = {
    "front": ("Front", front_page),
    "progress": ("Progress", progress_page),
    "importance": ("Importance", importance_page),
    "trial": ("Trial", trial_page),
    "compare": ("Compare", compare_page),
    "references": ("References", references_page),
    "ablations": ("Ablations", ablations_page),
}
SHARED_PARAMETERS = ("lasso",)  # query parameters kept in links to the study's other views


@dataclass
class Site:
    """Builds the pages from the studies of a library; a proxy may show them below the path `prefix`."""

    library: Library
    prefix: str = ""
    worker: Worker = field(default_factory=Worker)

    def page(self, pathname: str, search: str, *, first: bool = False) -> Element:
        """Return the page of a URL; with `first` only the front's first figure, for a fast first paint."""
        study, view = read_path(pathname)
        query = dict(parse_qsl(search.lstrip("?"), keep_blank_values=True))
        place, home = f"{self.prefix}/study/{quote(study, safe='')}", f"{self.prefix}/"
        snapshot = self.library.snapshot(study) if study else None
        asked = Request({**query, **({"papers": "off"} if first else {})}, self.worker.work, self.snapshots, place)
        if study and snapshot is None:
            missing = Page("Studies", (), (Note(f"There is no study named {study!r}."),))
            return _frame("voxnas", [(home, "Studies", False)], missing, place="")
        if snapshot is None:
            page = Page("Studies", (), ()) if first else self._studies(asked)
            return _frame("voxnas", [(home, "Studies", True)], page, place=home)
        page = VIEWS[view][1](snapshot, asked) if view == "front" or not first else Page(view, (), ())
        if snapshot.not_estimated:
            page = replace(page, components=(_note_on_estimates(snapshot), *page.components))
        if first:
            page = Page(page.title, (), tuple(each for each in page.components if isinstance(each, Figure))[:1])
        shared = urlencode({key: query[key] for key in SHARED_PARAMETERS if key in query})
        links = [
            (f"{place}/{key}" + (f"?{shared}" if shared else ""), title, key == view)
            for key, (title, _) in VIEWS.items()
        ]
        return _frame(study, [*links, (home, "Studies", False)], page, place=place)

    def close(self) -> None:
        """Stop the worker process and close the database connections."""
        self.worker.close()
        self.library.close()

    def snapshots(self) -> list[Snapshot]:
        """Return the current snapshot of every study that voxnas wrote."""
        return [snapshot for name in self.library.names() if (snapshot := self.library.snapshot(name)) is not None]

    def _studies(self, asked: Request) -> Page:
        snapshots = self.snapshots()
        read = {snapshot.label for snapshot in snapshots}
        page = studies_page(snapshots, [name for name in self.library.names() if name not in read], asked)
        notes = [_note_on_estimates(each, whose=f" of {each.label}") for each in snapshots if each.not_estimated]
        return replace(page, components=(*notes, *page.components))

    def version(self, pathname: str) -> str:
        """Return a string that changes whenever the page of a URL may have changed."""
        study, view = read_path(pathname)
        snapshot = self.library.snapshot(study) if study else None
        if snapshot is None:
            shown = [] if study else [(each.label, pulse(each)[0]) for each in self.snapshots()]
            listed = [f"{name}-{self.library.changes(name)}-{drivers}" for name, drivers in shown]
            return f"{study}:{','.join([*self.library.names(), *listed])}"
        findings = snapshot.folder / FINDINGS
        written = findings.stat().st_mtime_ns if findings.exists() else 0
        return f"{study}:{len(snapshot.trials)}-{self.library.changes(study)}-{written}:{self.worker.done}" + (
            f":{pulse(snapshot)}" if view == "progress" else f":{sorted(interrupted_trials(snapshot))}"
        )


def _note_on_estimates(snapshot: Snapshot, *, whose: str = "") -> Note:
    """Return how many trainings the expected Dice includes, and how many it lacks."""
    count = snapshot.not_estimated
    known, lacking = len(snapshot.trainings) - count, "1 later one is" if count == 1 else f"{count} later ones are"
    what = f"Expected Dice, front and hypervolume{whose} are those of {known} trainings"
    return Note(f"{what}; {lacking} being added.")


def read_path(pathname: str) -> tuple[str, str]:
    """Split /study/NAME/VIEW into study and view; both are empty for any other path."""
    parts = [unquote(each) for each in pathname.split("/")]
    if len(parts) < 3 or parts[1] != "study":
        return "", ""
    view = parts[3] if len(parts) > 3 else ""
    return parts[2], view if view in VIEWS else "front"


def _frame(title: str, links: list[tuple[str, str, bool]], page: Page, *, place: str) -> Element:
    anchors = [
        Element("a", {"href": href, **({"aria-current": "page"} if here else {})}, [text]) for href, text, here in links
    ]
    header = Element("header", {}, [Element("h1", {}, [title]), Element("nav", {"aria-label": "views"}, anchors)])
    return Element("main", {}, [header, page_element(page, place=place)])


def to_dash(element: Element | str) -> Any:
    """Convert an element to a Dash component."""
    if isinstance(element, str):
        return element
    component = getattr(html, element.tag.capitalize())
    return component([to_dash(child) for child in element.children], **element.attributes)


class Dashboard(Dash):
    """A Dash app whose first page is drawn before Dash's own scripts are loaded."""

    site: Site

    def interpolate_index(self, **parts: str) -> str:  # type: ignore[override]
        """Return the HTML that the browser loads."""
        first = self.site.page(request.path, request.query_string.decode(), first=True)
        later = parts["scripts"].replace("<script ", "<script defer ")
        values = {
            **parts,
            "scripts": later,
            "title": escape(parts["title"]),
            "first": to_html(first),
            "version": VERSION,
            "base": self.site.prefix,
        }
        return INDEX.format(**values)


def make_app(library: Library, *, token: str | None, prefix: str = "") -> Dashboard:
    """Return the application that serves the studies of a library, below the path `prefix` in the browser."""
    with _without_variables():
        app = Dashboard(
            "voxnas",
            title="voxnas",
            update_title="",
            assets_folder="",
            include_assets_files=False,
            enable_mcp=False,
            add_log_handler=False,
            requests_pathname_prefix=f"{prefix}/",
            routes_pathname_prefix="/",
            serve_locally=True,
            suppress_callback_exceptions=False,
        )
        app.enable_dev_tools(debug=False)
    app.site = site = Site(library, prefix)
    app.server.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    secure(app.server, token)
    refuse_malformed(app.server, app.callback_map)
    _serve_scripts(app)
    app.layout = html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="version"),
            dcc.Store(id="drawn"),
            html.Div(id="page"),
            dcc.Interval(id="tick", interval=TICK_MS),
        ]
    )

    @app.callback(
        Output("page", "children"),
        Output("drawn", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
        Input("version", "data"),
    )
    def _page(pathname: str, search: str | None, _: str | None) -> tuple[Any, str]:
        path = (pathname or "/").removeprefix(site.prefix)
        version = site.version(path)
        return to_dash(site.page(path, search or "")), version

    @app.callback(
        Output("version", "data"),
        Input("tick", "n_intervals"),
        State("url", "pathname"),
        State("drawn", "data"),
        prevent_initial_call=True,
    )
    def _tick(_: int, pathname: str, before: str | None) -> Any:
        now = site.version((pathname or "/").removeprefix(site.prefix))
        return no_update if now == before else now

    return app


@contextmanager
def _without_variables() -> Iterator[None]:
    """Hide the environment variables by which Dash can be configured, such as DASH_DEBUG and DASH_HOT_RELOAD."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.upper().startswith("DASH_")}
    try:
        yield
    finally:
        os.environ.update(kept)


def _serve_scripts(app: Dashboard) -> None:
    """Serve voxnas's own scripts and styles by name, from the installed packages."""

    def script(name: str) -> Response:
        if name not in SCRIPTS:
            return Response("not found", 404)
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        data = SCRIPTS[name].read_bytes()
        return Response(data, mimetype=kind, headers={"Cache-Control": "max-age=3600"})

    app.server.add_url_rule("/voxnas/<name>", view_func=script)
