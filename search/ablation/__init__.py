"""Ablations: arms from a YAML file, their trainings, and the statistics of their results."""
