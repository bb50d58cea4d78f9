"""A study with a block of its own: allowed, searched, read without its code, ablated, exported, submitted."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import quiet_view, write_study
from forked import fresh_process
from test_search_cli import call

from search.ablation.load import load_ablation
from search.ablation.plan import make_ablation_plan
from search.ablation.results import results_of
from search.ablation.run import ablation_device, run_ablation
from search.analysis.snapshot_reader import stored_study
from search.api.opening import open_study
from search.api.study import Study
from search.config import UserError, load_study
from search.costs.latency import device_name
from search.export import export
from search.runner.cluster.latency_probe import Stopwatch, time_network
from search.runner.cluster.submit import submit
from search.runner.evaluate import context_of, evaluate
from search.runner.local import LocalExecutor, run_study
from search.runner.plan import make_plan, prepared_data, task_of
from search.storage import read_records
from search.trials.job import Job
from search.visualization.figures.style import block_color, tint
from search.visualization.figures.trial import boxes, draw_network
from search.visualization.slow_tasks import layers_of
from space.specs.registry import unloaded_blocks

EXAMPLE = Path(__file__).parents[1] / "studies" / "examples" / "own_block"
STUDY = """\
name: own
blocks: [./slice_se.py]
data: {path: phantom, folds: 3}
space:
  fix:
    {encoder: plain, levels: 3, growth: 2.0, width_cap: 16, kernels: auto, norm: instance, activation: relu,
     dropout: 0.0, downsampling: strided, upsampling: linear, skip: concat, deep_supervision: false,
     attention: none, stages: single, stem_stride: 1, width: 4, repeats: 1, slice_se.reduction: 4,
     attention@skip0: slice_se}
  choices: {attention@bottleneck: [slice_se, isa]}
objectives: {dice: maximize, memory: minimize}
training: {patch: [5, 24, 24], batch: 1, epochs: 1, steps_per_epoch: 2, precision: float32}
search: {proposer: random, trials: 2}
executor: {device: cpu, threads: 1}
"""
ABLATION = """\
name: own_arms
blocks: [./slice_se.py]
data: {path: phantom, folds: 3}
base: {study: tiny.yaml, pick: 0}
arms:
  remove: [attention@skip0]
  replace: {attention@skip0: [isa], slice_se.reduction@skip0: [2]}
seeds: 1
training: {patch: [5, 24, 24], batch: 1, epochs: 1, steps_per_epoch: 2, precision: float32}
executor: {device: cpu, threads: 1}
"""


def write_own(folder: Path, text: str = STUDY):
    made = write_study(folder, text)
    shutil.copy(EXAMPLE / "slice_se.py", folder)
    return made


def plan_of(made, **options):
    return make_plan(load_study(made.file, allow_code=True, **options), runs=made.runs)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A study of the example's block that ran to its end."""
    made = write_own(tmp_path_factory.mktemp("own"))
    run_study(plan_of(made), trials=2, view=quiet_view())
    return made


def records_of(made):
    plan = plan_of(made)
    return read_records(plan.url, plan.study.name)


def test_a_local_file_runs_only_where_that_is_allowed(own):
    with pytest.raises(UserError) as refused:
        load_study(own.file)
    assert [str(each) for each in refused.value.mistakes] == [
        f"{own.file}:2:10: blocks.0: ./slice_se.py contains code that would run on this machine; review it, then add "
        "--allow-code (in Python: allow_code=True)"
    ]


def test_its_block_is_searched_and_trained(own):
    records = records_of(own)
    assert [record.state for record in records] == ["trained", "trained"]
    blocks = {block for record in records for block in record.architecture.attention().values()}
    assert blocks == {"slice_se", "isa"}
    assert {len(record.architecture["code.slice_se"]) for record in records} == {12}
    assert all(record.measurement.costs.macs > 0 for record in records)


def test_records_are_read_where_the_code_is_gone(own, monkeypatch, capsys, tmp_path):
    (tmp_path / "tiny.yaml").write_text(STUDY)  # and no slice_se.py
    printed = call(monkeypatch, capsys, "front", tmp_path / "tiny.yaml", "--runs", own.runs)
    assert "slice_se(reduction=4) at" in " ".join(printed.out.split())
    call(monkeypatch, capsys, "report", tmp_path / "tiny.yaml", "--runs", own.runs, "--slices")
    note = "Slices are not drawn: the code of plug-in blocks (slice_se) is not run to show results."
    page = (own.runs / "own" / "report.html").read_text()
    assert note in page and "--allow-code --data FOLDER" in page  # the command that exports a trial
    study = stored_study(plan_of(own).url, "own")
    assert study.blocks == ("./slice_se.py",)


