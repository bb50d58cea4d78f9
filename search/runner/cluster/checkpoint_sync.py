"""Checkpoints beyond the machine that trains: brought to the study's `storage_path` after each epoch, and back.

Without one, workers write into the run's folder itself, which all machines then have to share.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pyarrow import fs

from search.trials.records import Job

SCRATCH = Path(tempfile.gettempdir()) / f"voxnas-{os.getuid()}"
PARTIAL = ".part"
WHOLE = "whole"  # written last: prepared volumes without it were cut off on their way


@dataclass(frozen=True)
class Mirror:
    """Copies between this machine and a storage: a shared folder, or s3://, gs:// and what else pyarrow reaches."""

    storage: str | None

    def fetch(self, job: Job) -> Job:
        """Return the job with folders of this machine, its checkpoint and its prepared volumes brought here."""
        if self.storage is None:
            return job
        here = SCRATCH / self._place(job.folder)
        shutil.rmtree(here, ignore_errors=True)  # of another attempt, or of another study of this name
        self._down(self._place(job.folder), here)
        prepared = Path(job.task.prepared)
        if not prepared.is_dir():
            prepared = SCRATCH / "cache" / prepared.name
            if not prepared.is_dir():
                part = prepared.with_name(f"{prepared.name}.{os.getpid()}{PARTIAL}")
                self._down(f"cache/{prepared.name}", part)
                with suppress(OSError):  # another trial on this machine was quicker
                    part.rename(prepared)
        return replace(job, folder=str(here), task=replace(job.task, prepared=str(prepared)))

    def keep(self, job: Job) -> None:
        """Bring the job's files to the storage, each under its name once it is whole there; drop what is gone here."""
        if self.storage is None:
            return
        system, root = self._root()
        there = f"{root}/{self._place(job.folder)}"
        system.create_dir(there, recursive=True)
        here = [path for path in Path(job.folder).iterdir() if path.suffix != PARTIAL]
        for path in here:
            part = f"{there}/{path.name}{PARTIAL}"
            fs.copy_files(str(path), part, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)
            system.move(part, f"{there}/{path.name}")
        for info in system.get_file_info(fs.FileSelector(there)):
            if info.base_name not in {path.name for path in here}:
                system.delete_file(info.path)

    def bring(self, folder: Path) -> None:
        """Bring what a finished trial left in the storage into its own folder of the run."""
        if self.storage is not None:
            self._down(self._place(str(folder)), folder)

    def offer(self, prepared: Path) -> None:
        """Bring prepared volumes to the storage, for machines that don't share the run's folder."""
        if self.storage is None:
            return
        system, root = self._root()
        there = f"{root}/cache/{prepared.name}"
        if system.get_file_info(f"{there}/{WHOLE}").type == fs.FileType.NotFound:
            system.create_dir(there, recursive=True)
            fs.copy_files(str(prepared), there, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)
            with system.open_output_stream(f"{there}/{WHOLE}") as mark:
                mark.write(b"")

    def _down(self, place: str, here: Path) -> None:
        system, root = self._root()
        here.mkdir(parents=True, exist_ok=True)
        if system.get_file_info(f"{root}/{place}").type != fs.FileType.NotFound:
            fs.copy_files(
                f"{root}/{place}", str(here), source_filesystem=system, destination_filesystem=fs.LocalFileSystem()
            )

    def _place(self, folder: str) -> str:
        """Name a trial's folder below the storage: STUDY/trials/NUMBER."""
        number, study = Path(folder).name, Path(folder).parent.parent.name
        return f"{study}/trials/{number}"

    def _root(self) -> tuple[fs.FileSystem, str]:
        storage = str(self.storage)
        if "://" in storage:
            system, path = fs.FileSystem.from_uri(storage)
            return system, str(path).rstrip("/")
        Path(storage).mkdir(parents=True, exist_ok=True)
        return fs.LocalFileSystem(), str(Path(storage).resolve())
