"""A trial on a worker: Tune's Trainable around `evaluate`, an epoch a step; torch is imported by the first step."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from typing import Any

from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from search.runner.cluster.checkpoint_sync import Mirror
from search.trials.records import Fault, Job, Measurement

MEASUREMENT = "measurement"


class Trial(tune.Trainable):  # type: ignore[misc]
    """Works through one job after another, in one process where they ask for the same resources."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Ask for what the driver worked out for the job."""
        return PlacementGroupFactory([dict(config["resources"])])

    def setup(self, config: dict[str, Any]) -> None:
        """Take a job; nothing of it is done yet."""
        self.mirror = Mirror(config["storage"])
        self.steps = self.progress(config["job"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another job in this process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def progress(self, job: Job) -> Generator[Measurement, None, None]:
        """Train from the last checkpoint that storage has, and bring each new one there."""
        from search.runner.evaluate import progress, write_reason

        job = self.mirror.fetch(job)
        try:
            for measurement in progress(job):
                self.mirror.keep(job)
                if measurement.state != "running" or measurement.epochs:
                    yield measurement
        except Exception as error:
            write_reason(job, traceback.format_exc())
            self.mirror.keep(job)
            yield failure(error)

    def step(self) -> dict[str, Any]:
        """Go on by an epoch; what goes wrong is told, not raised: only lost processes are Tune's to mend."""
        try:
            measurement = next(self.steps)
        except Exception as error:
            measurement = failure(error)
        return {MEASUREMENT: measurement.to_json(), "done": measurement.state != "running"}

    def cleanup(self) -> None:
        """Let go of a training that was stopped before its end."""
        self.steps.close()


def failure(error: Exception) -> Measurement:
    """Return what an error that training doesn't expect makes of a job; files that can't be had stop the whole run."""
    fault: Fault = "storage" if isinstance(error, OSError) else "error"
    return Measurement("failed", f"{type(error).__name__}: {error}", fault=fault)
