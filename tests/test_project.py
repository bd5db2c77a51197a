"""The project itself: what importing costs, which way imports point, whether documents are true."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "reverie"
MODULES = sorted(SOURCE.rglob("*.py"))
HEAVY = (
    "torch",
    "ray",
    "starlette",
    "uvicorn",
    "onnxruntime",
    "gymnasium",
    "numba",
    "av",
    "pydantic",
)
FOLDERS = ("src", "tests", "benchmarks", "scripts", "docs", "runs", ".ci", "web")
TEXT = {".py", ".md", ".sh", ".toml", ".ts", ".css", ".html", ".json", ".yaml", ".yml", ""}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def loaded_by(statement: str) -> set[str]:
    """Names of the heavy packages that a fresh Python holds after the statement."""
    script = f"import sys; {statement}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = run_python("-c", script)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_import_reaches_nothing_heavy():
    assert loaded_by("import reverie") == set()


def test_help_reaches_no_network_library():
    silent_help = "import io, reverie.cli; sys.stdout = io.StringIO(); reverie.cli.main(['--help'])"
    # newer versions of typer bring pydantic themselves
    assert loaded_by(f"{silent_help}; sys.stdout = sys.__stdout__") <= {"pydantic"}


def test_deciding_reaches_no_networks():
    assert loaded_by("import reverie.core, reverie.session, reverie.scheduler") == set()


def test_imports_point_downwards():
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr


def definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every class and function of a module by its name, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_says_what_it_is(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module opens with a docstring of what it is"
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not silent, f"public without a docstring: {silent}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_reads_in_one_sitting(path: Path):
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= 500, f"{num_lines} lines hold more than one idea"
    long = [
        f"{name} ({num_code_lines(node)} lines)"
        for name, node in definitions(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and num_code_lines(node) >= 60
    ]
    assert not long, f"functions of 60 lines or more: {long}"


def num_code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without those of its docstring."""
    assert node.end_lineno is not None
    docstring = node.body[0] if ast.get_docstring(node) else None
    of_docstring = (
        docstring.end_lineno - docstring.lineno + 1 if docstring and docstring.end_lineno else 0
    )
    return node.end_lineno - node.lineno + 1 - of_docstring


def test_no_junk_drawers():
    assert not {"utils", "util", "common", "helpers", "misc"} & {path.stem for path in MODULES}


def text_files() -> Iterator[Path]:
    """What people write and ship; not what is installed, built or trained."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            parts = path.relative_to(ROOT).parts
            if "node_modules" in parts or "__pycache__" in parts or parts[:2] == ("runs", "out"):
                continue
            if path.is_file() and path.suffix in TEXT and path.stat().st_size < 1_000_000:
                yield path
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT)


def test_no_path_of_one_machine():
    of_a_machine = re.compile(r"(?<![\w.:/*-])/(?:work|home|root|Users)/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if of_a_machine.search(line)
    ]
    assert not found, "\n".join(found)


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+\s+(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        if not linked.exists() or (
            anchor and linked.suffix == ".md" and anchor not in anchors(linked)
        ):
            broken.append(target)
    assert not broken, f"links of {path.name} that lead nowhere: {broken}"


def test_the_documents_name_commands_that_exist():
    """Every `make NAME` and `reverie VERB` in the documents is one that there is."""
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    verbs = set(
        re.findall(
            r"^## reverie (\S+)", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.M
        )
    )
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE)) <= targets, (
            path.name
        )
        assert set(re.findall(r"(?:^    |`)reverie ([a-z]+)", text, re.MULTILINE)) <= verbs, (
            path.name
        )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_the_documents_runs(
    path: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every example, as it stands there, on a toy world in place of the bundled one."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    for block in blocks:
        exec(compile(block.replace('"meadow"', repr(str(tiny_path))), path.name, "exec"), {})


def test_the_page_of_commands_is_current():
    result = run_python("scripts/cli_page.py", "--check")
    assert result.returncode == 0, result.stderr


def make_venv(path: Path, *, on_path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """scripts/venv.sh in an empty folder, on a machine that has only what is in `on_path`."""
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "venv.sh"), ".venv"],
        cwd=path,
        env={"PATH": on_path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_environment_behind_a_link_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (tmp_path / ".venv").symlink_to(elsewhere)
    made = make_venv(tmp_path, on_path=os.environ["PATH"])
    assert made.returncode == 1
    assert ".venv is a link" in made.stderr
    assert (elsewhere / "kept").exists()


def stand_in(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("python3", "environment", "said"),
    [
        (None, {}, "there is no python3"),
        ('case "$2" in *platform*) echo 3.9.2;; *) exit 1;; esac', {}, "python3 is Python 3.9.2"),
        ('case "$2" in *version_info*) ;; *) exit 1;; esac', {}, "apt-get install python3-venv"),
        (None, {"PYTHON": "python9"}, "PYTHON=python9"),
    ],
    ids=["no python", "too old", "no venv module", "named wrongly"],
)
def test_what_is_missing_is_said(
    tmp_path: Path, python3: str | None, environment: dict[str, str], said: str
):
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    if python3 is not None:
        stand_in(stand_ins, "python3", python3)
    result = make_venv(tmp_path, on_path=str(stand_ins), **environment)
    assert result.returncode == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


def test_no_chromium_is_said(tmp_path: Path):
    """Not as root: there, the script would install one."""
    stand_in(tmp_path, "id", "echo 1000")
    result = subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "chromium.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "apt-get install chromium" in result.stderr
