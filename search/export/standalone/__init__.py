"""Files that an export carries: they import each other by name, numpy, nibabel, and torch or onnxruntime."""
