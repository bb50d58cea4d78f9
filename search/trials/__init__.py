"""Trials: jobs, measurements and records, Pareto fronts, successive halving, file names."""
