"""Tables of known results: written from a study's trainings, and searched without training."""