def test_the_network_figure_shows_a_plugins_place_with_and_without_its_code(own):
    record, context = records_of(own)[0], plan_of(own).context
    with_code = layers_of(record.architecture, context)
    with fresh_process() as process:
        calls = (unloaded_blocks, record.architecture), (layers_of, record.architecture, context)
        before, without_code, after = (process.submit(*each).result() for each in (*calls, calls[0]))
    assert before == after and len(before) == 1  # the code is not loaded
    assert [row.block for row in with_code if row.place == "skip0"] == ["SliceSE"]
    assert [(row.place, row.output) for row in without_code] == [(row.place, row.output) for row in with_code]
    for layers, name, parameters in (
        (with_code, "SliceSE", "13 parameters,"),
        (without_code, "slice_se", "0 parameters without slice_se,"),
    ):
        places = boxes(layers)
        skip = next(each for each in places if each.place == "skip0")
        assert (skip.attention, skip.blocks) == ("slice_se", (name,))
        drawn = json.loads(draw_network(places, name="").drawing)
        texts = [each["text"] for each in drawn["layout"]["annotations"]]
        (text,) = [text for text in texts if text.startswith("<b>skip0</b>")]
        assert name in text and parameters in text
        colors = [each["fillcolor"] for each in drawn["layout"]["shapes"]]
        assert tint(block_color("slice_se"), 0.45) in colors


def test_a_worker_needs_the_job_alone(own, tmp_path):
    plan, record = plan_of(own), records_of(own)[0]
    task = task_of(plan, prepared_data(plan))
    job = Job(record.architecture, task, plan.training, (), 0, 0, "cpu", 1, str(tmp_path / "job"))
    codes = tuple(replace(code, file="/elsewhere/slice_se.py") for code in plan.loaded.blocks)
    with fresh_process() as process:
        assert process.submit(evaluate, replace(job, blocks=codes)).result().state == "trained"
    watch = Stopwatch(context_of(job), job.training, "cpu", 1, codes)
    with fresh_process() as process:
        timed = process.submit(time_network, watch, job.architecture).result()
    assert timed.device == device_name(torch.device("cpu"))


def test_python_reads_results_without_the_code_and_builds_only_where_it_is_allowed(own):
    study = Study.from_yaml(own.file, data=own.data, runs=own.runs)
    assert len(study.trials()) == 2
    with pytest.raises(UserError, match=r"blocks\.0: \./slice_se\.py contains code .*in Python: allow_code=True"):
        study.build(0)
    allowed = open_study("own", runs=own.runs, data=own.data, allow_code=True)
    assert allowed.build(0)(torch.zeros(1, 1, 5, 24, 24)).shape == (1, 3, 5, 24, 24)
    assert "slice_se" in allowed.space.axes[0].choices


def test_a_changed_file_is_refused_under_the_same_name(own, tmp_path):
    shutil.copytree(own.file.parent, tmp_path / "copy")
    file = tmp_path / "copy" / "slice_se.py"
    file.write_text(file.read_text() + "\n# changed\n")
    plan = make_plan(load_study(tmp_path / "copy" / own.file.name, allow_code=True), runs=tmp_path / "copy" / "runs")
    with pytest.raises(UserError, match=r"code of \./slice_se\.py: the study began with '\w{12}', the file now has '"):
        run_study(plan, trials=3, view=quiet_view())


def test_the_runs_folder_keeps_the_code_that_ran(own):
    kept = own.runs / "own"
    assert (kept / "slice_se.py").read_text() == (EXAMPLE / "slice_se.py").read_text()
    loaded = load_study(kept / "study.yaml", data_root=own.data, allow_code=True)
    assert [code.version for code in loaded.blocks] == [
        code.version for code in load_study(own.file, allow_code=True).blocks
    ]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ("[./gone.py]", r"blocks\.0: \./gone\.py can't be read: No such file"),
        ("[../slice_se.py]", r"blocks\.0: '\.\./slice_se\.py' must be a Python file beside the study"),
        ("[./slice_se.py, ./slice_se.py]", r"blocks\.1: '\./slice_se\.py' is listed twice"),
        ("[nowhere.blocks]", r"blocks\.0: no installed package provides blocks named 'nowhere\.blocks'"),
        ("[7]", r"blocks\.0: .*should be a valid string"),
    ],
)
def test_mistakes_in_the_list_are_named_with_their_place(own, tmp_path, blocks, message):
    shutil.copy(EXAMPLE / "slice_se.py", tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY.replace("[./slice_se.py]", blocks))
    with pytest.raises(UserError, match=message):
        load_study(tmp_path / "tiny.yaml", data_root=own.data, allow_code=True)


