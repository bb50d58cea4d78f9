"""A trial on a worker: Tune's Trainable around `evaluate`, one epoch a step; the first step imports torch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from search.runner.cluster.activity_board import POST_S, Poster
from search.runner.cluster.checkpoint_sync import CheckpointSync
from search.runner.cluster.resources import CUDA_BYTES
from search.trials.activity import Activity
from search.trials.job import Job
from search.trials.records import Fault, Measurement

MEASUREMENT = "measurement"


class Trial(tune.Trainable):  # type: ignore[misc]
    """Runs jobs one after another, in one process as long as they request the same resources."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Return the resources that the driver determined for the job."""
        return PlacementGroupFactory([dict(config["resources"])])

    def setup(self, config: dict[str, Any]) -> None:
        """Accept a job; its first step starts it."""
        self.sync = CheckpointSync(config["storage"])
        self.post = Poster(config["board"], config["number"])
        self.gpu_share = float(config["resources"].get("GPU", 0.0))
        self.steps = self.progress(config["job"])
        self.epochs_sent = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept another job in this process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def progress(self, job: Job) -> Generator[Measurement, None, None]:
        """Train from the storage's last checkpoint, and push each new one."""
        return train_here(job, self.sync, gpu_share=self.gpu_share, post=self.post)

    def step(self) -> dict[str, Any]:
        """Train an epoch; return an error instead of raising it, because Tune should restart only lost processes.

        The message contains the epochs that no earlier message of this process contained.
        """
        try:
            measurement = next(self.steps)
        except Exception as error:
            measurement = failure(error)
        message = replace(measurement, epochs=measurement.epochs[self.epochs_sent :])
        self.epochs_sent = len(measurement.epochs)
        return {MEASUREMENT: message.to_json(), "done": measurement.state != "running"}

    def cleanup(self) -> None:
        """Abandon a training that was stopped before its end."""
        self.steps.close()


def train_here(
    job: Job, sync: CheckpointSync, *, gpu_share: float, post: Callable[[Activity], object]
) -> Generator[Measurement, None, None]:
    """Train on this machine from the storage's last checkpoint, and push each new one; yield after each epoch."""
    from search.runner.evaluate import progress, write_reason
    from search.runner.watch import Watch

    job = sync.pull_job(job)
    try:
        if gpu_share:
            limit_to_share(job.device, gpu_share)
        for measurement in progress(job, Watch(post, every_s=POST_S)):
            sync.push_job(job)
            if measurement.state != "running" or measurement.epochs:
                yield measurement
    except Exception as error:
        write_reason(job, traceback.format_exc())
        sync.push_job(job)
        yield failure(error)
    finally:
        sync.drop_job(job)


def train_remotely(job: Job, sync: CheckpointSync, gpu_share: float) -> Generator[str, None, None]:
    """Train a job that is no trial; a streaming Ray task, which yields each measurement as JSON."""
    for measurement in train_here(job, sync, gpu_share=gpu_share, post=lambda activity: None):
        yield measurement.to_json()


def limit_to_share(device: str, share: float) -> None:
    """Limit the trial's tensors to its share of the GPU's memory, so that other trials on it don't run out."""
    import torch

    from search.runner.devices import limit_memory, prepare_allocator

    prepare_allocator()
    card = torch.cuda.get_device_properties(torch.device(device)).total_memory
    limit_memory(torch.device(device), share * card - CUDA_BYTES if share < 1 else None)


def failure(error: Exception) -> Measurement:
    """Return an unexpected error as a failed measurement; a file that can't be read or written ends the run."""
    fault: Fault = "storage" if isinstance(error, OSError) else "error"
    return Measurement("failed", f"{type(error).__name__}: {error}", fault=fault)
