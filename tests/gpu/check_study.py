"""A whole study on synthetic volumes through the local executor."""

from __future__ import annotations

import time

from report import PartReport
from rich.console import Console
from setting import Setting

from search.api.progress import RunView
from search.runner.local import run_study


def check_study(setting: Setting, part: PartReport) -> None:
    """Run a study to its end and show each trial."""
    plan = setting.plan("study", f"executor.device={'auto' if setting.cuda else 'cpu'}")
    trials = plan.study.search.trials
    began = time.monotonic()
    with open(setting.folder / "study.log", "w") as log:
        view = RunView(Console(file=log, width=160), name="study", trials=trials)
        outcome = run_study(plan, trials=trials, view=view)
    part.note(f"{trials} trials in {time.monotonic() - began:.1f} s: {outcome.why}")
    trained = [record for record in outcome.records if record.state == "trained"]
    for record in outcome.records:
        measurement = record.measurement
        costs, held = measurement.costs, measurement.measured_memory
        part.row(
            trial=record.number,
            state=record.state,
            dice=measurement.dice or 0.0,
            latency_ms=costs.latency.median_s * 1e3 if costs and costs.latency else 0.0,
            predicted_MiB=costs.memory_bytes / 2**20 if costs else 0.0,
            measured_MiB=held.allocated_bytes / 2**20 if held else 0.0,
            seconds=measurement.seconds,
            why=measurement.reason,
        )
    part.limit("trained trials", len(trained), trials, at_least=True)
    if not setting.tiny:
        part.limit(
            "best Dice", max((each.measurement.dice or 0.0 for each in trained), default=0.0), 0.3, at_least=True
        )