def test_a_block_that_is_not_named_is_no_choice(own, tmp_path):
    (tmp_path / "tiny.yaml").write_text(STUDY.replace("blocks: [./slice_se.py]\n", ""))
    with pytest.raises(UserError, match=r"'slice_se' is not a choice.*\(choices: none, isa, csam, joint, epa\)"):
        load_study(tmp_path / "tiny.yaml", data_root=own.data, allow_code=True)


def test_its_block_is_ablated(own, tmp_path):
    file = own.file.parent / "arms.yaml"
    file.write_text(ABLATION)
    with pytest.raises(UserError, match=r"arms\.yaml:2:10: blocks\.0: \./slice_se\.py contains code"):
        load_ablation(file, runs=own.runs)
    plan = make_ablation_plan(load_ablation(file, runs=own.runs, allow_code=True), runs=own.runs)
    assert [arm.name for arm in plan.arms] == [
        "base",
        "no attention@skip0",
        "attention@skip0 = isa",
        "slice_se.reduction@skip0 = 2",
    ]
    run_ablation(plan, view=quiet_view(), make_executor=LocalExecutor)
    results, missing = results_of(plan, ablation_device(plan))
    assert [each.arm for each in results] == [arm.name for arm in plan.arms] and not missing
    assert results[0].source == "own"  # the study trained the same code, so its training counts


LOAD = """
import sys
for name in ("voxnas", "search", "space", "blocks", "timm", "thop"):
    sys.modules[name] = None  # importing it raises
import torch
from model import load_network
torch.manual_seed(0)
logits = load_network("weights.safetensors")(torch.randn(1, 1, 5, 24, 24))
torch.save(logits.detach(), sys.argv[1])
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("source_form_alone")  # `check-block` exports the block in the other forms
def test_its_network_is_exported_with_the_blocks_source(own, tmp_path):
    plan = plan_of(own)
    record = next(each for each in records_of(own) if "isa" in each.architecture.attention().values())
    exported = export(plan, str(record.number), tmp_path / "model", view=quiet_view())
    assert exported.forms.source
    source = (tmp_path / "model" / "model.py").read_text()
    assert "class SliceSE(nn.Module):" in source and "Hu, Shen, Sun" in source
    assert not re.search(r"^(from|import) (space|search|blocks)", source, flags=re.MULTILINE)
    command = [sys.executable, "-c", LOAD, str(tmp_path / "logits.pt")]
    subprocess.run(command, cwd=tmp_path / "model", check=True)
    network = open_study("own", runs=own.runs, data=own.data, allow_code=True).build(record.number)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = network(torch.randn(1, 1, 5, 24, 24))
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=1e-4, atol=1e-4)
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "Slice-wise squeeze-and-excitation: after Hu, Shen, Sun, CVPR 2018." in card
    assert "except the source of slice_se (its author's licence: Apache-2.0) in model.py." in card


def test_a_submitted_study_takes_its_code_along_only_where_allowed(own):
    loaded = load_study(own.file, need_data=False)
    assert loaded.blocks == ()  # submitting runs nothing here
    with pytest.raises(UserError, match=r"submit: \./slice_se\.py would run on the cluster; read it, then add"):
        submit(loaded, address="http://127.0.0.1:1", runs=Path("/shared/runs"), options=[])


def test_the_verb_checks_a_file_and_ends_with_1_where_a_check_fails(monkeypatch, capsys, tmp_path):
    printed = call(monkeypatch, capsys, "check-block", EXAMPLE / "slice_se.py", "--json")
    (found,) = json.loads(printed.out)
    assert found["block"] == "slice_se" and found["passed"]
    assert {each["result"] for each in found["checks"]} <= {"passed", "skipped"}
    text = (EXAMPLE / "slice_se.py").read_text()
    (tmp_path / "bad.py").write_text(text.replace("mean = x.mean(dim=(3, 4))", "mean = x.mean(dim=(0, 3, 4))[None]"))
    printed = call(monkeypatch, capsys, "check-block", tmp_path / "bad.py", code=1)
    assert re.search(
        r"volumes of a batch are independent\s+│ failed │ .*a single volume and the same in a batch of 3", printed.out
    )
    printed = call(monkeypatch, capsys, "check-block", tmp_path / "gone.py", code=2)
    assert "voxnas: check-block: gone.py can't be read: No such file" in printed.err
