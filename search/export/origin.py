"""What an export is made of: the chosen trial, its weights, its study and data."""

from __future__ import annotations

from dataclasses import dataclass

from search.analysis.choose import Choice
from search.data.prepared import Prepared
from search.export.postprocessing import Postprocessing
from search.export.trained import Trained
from search.runner.plan import Plan
from search.trials.held_out import HeldOutScore, score_of
from search.trials.records import Record


@dataclass(frozen=True)
class Origin:
    """Provenance of an export: the selected trial and the reason, its weights, its study and data.

    `uses` are those of the study's test cases.
    """

    choice: Choice
    trained: Trained
    plan: Plan
    prepared: Prepared
    contact: str = ""
    uses: tuple[HeldOutScore, ...] = ()
    postprocessing: Postprocessing = Postprocessing()

    @property
    def record(self) -> Record:
        """The selected trial."""
        return self.choice.record

    @property
    def test_score(self) -> HeldOutScore | None:
        """The score of the exported weights on the test cases; None if others, or none, were scored."""
        if len(self.trained.sha256) > 1:
            return None
        return score_of(self.uses, trial=self.record.number, weights_sha256=self.trained.sha256[0])
