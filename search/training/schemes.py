"""Training schemes: single, two-patch (meU-net) and cascade, each as a list of phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from blocks.meunet import TwoPatchNetwork, expanded_patch, two_patch_step
from search.config.training_section import Training
from search.data.labelling import Labelling
from search.training.step import SupervisedLoss, autocast, make_loss, make_scaler
from space.build import Network
from space.cascade import Cascade
from space.place import down_place
from space.pooling import Triple
from space.unet import UNet

AddGradients = Callable[[Tensor, Tensor], Tensor]  # (images, labels) to the loss; accumulates the gradients


@dataclass(frozen=True)
class Phase:
    """The training of one network: a single network has one phase, a cascade has one per network.

    `trained` holds the weights that change, `predicts` is the network that validation runs during the phase, and
    `patch` (D, H, W) is the size of the patches that a step takes. `scaler` scales the loss in float16.
    """

    trained: UNet
    predicts: Network
    patch: Triple
    add_gradients: AddGradients
    scaler: GradScaler


def make_phases(
    network: Network, *, patch: Triple, training: Training, labelling: Labelling | None = None
) -> tuple[Phase, ...]:
    """Return a network's phases in training order; the labelling gives the loss its regions and ignored index."""
    loss = make_loss(training, labelling)
    if isinstance(network, Cascade):
        *firsts, second = network.networks().values()
        scaler = make_scaler(next(network.parameters()).device, training)
        last = Phase(second, network, patch, _supervised(network, training, loss, scaler), scaler)
        return (*(_phase(first, patch=patch, training=training, loss=loss) for first in firsts), last)
    return (_phase(network, patch=patch, training=training, loss=loss),)


def phase_at(epoch: int, *, epochs: int, phases: int) -> tuple[int, int, int]:
    """Return (phase, its first epoch, the epoch after its last) for an epoch counted from 0.

    A cascade's networks divide the study's epochs evenly, so every trial of a study trains equally long.
    """
    ends = [epochs * (number + 1) // phases for number in range(phases)]
    phase = next(number for number, end in enumerate(ends) if epoch < end)
    return phase, ends[phase - 1] if phase else 0, ends[phase]


def training_step(phase: Phase, optimiser: Optimizer, *, images: Tensor, labels: Tensor, training: Training) -> Tensor:
    """Run one optimiser step on images (B, C, D, H, W) and labels (B, 1, D, H, W); return the loss."""
    optimiser.zero_grad(set_to_none=True)
    loss = phase.add_gradients(images, labels)
    phase.scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(phase.trained.parameters(), training.clip_gradient)
    phase.scaler.step(optimiser)  # skipped if a scaled gradient overflowed
    phase.scaler.update()
    return loss


def _phase(network: UNet, *, patch: Triple, training: Training, loss: SupervisedLoss) -> Phase:
    factor, scaler = network.expansion, make_scaler(next(network.parameters()).device, training)
    if factor is None:
        return Phase(network, network, patch, _supervised(network, training, loss, scaler), scaler)
    large = _triple(expanded_patch(patch, factor=factor))
    return Phase(network, network, large, _two_patches(network, patch, training, loss, scaler), scaler)


def _supervised(network: Network, training: Training, loss_of: SupervisedLoss, scaler: GradScaler) -> AddGradients:
    """Return the usual step, of a network that is compiled if the training says so."""
    supervised = torch.compile(network.supervised, dynamic=False) if training.compiles else network.supervised

    def add(images: Tensor, labels: Tensor) -> Tensor:
        with autocast(images.device, training):
            outputs = supervised(images)
        value: Tensor = loss_of(outputs, labels)
        _backward(value, scaler)
        return value.detach()

    return add


def _backward(loss: Tensor, scaler: GradScaler) -> None:
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]


def _two_patches(
    network: UNet, patch: Triple, training: Training, loss_of: SupervisedLoss, scaler: GradScaler
) -> AddGradients:
    """Return meU-net's step (`blocks.meunet.two_patch_step`), never compiled; its loss is the mean over the patches."""
    parts = two_patch_network(network)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = loss_of([logits], labels[:, None])
        return value

    def add(images: Tensor, labels: Tensor) -> Tensor:
        with autocast(images.device, training):
            standard, expanded = two_patch_step(
                parts,
                image=images,
                labels=labels[:, 0],
                patch=patch,
                loss=loss,
                backward=partial(_backward, scaler=scaler),
            )
        mean: Tensor = (standard + expanded) / 2
        return mean

    return add


def _triple(sizes: Sequence[int]) -> Triple:
    depth, height, width = sizes
    return depth, height, width


def two_patch_network(network: UNet) -> TwoPatchNetwork:
    """Return the parts of a `two-patch` network that `blocks.meunet.two_patch_step` needs. Raises ValueError."""
    if network.expansion is None:
        raise ValueError("two-patch training needs a network built with stages: two-patch")
    level = network.down[1]
    pool, unit = level.get_submodule("0"), level.get_submodule("1")

    def first_level(image: Tensor) -> Tensor:
        features: Tensor = pool(network.attend(down_place(0, network.levels), network.down[0](image)))
        return features  # (B, C, D/2, H/2, W/2)

    def deeper(features: Tensor) -> Tensor:
        x = network.attend(down_place(1, network.levels), unit(features))
        logits: Tensor = network.heads[1](network.decode([x, *network.encode(x, first=2)], first=1)[0])
        return logits

    return TwoPatchNetwork(whole=network, first_level=first_level, deeper=deeper)
