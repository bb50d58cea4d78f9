"""A network as source: each of its classes, reduced to the code that this network runs, written from a trace."""

from search.export.source.nodes import NotWritable
from search.export.source.write import Source, write_source

__all__ = ["NotWritable", "Source", "write_source"]
