"""Numbers as Plotly figures: of a study, of an ablation."""
