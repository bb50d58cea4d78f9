"""Training: the loop, and `evaluate`, which every executor calls."""
