"""Numbers as something to look at: figures, pages, report, HTML components, assets."""
