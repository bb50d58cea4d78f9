"""Quantities in readable units (`8 GiB`, `20 ms`, `1.5 G`), stored as bytes, seconds and counts."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, TypeAdapter

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
COUNTS = {"": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_QUANTITY = re.compile(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)\s*")


def _parse(value: Any, units: dict[str, float], example: str) -> float:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a quantity; use a form such as {example}")
    match = _QUANTITY.fullmatch(str(value))
    unit = match.group(2) if match else None
    if match is None or (unit not in units and not isinstance(value, (int, float))):
        names = ", ".join(name for name in units if name)
        raise ValueError(f"{value!r} is not a quantity; use a form such as {example} (units: {names})")
    try:
        return float(match.group(1)) * units.get(unit or "", 1.0)
    except ValueError:
        raise ValueError(f"{value!r} is not a quantity; use a form such as {example}") from None


def parse_seconds(value: Any) -> float:
    """Parse `20 ms`, `1.5 s` or `10 min`; a number without a unit is in seconds."""
    return _parse(value, SECONDS, "20 ms")


def parse_count(value: Any) -> float:
    """Parse `2.5 M` or `47 G`; a number without a suffix is taken as is."""
    return _parse(value, COUNTS, "2.5 M")


def parse_bytes(value: Any) -> int:
    """Parse `8 GiB` (binary) or `8 GB` (decimal); a number without a unit is in bytes."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a size; use a form such as 8 GiB")
    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValueError:
        raise ValueError(f"{value!r} is not a size; use a form such as 8 GiB") from None


IN_BYTES, IN_SECONDS, IN_COUNTS = "bytes, or 4 GiB", "seconds, or 20 ms, 10 min, 2 h", "a count, or 2.5 M, 47 G"
Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=float | str)]
Seconds = Annotated[float, BeforeValidator(parse_seconds, json_schema_input_type=float | str)]
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


def show_count(count: float) -> str:
    """Format a large count: 1.23 M, 4.56 G."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f}"


def counted(count: int, noun: str, *, plural: str = "") -> str:
    """Format a count with its noun: 1 trial, 2 trials; `plural` is an irregular plural."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
