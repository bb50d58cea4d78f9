"""Figures, pages of components, the report, HTML, assets."""
