"""The MONAI bundle of an export."""

from search.export.bundle.write import BundleError, BundleInfo, check_bundle, write_bundle

__all__ = ["BundleError", "BundleInfo", "check_bundle", "write_bundle"]
