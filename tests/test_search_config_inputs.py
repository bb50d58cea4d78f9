"""What people write into a study by mistake: each gets its own sentence at its own place, and never a traceback."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config import UserError, load_study
from search.config.units import parse_bytes, parse_count, parse_seconds

GOOD = """\
data: {path: volumes}
space: {choices: {width: [2, 4]}}
objectives: {dice: maximize, memory: {budget: 2 GiB}, latency: minimize}
training: {epochs: 2}
search: {trials: 3}
"""
SIZE_UNITS = r"\(units: B, KiB, MiB, GiB, TiB, PiB, KB, MB, GB, TB, PB\)"
TIME_UNITS = r"\(units: s, ms, us, min, h\)"
OVERRIDES = [  # key=value, the sentence
    # quantities
    ("objectives.latency={budget: 50}", rf"objectives.latency.budget: 50 has no unit; .* 20 ms {TIME_UNITS}"),
    ("objectives.latency={budget: 0.05}", "0.05 has no unit"),
    ("objectives.latency={budget: '50'}", "'50' has no unit"),
    ("objectives.latency={budget: 0 ms}", "'0 ms' is not a finite duration above 0"),
    ("objectives.latency={budget: -5 ms}", "'-5 ms' is not a duration; use a form such as 20 ms"),
    ("objectives.latency={budget: '1,5 ms'}", "'1,5 ms' is not a duration; use"),
    ("objectives.latency={budget: 1 s 500 ms}", "'1 s 500 ms' is not a duration; use"),
    ("objectives.latency={budget: 5 GiB}", "'5 GiB' is not a duration: there is no unit 'GiB'"),
    ("objectives.latency={budget: .inf}", "inf is not a duration; use"),
    ("objectives.latency={budget: .nan}", "nan is not a duration; use"),
    ("objectives.latency={budget: 1e999 s}", "'1e999 s' is not a finite duration above 0"),
    ("objectives.latency={budget: yes please}", "'yes please' is not a duration"),
    ("objectives.latency={budget: true}", "True is not a duration"),
    ("objectives.latency={budget: [20 ms]}", r"\['20 ms'\] is not a duration"),
    ("objectives.memory={budget: 0}", "0 has no unit"),
    ("objectives.memory={budget: 0 B}", "'0 B' is not a finite size above 0"),
    (
        "objectives.memory={budget: 8}",
        rf"objectives.memory.budget: 8 has no unit; use a form such as 8 GiB {SIZE_UNITS}",
    ),
    ("objectives.memory={budget: '4,5 GiB'}", "'4,5 GiB' is not a size; use a form such as 8 GiB"),
    ("objectives.memory={budget: 4.5.6 GiB}", "'4.5.6 GiB' is not a size"),
    ("objectives.memory={budget: -1 GiB}", "'-1 GiB' is not a size"),
    ("objectives.memory={budget: 8 GiBB}", "'8 GiBB' is not a size: there is no unit 'GiBB'"),
    ("objectives.memory={budget: 8 ms}", "'8 ms' is not a size: there is no unit 'ms'"),
    ("objectives.memory={budget: GiB}", "'GiB' is not a size"),
    ("objectives.memory={budget: 0x10 GiB}", "'0x10 GiB' is not a size"),
    ("objectives.memory={budget: 1e999 GiB}", "'1e999 GiB' is not a finite size above 0"),
    ("objectives.params={budget: 0}", "0 is not a finite quantity above 0; use a form such as 2.5 M"),
    ("objectives.memory={budget: 1e300 GiB}", "'1e300 GiB' is not a finite size above 0; use a form such as 8 GiB"),
    ("training.epochs=9999999999", "training.epochs: 9999999999 is more than 1,000,000,000"),
    ("search.trials=1000000001", "search.trials: 1000000001 is more than 1,000,000,000"),
    ("training.weight_decay=.inf", "training.weight_decay: input should be a finite number, got inf"),
    ("objectives.params={budget: -1 M}", "'-1 M' is not a quantity"),
    ("objectives.params={budget: '2,5 M'}", "'2,5 M' is not a quantity"),
    ("objectives.params={budget: 2 GiB}", "'2 GiB' is not a quantity: there is no unit 'GiB'"),
    ("training.deadline=3600", "training.deadline: 3600 has no unit"),
    ("training.deadline=0 h", "'0 h' is not a finite duration above 0"),
    ("training.deadline='1:30:00'", "'1:30:00' is not a duration"),
    # choices
    ("space.choices.width=[4, 4]", "space.choices.width: 4 is listed twice"),
    ("space.choices.width=[2, 4, 8, 4]", "4 is listed twice"),
    ("space.choices.width=[]", "space.choices.width: the list of choices is empty"),
    ("space.choices.norm=[batch, batch]", "'batch' is listed twice"),
    ("space.choices.attention@skips=[isa, none, isa]", "'isa' is listed twice"),
    ("space.choices.width=4", "space.choices.width"),
    ("space.choices.widht=[4, 8]", "did you mean 'width'"),
    ("space.choices.width=[0]", "width"),
    ("space.choices.width=[-4]", "width"),
    ("space.choices.width=[4.5]", "width"),
    ("space.choices.width=[wide]", "width"),
    ("space.choices.width=[null]", "width"),
    ("space.choices.levels=[1000]", "levels"),
    ("space.fix={width: [4, 8]}", "width"),
    ("space.base=nothing", "space.base: 'nothing' is not known"),
    # numbers
    ("search.seed=-1", r"search.seed: .*got -1"),
    (
        "search.seed=4294967295",
        r"search: .*may need the seed 429496729\d, but .* choose a seed of at most 42949672\d\d",
    ),
    ("search.seed=4294967296", r"search.seed: .*4294967296"),
    ("search.seed=1.5", r"search.seed"),
    ("search.seed=one", r"search.seed"),
    ("data.seed=1000000000000000000000", r"data.seed"),
    ("search.trials=0", r"search.trials"),
    ("search.trials=-3", r"search.trials"),
    ("search.trials=2.5", r"search.trials"),
    ("search.trials=true", r"search.trials"),
    ("search.trials=many", r"search.trials"),
    ("training.epochs=0", r"training.epochs"),
    ("training.batch=0", r"training.batch"),
    ("training.batch=two", r"training.batch"),
    ("training.learning_rate=0", r"training.learning_rate"),
    ("training.learning_rate=.inf", r"training.learning_rate"),
    ("training.learning_rate='1e-3 '", r"training.learning_rate"),
    ("training.patch=[8, 16]", r"training.patch: .*3 values, got 2"),
    ("training.patch=[8, 16, 16, 16]", r"training.patch"),
    ("training.patch=[8, 0, 16]", r"training.patch"),
    ("training.patch=[8, 16.5, 16]", r"training.patch"),
    ("training.patch=large", r"training.patch: 'large'"),
    ("training.patch=64", r"training.patch"),
    ("training.overlap=1", r"training.overlap"),
    ("training.overlap=-0.1", r"training.overlap"),
    ("training.optimiser=adam", r"training.optimiser: 'adam' is not known; did you mean 'adamw'"),
    ("training.mirror=[X]", r"training.mirror"),
    ("data.spacing=[1, 1]", r"data.spacing"),
    ("data.spacing=[1, 1, 0]", r"data.spacing"),
    ("data.spacing=[1, 1, -1]", r"data.spacing"),
    ("data.spacing=[1, 1, .nan]", r"data.spacing"),
    ("data.spacing=mean", r"data.spacing: 'mean'"),
    ("data.folds=1", r"data.folds"),
    ("data.folds=1000", r"data.folds"),
    ("data.fold=-1", r"data.fold"),
    ("data.share=0", r"data.share"),
    ("data.share=1.5", r"data.share"),
    ("data.normalisation=zcore", r"data.normalisation: 'zcore' is not known; did you mean 'zscore'"),
    ("data.normalisation=[]", r"data.normalisation"),
    ("data.affine_tolerance=0", r"data.affine_tolerance"),
    ("data.affine_tolerance=11", r"data.affine_tolerance"),
    ("data.path=", r"data.path"),
    ("data.path=[a]", r"data.path"),
    ("data.path=nowhere", r"data.path: no such folder: .*nowhere"),
    (f"data.path={'long/' * 2000}", r"data.path: no such folder"),
    (f"data.path={'x' * 5000}", r"data.path: no such folder"),
    ('data.path="nul\\0byte"', r"data.path: no such folder"),
    # sections and names
    ("name=../outside", r"name: '../outside' is not valid: use at most 64 letters"),
    ("name=cache", r"name: 'cache' is reserved"),
    (f"name={'n' * 65}", r"name: .* is not valid: use at most 64"),
    ("name=''", r"name: '' is not valid"),
    ("name=a b", r"name: 'a b' is not valid"),
    ("objectives.dice=minimize", r"Dice can't be minimized .*higher values are always better"),
    ("objectives.memory=maximize", r"can't be maximized .*lower values are always better"),
    ("objectives.dise=maximize", r"objectives.dise: unknown key; did you mean 'dice'"),
    ("objectives=dice", r"objectives: 'dice' must be a mapping"),
    ("search.proposer=randon", r"search.proposer: 'randon' is not known; did you mean 'random'"),
    ("executor.device=gpu", r"executor.device: 'gpu' is not valid: use auto, cpu, cuda or cuda:N"),
    ("executor.device=cuda:x", r"executor.device"),
    ("executor.threads=0", r"executor.threads"),
    ("executor.processes=0", r"executor.processes"),
    ("trainning.epochs=3", r"trainning: unknown key; did you mean 'training'"),
    ("training=fast", r"training: 'fast' must be a mapping"),
    ("search=", r"search"),
    ("=3", r"--set =3: expected the form key.path=value"),
    ("training.epochs", r"expected the form key.path=value"),
    ("training..epochs=3", r"expected the form key.path=value"),
    ("name.x=3", r"name: input should be a valid string, got {'x': 3}"),
]
DEEP = "[" * 3000 + "]" * 3000
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
FILES = [  # the text of a file, the sentence
    ("", r"the key 'data' is missing"),
    ("# nothing\n", r"the key 'data' is missing"),
    ("just words\n", r":1:1: the file must be a mapping of keys to values"),
    ("[1, 2]\n", r":1:1: the file must be a mapping"),
    (f"data: {DEEP}\n", r"invalid YAML: it is nested too deeply"),
    ("{" * 3000, r"invalid YAML"),
    (LAUGHS, r"aliases repeat more than 100,000 values"),
    ("data: &loop {path: *loop}\n", r":1:\d+: invalid YAML: an alias refers to what contains it"),
    ("data: &loop\n  - *loop\n", r":\d:\d+: invalid YAML: an alias refers to what contains it"),
    (GOOD + "name: !!int abc\n", r":6:7: name: 'abc' can't be read as int"),
    (GOOD + "name: !!float x\n", r":6:7: name: 'x' can't be read as float"),
    (GOOD + "name: !mine x\n", r":6:7: name: the tag !mine has no meaning here; remove it"),
    (GOOD + "name: !!binary dGlueQ==\n", r":6:7: name: the tag !!binary has no meaning here"),
    (GOOD + "name: !!python/object/apply:os.system [ls]\n", r"name: the tag !!python/object/apply:os.system has no"),
    (GOOD + "name: !!bool maybe\n", r":6:7: name: 'maybe' can't be read as bool"),
    (GOOD.replace("epochs: 2", "epochs: " + "9" * 5000), r"training.epochs: '9{57}...' can't be read as int"),
    (GOOD + "training: {epochs: 3}\n", r":6:1: training: duplicate key; first defined on line 4"),
    (GOOD + "name: *missing\n", r":6:7: invalid YAML: found undefined alias"),
    (GOOD + "\tname: x\n", r":6:1: invalid YAML"),
    (GOOD + "name: 'open\n", r"invalid YAML"),
    (GOOD + "name: x: y\n", r"invalid YAML"),
    (GOOD + "--- \nname: x\n", r"invalid YAML"),
    (GOOD + "<<: {name: x}\n", r"<<: unknown key"),
    (GOOD + "? {a: b}\n: c\n", r":6:3: a list or a mapping can't be a key; quote the key if it is text"),
    (GOOD + "[1, 2]: c\n", r":6:1: a list or a mapping can't be a key"),
    (GOOD + "name: a\0b\n", r":6:8: invalid YAML: the character U\+0000 is not allowed$"),
    ("name: \x1b[31mred\n", r":1:7: invalid YAML: the character U\+001B is not allowed$"),
    (GOOD + "scale: small\n", r"scale: 'small' is not a scale of this file"),
    (
        GOOD.replace("{dice: maximize, memory: {budget: 2 GiB}, latency: minimize}", "{dice: record}"),
        "no objective",
    ),
    (GOOD + "blocks: [my.dotted.path]\n", r"blocks"),
    (GOOD + "blocks: [./absent.py]\n", r"blocks"),
]


def study_file(folder, text):
    (folder / "volumes").mkdir()
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_study_without_mistakes_loads(tmp_path):
    assert load_study(study_file(tmp_path, GOOD)).study.search.trials == 3


@pytest.mark.parametrize(("override", "sentence"), OVERRIDES, ids=[override[:40] for override, _ in OVERRIDES])
def test_each_value_that_cannot_be_has_its_sentence(override, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence) as caught:
        load_study(study_file(tmp_path, GOOD), overrides=[override])
    assert all(len(line) < 600 or len(override) > 1000 for line in str(caught.value).splitlines())


@pytest.mark.parametrize(("text", "sentence"), FILES, ids=range(len(FILES)))
def test_each_file_that_is_no_study_has_its_sentence(text, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        load_study(study_file(tmp_path, text))


def test_a_file_without_end_is_no_study(tmp_path, monkeypatch):
    monkeypatch.setattr("search.config.yaml_source.MOST_CHARACTERS", 1000)
    with pytest.raises(UserError, match="/dev/zero: is no study file: it has more than 1,000 characters"):
        load_study(Path("/dev/zero"))


def test_files_that_cannot_be_read_have_their_sentence(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: M\xfcller\n")
    (tmp_path / "zero.yaml").write_bytes(b"\0\0\0\0")
    for name, sentence in [
        ("latin.yaml", "isn't UTF-8 text: invalid byte at offset 7"),
        ("zero.yaml", "invalid YAML"),
        ("absent.yaml", "can't be read: No such file or directory"),
        (".", "can't be read: Is a directory"),
        ("x" * 300, "can't be read: File name too long"),
    ]:
        with pytest.raises(UserError, match=sentence):
            load_study(tmp_path / name)


@pytest.mark.parametrize("parse", [parse_bytes, parse_seconds, parse_count])
@given(text=st.one_of(st.text(max_size=12), st.from_regex(r"[0-9.,eE+-]{0,6} ?[kKMGTPiBsmuhn]{0,3}", fullmatch=True)))
def test_a_quantity_is_read_whole_or_refused(parse, text):
    try:
        value = parse(text)
    except ValueError as error:
        assert repr(text) in str(error) and "use a form such as" in str(error)
    else:
        assert value > 0 or parse is parse_bytes
        assert text.strip()[0].isdigit()


@given(text=st.text(alphabet="ab:&*!|>-[]{},#'\"\n \t%@`?<=0123", max_size=60))
def test_any_text_is_a_study_or_a_list_of_mistakes(text, tmp_path_factory):
    file = tmp_path_factory.mktemp("fuzz") / "study.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_study(file)
    assert caught.value.mistakes
