"""Training: patches and augmentation, schemes and steps, validation, checkpoints."""
