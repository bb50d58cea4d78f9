"""Export: one trained network as a folder that runs without voxnas, verified before it is put in place."""

from search.export.model import Exported, export, export_trained

__all__ = ["Exported", "export", "export_trained"]
