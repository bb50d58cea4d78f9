"""Simulated searches on tables of known results, without building or training networks."""
