"""Ablations: a YAML file's question as arms, their trainings, and what their records say."""
