"""Checkpoints on their way between a worker and the study's storage path."""

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
