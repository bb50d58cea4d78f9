"""The objectives' names, how they are called in tables and figures, and how their values are written."""

from __future__ import annotations

from collections.abc import Callable

from search.config.units import show_bytes, show_count, show_seconds

HEADINGS = {
    "dice": "Dice",
    "memory": "training memory",
    "inference_memory": "inference memory",
    "latency": "latency",
    "macs": "MACs",
    "params": "parameters",
}
OBJECTIVES = tuple(HEADINGS)
_WRITE: dict[str, Callable[[float], str]] = {
    "dice": "{:.4f}".format,
    "memory": show_bytes,
    "inference_memory": show_bytes,
    "latency": show_seconds,
    "macs": show_count,
    "params": show_count,
}


def show(objective: str, value: float | None) -> str:
    """Write an objective's value for people; nothing where there is none."""
    return _WRITE[objective](value) if value is not None else ""
