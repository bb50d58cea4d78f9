"""Proposers: choose the next architecture from a study's records."""
