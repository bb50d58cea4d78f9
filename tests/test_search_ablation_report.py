"""An ablation's report in a real browser: it draws, fits the window, and makes no requests."""

import os
import shutil
from pathlib import Path

import pytest

from search.ablation.cases import read_cases
from search.ablation.figures import ALONE, OPEN, draw_classes, draw_forest, draw_ranks, effect_intervals
from search.ablation.report import ARM_HEADINGS, TEMPLATE
from search.ablation.summary import Design, summarise
from search.ablation.tables import signed, tables, to_html, to_latex, to_markdown
from search.visualization.figures.style import component
from search.visualization.html import figure_html, render_page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STORED = Path(__file__).parents[1] / "studies" / "examples" / "which_attention_small" / "cases.parquet"


@pytest.fixture(scope="module")
def summary():
    scores = read_cases(STORED)
    arms = tuple(dict.fromkeys(each.arm for each in scores))
    return summarise(Design(arms, "base", ("dice",), (), "holm", 0.05), scores, [], [])


def test_a_figure_shows_the_numbers_of_the_table(summary):
    lines = {each.arm: each for each in effect_intervals(summary, "dice")}
    (table, _) = tables(summary, same=[("again", "base")])
    rows = {row[0]: row for row in table.texts}
    assert set(rows) == {*lines, "base", "again"} and rows["again"][2] == "= base"
    for arm, line in lines.items():
        assert rows[arm][3] == signed(line.difference, 4) and line.low <= line.difference <= line.high
        assert (line.kind == OPEN) == (rows[arm][-1] == "not significant")
        assert (line.kind == ALONE) == rows[arm][-1].endswith("†")
    drawn = draw_forest(list(lines.values()), metric="dice", baseline="base")
    assert sorted(x for trace in drawn.data for x in trace.x) == sorted(each.difference for each in lines.values())
    heat = draw_classes(summary.classes, metric="dice").data[0]
    assert heat.z[0][0] == summary.classes[next(iter(lines))][heat.x[0]]
    assert [point for point in draw_ranks(summary.ranks).data[0].x] == [rank for _, rank in summary.ranks.ranks]


def test_names_are_escaped_in_every_form(summary):
    (table, _) = tables(summary, same=[("a_b & <c> 5 %|", "base")])
    assert r"a\_b \& $<$c$>$ 5 \%|" in to_latex(table)
    assert "a_b &amp; &lt;c&gt; 5 %|" in to_html(table)
    assert r"| a_b & <c> 5 %\| |" in to_markdown(table)


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_the_report_draws_fits_the_window_and_makes_no_requests(summary, tmp_path, size):
    if not CHROMIUM:
        pytest.skip("no Chromium on the path, and CHROMIUM names none")
    from playwright.sync_api import sync_playwright

    figures = [
        draw_forest(effect_intervals(summary, "dice"), metric="dice", baseline="base"),
        draw_classes(summary.classes, metric="dice"),
        draw_ranks(summary.ranks),
    ]
    values = {
        "name": "arms",
        "tiles": [("arms", "5")],
        "methods": "m",
        "arms": (ARM_HEADINGS, [("base", "plain", "the settings of the file")]),
        "figures": [
            figure_html(component(each, name=f"{at}", title="t", label="l")) for at, each in enumerate(figures)
        ],
        "tables": [(each.title, to_html(each), each.notes) for each in tables(summary, same=[])],
    }
    path = tmp_path / "report.html"
    path.write_text(render_page(TEMPLATE, values), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        complaints, asked = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector(".js-plotly-plot .xtitle")
        page.wait_for_timeout(500)
        assert complaints == [] and [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        overflow = "[...document.querySelectorAll('figure')].filter(f => f.scrollWidth > f.clientWidth + 1).length"
        assert page.evaluate(overflow) == 0
        browser.close()
