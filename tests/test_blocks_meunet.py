"""meU-net: the expanded patch, the two-patch step and its memory, the cascade's concatenation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.meunet import (
    MeUnit,
    TwoPatchNetwork,
    central_crop,
    concatenate_predictions,
    expanded_patch,
    expansion_margins,
    frozen_statistics,
    one_hot_predictions,
    shrink_labels,
    two_patch_step,
)
from search.costs.abstract import AbstractTensors

ENCODER, DECODER = (16, 32, 64, 128, 128), (16, 16, 32, 64)


class MeUNet(nn.Module):
    """The paper's base network, as a network to train."""

    def __init__(self, *, classes: int = 3, encoder=ENCODER, decoder=DECODER, predictions: int = 0) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(map(MeUnit, (1, *encoder), encoder))
        below = (*decoder[1:], encoder[-1])
        widths = [low + skip + predictions for low, skip in zip(below, encoder[:-1], strict=True)]
        self.decoder = nn.ModuleList(map(MeUnit, widths, decoder))
        self.head = nn.Conv3d(decoder[0], classes, 3, padding=1)
        self.head2 = nn.Conv3d(decoder[1], classes, 3, padding=1)

    def encode(self, x: Tensor, *, first: int) -> list[Tensor]:
        skips = [self.encoder[first](x)]
        for unit in self.encoder[first + 1 :]:
            skips.append(unit(F.max_pool3d(skips[-1], 2)))
        return skips

    def climb(self, skips: list[Tensor], *, last: int) -> Tensor:
        x = skips.pop()
        for unit in reversed(self.decoder[last:]):
            skip = skips.pop()
            x = unit(torch.cat([skip, F.interpolate(x, size=skip.shape[2:], mode="nearest")], dim=1))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.climb(self.encode(x, first=0), last=0))

    def first_level(self, x: Tensor) -> Tensor:
        return F.max_pool3d(self.encoder[0](x), 2)

    def deeper(self, x: Tensor) -> Tensor:
        return self.head2(self.climb(self.encode(x, first=1), last=1))

    def parts(self) -> TwoPatchNetwork:
        return TwoPatchNetwork(whole=self, first_level=self.first_level, deeper=self.deeper)


def small() -> MeUNet:
    torch.manual_seed(0)
    return MeUNet(encoder=(4, 4, 6), decoder=(4, 4)).double()


def example() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 1, 12, 16, 20).double(), torch.randint(0, 3, (2, 12, 16, 20))


FIRST = ("encoder.0.", "decoder.0.", "head.")
PATCH = (8, 12, 12)


def test_the_parameter_count_equals_the_papers():
    assert sum(parameter.numel() for parameter in MeUNet().parameters()) == 2_515_062
    cascade = MeUNet(predictions=6)
    without_second_head = sum(p.numel() for name, p in cascade.named_parameters() if "head2" not in name)
    assert without_second_head == 2_534_499


@pytest.mark.parametrize(
    ("size", "factor", "margin"),
    [
        (160, 1.25, 20),
        (160, 1.5, 40),
        (160, 1.75, 60),
        (160, 1.0, 0),
        (20, 1.1, 2),
        (3, 1.5, 0),
        (4, 1.5, 2),
        (50, 1.25, 6),
        (52, 1.25, 6),
        (48, 1.5, 12),
        (1, 1.75, 0),
    ],
)
def test_margins_are_the_nearest_even_number(size, factor, margin):
    assert expansion_margins((size, 160, size), factor=factor)[0] == margin
    assert expanded_patch((size, 7, size), factor=factor)[2] == size + 2 * margin


