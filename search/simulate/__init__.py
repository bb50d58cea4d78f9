"""Searches against a table of known results: nothing is built and nothing is trained."""
