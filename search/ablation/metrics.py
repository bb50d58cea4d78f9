"""The metrics of an ablation: scores per case, and the costs of `search.config.objectives`."""

from __future__ import annotations

from dataclasses import dataclass

from search.config.objectives import COSTS, OBJECTIVES


@dataclass(frozen=True)
class CaseMetric:
    """A score per case and class; `attribute` is its name in CaseDice, `digits` the decimals that tables show."""

    name: str
    title: str
    attribute: str
    digits: int
    higher_is_better: bool
    of_surfaces: bool

    @property
    def arrow(self) -> str:
        """The better direction as an arrow."""
        return "↑" if self.higher_is_better else "↓"


CASE_METRICS = {
    each.name: each
    for each in (
        CaseMetric("dice", OBJECTIVES["dice"].heading, "dice", 4, True, of_surfaces=False),
        CaseMetric("hd95", "hd95 (mm)", "hd95_mm", 2, False, of_surfaces=True),
        CaseMetric("surface_dice", "surface Dice", "surface_dice", 4, True, of_surfaces=True),
    )
}
METRICS = (*CASE_METRICS, *COSTS)


def use_surfaces(metrics: tuple[str, ...]) -> bool:
    """Return whether validation must compute surface metrics for these metrics."""
    return any(metric in CASE_METRICS and CASE_METRICS[metric].of_surfaces for metric in metrics)
