"""Quantities in readable units (`8 GiB`, `20 ms`, `1.5 G`), stored as bytes, seconds and counts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
COUNTS = {"": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BYTES = {"B": 1.0} | {
    f"{prefix}{kind}": base**power
    for kind, base in (("iB", 1024.0), ("B", 1000.0))
    for power, prefix in enumerate("KMGTP", start=1)
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)\s*")


def _parse(value: Any, units: dict[str, float], example: str, noun: str) -> float:
    """Return a quantity above 0 in the base unit; raises ValueError unless the whole text is a number and a unit."""
    match = None if isinstance(value, bool) else _QUANTITY.fullmatch(str(value))
    names = ", ".join(name for name in units if name)
    if match is None:
        raise ValueError(f"{value!r} is not a {noun}; use a form such as {example} (units: {names})")
    number, unit = match.groups()
    scale = {name.casefold(): scale for name, scale in units.items()}.get(unit.casefold())
    if scale is None and not unit:
        raise ValueError(f"{value!r} has no unit; use a form such as {example} (units: {names})")
    if scale is None:
        raise ValueError(
            f"{value!r} is not a {noun}: there is no unit {unit!r}; use a form such as {example} ({names})"
        )
    quantity = float(number) * scale
    if not 0 < quantity < math.inf:
        raise ValueError(f"{value!r} is not a finite {noun} above 0; use a form such as {example}")
    return quantity


def parse_seconds(value: Any) -> float:
    """Parse `20 ms`, `1.5 s` or `10 min`."""
    return _parse(value, SECONDS, "20 ms", "duration")


def parse_count(value: Any) -> float:
    """Parse `2.5 M` or `47 G`; a number without a suffix is taken as is."""
    return _parse(value, COUNTS, "2.5 M", "quantity")


def parse_bytes(value: Any) -> int:
    """Parse `8 GiB` (binary) or `8 GB` (decimal)."""
    return math.ceil(_parse(value, BYTES, "8 GiB", "size"))


# Of what each returns
BASE_UNITS: dict[Callable[[Any], float], str] = {parse_seconds: "s", parse_count: "", parse_bytes: "B"}
IN_BYTES, IN_SECONDS, IN_COUNTS = "4 GiB, 800 MB", "20 ms, 10 min, 2 h", "a count, or 2.5 M, 47 G"
Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=str)]
Seconds = Annotated[float, BeforeValidator(parse_seconds, json_schema_input_type=str)]
Count = Annotated[float, BeforeValidator(parse_count, json_schema_input_type=float | str)]


def show_bytes(size: float) -> str:
    """Format a size in binary units."""
    for unit, power in (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.1f} {unit}"
    return f"{size:.0f} B"


def show_seconds(seconds: float) -> str:
    """Format a duration."""
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def show_remaining(seconds: float) -> str:
    """Format an estimate of the time that is left, in whole seconds or minutes."""
    return f"{max(1, round(seconds))} s" if seconds < 120 else show_seconds(seconds)


def show_count(count: float) -> str:
    """Format a large count: 1.23 M, 4.56 G."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f}"


def counted(count: float, noun: str, *, plural: str = "") -> str:
    """Format a count with its noun: 1 trial, 2 trials; `plural` is an irregular plural."""
    return f"{count:,.12g} {noun if count == 1 else plural or f'{noun}s'}"
