"""How fast an export segments a Task27_ACDC volume, and whether every network comes out in every form.

`make bench-export` prints predict.py's time beside MONAI's sliding window with the same network, its start, its peak
memory beside the card's, and onnxruntime beside torch; with `--networks` instead each paper's network, at its full
width, and random points of the space in each form that applies, with how far their logits are from the network's.
Needs Task27_ACDC under VOXNAS_DATA.
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
from bench_presets import PATCHES, SLAB
from test_real_data import case_names, subset
from test_search_export_source import apart, lively, written

from search.analysis.choose import Choice
from search.config import load_study
from search.export import export_trained
from search.export.card import Origin
from search.export.forms import write_forms
from search.export.trained import Trained
from search.runner.plan import make_plan, prepared_data, sample_buildable
from search.training.checkpoint import save_weights
from search.trials.records import Measurement, Record
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.narrow import narrow
from space.presets import PRESETS

STUDY = Path(__file__).parents[1] / "studies" / "acdc.yaml"
CASES, REPEATS, POINTS = 5, 7, 20
WINDOWS = re.compile(r"\(([0-9.]+) s in (\d+) windows\); peak memory (\d+) MiB")


@dataclass(frozen=True)
class Run:
    """One run of predict.py: all of it, its windows alone, and its peak."""

    whole_s: float
    windows_s: float
    peak_bytes: int

    @property
    def start_s(self) -> float:
        """What is not the windows: imports, loading, reading, writing."""
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
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    whole = time.perf_counter() - began
    windows, _, peak = WINDOWS.search(said).groups()
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
volume = volumes.read_case(volumes.find_cases([image], channels=[])[0])
array, _ = geometry.to_grid(volume, geometry.Preprocessing.from_json(settings))
inferer = SlidingWindowInferer(settings["patch"], sw_batch_size=1, overlap=settings["overlap"], mode="gaussian")
began = time.perf_counter()
with torch.inference_mode():
    inferer(torch.from_numpy(array)[None], lambda x: network(x.contiguous(memory_format=torch.channels_last_3d)))
print(time.perf_counter() - began)
"""


def run_monai(folder: Path, image: Path, *, threads: int) -> float:
    """Return the seconds of MONAI's sliding window with the same network, in a process of its own as predict.py is."""
    command = [sys.executable, "-c", MONAI, str(folder), str(image), str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def speed(data: Path, folder: Path, *, threads: int) -> None:
    """Export one network of the cardiac study with fresh weights, and time it."""
    torch.set_num_threads(threads)
    source = data / "Task27_ACDC"
    subset(source, folder / "Task27_ACDC", case_names(source)[:CASES])
    plan = make_plan(load_study(STUDY, data_root=folder, overrides=["data.folds=2"]), runs=folder / "runs")
    decisions = plan.space.complete({})
    architecture = plan.space.architecture(decisions)
    network = lively(build(architecture, plan.context))
    save_weights(folder / "trial", network)
    record = Record(0, architecture, tuple(decisions.items()), 0, 0, Measurement("trained"), "", "")
    trained = Trained((folder / "trial",), ("",), "fresh weights", ())
    origin = Origin(Choice(record, "the only one"), trained, plan, prepared_data(plan))
    exported = export_trained(origin, folder / "out")
    print(exported)
    image = Path(plan.dataset.cases[0].images[0])
    forms = [proof.form for proof in exported.proofs]
    runs: dict[str, list[Run]] = {form: [] for form in forms}
    peers = []
    for repeat in range(-1, REPEATS):  # the first warms the files; in turn, since a shared machine's speed drifts
        peer = run_monai(folder / "out", image, threads=threads)
        made = {
            form: run_predict(folder / "out", image, form, threads=threads, out=folder / "mask.nii.gz")
            for form in forms
        }
        if repeat >= 0:
            peers.append(peer)
            for form in forms:
                runs[form].append(made[form])
    monai_s = statistics.median(peers)
    print(f"\n{image.name}, {threads} threads, median of {REPEATS}: MONAI's sliding window {monai_s:.2f} s")
    for proof in exported.proofs:
        found = runs[proof.form]
        windows, start = (statistics.median(getattr(run, name) for run in found) for name in ("windows_s", "start_s"))
        peak = max(run.peak_bytes for run in found)
        print(
            f"  {proof.form:7} windows {windows:6.2f} s ({windows / monai_s:4.2f} x MONAI), start and files "
            f"{start:5.2f} s, peak {peak / 2**20:5.0f} MiB ({peak / proof.peak_bytes:4.2f} x the card's)"
        )


def networks() -> list[tuple[str, Architecture, Context]]:
    """Each paper's network at its full width, on a patch that takes seconds, and random points of the whole space."""
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
    """Write every network in every form and say how far each is from the network."""
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
        onnx = f"{forms.onnx.max_difference:.1e}" if forms.onnx else dict(forms.absent)["onnx"]
        seconds = time.perf_counter() - began
        print(
            f"{name:16} source {source:.1e}  pt2 {forms.pt2.max_difference:.1e} ({forms.pt2.sizes})  onnx {onnx}  "
            f"{seconds:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", action="store_true", help="every paper's network and random points too")
    parser.add_argument("--only", default="", help="those whose name holds this")
    options = parser.parse_args()
    if options.networks:
        all_forms(options.only)
        return
    named = os.environ.get("VOXNAS_DATA")
    if not named:
        sys.exit("VOXNAS_DATA names no folder with Task27_ACDC")
    with TemporaryDirectory() as folder:
        speed(Path(named), Path(folder), threads=options.threads)


if __name__ == "__main__":
    main()
