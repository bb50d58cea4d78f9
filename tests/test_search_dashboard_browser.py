"""The dashboard in a real browser: every view, both sizes, click, lasso, live update, saved figures and tables."""

import re
import threading
from dataclasses import replace

import pytest
from synthetic_study import add_records, synthetic_records, synthetic_study, write_synthetic_study

from search.config.schema import Search
from search.dashboard.app import make_app
from search.dashboard.library import Library
from search.dashboard.server import make_server

LONG = "a-study-whose-name.goes-on-for-64-letters_as-the-file-allows-it"
DESK, PHONE = (1280, 800), (390, 844)
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The URL of a dashboard over synthetic studies, and their folder."""
    runs = tmp_path_factory.mktemp("runs")
    write_synthetic_study(runs, "made", [*synthetic_records(80), *synthetic_records(1, first=80, state="running")])
    repeats = replace(synthetic_study("random"), search=Search(proposer="random", trials=20))
    write_synthetic_study(runs, "random", synthetic_records(20, seed=1), study=repeats)
    write_synthetic_study(runs, "failed", synthetic_records(3, state="failed"))
    write_synthetic_study(runs, LONG, synthetic_records(1, state="trained"))
    app = make_app(Library(None, runs), token=None)
    server = make_server(app.server, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://localhost:{server.port}", runs
    server.stop()
    thread.join(5)
    app.site.close()


@pytest.fixture
def opened(browser, served):
    """A function that opens a URL; the fixture fails if a page logged an error or contacted another host."""
    complaints, pages = [], []

    def open_page(path, size=DESK, **context):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **context)
        page.set_default_timeout(PATIENCE_MS)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url) if not request.url.startswith((served[0], "data:", "blob:")) else None
            ),
        )
        page.goto(served[0] + path)
        page.wait_for_selector("#page > main")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def walk(page, path):
    """Follow one of the page's links as a click does, without reloading the page."""
    page.evaluate("path => dash_clientside.set_props('url', {pathname: path, search: ''})", path)
    page.wait_for_function("path => location.pathname === path", arg=path)
    page.wait_for_timeout(300)
    page.wait_for_selector("#page > main")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_view_opens_without_errors_and_fits_the_window(opened, size):
    page = opened("/study/made/front", size)
    for study, views in (
        ("made", ("progress", "importance", "trial", "compare")),
        ("failed", ("front", "importance")),
        (LONG, ("front", "trial")),
    ):
        for view in views:
            walk(page, f"/study/{study}/{view}")
            if study == "made":  # on a phone the first figure may be below the fold, and is drawn when scrolled to
                page.wait_for_selector("#page .figure", state="attached")
                page.evaluate("document.querySelector('#page .figure').scrollIntoView()")
                page.wait_for_selector("#page .figure[data-drawn]")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), view
    walk(page, "/")
    page.wait_for_selector("#page .figure[data-name=fronts]", state="attached")
    page.evaluate("document.querySelector('#page .figure[data-name=fronts]').scrollIntoView()")
    page.wait_for_selector("#page .figure[data-name=fronts][data-drawn]")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("[data-title*='loud'], [data-title*='hare']").count() == 0  # no button that uploads the chart


def pixel(page, x, y):
    """Return the screen position of a point of the front plot."""
    return page.evaluate(
        """([x, y]) => { const node = document.querySelector("#page [data-name=front] .js-plotly-plot");
        const box = node.getBoundingClientRect(), {xaxis, yaxis} = node._fullLayout;
        return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)]; }""",
        [x, y],
    )


def inside(page, x, y):
    """Return the screen position of a fraction of the front plot's axes, from the lower left corner."""
    ranges = page.evaluate("""() => { const {xaxis, yaxis} = document.querySelector(
        "#page [data-name=front] .js-plotly-plot")._fullLayout; return [xaxis.range, yaxis.range]; }""")
    return pixel(page, *(low + share * (high - low) for (low, high), share in zip(ranges, (x, y), strict=True)))


def test_a_click_opens_the_trial(opened):
    page = opened("/study/made/front?papers=off")
    page.wait_for_selector("#page [data-name=front][data-drawn]")
    point = page.evaluate("""() => { const plot = document.querySelector("#page [data-name=front] .js-plotly-plot");
        const [point] = plot.calcdata.find(each => each[0].trace.name === "Pareto front");
        return [point.x, point.y, point.trace.customdata[0]]; }""")
    page.mouse.move(*pixel(page, *point[:2]))
    page.wait_for_selector(".hoverlayer .hovertext")
    page.mouse.click(*pixel(page, *point[:2]))
    page.wait_for_url(f"**/study/made/trial?trial={point[2]}")
    page.wait_for_selector(f"#page dd:text-is('{point[2]}')")


