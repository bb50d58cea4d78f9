"""Scripts, styles and templates that pages are made with."""
