"""Files copied into every export. They import only each other, numpy, nibabel, and torch or onnxruntime."""
