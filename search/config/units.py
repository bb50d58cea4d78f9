"""Quantities as people write them: `8 GiB`, `20 ms`, `1.5 G`; kept as bytes, seconds and counts."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, TypeAdapter

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
COUNTS = {"": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_QUANTITY = re.compile(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)\s*")


def _parse(value: Any, units: dict[str, float], example: str) -> float:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a quantity; write it like {example}")
    match = _QUANTITY.fullmatch(str(value))
    unit = match.group(2) if match else None
    if match is None or (unit not in units and not isinstance(value, (int, float))):
        named = ", ".join(name for name in units if name)
        raise ValueError(f"{value!r} is not a quantity; write it like {example} (units: {named})")
    try:
        return float(match.group(1)) * units.get(unit or "", 1.0)
    except ValueError:
        raise ValueError(f"{value!r} is not a quantity; write it like {example}") from None


def parse_seconds(value: Any) -> float:
    """Read `20 ms`, `1.5 s`, `10 min`; a bare number is seconds."""
    return _parse(value, SECONDS, "20 ms")


def parse_count(value: Any) -> float:
    """Read `2.5 M`, `47 G`; a bare number is itself."""
    return _parse(value, COUNTS, "2.5 M")


def parse_bytes(value: Any) -> int:
    """Read `8 GiB` (binary) and `8 GB` (decimal); a bare number is bytes."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a size; write it like 8 GiB")
    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValueError:
        raise ValueError(f"{value!r} is not a size; write it like 8 GiB") from None


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Count = Annotated[float, BeforeValidator(parse_count)]


def show_bytes(size: float) -> str:
    """Write a size for people, in binary units."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def show_seconds(seconds: float) -> str:
    """Write a duration for people."""
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def show_count(count: float) -> str:
    """Write a large count for people: 1.23 M, 4.56 G."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: 1 trial, 2 trials."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
