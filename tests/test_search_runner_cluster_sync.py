"""Checkpoints on their way between a worker and the study's storage path."""

from types import SimpleNamespace

import pytest

from search.runner.cluster import checkpoint_sync
from search.runner.cluster.checkpoint_sync import CheckpointSync


def test_a_finished_trial_leaves_its_weights_and_no_checkpoint_in_the_storage(tmp_path):
    remote, folder = tmp_path / "storage/tiny/trials/000000", tmp_path / "runs/tiny/trials/000000"
    remote.mkdir(parents=True)
    for name in ("last.pt", "best.safetensors"):
        (remote / name).write_bytes(b"x")
    sync = CheckpointSync(str(tmp_path / "storage"))
    sync.pull_results(folder)
    sync.delete_checkpoints(folder)
    sync.delete_checkpoints(folder)  # a second time changes nothing
    assert [path.name for path in remote.iterdir()] == ["best.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == ["best.safetensors", "last.pt"]


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_prepared_volumes_in_the_storage_are_as_private_as_on_the_drivers_machine(tmp_path, mode):
    prepared = tmp_path / "runs/cache/abc"
    prepared.mkdir(parents=True)
    prepared.chmod(mode)
    (prepared / "prepared.json").write_text("{}")
    CheckpointSync(str(tmp_path / "storage")).push_dataset(prepared)
    assert (tmp_path / "storage/cache/abc").stat().st_mode & 0o777 == mode


def test_a_worker_does_not_follow_a_link_in_place_of_its_own_folder(tmp_path, monkeypatch):
    (tmp_path / "victim").mkdir()
    (tmp_path / "scratch").symlink_to(tmp_path / "victim")
    monkeypatch.setattr(checkpoint_sync, "SCRATCH", tmp_path / "scratch")
    with pytest.raises(PermissionError, match="not a folder of this user and can't be trusted"):
        CheckpointSync(str(tmp_path / "storage")).pull_job(SimpleNamespace(folder="runs/tiny/trials/000000"))
    assert not [*(tmp_path / "victim").iterdir()]
