"""The owner of a run folder, a study in a database: only the owner may write, move or delete the folder's files."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from search.config.errors import UserError
from search.config.schema import NAME_PATTERN, RESERVED_NAMES
from search.files import require_regular, write_text
from search.storage.address import show_url, sqlite_file, sqlite_url
from search.storage.study_attributes import STUDY_ID, stored_attribute

OWNER = "owner.json"
DATABASE = "study.db"  # a run folder's own database


@dataclass(frozen=True)
class Owner:
    """A study, its identity in its database, and the database (`study.db` if it is in the folder)."""

    study: str
    study_id: str
    database: str

    @staticmethod
    def of(folder: Path, *, study: str, study_id: str, url: str) -> Owner:
        """Create the owner of a folder."""
        file = _sqlite_file(url)
        elsewhere = url if file is None else sqlite_url(file)
        return Owner(study, study_id, DATABASE if holds_database(folder, url) else elsewhere)

    def url(self, folder: Path) -> str:
        """Return the database's URL, for the current location of the folder."""
        return sqlite_url((folder / DATABASE).resolve()) if self.database == DATABASE else self.database

    def exists(self, folder: Path) -> bool:
        """Return whether the folder is this study's own and its database still has the study."""
        parts = Path(self.study).parts
        if folder.parts[-len(parts) :] != parts:  # a copy of another study's folder
            return False
        url = self.url(folder)
        try:
            return bool(stored_attribute(url, self.study, STUDY_ID) == self.study_id)
        except UserError:
            return not url.startswith("sqlite")  # a server that can't be reached may have it


def require_own_folder(folder: Path, *, study: str, url: str) -> None:
    """Raise UserError if a run folder belongs to another study that still exists, in this database or another."""
    owner = read_owner(folder)
    if owner is None or not owner.exists(folder):
        return
    study_id = stored_attribute(url, study, STUDY_ID) or ""
    if owner != Owner.of(folder, study=study, study_id=study_id, url=url):
        where = show_url(owner.url(folder))
        kept = f"{folder} holds the files of study {owner.study!r} in {where}, another one than in {show_url(url)}"
        raise UserError([f"{kept}; give this study another name, or another folder with --runs"])


def claim_folder(folder: Path, *, study: str, study_id: str, url: str) -> None:
    """Record a study as the owner of a run folder."""
    mine = Owner.of(folder, study=study, study_id=study_id, url=url)
    if read_owner(folder) == mine and (folder / OWNER).exists():
        return
    write_text(folder / OWNER, json.dumps(asdict(mine)), ours=True)


def owned_folder(runs: Path, *, study: str, url: str) -> Path | None:
    """Return the run folder that belongs to a study of this database; None if there is none.

    The name may come from an untrusted database: a name that is not a valid folder name has no folder.
    """
    if not is_folder_name(study):
        return None
    folder = runs / study
    owner = read_owner(folder)
    if owner is None or folder.is_symlink():
        return None
    study_id = stored_attribute(url, study, STUDY_ID)
    return folder if owner == Owner.of(folder, study=study, study_id=study_id, url=url) else None


def holds_database(folder: Path, url: str) -> bool:
    """Return whether a database is the run folder's own `study.db`."""
    return _sqlite_file(url) == (folder / DATABASE).resolve()


def is_folder_name(study: str) -> bool:
    """Return whether a study's name is a valid name of a folder in the runs folder."""
    first, *rest = study.split("/")  # the folders of an ablation's settings are inside the ablation's folder
    return first not in RESERVED_NAMES and all(re.fullmatch(NAME_PATTERN, part) for part in (first, *rest))


def read_owner(folder: Path) -> Owner | None:
    """Return a folder's owner; a folder of an earlier version belongs to the study of its name in its own database."""
    try:
        return Owner(**json.loads(require_regular(folder / OWNER).read_text()))
    except (OSError, ValueError, TypeError):
        pass
    url = sqlite_url((folder / DATABASE).resolve())
    try:
        study_id = stored_attribute(url, folder.name, STUDY_ID)
    except UserError:
        return None
    return Owner(folder.name, study_id, DATABASE) if study_id else None


def _sqlite_file(url: str) -> Path | None:
    file = sqlite_file(url)
    return file.resolve() if file else None
