"""The verbs, one file per task; each is a thin function that imports lazily, which keeps `--help` fast."""
