"""Experiment trackers: every trial as a run of TensorBoard, MLflow, W&B or Trackio, written by the driver."""
