"""Statistics of arms that were scored case by case, with SciPy and statsmodels."""
