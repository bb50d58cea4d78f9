"""The import package `voxnas`, which pyproject.toml maps here; it provides the names of `search.api`."""

from typing import TYPE_CHECKING, Any

import search.api
from search.api import __all__ as __all__

if TYPE_CHECKING:
    from search.api import *  # noqa: F403

__doc__ = search.api.__doc__


def __getattr__(name: str) -> Any:
    return getattr(search.api, name)


def __dir__() -> list[str]:
    return dir(search.api)
