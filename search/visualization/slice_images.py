"""Images of a case's slice with outlines of truth and prediction, never stored."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from search.config.training_section import Training
from search.data.geometry import labels_of
from search.data.prepared import load_prepared, open_case
from search.training.checkpoint import load_weights
from search.training.validation import window_logits, without_ignored
from search.trials.job import Job, Task
from search.trials.records import Record
from space.build import build
from space.canonical import Context

TRUTH, PREDICTION, BOTH = (230, 159, 0), (86, 180, 233), (255, 255, 255)
PIXELS = 360  # minimum length of the longer side


def render_slices(
    record: Record, cases: tuple[str, ...], *, prepared: str, folder: str, context: Context, training: Training
) -> dict[str, bytes]:
    """Return PNG images by case: the slice with the largest foreground, first channel, on the network's grid."""
    torch.set_num_threads(1)
    network = build(record.architecture, context).eval()
    load_weights(Path(folder), network, sha256=record.measurement.weights_sha256)
    source = load_prepared(prepared)
    task = Task(prepared, context.in_channels, source.labels, context.spacing, (), cases)
    job = Job(record.architecture, task, training, (), record.seed, record.fold, "cpu", 1, folder)
    found = {}
    for case in cases:
        image, truth = open_case(source, case)
        batch = torch.from_numpy(np.array(image, dtype=np.float32))[None]
        mask = labels_of(window_logits(network, batch, job=job)[0].numpy(), source.order)
        mask, truth = without_ignored(mask, truth, source.labelling)
        depth = int((truth > 0).sum(axis=(1, 2)).argmax()) if (truth > 0).any() else truth.shape[0] // 2
        found[case] = png(np.asarray(image[0, depth]), np.asarray(truth[depth]), mask[depth])
    return found


def png(image: NDArray[np.float32], truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bytes:
    """Draw both outlines over a slice (H, W), enlarged; white where they coincide."""
    scale = max(1, -(-PIXELS // max(image.shape)))
    low, high = np.percentile(image, [1, 99])
    grey = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1) * 255
    drawn = np.repeat(_enlarged(grey.astype(np.uint8), scale)[..., None], 3, axis=2)
    ours, theirs = outline(_enlarged(mask, scale)), outline(_enlarged(truth, scale))
    drawn[theirs], drawn[ours], drawn[ours & theirs] = TRUTH, PREDICTION, BOTH
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, format="PNG")
    return file.getvalue()


def _enlarged(values: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return values.repeat(scale, axis=0).repeat(scale, axis=1)


def outline(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return a mask (H, W) of the pixels with a neighbour of a different label."""
    found = np.zeros(labels.shape, dtype=bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found & (labels > 0)
