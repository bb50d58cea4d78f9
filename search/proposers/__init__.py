"""Proposers: from a study and its records to the next architecture."""
