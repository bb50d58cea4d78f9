"""The verbs, a file per task; each is a thin function that imports what it needs, which keeps `--help` fast."""
