"""Data: convert labelled volumes on disk to arrays for training, and predictions back to masks."""
