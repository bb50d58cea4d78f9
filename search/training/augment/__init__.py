"""Augmentation of whole batches on the training's device, reproducible from (seed, batch number).

`parameters` draws each sample's random parameters on the CPU. `spatial` and `intensity` hold the transforms, pure
functions of tensors and parameters. `pipeline` applies the intensity transforms in nnU-Net's order.
"""