def test_the_standard_patch_stays_on_the_pooled_grid():
    patch = (10, 14, 24)
    x = torch.randn(1, 1, *expanded_patch(patch, factor=1.6))
    pooled_crop = F.max_pool3d(central_crop(x, patch), 2)
    crop_pooled = central_crop(F.max_pool3d(x, 2), tuple(size // 2 for size in patch))
    assert torch.equal(pooled_crop, crop_pooled)


def test_the_first_level_learns_only_from_the_standard_patch():
    network, (image, labels) = small(), example()
    losses = []

    def backward(loss: Tensor) -> None:
        losses.append(loss)
        if len(losses) == 2:
            loss.backward()

    two_patch_step(network.parts(), image=image, labels=labels, patch=PATCH, loss=F.cross_entropy, backward=backward)
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith(FIRST), name


def test_the_standard_patch_alone_gives_a_plain_step():
    network, (image, labels) = small(), example()
    plain = copy.deepcopy(network)
    first = iter([True, False])
    two_patch_step(
        network.parts(),
        image=image,
        labels=labels,
        patch=PATCH,
        loss=F.cross_entropy,
        backward=lambda loss: loss.backward() if next(first) else None,
    )
    F.cross_entropy(plain(central_crop(image, PATCH)), central_crop(labels, PATCH)).backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        if name.startswith("head2"):
            assert ours.grad is None
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=0)


def test_two_backward_passes_give_the_gradient_of_the_sum():
    network, (image, labels) = small(), example()
    together = copy.deepcopy(network)
    losses = two_patch_step(network.parts(), image=image, labels=labels, patch=PATCH, loss=F.cross_entropy)
    standard = F.cross_entropy(together(central_crop(image, PATCH)), central_crop(labels, PATCH))
    logits = together.deeper(together.first_level(image).detach())
    expanded = F.cross_entropy(logits, labels[:, ::2, ::2, ::2])
    (standard + expanded).backward()
    torch.testing.assert_close(torch.stack(losses), torch.stack([standard, expanded]).detach())
    for ours, theirs in zip(network.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def step_peak_bytes(patch: int, factor: float, *, batch: int, plain: bool) -> int:
    """Peak bytes of one training step of the paper's network, on abstract tensors."""
    with AbstractTensors() as tensors:
        network = MeUNet()
        standard = (patch,) * 3
        size = expanded_patch(standard, factor=factor)
        image, labels = torch.zeros(batch, 1, *size), torch.zeros(batch, *size, dtype=torch.long)
        if plain:
            F.cross_entropy(network(image), labels).backward()
        else:
            two_patch_step(network.parts(), image=image, labels=labels, patch=standard, loss=F.cross_entropy)
    return tensors.peak_bytes


@pytest.mark.parametrize(("factor", "limit"), [(1.25, 0.75), (1.5, 0.45), (1.75, 0.35)])
def test_a_step_needs_far_less_memory_than_a_plain_one_at_the_expanded_patch(factor, limit):
    ratio = step_peak_bytes(160, factor, batch=4, plain=False) / step_peak_bytes(160, factor, batch=4, plain=True)
    print(f"factor {factor}: {ratio:.3f} of a plain U-Net's peak (the paper's 13 GB / 30 GB = 0.43 at 1.5)")
    assert ratio < limit


def test_frozen_statistics_normalise_as_usual_and_stay_unchanged():
    unit = MeUnit(1, 4)
    x = torch.randn(1, 1, 4, 5, 6)
    before = copy.deepcopy(unit.state_dict())
    with frozen_statistics(unit):
        y = unit(x)
    assert all(torch.equal(value, before[key]) for key, value in unit.state_dict().items())
    assert torch.equal(y, unit(x))
    assert not torch.equal(unit[2].running_mean, before["2.running_mean"])


@pytest.mark.parametrize("size", [(5, 8, 6), (1, 3, 2), (10, 16, 12)])
def test_predictions_are_resized_by_nearest_neighbour_at_every_level(size):
    maps = [torch.randint(0, 3, (2, 10, 16, 12)) for _ in range(2)]
    predictions = one_hot_predictions(maps, classes=3)
    assert predictions.shape == (2, 6, 10, 16, 12) and (predictions.sum(dim=1) == 2).all()
    assert one_hot_predictions(maps, classes=3, background=False).shape[1] == 4
    features = torch.randn(2, 7, *size)
    joined = concatenate_predictions(features, predictions)
    assert joined.shape == (2, 13, *size) and torch.equal(joined[:, :7], features)
    assert torch.equal(joined[:, 7:10].argmax(dim=1), shrink_labels(maps[0], size))


def test_invalid_options_are_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"factor 0\.5 is below 1"):
        expansion_margins((8, 8, 8), factor=0.5)
    with pytest.raises(ValueError, match=r"3 sizes of at least 1, got \(8, 0, 8\)"):
        expansion_margins((8, 0, 8), factor=1.5)
    with pytest.raises(ValueError, match=r"patch of \(4, 5, 4\) has no middle place in \(8, 8, 8\)"):
        central_crop(torch.zeros(8, 8, 8), (4, 5, 4))
    with pytest.raises(ValueError, match="holds the label 3, but there are 3 classes"):
        one_hot_predictions([torch.full((1, 2, 2, 2), 3)], classes=3)
    with pytest.raises(ValueError, match="at least 1 channel on each side, got 0 -> 4"):
        MeUnit(0, 4)
