"""nnU-Net's planning rules: its networks as points of the space, derived from patch and spacing or from the data.

Source: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 4; the constants and the order of steps are
those of nnunetv2 2.8 (`nnUNetPlans` and `nnUNetResEncUNetMPlans`). The implementation is our own.
"""
