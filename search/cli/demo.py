"""The demonstration: a small study on made volumes, through the same reader as real ones."""

from __future__ import annotations

from pathlib import Path

from search.data.phantom import write_phantom

STUDY = Path(__file__).with_name("demo.yaml")
CASES = 16


def demo_study(runs: Path) -> tuple[Path, Path]:
    """Write the made volumes unless they are there; return the study's file and the folder that holds its data."""
    root = runs / "demo-data"
    if not (root / "phantom" / "dataset.json").exists():
        write_phantom(root / "phantom", cases=CASES, seed=0)
    return STUDY, root
