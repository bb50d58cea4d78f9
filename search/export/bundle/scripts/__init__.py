"""Scripts of a MONAI bundle: run with MONAI, never with voxnas."""
