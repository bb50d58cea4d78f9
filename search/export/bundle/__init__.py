"""The MONAI bundle of an export."""

from search.export.bundle.write import check_bundle, write_bundle

__all__ = ["check_bundle", "write_bundle"]
