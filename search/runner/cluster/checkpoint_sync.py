"""Checkpoints on a cluster: pushed to the study's `storage_path` after each epoch, pulled when a trial resumes.

Without a `storage_path` workers write to the run's folder itself, which all machines must share.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pyarrow import fs

from search.files import is_partial, private_folder
from search.trials.files import RESUME_FILES
from search.trials.job import Job

SCRATCH = Path(tempfile.gettempdir()) / f"voxnas-{os.getuid()}"
PARTIAL = ".part"
COMPLETE = "whole"  # written last: prepared volumes without this file were cut off during the copy


@dataclass(frozen=True)
class CheckpointSync:
    """Copies between this machine and a storage: a shared folder, or s3://, gs:// and others known to pyarrow."""

    storage: str | None

    def pull_job(self, job: Job) -> Job:
        """Copy the job's checkpoint and prepared volumes to this machine; return the job with their folders."""
        if self.storage is None:
            return job
        local = private_folder(SCRATCH) / self._place(job.folder)
        shutil.rmtree(local, ignore_errors=True)  # of another attempt, or of another study of this name
        self._copy_down(self._place(job.folder), local)
        prepared = Path(job.task.prepared)
        if not prepared.is_dir():
            prepared = SCRATCH / "cache" / prepared.name
            if not prepared.is_dir():
                part = prepared.with_name(f"{prepared.name}.{os.getpid()}{PARTIAL}")
                self._copy_down(f"cache/{prepared.name}", part)
                with suppress(OSError):  # another trial on this machine was faster
                    part.rename(prepared)
        return replace(job, folder=str(local), task=replace(job.task, prepared=str(prepared)))

    def drop_job(self, job: Job) -> None:
        """Delete a job's files on this machine; the storage has them."""
        if self.storage is not None:
            shutil.rmtree(job.folder, ignore_errors=True)

    def push_job(self, job: Job) -> None:
        """Copy the job's files to the storage, each renamed when complete; delete files that no longer exist here."""
        if self.storage is None:
            return
        system, root = self._root()
        remote = f"{root}/{self._place(job.folder)}"
        system.create_dir(remote, recursive=True)
        files = [path for path in Path(job.folder).iterdir() if not is_partial(path)]
        for path in files:
            part = f"{remote}/{path.name}{PARTIAL}"
            fs.copy_files(str(path), part, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)
            system.move(part, f"{remote}/{path.name}")
        for info in system.get_file_info(fs.FileSelector(remote)):
            if info.base_name not in {path.name for path in files}:
                system.delete_file(info.path)

    def pull_results(self, folder: Path) -> None:
        """Copy a finished trial's files from the storage to its folder of the run."""
        if self.storage is not None:
            self._copy_down(self._place(str(folder)), folder)

    def delete_checkpoints(self, folder: Path) -> None:
        """Delete a finished trial's checkpoints from the storage, once its record is written."""
        if self.storage is None:
            return
        system, root = self._root()
        for name in RESUME_FILES:
            remote = f"{root}/{self._place(str(folder))}/{name}"
            if system.get_file_info(remote).type != fs.FileType.NotFound:
                system.delete_file(remote)

    def push_dataset(self, prepared: Path) -> None:
        """Copy prepared volumes to the storage, for machines that don't share the run's folder."""
        if self.storage is None:
            return
        system, root = self._root()
        remote = f"{root}/cache/{prepared.name}"
        if system.get_file_info(f"{remote}/{COMPLETE}").type == fs.FileType.NotFound:
            system.create_dir(remote, recursive=True)
            if isinstance(system, fs.LocalFileSystem):
                Path(remote).chmod(stat.S_IMODE(prepared.stat().st_mode))  # private unless the study shares its volumes
            fs.copy_files(str(prepared), remote, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)
            with system.open_output_stream(f"{remote}/{COMPLETE}") as mark:
                mark.write(b"")

    def _copy_down(self, place: str, local: Path) -> None:
        system, root = self._root()
        local.mkdir(parents=True, exist_ok=True)
        if system.get_file_info(f"{root}/{place}").type != fs.FileType.NotFound:
            fs.copy_files(
                f"{root}/{place}", str(local), source_filesystem=system, destination_filesystem=fs.LocalFileSystem()
            )

    def _place(self, folder: str) -> str:
        """Return a trial's folder below the storage: STUDY/trials/NUMBER."""
        number, study = Path(folder).name, Path(folder).parent.parent.name
        return f"{study}/trials/{number}"

    def _root(self) -> tuple[fs.FileSystem, str]:
        storage = str(self.storage)
        if "://" in storage:
            system, path = fs.FileSystem.from_uri(storage)
            return system, str(path).rstrip("/")
        Path(storage).mkdir(parents=True, exist_ok=True)
        return fs.LocalFileSystem(), str(Path(storage).resolve())
