"""The resources that a trial requests, computed without a cluster."""

import pytest

from search.config import UserError
from search.runner.cluster.resources import (
    GIB,
    SHARES,
    Need,
    Node,
    default_threads,
    has_room,
    request,
    require_threads,
)

CPU = Node(8, 32 * GIB)
SMALL, LARGE = Node(16, 64 * GIB, 2, "T4", 16 * GIB), Node(16, 64 * GIB, 1, "A100", 80 * GIB)


def need(gib, *, gpu=True, threads=1, alone=False):
    return Need(gib * GIB, threads, gpu, alone)


@pytest.mark.parametrize(("gib", "share"), [(0.1, 0.125), (1.0, 0.125), (2.0, 0.25), (6.0, 0.5), (8.0, 1.0), (13, 1.0)])
def test_a_share_covers_the_prediction_with_its_margin_and_is_one_of_four_sizes(gib, share):
    asked = request(need(gib), [SMALL], [])
    assert asked["GPU"] == share and share in SHARES
    assert share * SMALL.gpu_bytes >= 1.2 * gib * GIB or share == 1.0
    assert not any(name.startswith("accelerator_type") for name in asked)  # equal GPUs


def test_on_different_gpus_the_request_names_those_that_fit():
    assert "accelerator_type:A100" in request(need(40), [SMALL, LARGE], [])
    first = request(need(1), [SMALL, LARGE], [])
    assert first == {"CPU": 1.0, "GPU": 0.125, "memory": 2.0 * GIB, "accelerator_type:T4": 0.001}
    busy = [{"CPU": 1.0, "GPU": 1.0, "accelerator_type:T4": 0.001}] * 2
    assert request(need(1), [SMALL, LARGE], busy)["accelerator_type:A100"] == 0.001  # the larger one is free


def test_after_out_of_memory_a_trial_gets_a_whole_device():
    assert request(need(1, alone=True), [SMALL], [])["GPU"] == 1.0
    assert request(need(1, gpu=False, alone=True), [CPU], [])["memory"] == CPU.memory_bytes
    assert request(need(500), [SMALL, LARGE], [])["GPU"] == 1.0  # it can only be tried


def test_machine_memory_is_requested_in_few_sizes_too():
    sizes = [request(need(gib, gpu=False), [CPU], [])["memory"] / GIB for gib in (0.01, 0.5, 1.1, 2.4, 5.0)]
    assert sizes == [2, 2, 4, 4, 8]


def test_a_request_that_no_machine_can_meet_is_reported_at_once():
    with pytest.raises(UserError, match="a trial needs 99 CPU, .* more than any machine of the cluster has"):
        request(need(1, gpu=False, threads=99), [CPU, SMALL], [])
    with pytest.raises(UserError, match="a trial needs 1 CPU, 1 GPU, .*largest: 8 CPU, 32.0 GiB memory, 0 GPU"):
        request(need(1), [CPU], [])
    assert request(need(1), [CPU], [], grows=True)["GPU"] == 1.0  # an autoscaler brings one


def test_a_trial_fits_until_one_resource_is_exhausted():
    assert has_room([CPU], [], threads=8, gpu=False)
    assert not has_room([CPU], [{"CPU": 1.0, "memory": 2 * GIB}], threads=8, gpu=False)
    assert has_room([SMALL], [{"CPU": 1.0, "memory": 2 * GIB, "GPU": 0.5}] * 3, threads=1, gpu=True)
    assert not has_room([SMALL], [{"CPU": 1.0, "memory": 2 * GIB, "GPU": 0.5}] * 4, threads=1, gpu=True)
    assert not has_room([], [], threads=1, gpu=False)


def test_more_threads_than_any_machine_has_are_refused_before_anything_is_prepared(caplog):
    nodes = [Node(4, 16 * GIB), Node(8, 16 * GIB)]
    require_threads(8, nodes, grows=False)
    require_threads(None, nodes, grows=False)
    with pytest.raises(UserError, match=r"executor.threads: 9 is more than any machine of the cluster has \(8 CPU\)"):
        require_threads(9, nodes, grows=False)
    require_threads(9, nodes, grows=True)
    assert "trials wait until a larger machine joins" in caplog.text


def test_default_threads_are_the_machines_or_an_eighth_per_gpu():
    assert default_threads([CPU, Node(4, GIB)], gpu=False) == 4
    assert default_threads([SMALL, LARGE, CPU], gpu=True) == 1
    assert default_threads([Node(64, GIB, 2)], gpu=True) == 4
