"""Ablation files: arms, mistakes, equal arms; runs that resume, retry and share; written results."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from conftest import TinyRun, quiet_view, write_study
from forked import call_forked, kill_when, started
from test_search_cli import call

from search.ablation.arms import requested_arms
from search.ablation.cases import read_cases
from search.ablation.findings import collect_findings
from search.ablation.load import load_ablation
from search.ablation.plan import make_ablation_plan
from search.ablation.preview import estimate_arms
from search.ablation.report import write_findings
from search.ablation.results import results_of
from search.ablation.run import ablation_device, missing_count, run_ablation
from search.analysis.snapshot_reader import SnapshotReader
from search.config import UserError
from search.runner.local import LocalExecutor
from search.storage import read_records
from search.visualization.components import Figures, Table
from search.visualization.pages.ablations import ablations_page
from search.visualization.pages.page import Request
from space.presets import PRESETS

AXES = """\
    {encoder: plain, levels: 3, width: 2, growth: 2.0, width_cap: 16, kernels: auto, norm: instance, activation: relu,
     dropout: 0.0, downsampling: strided, upsampling: linear, skip: concat, deep_supervision: false, repeats: 1,
     attention: none, attention@bottleneck: isa, stages: single, stem_stride: 1}
"""
ABLATION = f"""\
name: parts
data: {{path: phantom, folds: 3}}
base:
  axes:
{AXES}
arms:
  remove: [attention@bottleneck, attention@skips]
  list:
    half the data, longer: {{data.share: 0.5, training.epochs: 2}}
seeds: 2
folds: [0, 1]
metrics: [dice, hd95, memory, latency]
training: {{patch: [5, 24, 24], batch: 1, epochs: 1, steps_per_epoch: 3, precision: float32}}
executor: {{device: cpu, threads: 1}}
"""


def write_ablation(folder: Path, text: str = ABLATION) -> TinyRun:
    made = write_study(folder)
    file = folder / "parts.yaml"
    file.write_text(text)
    return replace(made, file=file)


def plan_of(made: TinyRun, *overrides: str):
    return make_ablation_plan(load_ablation(made.file, runs=made.runs, overrides=overrides), runs=made.runs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    made = write_ablation(tmp_path_factory.mktemp("ablation"))
    plan = plan_of(made)
    run_ablation(plan, view=quiet_view(), make_executor=LocalExecutor)
    return made, plan


def names(text: str, tmp_path: Path) -> dict[str, dict[str, object]]:
    made = write_ablation(tmp_path, ABLATION.partition("arms:")[0] + text + "training: {patch: [5, 24, 24]}\n")
    loaded = load_ablation(made.file, runs=made.runs)
    return {each.name: dict(each.changes) for each in requested_arms(loaded.ablation)[0]}


def test_each_kind_of_arm_changes_the_base_as_specified(tmp_path):
    arms = names(
        "arms:\n  remove: [attention@bottleneck, deep_supervision]\n  replace: {width: [4, 8]}\n"
        "  add: [attention@bottleneck, attention@skips]\n  grid: {norm: [batch, group], repeats: [1, 2]}\n"
        "  list: {wide and deep: {width: 4, levels: 4}}\n",
        tmp_path,
    )
    assert list(arms) == [
        "base",
        "no attention@bottleneck",
        "no deep_supervision",
        "width = 4",
        "width = 8",
        "bare",
        "bare + attention@bottleneck",
        "bare + attention@skips",
        "norm = batch, repeats = 1",
        "norm = batch, repeats = 2",
        "norm = group, repeats = 1",
        "norm = group, repeats = 2",
        "wide and deep",
    ]
    assert arms["no deep_supervision"] == {"deep_supervision": False}
    assert arms["bare"] == {"attention@bottleneck": "none", "attention@skips": "none"}
    assert arms["bare + attention@bottleneck"] == {"attention@skips": "none"}  # as the base has it
    assert arms["wide and deep"] == {"width": 4, "levels": 4}
    valued = names("arms:\n  add: {attention@skips: [isa, joint]}\n", tmp_path / "valued")
    assert valued["bare + attention@skips = joint"] == {"attention@skips": "joint"}


BAD = """\
name: bad
data: {path: phantom}
base: {axes: {widht: 8, norm: instance}}
arms:
  remove: [width, csam.semntic]
  replace: {norm: [batsh], training.epochs: [many]}
  list: {a: {data.seed: 1}, b: {attention@skips: cbam}}
