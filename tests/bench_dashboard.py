"""The dashboard's speed in a real browser: first paint compared with an empty Dash graph, update, memory, report.html.

Run: make bench-dashboard. `--without-optuna` skips optuna-dashboard on the same database, which takes minutes.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench_figures import report
from playwright.sync_api import sync_playwright
from synthetic_study import add_records, synthetic_records, synthetic_study, write_synthetic_study

TRIALS, REPORTED = 10_000, 1_000
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
EMPTY = """\
from dash import Dash, dcc
app = Dash("empty")
app.layout = dcc.Graph(figure={})
app.run(port=PORT, debug=False)
"""
# Records when a selector first matches, and the frame after the match was painted
WATCH = """(() => {
  const note = () => { window.painted = performance.now(); };
  const look = () => requestAnimationFrame(document.querySelector(SELECTOR) ? () => requestAnimationFrame(note) : look);
  look();
})()"""
EMPTY_PAINTED, FRONT_PAINTED, REPORT_PAINTED = ".js-plotly-plot .main-svg", ".figure[data-drawn]", ".figure[data-drawn]"
OPTUNA_PAINTED = "#graph-pareto-front .js-plotly-plot, #plot-pareto-front .main-svg, #graph-pareto-front .main-svg"


def first_paint(browser, url, selector, *, timeout_s=120):
    """Return seconds from the start of a navigation with an empty cache until the selector's element is painted."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(WATCH.replace("SELECTOR", json.dumps(selector)))
    page.goto(url, wait_until="commit")
    page.wait_for_function("() => window.painted", timeout=timeout_s * 1000)
    seconds = page.evaluate("window.painted") / 1000
    context.close()
    return seconds


def wait_for(url, patience_s=120):
    end = time.monotonic() + patience_s
    while True:
        try:
            return urllib.request.urlopen(url).read()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def callback(base, outputs, inputs, state=()):
    """Send the requests of a page after a tick; return the server's seconds."""
    written = [dict(zip(("id", "property"), each.split("."), strict=True)) for each in outputs]
    named = [{"id": id_, "property": name, "value": value} for id_, name, value in inputs]
    body = {
        "output": outputs[0] if len(outputs) == 1 else f"..{'...'.join(outputs)}..",
        "outputs": written[0] if len(outputs) == 1 else written,
        "changedPropIds": [f"{inputs[-1][0]}.{inputs[-1][1]}"],
        "inputs": named,
        "state": [{"id": id_, "property": name, "value": value} for id_, name, value in state],
    }
    request = urllib.request.Request(
        f"{base}/_dash-update-component", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    began = time.perf_counter()
    urllib.request.urlopen(request).read()
    return time.perf_counter() - began


def peak_bytes(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def update_seconds(base, file, number):
    add_records(file, synthetic_records(1, seed=number, first=number, state="trained"), ["dice", "memory", "latency"])
    address = (("url", "pathname", "/study/made/front"), ("url", "search", ""))
    tick = callback(base, ["version.data"], (("tick", "n_intervals", number),), (address[0], ("drawn", "data", None)))
    return tick + callback(base, ["page.children", "drawn.data"], (*address, ("version", "data", str(number))))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--without-optuna", action="store_true")
    asked = arguments.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    rows, servers = [], []
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        file = write_synthetic_study(runs, "made", synthetic_records(TRIALS))
        voxnas = [sys.executable, "-m", "search.cli", "dashboard", "--runs", str(runs), "--port", "8261"]
        try:
            servers.append(subprocess.Popen(voxnas, stdout=subprocess.DEVNULL))
            servers.append(
                subprocess.Popen(
                    [sys.executable, "-c", EMPTY.replace("PORT", "8262")],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            base = "http://localhost:8261"
            wait_for(f"{base}/study/made/front")
            wait_for("http://localhost:8262/")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                ours, empty = [], []
                for _ in range(asked.repeats):
                    empty.append(first_paint(browser, "http://localhost:8262/", EMPTY_PAINTED))
                    ours.append(first_paint(browser, f"{base}/study/made/front", FRONT_PAINTED))
                paint, stock = statistics.median(ours), statistics.median(empty)
                rows.append(("first paint of an empty Dash graph", stock, None, "s"))
                rows.append((f"first paint of the front, {TRIALS} trials", paint, 1.3 * stock, "s"))
                updates = [update_seconds(base, file, TRIALS + each) for each in range(asked.repeats)]
                rows.append(("update by one trial, server", statistics.median(updates), 0.3, "s"))
                rows.append(("server memory, peak", peak_bytes(servers[0].pid) / 2**20, 600.0, "MiB"))
                if not asked.without_optuna:
                    theirs = [
                        shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent)),
                        f"sqlite:///{file}",
                        "--port",
                        "8263",
                    ]
                    servers.append(subprocess.Popen(theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                    wait_for("http://localhost:8263/dashboard/")
                    seconds = first_paint(
                        browser, "http://localhost:8263/dashboard/studies/1", OPTUNA_PAINTED, timeout_s=600
                    )
                    rows += [
                        ("optuna-dashboard's Pareto plot", seconds, None, "s"),
                        ("front, of a twentieth of that", paint, seconds / 20, "s"),
                    ]
                rows += report_rows(browser, runs, asked.repeats)
                browser.close()
        finally:
            for server in servers:
                server.terminate()
    for what, value, limit, unit in rows:
        report(what, value, unit, limit=limit)


def report_rows(browser, runs, repeats):
    from search.analysis.snapshot_reader import read_snapshot
    from search.visualization.report import write_report

    study = synthetic_study("reported")
    write_synthetic_study(runs, "reported", synthetic_records(REPORTED), study=study)
    path = write_report(read_snapshot(study, runs / "reported"))
    opened = statistics.median(first_paint(browser, path.as_uri(), REPORT_PAINTED) for _ in range(repeats))
    return [
        (f"report.html of {REPORTED} trials", path.stat().st_size / 2**20, 8.0, "MiB"),
        ("it opens in", opened, 2.0, "s"),
    ]


if __name__ == "__main__":
    main()
