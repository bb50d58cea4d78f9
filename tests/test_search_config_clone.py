"""`voxnas clone`: a study file with other values, its comments kept."""

import pytest
from conftest import STUDY

from search.cli.clone import clone_study
from search.config import UserError, load_study
from search.config.clone import clone_text


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text("# What is asked\n" + STUDY.replace("executor:", "# Where\nexecutor:"))
    return file


def clone(file, new, *overrides, force=False):
    clone_study(str(file), new, overrides, runs=file.parent / "runs", force=force)
    return load_study(new, need_data=False).study


def test_the_clone_has_a_new_name_the_changed_keys_and_the_old_comments(file, tmp_path, capsys):
    made = clone(file, tmp_path / "longer.yaml", "training.epochs=50", "space.choices.width=[8]", "search.hours=2")
    before = load_study(file, need_data=False).study
    assert (made.name, made.training.epochs, made.search.hours) == ("longer", 50, 2.0)
    assert made.objectives == before.objectives and made.training.patch == before.training.patch
    text = (tmp_path / "longer.yaml").read_text()
    assert text.startswith("# Clone of tiny.yaml with training.epochs=50, space.choices.width=[8], search.hours=2\n")
    assert "# What is asked\n" in text and "# Where\nexecutor:" in text
    next_command = f"voxnas check {tmp_path / 'longer.yaml'}"
    assert f"{next_command} --data FOLDER    # FOLDER contains phantom\n" in capsys.readouterr().out
    (tmp_path / "phantom").mkdir()
    clone(file, tmp_path / "longer.yaml", force=True)
    assert capsys.readouterr().out.endswith(f"{next_command}\n")


def test_a_clone_without_changes_differs_in_its_name_alone(file, tmp_path):
    lines = clone_text(file, (), new=tmp_path / "same.yaml").splitlines()
    before = load_study(file, need_data=False).study
    (tmp_path / "same.yaml").write_text("\n".join(lines))
    after = load_study(tmp_path / "same.yaml", need_data=False).study
    assert (after.name, after.space, after.training) == ("same", before.space, before.training)


def test_a_wrong_key_is_reported_in_the_new_file_and_nothing_is_written(file, tmp_path):
    with pytest.raises(UserError, match=r"new.yaml:\d+:\d+: training.epoch: .*did you mean 'epochs'"):
        clone(file, tmp_path / "new.yaml", "training.epoch=3")
    with pytest.raises(UserError, match="--set training.epochs: expected the form key.path=value"):
        clone(file, tmp_path / "new.yaml", "training.epochs")
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_an_existing_file_is_overwritten_only_by_force(file, tmp_path):
    (tmp_path / "new.yaml").write_text("mine")
    with pytest.raises(UserError, match="new.yaml exists already; choose another file, or overwrite it with --force"):
        clone(file, tmp_path / "new.yaml")
    assert clone(file, tmp_path / "new.yaml", force=True).name == "new"


def test_relative_paths_are_moved_with_the_file(file, tmp_path):
    (tmp_path / "phantom").mkdir()
    (tmp_path / "below").mkdir()
    assert clone(file, tmp_path / "below" / "new.yaml").data.path == "../phantom"
    assert clone(file, tmp_path / "new.yaml").data.path == "phantom"


@pytest.mark.parametrize(
    ("written", "moved"),
    [("table.parquet", ("../table.parquet",)), ("[earlier, table.parquet]", ("earlier", "../table.parquet"))],
)
def test_tables_that_a_study_learns_from_are_moved_with_the_file(file, tmp_path, written, moved):
    (tmp_path / "table.parquet").touch()
    (tmp_path / "below").mkdir()
    assert clone(file, tmp_path / "below" / "new.yaml", f"search.learn_from={written}").search.learn_from == moved


def test_a_run_is_cloned_by_its_name(file, tmp_path):
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    file.rename(tmp_path / "runs" / "tiny" / "study.yaml")
    clone_study("tiny", tmp_path / "new.yaml", (), runs=tmp_path / "runs", force=False)
    assert load_study(tmp_path / "new.yaml", need_data=False).study.name == "new"
    with pytest.raises(UserError, match="'tinny' is neither a study file nor the name of a study in "):
        clone_study("tinny", tmp_path / "other.yaml", (), runs=tmp_path / "runs", force=False)


def test_a_line_break_in_a_name_or_an_override_ends_no_comment(file, tmp_path):
    odd = file.rename(tmp_path / "a\nkeep: all \x1b.yaml")
    made = clone(odd, tmp_path / "new.yaml", "search.trials=\n  7")
    assert made.search.trials == 7 and made.keep == "front"
    first = (tmp_path / "new.yaml").read_text().splitlines()[0]
    assert first.startswith(r"# Clone of a\nkeep: all \x1b.yaml with")
