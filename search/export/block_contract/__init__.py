"""The contract that every attention block must fulfil, built-in or plug-in, and its checks."""

from search.export.block_contract.checks import CHECKS, Broken, Skipped
from search.export.block_contract.run import Result, check_spec
from search.export.block_contract.subject import Subject, subjects

__all__ = ["CHECKS", "Broken", "Result", "Skipped", "Subject", "check_spec", "subjects"]
