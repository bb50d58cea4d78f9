"""`voxnas submit`: send a study to a cluster's head, which runs `voxnas run` as a Ray job."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import LoadedStudy, UserError
from search.config.errors import RunError
from search.files import copy_file, scratch_folder
from space.plugins import is_file_name

ALLOW_CODE = "--allow-code"
STARTING_TRIES = 30  # a head that has just started accepts no jobs for some seconds


@dataclass(frozen=True)
class SubmittedJob:
    """A Ray job on the cluster at an address."""

    address: str
    job: str


def submit(loaded: LoadedStudy, *, address: str, runs: Path, options: Sequence[str]) -> SubmittedJob:
    """Submit a study; `runs` and paths in the `options` of `voxnas run` refer to the cluster's machines.

    Raises RunError if the head can't be reached or rejects the job.
    """
    if not runs.is_absolute():
        raise UserError([f"submit: --runs {runs}: use an absolute path that all machines share, such as /shared/runs"])
    block_files = [name for name in loaded.study.blocks if is_file_name(name)]
    if block_files and ALLOW_CODE not in options:
        raise UserError([f"submit: {', '.join(block_files)} would run on the cluster; read it, then add {ALLOW_CODE}"])
    entry = ["voxnas", "run", loaded.file.name, "--executor", "ray", "--address", "auto", "--runs", str(runs), *options]
    try:
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(address)
        with scratch_folder() as folder:
            copy_file(loaded.file, folder / loaded.file.name)
            folds = loaded.study.data.folds
            for name in (*([folds] if isinstance(folds, str) else []), *block_files):
                copy_file(loaded.file.parent / name, folder / name)
            job = _send(client, shlex.join(entry), str(folder))
    except ImportError:
        raise UserError(["submit needs Ray's job client: pip install 'voxnas[cluster]'"]) from None
    except (ConnectionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError([f"submit: the head at {address} did not accept the study: {reason}"]) from None
    return SubmittedJob(address, job)


def _send(client: Any, entry: str, folder: str) -> str:
    """Submit the job; retry while the head is still starting."""
    for _ in range(STARTING_TRIES):
        try:
            return str(client.submit_job(entrypoint=entry, runtime_env={"working_dir": folder}))
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            time.sleep(2.0)
    return str(client.submit_job(entrypoint=entry, runtime_env={"working_dir": folder}))


def follow(job: SubmittedJob) -> str:
    """Print the job's output until it ends; return its final status."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(job.address)

    async def copy() -> None:
        async for lines in client.tail_job_logs(job.job):
            print(lines, end="", flush=True)

    asyncio.run(copy())
    return str(client.get_job_status(job.job))
