"""Plotly figures of studies and runs."""
