"""One finding of `voxnas doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was found; `advice` says what to do where that is not `ok`. An `error` keeps voxnas from working."""

    name: str
    state: Literal["ok", "warning", "error"]
    found: str
    advice: str = ""
