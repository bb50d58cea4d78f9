"""A network's own source: its classes as this one network runs them, written out from a trace of each."""

from search.export.source.trace import NotWritable
from search.export.source.write import Source, write_source

__all__ = ["NotWritable", "Source", "write_source"]
