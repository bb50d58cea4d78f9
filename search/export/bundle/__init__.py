"""The MONAI bundle of an export."""

from search.export.bundle.write import Described, NoBundle, check_bundle, write_bundle

__all__ = ["Described", "NoBundle", "check_bundle", "write_bundle"]
