"""All benchmarks in a short form, one after another; writes their figures and limits to studies/examples/bench.md.

Run: make bench, on a machine that does nothing else; it takes half an hour on two cores. Arguments name some of the
benchmarks. Those on real volumes need VOXNAS_DATA. A figure without a limit is for comparison only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from bench_figures import COLLECTED, Figure, collected

HERE = Path(__file__).parent
OUT = HERE.parent / "studies" / "examples" / "bench.md"
PACKAGES = ("voxnas", "torch", "optuna", "ray", "monai", "numpy", "scipy", "plotly")
MAX_S = 1200.0  # of one benchmark


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its script, the arguments of its short form, and what it needs that not every machine has."""

    title: str
    script: str
    arguments: tuple[str, ...] = ()
    data: str = ""
    package: str = ""

    @property
    def name(self) -> str:
        """The name after `make bench-`."""
        return self.script.removeprefix("bench_")

    def missing(self) -> str:
        """Return what this machine lacks for it; empty if nothing."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"needs the package {self.package}"
        if self.data and not (Path(os.environ.get("VOXNAS_DATA", ".")) / self.data).is_dir():
            return f"needs {self.data} under VOXNAS_DATA"
        return ""


BENCHMARKS = (
    Benchmark("Start of the commands", "bench_startup"),
    Benchmark("Predicted memory", "bench_memory", ("--random", "20", "--no-presets")),
    Benchmark("Prices of the whole space", "bench_prices", ("--networks", "100"), data="Task27_ACDC"),
    Benchmark("Latency read twice", "bench_latency", ("--networks", "12", "--pause", "5")),
    Benchmark("Attention blocks", "bench_blocks", ("--repeats", "3")),
    Benchmark("Training loop", "bench_training", ("--rounds", "3", "--steps", "8", "--seconds", "5")),
    Benchmark(
        "Search on a synthetic table",
        "bench_search",
        ("--tables", "additive", "--seeds", "7", "--without", "gp,tpe"),  # fewer can't be significant
    ),
    Benchmark("Dashboard", "bench_dashboard", ("--repeats", "3", "--without-optuna")),
    Benchmark("Cluster", "bench_ray", ("platform", "driver")),
    Benchmark("Driver of a large study", "bench_scale", ("--running", "64")),
    Benchmark("Exported network", "bench_export", data="Task27_ACDC"),
    Benchmark(
        "Recipes, too short to compare their Dice",
        "bench_recipes",
        ("--steps", "50", "--seeds", "0"),
        data="Task04_Hippocampus",
    ),
    Benchmark(
        "Against nnU-Net, too short to compare their Dice",
        "bench_nnunet",
        ("--minutes", "1", "--seeds", "0", "--cases", "2"),
        data="Task04_Hippocampus",
        package="nnunetv2",
    ),
)


@dataclass(frozen=True)
class Finished:
    """A benchmark that ran: its figures, its seconds, and why it ended early (empty if it did not)."""

    benchmark: Benchmark
    figures: list[Figure]
    seconds: float
    fault: str


def run(benchmark: Benchmark, folder: Path) -> Finished:
    """Run a benchmark in its own process; what it prints is shown."""
    file = folder / f"{benchmark.name}.jsonl"
    kept = ("--keep", str(folder / benchmark.name)) if benchmark.script in ("bench_recipes", "bench_nnunet") else ()
    command = [sys.executable, str(HERE / f"{benchmark.script}.py"), *benchmark.arguments, *kept]
    began = time.monotonic()
    try:
        code = subprocess.run(command, env={**os.environ, COLLECTED: str(file)}, timeout=MAX_S).returncode
        fault = f"ended with code {code}" if code else ""
    except subprocess.TimeoutExpired:
        fault = f"was ended after {MAX_S:.0f} s"
    return Finished(benchmark, collected(file), time.monotonic() - began, fault)


def machine() -> list[str]:
    """Return lines that describe this machine and the versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_gib = psutil.virtual_memory().total / 2**30
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return [
        f"{len(os.sched_getaffinity(0))} cores of {model}, {memory_gib:.0f} GiB memory, {gpu}.",
        f"{platform.system()}, Python {platform.python_version()}, {versions}.",
    ]


def page(done: list[Finished], skipped: list[tuple[Benchmark, str]]) -> str:
    """Return the figures of all benchmarks as a Markdown page; what misses its limit comes first."""
    missed = [(each, figure) for each in done for figure in each.figures if figure.verdict == "MISSED"]
    limited = sum(bool(figure.verdict) for each in done for figure in each.figures)
    lines = ["# Benchmarks", "", f"Written by `make bench` on {time.strftime('%Y-%m-%d')}.", "", *machine(), ""]
    lines += ["Ratios compare both sides in one run; seconds depend on the machine.", ""]
    lines += [f"{limited - len(missed)} of {limited} limits are met.", ""]
    if missed:
        lines += ["| Missed | measured | limit |", "|---|---|---|"]
        lines += [f"| {figure.what} | {figure.shown} | {figure.shown_limit} |" for _, figure in missed] + [""]
    for each in done:
        command = " ".join([f"tests/{each.benchmark.script}.py", *each.benchmark.arguments])
        lines += [f"## {each.benchmark.title}", "", f"`python {command}`, {each.seconds:.0f} s.", ""]
        if each.fault:
            lines += [f"**It {each.fault}.**", ""]
        if each.figures:
            lines += ["| figure | measured | limit | |", "|---|---|---|---|"]
            lines += [
                f"| {figure.what} | {figure.shown} | {figure.shown_limit} | {figure.verdict} |"
                for figure in each.figures
            ] + [""]
    if skipped:
        lines += ["## Not run", ""] + [f"* {each.title} (`make bench-{each.name}`): {why}." for each, why in skipped]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run the named benchmarks, or all; exit with code 1 if one ended early."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*(each.name for each in BENCHMARKS), []], metavar="NAME")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    chosen = [each for each in BENCHMARKS if not options.names or each.name in options.names]
    done, skipped = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, benchmark in enumerate(chosen, start=1):
            if why := benchmark.missing():
                skipped.append((benchmark, why))
                continue
            print(f"\n{number} of {len(chosen)}: {benchmark.title}", flush=True)
            done.append(run(benchmark, Path(folder)))
    options.out.write_text(page(done, skipped))
    print(f"\nwrote {options.out}")
    sys.exit(any(each.fault for each in done))


if __name__ == "__main__":
    main()
