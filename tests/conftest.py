"""Shared fixtures: a tiny finished study on synthetic volumes, a browser, a Ray cluster."""

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

gc.disable()  # until the tests are collected: what imports create is no garbage
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes run tests, and threads that wait for others spin
ALIAS = str(Path(__file__).parents[1] / "search" / "api")  # holds the import package `voxnas`
if importlib.util.find_spec("voxnas") is None:  # this checkout is on PYTHONPATH alone, not installed
    sys.path.append(ALIAS)
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), ALIAS) if part)

STUDY = """\
name: tiny
data: {path: phantom, folds: 3}
space:
  fix:
    {encoder: plain, levels: 3, growth: 2.0, width_cap: 16, kernels: auto, norm: instance, activation: relu,
     dropout: 0.0, downsampling: strided, upsampling: linear, skip: concat, deep_supervision: false,
     attention: none, stages: single, stem_stride: 1}
  choices: {width: [2, 4], repeats: [1, 2], attention@bottleneck: [none, isa]}
objectives: {dice: maximize, memory: minimize, latency: {budget: 60 s}}
training: {patch: [5, 24, 24], batch: 1, epochs: 2, steps_per_epoch: 4, precision: float32}
search: {proposer: random, trials: 3}
executor: {device: cpu, threads: 1}
"""
hypothesis.settings.register_profile(  # a busy machine is no fault
    "voxnas", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("voxnas")
FORKING = {  # these share a server that has imported torch, and forks their commands
    "test_search_ablation.py",
    "test_search_runner.py",
    "test_search_runner_confirm.py",
    "test_search_runner_determinism.py",
    "test_search_runner_members.py",
    "test_search_runner_tabulate.py",
    "test_studies_own_block.py",
}
LONGEST_FIRST = (
    "cluster",
    "forking",
    "test_search_dashboard_browser.py",
    "test_search_export.py",
    "test_real_data.py",
    "test_search_faults.py",
    "test_search_simulate.py",
    "test_gpu_check.py",
    "test_studies_notebook.py",
    "test_search_visualization_report.py",
    "test_search_data_labels.py",
    "test_blocks_contract.py",
    "test_search_dashboard.py",
    "test_search_config_reference.py",
    "test_search_export_pt2.py",
    "test_search_runner_references.py",
    "test_search_simulate_files.py",
    "test_space_full.py",
    "test_search_proposers.py",
    "test_search_costs_device_lock.py",
    "test_search_runner_learned_from.py",
    "test_search_export_held_out.py",
    "test_search_export_source.py",
    "test_search_export_postprocessing.py",
)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
LATENCY_S = 0.05  # of measuring a latency; few tests need a precise one
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


@dataclass(frozen=True)
class TinyRun:
    """A study file, its data's parent and its runs folder."""

    file: Path
    data: Path
    runs: Path


def write_study(folder: Path, text: str = STUDY, *, cases: int = 6) -> TinyRun:
    from search.data.phantom import write_phantom

    write_phantom(folder / "phantom", cases=cases, shape=(32, 28, 8), classes=2)
    file = folder / "tiny.yaml"
    file.write_text(text)
    return TinyRun(file, folder, folder / "runs")


def group_of(nodeid):
    """Return what one worker runs together: a file, all files that start Ray, or all that fork commands."""
    file = nodeid.partition("::")[0].rpartition("/")[2]
    return "cluster" if "cluster" in file else "forking" if file in FORKING else file


def pytest_collection_modifyitems(items):
    """Start with the groups that take longest, so that no worker ends with one of them alone."""
    place = {group: number for number, group in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(group_of(item.nodeid), len(place)))


def pytest_collection_finish():
    """Collect garbage from now on, but never look at what exists already, nor as often as Python would."""
    gc.freeze()
    gc.set_threshold(5_000, 20, 10)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each group to one worker."""
    from xdist.scheduler import LoadScopeScheduling

    gc.enable()  # this process collects no tests
    config.option.loadscopereorder = False  # the order of collection, not that of the number of tests

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return GroupScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def own_device_locks(tmp_path_factory):
    """Let tests in other processes train while a test measures a latency; of two users' runs, one would wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_prices():
    """Predict the costs of a network once a session, and measure latencies in an instant."""
    if "search.runner.pricer" not in sys.modules:  # nothing here trains; don't import torch
        yield
        return
    from search.costs import latency
    from search.runner import pricer

    known, predict = {}, pricer.predict_costs

    def predict_once(architecture, context, training, *, labelling, device):
        settings = (training.samples, training.optimiser, training.precision, repr(labelling), device.type)
        key = (architecture, context, *settings)
        if key not in known:
            known[key] = predict(architecture, context, training, labelling=labelling, device=device)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pricer, "predict_costs", predict_once)
        patch.setitem(latency.MAX_SECONDS, "cpu", LATENCY_S)
        yield


def quiet_view():
    from rich.console import Console

    from search.api.progress import RunView

    return RunView(Console(quiet=True), name="tiny", trials=3)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> TinyRun:
    """A finished study; tests only read it."""
    from search.config import load_study
    from search.runner.local import run_study
    from search.runner.plan import make_plan

    made = write_study(tmp_path_factory.mktemp("tiny"))
    plan = make_plan(load_study(made.file), runs=made.runs)
    run_study(plan, trials=3, view=quiet_view())
    return made


@pytest.fixture(scope="module")
def browser():
    """A Chromium per module, since its driver keeps an event loop."""
    if not CHROMIUM:
        pytest.skip("no Chromium on the path, and CHROMIUM names none")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of two raylets with one CPU each; tests that stop raylets start their own."""
    from test_search_runner_cluster import start_cluster, stop_cluster

    made = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    yield made
    stop_cluster(made)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, which a test can fill; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"only root may mount a disk to fill: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def without_bundle(monkeypatch):
    """Export without a MONAI bundle: MONAI loads slowly."""
    monkeypatch.setattr("search.export.model._bundle", lambda *_: "")


@pytest.fixture
def source_form_alone():
    """Export only the source form: torch.export, ONNX, MONAI and their verification take far longer."""
    from exported import source_form_alone

    with source_form_alone():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real volumes: VOXNAS_DATA, or next to the checkout."""
    folder = Path(os.environ.get("VOXNAS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real volumes: neither {folder} nor VOXNAS_DATA")
    return folder
