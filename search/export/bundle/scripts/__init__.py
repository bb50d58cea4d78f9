"""Scripts of a MONAI bundle; they need MONAI, not voxnas."""