def test_a_phone_shows_every_column_of_a_table_with_its_heading(opened):
    page = opened("/study/made/front", PHONE)
    cell = page.wait_for_selector(".table tbody tr td[data-heading=network]")
    box = cell.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0] and box["width"] > PHONE[0] / 2
    heading = page.evaluate("cell => getComputedStyle(cell, '::before').content", cell)
    assert heading == '"network"'


def test_a_lasso_filters_the_other_views_and_its_link_reopens_it(opened, served):
    page = opened("/study/made/front?papers=off")
    page.wait_for_selector("#page [data-name=front][data-drawn]")
    corners = [inside(page, x, y) for x, y in ((0.05, 0.95), (0.05, 0.4), (0.6, 0.4), (0.6, 0.95), (0.05, 0.95))]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()
    page.wait_for_function("() => location.search.includes('lasso=memory')")
    link = page.url.removeprefix(served[0])
    page.locator("#page nav a[href*=lasso]", has_text="Progress").click()
    note = page.wait_for_selector("#page p:has-text('trials inside the lasso')").text_content()
    chosen = int(re.match(r"Only the (\d+) of 81 trials", note)[1])
    assert 0 < chosen < 81
    again = opened(link)
    again.wait_for_selector(f"#page .table[data-name=trials] strong:has-text('{chosen} trials')")


def test_a_trial_that_ends_while_the_page_is_open_appears(opened, served):
    runs = served[1]
    page = opened("/study/random/front?papers=off")
    before = page.locator("#page dl div:has(dt:text-is('trained')) dd")
    trained = int(before.text_content())
    add_records(
        runs / "random" / "study.db", synthetic_records(1, first=20, state="trained"), ["dice", "memory", "latency"]
    )
    page.wait_for_selector(f"#page dl div:has(dt:text-is('trained')) dd:text-is('{trained + 1}')")


def test_controls_work_by_keyboard_and_update_the_url(opened):
    page = opened("/study/made/front?papers=off")
    page.get_by_label("across").focus()
    page.get_by_label("across").select_option("latency")
    page.wait_for_url("**x=latency*")
    page.get_by_label("third axis").select_option("memory")
    page.wait_for_selector("#page [data-name=front] .gl-container canvas")
    page.go_back()
    page.wait_for_url(lambda url: "z=" not in url)
    unnamed = """[...document.querySelectorAll('select, input, button, [role=img]')]
        .filter(each => !each.getAttribute('aria-label') && !each.textContent && !each.labels?.length).length"""
    assert page.evaluate(unnamed) == 0


def test_tables_sort_filter_and_download_and_figures_are_saved(opened, tmp_path):
    page = opened("/study/made/front?papers=off&rows=all")
    table = page.locator("#page .table[data-name=trials]")
    table.get_by_role("button", name="expected Dice", exact=True).click()
    table.get_by_role("button", name="expected Dice", exact=True).click()
    shown = [float(text) for text in table.locator("tbody tr td:nth-child(3)").all_text_contents() if text]
    assert shown == sorted(shown, reverse=True) and len(shown) > 10
    table.get_by_role("searchbox").fill("residual csam")
    with page.expect_download() as saved:
        table.get_by_role("button", name="CSV").click()
    lines = saved.value.path().read_text().splitlines()
    assert (
        lines[0].startswith("trial,state,expected Dice")
        and 1 < len(lines) < 80
        and all("residual" in line for line in lines[1:])
    )
    for form, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as saved:
            page.locator(f"#page [data-save={form}]").first.click()
        assert saved.value.path().read_bytes().startswith(start)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark_mode(opened, scheme):
    page = opened("/study/made/front?papers=off", color_scheme=scheme)
    page.wait_for_selector("#page [data-name=front][data-drawn]")
    read = """() => {
        const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(linear);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const tick = document.querySelector("#page [data-name=front] .xtick text");
        const both = [light(getComputedStyle(document.body).backgroundColor), light(getComputedStyle(tick).fill)];
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05); }"""
    assert page.evaluate(read) > 4.5