baseline: bass
metrics: [memory]
seeds: [1, 1]
correction: helm
"""


def test_all_mistakes_are_reported_at_once_with_their_positions(tmp_path):
    made = write_ablation(tmp_path, BAD)
    with pytest.raises(UserError) as error:
        load_ablation(made.file, runs=made.runs)
    mistakes = [str(each).replace(f"{tmp_path}/", "") for each in error.value.mistakes]
    assert len(mistakes) == 11
    for part in (
        "parts.yaml:3:15: base.axes.widht: no axis is called 'widht'; did you mean 'width'?",
        "parts.yaml:5:12: arms.remove.0: 'width' is not a component that can be removed",
        "arms.remove.1: no axis is called 'csam.semntic'; did you mean 'csam.semantic'?",
        "arms.replace.norm: 'batsh' is not a choice; did you mean 'batch'?",
        "training.epochs: input should be a valid integer, got 'many'",
        "arms.list.a: arms can't change 'data.seed'; the only key of data they can is data.share",
        "arms.list.b.attention@skips: 'cbam' is not a choice; did you mean 'csam'?",
        "parts.yaml:8:1: baseline: there is no arm 'bass'; did you mean 'base'?",
        "parts.yaml:9:1: metrics: at least one of dice, hd95, surface_dice is required",
        "parts.yaml:10:1: seeds: [1, 1] contains a value twice",
        "parts.yaml:11:1: correction: 'helm' is not known; did you mean 'holm'?",
    ):
        assert any(part in each for each in mistakes), (part, mistakes)


def test_a_scale_overrides_the_file_and_the_command_line_overrides_both(tmp_path):
    made = write_ablation(tmp_path, ABLATION + "scales: {small: {seeds: 1, training.epochs: 3, base.axes.width: 4}}\n")
    whole, small = (load_ablation(made.file, runs=made.runs, overrides=each) for each in ([], ["scale=small"]))
    assert whole.ablation.seeds == (0, 1) and whole.ablation.training.epochs == 1
    assert small.ablation.seeds == (0,) and small.ablation.training.epochs == 3
    assert small.ablation.base.axes["width"] == 4
    both = load_ablation(made.file, runs=made.runs, overrides=["scale=small", "training.epochs=2"])
    assert both.ablation.training.epochs == 2
    with pytest.raises(UserError, match="scale: 'smal' is not a scale of this file; did you mean 'small'"):
        load_ablation(made.file, runs=made.runs, overrides=["scale=smal"])


def test_arms_on_a_papers_network_change_only_what_they_name(tmp_path):
    text = ABLATION.replace(f"  axes:\n{AXES}", "  preset: csam_unet\n  axes: {width: 16}\n")
    text = text.replace("[attention@bottleneck, attention@skips]", "[csam.slice]").replace("[5, 24, 24]", "[5, 32, 32]")
    plan = plan_of(write_ablation(tmp_path, text))
    base, cut = plan.arms[0].architecture, plan.arms[1].architecture
    own = PRESETS["csam_unet"].architecture
    assert {**dict(own.entries), "channels": (16, 32, 64, 128, 256)} == dict(base.entries)
    changed = {name for name, value in cut.entries if base.get(name) != value}
    assert changed == {f"csam.slice@{place}" for place in ("skip0", "skip1", "skip2", "skip3", "bottleneck")}


def test_a_base_of_a_studys_front_is_read_from_its_records(tiny_run, tmp_path):
    text = ABLATION.replace(f"  axes:\n{AXES}", f"  study: {tiny_run.file}\n  pick: best\n")
    made = write_ablation(tmp_path, text.replace("[attention@bottleneck, attention@skips]", "[attention@bottleneck]"))
    loaded = load_ablation(made.file, runs=tiny_run.runs)
    known = {each.architecture for each in read_records(f"sqlite:///{tiny_run.runs}/tiny/study.db", "tiny")}
    assert loaded.base in known
    with pytest.raises(UserError, match="base.study: nothing has run yet"):
        load_ablation(made.file, runs=tmp_path / "nowhere")


def test_all_arms_that_cannot_be_built_are_reported_before_anything_runs(tmp_path):
    text = ABLATION.replace(
        "remove: [attention@bottleneck, attention@skips]", "replace: {levels: [6], attention@skips: [csam]}"
    )
    with pytest.raises(UserError, match=r"(?s)arm 'levels = 6' can't be built: .*arm 'attention@skips = csam' can't"):
        plan_of(write_ablation(tmp_path, text))
    with pytest.raises(UserError, match="folds: 7 is not one of the 3 folds, numbered from 0"):
        plan_of(write_ablation(tmp_path / "folds", ABLATION), "folds=[7]")


def test_equal_arms_run_once_and_a_second_run_has_nothing_to_do(finished):
    made, plan = finished
    assert [arm.same_as for arm in plan.arms] == ["", "", "base", ""]
    assert missing_count(plan) == 0
    records = read_records(plan.plans[0].url, "parts")
    assert len(records) == 2 * 2 * 2 and all(each.state == "trained" for each in records)
    assert len({each.identity for each in records}) == len(records)
    run_ablation(plan, view=quiet_view(), make_executor=LocalExecutor)
    assert len(read_records(plan.plans[0].url, "parts")) == len(records)
    more = plan_of(made, "seeds=3")
    assert missing_count(more) == 3 * 2  # the third seed's alone


def test_half_the_data_means_half_of_each_folds_training_cases(finished):
    _, plan = finished
    whole, half = plan.plans
    for one, other in zip(whole.folds, half.folds, strict=True):
        assert len(other.train) == 2 and set(other.train) < set(one.train) and other.validation == one.validation
    assert half.training.epochs == 2 and half.study.name == "parts/data.share=0.5,training.epochs=2"


def test_results_are_written_in_every_format(finished):
    made, plan = finished
    found = collect_findings(plan, ablation_device(plan))
    paths = {path.name: path for path in write_findings(plan, found)}
    named = {"table.md", "table.tex", "table.csv", "methods.txt", "report.html", "findings.json", "cases.parquet"}
    assert set(paths) == named
    own = plan.plans[0]
    page = ablations_page(SnapshotReader(own.study, plan.folder, own.url).read(), Request())
    shown = [part for part in page.components if isinstance(part, Table)]
    assert [each.title for each in shown] == [*(table.title for table in found.tables), "Arms"]
    assert [row[0] for row in shown[-1].rows] == [arm.name for arm in plan.arms]
    keys = [cell[0] for cell in (row[3] for row in shown[0].rows) if cell[0] is not None]
    assert keys == [line.effects["dice"].pairs.difference for line in found.summary.lines if line.effects]
    text = paths["findings.json"].read_text()
    for damage in (text[:-9], text.replace("paired", "pairde", 1), ""):
        paths["findings.json"].write_text(damage)
        (note,) = ablations_page(SnapshotReader(own.study, plan.folder, own.url).read(), Request()).components
        assert "findings.json is damaged (" in note.text and "writes it again, without training" in note.text
    paths["findings.json"].write_text(text)
    (drawn,) = [part for part in page.components if isinstance(part, Figures)]
    assert "paired differences" in drawn.figures[0].title
    scores = read_cases(paths["cases.parquet"])
    assert tuple(scores) == found.scores and len(scores) == 3 * 2 * 4 * 2 * 2  # arms, seeds, cases, metrics, classes
    assert {each.arm for each in scores} == {"base", "no attention@bottleneck", "half the data, longer"}
    rows = list(csv.DictReader(paths["table.csv"].read_text().splitlines()))
    assert len({len(row) for row in rows}) == 1 and None not in rows[0]
    dice = {row["arm"]: row for row in rows if row["metric"] == "dice"}
    memory = {row["arm"]: row for row in rows if row["metric"] == "memory"}
    assert dice["base"]["difference"] == "" and int(dice["no attention@bottleneck"]["units"]) == 4
    saved = float(memory["no attention@bottleneck"]["mean"]) - float(memory["base"]["mean"])
    assert saved < 0 and float(memory["no attention@bottleneck"]["difference"]) == pytest.approx(saved)
    tex = paths["table.tex"].read_text()
    assert all(rule in tex for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"no attention@bottleneck"))
    assert "| no attention@skips |  | = base |" in paths["table.md"].read_text()
    text = paths["methods.txt"].read_text()
    for part in (
        "6 volumes",
        "3 folds, numbered from 0; validation on folds 0 and 1 (4 volumes)",
        "seeds 0 and 1: 12 trainings",
        "Holm's method",
        "a linear mixed model",
        "float32",
        "statsmodels",
    ):
        assert part in text, part


def test_the_dry_run_shows_costs_and_time_of_finished_and_pending_arms(finished):
    made, plan = finished
    known = estimate_arms(plan)
    assert [each.left for each in known] == [0, 0, 0] and all(each.measured and each.each_s > 0 for each in known)
    other = estimate_arms(plan_of(made, "name=other", "training.learning_rate=0.001", "arms.list={}"))
    assert [each.left for each in other] == [4, 4] and not any(each.measured for each in other)
    assert all(0 < each.each_s < 60 for each in other) and other[1].costs.params < other[0].costs.params


def test_results_are_shared_if_the_trainings_are_identical(finished):
    made, plan = finished
    twin = plan_of(made, "name=twin", "training.validate_every=5")
    assert missing_count(twin) == 0
    results, missing = results_of(twin, ablation_device(twin))
    assert {each.source for each in results} == {"parts", "parts/data.share=0.5,training.epochs=2"} and not missing
    assert "12 of them reused from parts" in collect_findings(twin, ablation_device(twin)).methods
    assert missing_count(plan_of(made, "name=other", "training.learning_rate=0.001")) == 12
    assert missing_count(plan_of(made, "name=other", "surface_tolerance=2.0")) == 12
    assert missing_count(plan_of(made, "name=other", "executor.threads=2")) == 12


class CountingExecutor(LocalExecutor):
    """Notes at each ask how often the foreign database was opened before; `opened` is the test's list."""

    def __init__(self, plan, *, opened, seen):
        super().__init__(plan)
        self.opened, self.seen = opened, seen

    def run(self, driver, ask):
        asks = []
        self.seen.append(asks)

        def counted(records):
            asks.append(len(self.opened))
            return ask(records)

        return super().run(driver, counted)


