"""Data: from labelled volumes on disk to arrays that training reads, and back to masks."""
