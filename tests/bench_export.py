"""Speed of an export on a Task27_ACDC volume, and the export of every kind of network in every form.

`make bench-export` compares predict.py with MONAI's sliding window on the same network (time, startup, peak memory
against the model card's figure), and onnxruntime with torch. `--networks` instead exports each paper's network at full
width and random networks of the space in every possible form, and prints the largest differences of logits.
Requires Task27_ACDC under VOXNAS_DATA.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from bench_figures import report
from bench_presets import PATCHES, SLAB
from test_real_data import case_names, subset
from test_search_export_source import apart, lively, written

from search.analysis.choose import Choice
from search.config import load_study
from search.export import export_trained
from search.export.forms import write_forms
from search.export.origin import Origin
from search.export.trained import Trained
from search.runner.plan import make_plan, prepared_data
from search.runner.sampling import sample_buildable
from search.training.checkpoint import save_weights
from search.trials.records import CaseDice, Measurement, Record
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.narrow import narrow
from space.presets import PRESETS

STUDY = Path(__file__).parents[1] / "studies" / "acdc.yaml"
CASES, REPEATS, POINTS = 5, 7, 20
WINDOWS = re.compile(r"\(([0-9.]+) s in ([0-9,]+) windows?\); peak memory (\d+) MiB")


@dataclass(frozen=True)
class Run:
    """One run of predict.py: total time, time of the windows, peak memory."""

    whole_s: float
    windows_s: float
    peak_bytes: int

    @property
    def start_s(self) -> float:
        """Time outside the windows: imports, loading, reading, writing."""
        return self.whole_s - self.windows_s


def run_predict(folder: Path, image: Path, form: str, *, threads: int, out: Path) -> Run:
    command = [
        sys.executable,
        "-I",
        str(folder / "predict.py"),
        str(image),
        "--out",
        str(out),
        "--form",
        form,
        "--device",
        "cpu",
        "--threads",
        str(threads),
    ]
    began = time.perf_counter()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    whole = time.perf_counter() - began
    windows, _, peak = WINDOWS.search(output).groups()
    return Run(whole, float(windows), int(peak) << 20)


MONAI = """
import json, sys, time
from pathlib import Path
folder, image, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, str(folder))
import forms, geometry, torch, volumes
from monai.inferers import SlidingWindowInferer
settings = json.loads((folder / "preprocessing.json").read_text())
network = forms.load("source", device="cpu", precision="float32", threads=threads)[0].__self__.network
volume = volumes.read_case(volumes.Case("image", (image,)), settings["channels"])
array, _ = geometry.to_grid(volume, geometry.Preprocessing.from_json(settings))
inferer = SlidingWindowInferer(settings["patch"], sw_batch_size=1, overlap=settings["overlap"], mode="gaussian")
began = time.perf_counter()
with torch.inference_mode():
    inferer(torch.from_numpy(array)[None], lambda x: network(x.contiguous(memory_format=torch.channels_last_3d)))
print(time.perf_counter() - began)
"""


def run_monai(folder: Path, image: Path, *, threads: int) -> float:
    """Return the seconds of MONAI's sliding window with the same network, in its own process like predict.py."""
    command = [sys.executable, "-c", MONAI, str(folder), str(image), str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def speed(data: Path, folder: Path, *, threads: int) -> None:
    """Export one untrained network of the cardiac study, and time it."""
    torch.set_num_threads(threads)
    source = data / "Task27_ACDC"
    subset(source, folder / "Task27_ACDC", case_names(source)[:CASES])
    plan = make_plan(load_study(STUDY, data_root=folder, overrides=["data.folds=2"]), runs=folder / "runs")
    decisions = plan.space.complete({})
    architecture = plan.space.architecture(decisions)
    network = lively(build(architecture, plan.context))
    save_weights(folder / "trial", network)
    record = Record(0, architecture, tuple(decisions.items()), 0, 0, Measurement("trained"), "", "")
    dice = tuple(0.0 for _ in plan.dataset.labels[1:])
    cases = tuple(CaseDice(name, dice) for name in plan.fold.validation)
    trained = Trained((folder / "trial",), ("",), "untrained", cases)
    origin = Origin(Choice(record, "the only trial"), trained, plan, prepared_data(plan))
    exported = export_trained(origin, folder / "out")
    print(exported)
    image = Path(plan.dataset.cases[0].images[0])
    forms = [check.form for check in exported.checks]
    runs: dict[str, list[Run]] = {form: [] for form in forms}
    monai_runs = []
    for repeat in range(-1, REPEATS):  # the first run warms the caches; alternate, since the machine's speed drifts
        monai_run_s = run_monai(folder / "out", image, threads=threads)
        repeated = {
            form: run_predict(folder / "out", image, form, threads=threads, out=folder / "mask.nii.gz")
            for form in forms
        }
        if repeat >= 0:
            monai_runs.append(monai_run_s)
            for form in forms:
                runs[form].append(repeated[form])
    monai_s = statistics.median(monai_runs)
    print(f"\n{image.name}, {threads} threads, median of {REPEATS}: MONAI's sliding window {monai_s:.2f} s")
    for check in exported.checks:
        found = runs[check.form]
        windows, start = (statistics.median(getattr(run, name) for run in found) for name in ("windows_s", "start_s"))
        peak = max(run.peak_bytes for run in found)
        print(
            f"  {check.form:7} windows {windows:6.2f} s, startup and files {start:5.2f} s, peak {peak / 2**20:5.0f} MiB"
        )
        report(f"predict.py --form {check.form}: windows over MONAI's sliding window", windows / monai_s)
        report(f"predict.py --form {check.form}: peak memory over the model card's", peak / check.peak_bytes)


def networks() -> list[tuple[str, Architecture, Context]]:
    """Return each paper's network at full width, on a small patch, and random networks of the whole space."""
    context = Context((6, 64, 64), (4.0, 1.0, 1.0), 1, 3)
    space = narrow(context, placement="each", fix={}, choices={})
    found = [
        (name, preset.architecture, replace(preset.context, patch=PATCHES.get(name, SLAB)))
        for name, preset in PRESETS.items()
    ]
    for seed in range(POINTS):
        architecture = space.architecture(sample_buildable(space, Random(1000 + seed)))
        found.append((f"random {seed}", architecture, context))
    return found


def all_forms(only: str) -> None:
    """Write every network in every form and print the largest differences of logits."""
    for name, architecture, context in networks():
        if only not in name:
            continue
        began = time.perf_counter()
        with TemporaryDirectory() as scratch:
            network, _, loaded = written(architecture, context, Path(scratch))
            forms = write_forms(
                network,
                Path(scratch),
                architecture=architecture,
                context=context,
                count=1,
                title=name,
            )
            source = apart(loaded, network, (1, context.in_channels, *context.patch))
        onnx = f"{forms.onnx.max_difference:.1e}" if forms.onnx else dict(forms.missing)["onnx"]
        seconds = time.perf_counter() - began
        print(
            f"{name:16} source {source:.1e}  pt2 {forms.pt2.max_difference:.1e} ({forms.pt2.sizes})  onnx {onnx}  "
            f"{seconds:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", action="store_true", help="export every kind of network instead")
    parser.add_argument("--only", default="", help="only networks whose name contains this text")
    options = parser.parse_args()
    if options.networks:
        all_forms(options.only)
        return
    data = os.environ.get("VOXNAS_DATA")
    if not data:
        sys.exit("set VOXNAS_DATA to a folder that contains Task27_ACDC")
    with TemporaryDirectory() as folder:
        speed(Path(data), Path(folder), threads=options.threads)


if __name__ == "__main__":
    main()
