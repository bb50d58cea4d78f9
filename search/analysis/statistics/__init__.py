"""Statistics of arms that were scored case by case: Scores in, numbers out; SciPy and statsmodels do the work."""
