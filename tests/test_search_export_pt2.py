"""Networks as `.pt2`: the sizes that they accept, and equal results."""

from __future__ import annotations

from io import BytesIO
from random import Random

import pytest
import torch
from torch import nn

from search.config import UserError
from search.export.pt2 import difference, write_pt2
from space.build import build
from space.canonical import Context
from space.narrow import narrow

SIMPLE = {
    "stages": "single",
    "stem_stride": 1,
    "encoder": "plain",
    "levels": 3,
    "width": 4,
    "repeats": 1,
    "attention": "none",
    "norm": "instance",
    "activation": "relu",
    "dropout": 0.0,
    "downsampling": "strided",
    "skip": "add",
    "deep_supervision": False,
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(patch, path, **fix):
    context = Context(patch, (8.0, 1.5, 1.5), 2, 3)
    space = narrow(context, placement="tied", fix={**SIMPLE, **fix}, choices={})
    architecture = space.architecture(space.sample(Random(0)))
    torch.manual_seed(0)
    network = build(architecture, context).eval()
    pt2 = write_pt2(network, path, in_channels=2, patch=patch, strides=architecture["pooling"])
    return pt2, network


@pytest.mark.parametrize(
    ("patch", "fix"),
    [
        ((3, 17, 21), {"upsampling": "nearest", "norm": "slice", "encoder": "residual"}),
        ((3, 16, 20), {"upsampling": "transposed", "skip": "concat", "downsampling": "max"}),
        ((1, 15, 22), {"upsampling": "transposed", "norm": "layer", "skip": "concat"}),
        ((2, 16, 20), {"upsampling": "linear", "norm": "group", "attention@skips": "isa", "isa.shared": True}),
    ],
)
def test_a_written_network_accepts_any_batch_and_volume_size(tmp_path, patch, fix):
    pt2, network = written(patch, tmp_path / "model.pt2", **fix)
    assert pt2.sizes == "any" and pt2.max_difference < 1e-4
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for shape in ((1, 2, *patch), (3, 2, *patch), (1, 2, 5, 29, 18), (2, 2, 1, 12, 13), (1, 2, 2, 31, 33)):
        assert difference(loaded, network, shape) < 1e-4
    assert (tmp_path / "model.pt2").stat().st_size < 1 << 20  # no example volume inside


class PerVoxel(nn.Module):
    """Has a weight for each voxel of its patch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 11, 9))

    def forward(self, x):
        return x * self.weight


class Branch(nn.Module):
    """Branches on the size, which a trace doesn't record."""

    def forward(self, x):
        return x * 2 if x.shape[3] > 8 else x


@pytest.mark.parametrize("network", [PerVoxel(), Branch()])
def test_a_network_that_depends_on_the_size_accepts_only_its_patch_size(tmp_path, network):
    path = tmp_path / "model.pt2"
    pt2 = write_pt2(network.eval(), path, in_channels=1, patch=(3, 11, 9), strides=((1, 2, 2),))
    assert pt2.sizes == "patch" and "the training patch size 3 x 11 x 9 only" in pt2.note
    loaded = torch.export.load(path).module()
    assert difference(loaded, network, (3, 1, 3, 11, 9)) == 0
    with pytest.raises(Exception, match="11"):
        loaded(torch.zeros(1, 1, 3, 7, 9))


class Unwritable(nn.Module):
    def forward(self, x):
        return x * float(x.sum())


def test_a_network_that_torch_cannot_export_is_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="torch.export can't write this network: "):
        write_pt2(Unwritable(), tmp_path / "m.pt2", in_channels=1, patch=(2, 3, 4), strides=((1, 2, 2),))
    assert list(tmp_path.iterdir()) == []


def test_torch_never_writes_to_the_disk_itself_as_a_full_one_would_end_the_process(tmp_path, monkeypatch):
    save, targets = torch.export.save, []
    monkeypatch.setattr(torch.export, "save", lambda program, to: targets.append(to) or save(program, to))
    network = torch.nn.Conv3d(1, 2, 1).eval()
    write_pt2(network, tmp_path / "m.pt2", in_channels=1, patch=(2, 3, 4), strides=((1, 2, 2),))
    assert [type(target) for target in targets] == [BytesIO] and (tmp_path / "m.pt2").is_file()
