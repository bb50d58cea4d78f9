"""The executor on a Ray cluster; only this package imports Ray.

Tune places and restarts trials; the study's database holds the state.
"""
