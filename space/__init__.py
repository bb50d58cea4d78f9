"""The search space: what a network may be made of, and how one of its points becomes a network."""
