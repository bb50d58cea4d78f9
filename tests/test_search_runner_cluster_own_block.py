"""A plug-in block on a Ray cluster: its code travels with the job."""

from conftest import quiet_view
from test_search_runner_cluster import on, outcomes
from test_studies_own_block import STUDY, plan_of, write_own

from search.runner.run import run_study
from space.place import Place


def test_a_worker_without_the_file_trains_and_times_a_plug_in_block(tmp_path, cluster):
    text = STUDY.replace("memory: minimize", "memory: minimize, latency: record").replace("trials: 2", "trials: 1")
    text = text.replace("threads: 1", "threads: 1, workers: 1")
    made = write_own(tmp_path, text)
    plan = plan_of(made)
    (tmp_path / "slice_se.py").unlink()
    run_study(plan, trials=1, view=quiet_view(), executor=on(cluster)(plan))
    (record,) = outcomes(plan)
    assert record.state == "trained", record.measurement.reason
    assert record.architecture.attention()[Place("skip", 0)] == "slice_se"
    assert record.measurement.costs.latency.median_s > 0 and record.measurement.dice is not None
    assert (plan.folder / "trials" / "000000" / "best.safetensors").exists()
