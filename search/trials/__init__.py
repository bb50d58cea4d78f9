"""What a trial is and leaves: records, objectives, Pareto fronts, halving, file names."""