def test_a_foreign_database_is_read_once_before_the_first_ask(finished, tmp_path):
    made, plan = finished
    runs, opened, seen = tmp_path / "runs", [], []
    shutil.copytree(made.runs, runs)

    def note(connection, _record):
        file = Path(connection.execute("PRAGMA database_list").fetchone()[2])
        if file.parent.name == "parts":
            opened.append(file)

    twin = plan_of(replace(made, runs=runs), "name=twin", "training.validate_every=5", "seeds=1", "folds=[0, 2]")
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", note)
    try:
        run_ablation(
            twin, view=quiet_view(), make_executor=lambda each: CountingExecutor(each, opened=opened, seen=seen)
        )
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", note)
    assert missing_count(twin) == 0
    assert [len(asks) for asks in seen] == [3, 2]  # fold 2 is missing of two arms and of one; then nothing is
    assert [set(asks) for asks in seen] == [{2}, {3}]  # its list of studies, and each study's records when it counts


def test_a_failed_training_is_retried_and_reported_and_does_not_stop_the_run(tmp_path):
    made = write_ablation(
        tmp_path,
        ABLATION.replace(
            "half the data, longer: {data.share: 0.5, training.epochs: 2}", "wild: {training.learning_rate: 1.0e+30}"
        ),
    )
    plan = plan_of(made, "seeds=1", "folds=[0]", "retries=2", "training.epochs=2")
    run_ablation(plan, view=quiet_view(), make_executor=LocalExecutor)
    wild = read_records(plan.plans[1].url, plan.plans[1].study.name)
    assert [each.state for each in wild] == ["failed"] * 3
    found = collect_findings(plan, ablation_device(plan))
    assert [each.arm for each in found.summary.lines] == ["base", "no attention@bottleneck"]
    (note,) = [note for note in found.tables[0].notes if note.startswith("missing")]
    assert note.startswith("missing: wild, seed 0, fold 0: failed (3 times): the loss became nan")
    assert "1 training is missing" in found.methods


