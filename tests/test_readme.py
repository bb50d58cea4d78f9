"""README.md and the texts under studies/: commands parse, cheap ones and the Python code run, links and quotes hold."""

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import STUDY
from test_search_cli import call, parse

from search.config import load_study
from search.config.validate import read_as
from search.config.yaml_source import read_source

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "studies" / "docs").glob("*.md"))]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "studies").rglob("*.md")), *sorted((ROOT / "studies").rglob("*.yaml"))]
CHEAP = {
    "check": [],
    "front": [],
    "trials": [],
    "report": [],
    "studies": [],
    "status": [],
    "show": ["meunet"],
    "help": [],
    "schema": [],
}  # verbs that take seconds on a tiny study, and what replaces a costly argument


def only_names(command):
    """Return whether a text names a verb or an option instead of giving a complete command."""
    words = shlex.split(command)
    return len(words) == 2 or "--help" in words or words[1].startswith("-")


def commands(text):
    """Return the `voxnas` commands of a text: lines of code blocks and of head comments, and inline code."""
    joined = re.sub(r"\\\n\s*(?:#\s*)?", " ", text)
    lines = re.findall(r"^(?:#\s*Run:\s*|\s*#\s{2,}|\s*)(voxnas [a-z].*)$", joined, flags=re.M)
    inline = re.findall(r"`(voxnas [^`]+)`", joined)
    found = [re.split(r"\s[#>]\s|\s+&$|;", each)[0].strip() for each in (*lines, *inline)]
    return [each for each in dict.fromkeys(found) if "NAME" not in each.split()[:2]]


ALL = [(file, command) for file in TEXTS for command in commands(file.read_text()) if not only_names(command)]
SHOWN = list(dict.fromkeys(command for page in PAGES for command in commands(page.read_text())))


def complete(command):
    """Complete a text: expand a verb that is only named, and shell variables."""
    return re.sub(r"\$\w+|\"\$\{?\w+\}?\"", "x", command)


@pytest.mark.parametrize(
    ("file", "command"), ALL, ids=[f"{file.name}-{number}" for number, (file, _) in enumerate(ALL)]
)
def test_every_command_in_a_text_parses(file, command):
    assert parse(complete(command)) == shlex.split(command)[1]


def test_readme_and_documentation_show_every_verb():
    from test_search_cli import VERBS

    shown = {shlex.split(command)[1] for command in SHOWN}
    missing = set(VERBS) - shown
    assert missing <= {"demo", "phantom"}, missing  # `make demo` runs both


@pytest.fixture(scope="module")
def home(tiny_run, tmp_path_factory):
    """A folder as the README assumes it: study files, data, and finished runs of the same names."""
    from search.storage.admin import Change, change_studies, find_databases

    folder = tmp_path_factory.mktemp("home")
    (folder / "studies").mkdir()
    shutil.copytree(tiny_run.data / "phantom", folder / "FOLDER" / "phantom")
    for name in ("hippocampus", "acdc", "ONE", "OTHER"):
        (folder / "studies" / f"{name}.yaml").write_text(STUDY.replace("name: tiny", f"name: {name}"))
        shutil.copytree(tiny_run.runs / "tiny", folder / "new" / "tiny")
        urls = find_databases(None, folder / "new")
        change_studies(urls, Change(rename=("tiny", name)), runs=folder / "new")
        (folder / "runs").mkdir(exist_ok=True)
        shutil.move(folder / "new" / name, folder / "runs" / name)
        text = (folder / "studies" / f"{name}.yaml").read_text()  # `init` writes one beside, with its data's path
        (folder / f"{name}.yaml").write_text(text.replace("path: phantom", "path: FOLDER/phantom"))
        (folder / "runs" / name / "study.yaml").write_text((folder / "studies" / f"{name}.yaml").read_text())
    return folder


def is_cheap(command):
    words = shlex.split(command)
    return (
        words[1] in CHEAP
        and len(words) > 2
        and not {"KEY", "…", "--confirmed", "--watch", "--help", "--all"} & set(words)
    )


@pytest.mark.parametrize("command", [each for each in SHOWN if is_cheap(each)])
def test_cheap_commands_run(command, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    verb, *arguments = shlex.split(command)[1:]
    printed = call(monkeypatch, capsys, verb, *(CHEAP[verb] or arguments))
    assert printed.out.strip() and "voxnas: " not in printed.err


def blocks(language):
    """Return each code block of a language, with the name of its page."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return [(page.name, each) for page in PAGES for each in re.findall(pattern, page.read_text(), flags=re.M | re.S)]


def test_the_python_code_runs(home, monkeypatch, capsys):
    (code,) = {block for _, block in blocks("python") if "import voxnas" in block}
    monkeypatch.chdir(home)
    shown: dict[str, object] = {"FOLDER": "FOLDER"}
    exec(compile(code.replace("trials=8", "trials=3"), "python.md", "exec"), shown)
    assert len(shown["front"]) and (home / "front.html").exists()
    assert "the cheapest of" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_yaml_is_a_part_of_a_study_or_an_ablation(page, text, tmp_path):
    from search.ablation.schema import Ablation

    is_ablation = "arms:" in text
    rest = {} if is_ablation else {"name": "part", "data": {"path": "."}, "objectives": {"dice": "maximize"}}
    added = (f"{key}: {json.dumps(value)}\n" for key, value in rest.items() if f"{key}:" not in text)
    file = tmp_path / "part.yaml"
    file.write_text(text + "".join(added))
    if is_ablation:
        assert read_as(Ablation, read_source(file))[1] == []
    else:
        assert load_study(file, need_data=False).study.name


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_of_a_page_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target
        assert page.name == "README.md" or page.parent in file.parents, f"{target} is outside of the site"


def test_every_page_is_in_the_sites_navigation_once():
    import tomllib

    def files(entry):
        return [entry] if isinstance(entry, str) else [each for part in entry for each in files(*part.values())]

    site = tomllib.loads((ROOT / "studies" / "site.toml").read_text())
    assert sorted(files(site["project"]["nav"])) == [page.name for page in PAGES[1:]]


def test_every_test_and_target_behind_a_claim_exists():
    text, makefile = (ROOT / "studies" / "notes" / "claims.md").read_text(), (ROOT / "Makefile").read_text()
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
    targets = re.findall(r"`make ([\w-]+)`", text)
    assert len(named) > 10 and targets
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(), test
    assert all(f"\n{target}: " in makefile for target in targets)


def literals(tree):
    """Yield the texts of a module; a value in an f-string splits it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def texts():
    files = [file for folder in ("search", "space", "blocks") for file in (ROOT / folder).rglob("*.py")]
    return "\n".join(text for file in files for text in literals(ast.parse(file.read_text())))


QUOTED = [
    message
    for _, message in re.findall(
        r"^### (`+) ?(.+?) ?\1$", (ROOT / "studies" / "docs" / "troubleshooting.md").read_text(), flags=re.M
    )
]


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_that_troubleshooting_quotes_is_in_the_code(message, texts):
    parts = [part.strip(" ;") for part in message.split("…")]
    assert any(len(part) > 8 for part in parts)
    assert all(part in texts for part in parts)
