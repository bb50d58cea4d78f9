"""Costs: what an architecture takes, known before it is trained."""
