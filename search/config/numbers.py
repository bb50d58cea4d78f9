"""Types of the numbers in study files."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

LARGEST = 10**9  # of what is counted: epochs, steps, trials


def _refuse_huge(value: int) -> int:
    if value > LARGEST:
        raise ValueError(f"{value} is more than {LARGEST:,}")
    return value


Whole = Annotated[int, Field(ge=1, strict=True), AfterValidator(_refuse_huge)]
Index = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
