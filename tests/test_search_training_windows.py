"""The sliding window of validation: equal to MONAI's, without importing MONAI."""

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from search.training.windows import sliding_logits

PATCH = (4, 5, 6)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(7, 13, 5), (4, 5, 6), (2, 30, 6), (1, 3, 11), (9, 9, 9)])
def test_the_sliding_window_equals_monais(shape, overlap):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn((1, 2, *shape), generator=generator)
    mix = torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    inferer = SlidingWindowInferer(PATCH, sw_batch_size=1, overlap=overlap, mode="gaussian")
    found = sliding_logits(mix, batch, patch=PATCH, overlap=overlap)
    assert found.shape == (1, 3, *shape) and torch.equal(found, inferer(batch, mix))


def test_logits_of_low_precision_are_summed_in_float32():
    batch = torch.randn((1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    found = sliding_logits(torch.Tensor.bfloat16, batch, patch=(4, 4, 4), overlap=0.5)
    assert found.dtype == torch.float32 and torch.allclose(found, batch.bfloat16().float(), atol=1e-6)
