"""The sliding window of validation and the losses: equal to MONAI's, without importing MONAI."""

import pytest
import torch

from search.training.step import SupervisedLoss
from search.training.windows import sliding_logits

PATCH = (4, 5, 6)


@pytest.fixture(scope="module")
def monai_losses():
    """MONAI is imported here, since each process that runs tests would import it with this file, which takes long."""
    from monai import losses

    return losses


@pytest.fixture(scope="module")
def monai_inferers():
    from monai import inferers

    return inferers


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(7, 13, 5), (4, 5, 6), (2, 30, 6), (1, 3, 11), (9, 9, 9)])
def test_the_sliding_window_equals_monais(shape, overlap, monai_inferers):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn((1, 2, *shape), generator=generator)
    mix = torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    inferer = monai_inferers.SlidingWindowInferer(PATCH, sw_batch_size=1, overlap=overlap, mode="gaussian")
    found = sliding_logits(mix, batch, patch=PATCH, overlap=overlap)
    assert found.shape == (1, 3, *shape) and torch.equal(found, inferer(batch, mix))


def test_logits_of_low_precision_are_summed_in_float32():
    batch = torch.randn((1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    found = sliding_logits(torch.Tensor.bfloat16, batch, patch=(4, 4, 4), overlap=0.5)
    assert found.dtype == torch.float32 and torch.allclose(found, batch.bfloat16().float(), atol=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_without_regions_and_ignore_the_loss_is_monais(batch_dice, monai_losses):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 4, 5, 6, 7), torch.randint(0, 4, (3, 1, 5, 6, 7)).float()
    its = monai_losses.DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=batch_dice)(
        logits, labels
    )
    assert torch.allclose(SupervisedLoss(batch_dice=batch_dice)([logits], labels), its, atol=1e-6)


def test_the_loss_of_regions_is_monais_with_sigmoid(monai_losses):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 5, 6, 7), torch.randint(0, 3, (2, 1, 5, 6, 7)).float()
    target = torch.cat([labels > 0, labels == 2], 1).float()
    dice = monai_losses.DiceLoss(sigmoid=True, batch=True)(logits, target)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    loss = SupervisedLoss(regions=((1, 2), (2,)))
    assert torch.allclose(loss([logits], labels), dice + entropy, atol=1e-6)
