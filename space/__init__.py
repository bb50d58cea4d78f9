"""The search space: its axes and blocks, and how a point of the space becomes a network."""
