"""What every attention block must do, whatever it computes: the papers' blocks and a user's own."""

from search.export.block_contract.checks import CHECKS, Broken, Skipped
from search.export.block_contract.run import Result, check_spec
from search.export.block_contract.subject import Subject, subjects

__all__ = ["CHECKS", "Broken", "Result", "Skipped", "Subject", "check_spec", "subjects"]
