"""report.html in a real browser: it draws, fits the window, sorts, and makes no requests."""

import pytest

from search.analysis.snapshot_reader import snapshot_of
from search.config import load_study
from search.visualization.report import write_report


@pytest.fixture(scope="module")
def report(tiny_run):
    return write_report(snapshot_of(load_study(tiny_run.file), runs=tiny_run.runs))


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_the_report_draws_fits_the_window_and_makes_no_requests(report, browser, size):
    assert report.stat().st_size < 8 * 2**20
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector(".js-plotly-plot .xtitle")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")  # also draws figures further down
    page.wait_for_function("() => !document.querySelector('.figure:not([data-drawn])')")
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    overflow = """[...document.querySelectorAll('figure:not(:has(.wide))')]
        .filter(each => each.scrollWidth > each.clientWidth + 1).length"""
    assert page.evaluate(overflow) == 0
    assert page.locator("[data-title*='loud'], [data-title*='hare']").count() == 0  # no button that uploads the chart
    page.close()


def test_the_table_sorts_by_a_click(report, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(report.as_uri())
    table = page.locator(".table[data-name=front-trials]")
    cells = table.locator("tbody tr td:first-child")
    table.get_by_role("button", name="trial", exact=True).click()
    assert cells.all_text_contents() == ["0", "1", "2"]
    table.get_by_role("button", name="trial", exact=True).click()
    assert cells.all_text_contents() == ["2", "1", "0"]
    page.close()
