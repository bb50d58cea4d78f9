"""Where a check runs: device, sizes, synthetic data, and the worker processes that predict memory meanwhile."""

from __future__ import annotations

import gc
import importlib.metadata
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from search.config import load_study
from search.costs import latency
from search.costs.latency import device_name
from search.data.phantom import write_phantom
from search.runner.devices import prepare_allocator
from search.runner.plan import Plan, make_plan

PACKAGES = ("torch", "triton", "monai", "timm", "numpy", "optuna")
STUDY = """\
name: {name}
data: {{path: phantom, folds: 3}}
space:
  placement: tied
  fix:
    {{encoder: plain, levels: {levels}, growth: 2.0, width_cap: {cap}, kernels: auto, norm: instance,
     activation: leakyrelu,
     dropout: 0.1, downsampling: strided, upsampling: transposed, skip: concat, deep_supervision: true, repeats: 2,
     attention: none, stages: single, stem_stride: 1, joint.mode: joint, joint.axes: plane, isa.shared: true}}
  choices: {{width: {widths}, attention@skips: [none, isa], attention@bottleneck: [none, joint]}}
objectives: {{dice: maximize, memory: minimize, latency: minimize}}
training: {{patch: {patch}, batch: 2, epochs: {epochs}, steps_per_epoch: {steps}, augment: {{flip: [H, W]}}}}
search: {{proposer: known-cost, trials: {trials}}}
executor: {{threads: {threads}}}
"""


@dataclass
class Setting:
    """The device and the sizes; `tiny` ones on a CPU."""

    device: torch.device
    tiny: bool
    folder: Path
    out: Path
    trace: bool = False
    workers: ProcessPoolExecutor | None = None

    @staticmethod
    @contextmanager
    def open(out: Path, *, cpu: bool, trace: bool) -> Iterator[Setting]:
        """Make the folder, and the workers where there are cores for them."""
        prepare_allocator()
        device = torch.device("cuda:0" if torch.cuda.is_available() and not cpu else "cpu")
        cores = len(os.sched_getaffinity(0))
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(device, device.type == "cpu", Path(folder), out.resolve(), trace)
            if setting.tiny:
                latency.MAX_SECONDS["cpu"] = 0.05  # these latencies are not read
            if cores > 2 and not setting.tiny:
                setting.workers = ProcessPoolExecutor(cores - 3, multiprocessing.get_context("spawn"))
            try:
                yield setting
            finally:
                setting.dismiss_workers()

    def dismiss_workers(self) -> None:
        """End the workers: what follows is timed."""
        if self.workers:
            self.workers.shutdown(wait=False, cancel_futures=True)
            self.workers = None

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @cached_property
    def data(self) -> Path:
        """The folder that holds `phantom`, synthetic volumes."""
        shape = (32, 28, 8) if self.tiny else (144, 144, 12)
        write_phantom(self.folder / "phantom", cases=6, shape=shape, classes=2)
        return self.folder

    def plan(self, name: str, *overrides: str) -> Plan:
        """Return the plan of a small study on synthetic volumes."""
        tiny = self.tiny
        text = STUDY.format(
            name=name,
            levels=3 if tiny else 4,
            widths="[2, 4]" if tiny else "[16, 24, 32]",
            cap=16 if tiny else 320,
            patch="[5, 24, 24]" if tiny else "[8, 128, 128]",
            epochs=1 if tiny else 2,
            steps=2 if tiny else 30,
            trials=2 if tiny else 6,
            threads=1 if tiny else 4,
        )
        file = self.data / f"{name}.yaml"
        file.write_text(text)
        return make_plan(load_study(file, overrides=overrides), runs=self.folder / "runs")

    def synchronise(self) -> None:
        """Wait for the device; an error of an earlier kernel is raised here."""
        if self.cuda:
            torch.cuda.synchronize()

    def release(self) -> None:
        """Give back what earlier parts hold."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


def environment(setting: Setting) -> dict[str, str]:
    """Return the device and the versions that figures depend on."""
    found = {"device": device_name(setting.device), "python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    if setting.cuda:
        found["CUDA"], found["cuDNN"] = str(torch.version.cuda), str(torch.backends.cudnn.version())
        found["driver memory"] = f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB"
    found["cores"] = str(len(os.sched_getaffinity(0)))
    found["sizes"] = "tiny" if setting.tiny else "full"
    return found
