"""Augmentation of whole batches on the training's device, a function of (seed, batch number) alone.

`parameters` draws what happens to each sample, on the CPU; `spatial` and `intensity` hold the transforms, pure
functions of tensors and parameters; `pipeline` applies them in nnU-Net's order.
"""