def test_a_run_resumed_after_kill_9_loses_and_repeats_nothing(tmp_path):
    made = write_ablation(tmp_path)
    command = ("ablate", made.file, "--runs", made.runs, "--set", "seeds=1")
    url = f"sqlite:///{made.runs}/parts/study.db"
    with started(*command) as first:
        kill_when((made.runs / "parts/trials/000001").exists, first)
    begun = [each.number for each in read_records(url, "parts")]
    done = call_forked(*command, COLUMNS="160")
    assert done.returncode == 0, done.stderr
    assert "Dice against base" in done.stdout and "Data: Phantom" in done.stdout
    records = read_records(url, "parts")
    assert [each.state for each in records] == ["trained"] * 4
    assert begun == [each.number for each in records][: len(begun)] and len({each.identity for each in records}) == 4


def test_a_mistake_in_the_file_exits_with_code_2(tmp_path, monkeypatch, capsys):
    made = write_ablation(tmp_path, ABLATION.replace("seeds: 2", "seds: 2"))
    told = call(monkeypatch, capsys, "ablate", made.file, code=2).err
    assert "seds: unknown key; did you mean 'seeds'?" in told and "Traceback" not in told


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory):
    """A runs folder of several plans: it keeps the facts of their volumes."""
    return tmp_path_factory.mktemp("runs")


ABLATIONS = sorted((Path(__file__).parents[1] / "studies" / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("scale", [[], ["scale=small"]], ids=["whole", "small"])
@pytest.mark.parametrize("file", ABLATIONS, ids=lambda file: file.stem)
def test_every_shipped_ablation_states_its_question_and_what_is_known_and_is_valid(
    file, scale, shared_data, shared_runs
):
    head = file.read_text().splitlines()
    for word in ("# Question:", "# Known:", "# Run:", "# Time:"):
        assert any(line.startswith(word) for line in head[:16]), word
    loaded = load_ablation(file, runs=shared_runs, overrides=scale, data_root=shared_data)
    plan = make_ablation_plan(loaded, runs=shared_runs)
    assert len(plan.distinct) > 2 and plan.baseline in plan.distinct
