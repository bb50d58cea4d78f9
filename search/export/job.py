"""The job of an exported network, outside the search: its budgets don't apply."""

from __future__ import annotations

from search.runner.plan import Plan
from search.trials.job import Job, Task
from search.trials.records import Record


def job_of(plan: Plan, record: Record, task: Task, *, device: str, threads: int) -> Job:
    """Return a job of a record's network, seed and fold, with the study's training."""
    return Job(
        architecture=record.architecture,
        task=task,
        training=plan.training,
        budgets=(),
        seed=record.seed,
        fold=record.fold,
        device=device,
        threads=threads,
        folder="",
    )
