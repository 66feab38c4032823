from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.version import __version__
from tests.samples import photo

LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#)([^)#]+)[^)]*\)")
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
SHELL_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def documents(repository: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=repository, capture_output=True, text=True, check=True
    )
    return [repository / name for name in listed.stdout.split()]


def test_every_link_leads_to_a_file(repository: Path) -> None:
    broken = [
        f"{document.relative_to(repository)}: {target}"
        for document in documents(repository)
        for target in LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_every_documented_command_exists_and_takes_its_options(repository: Path) -> None:
    commands = {entry.name: entry for entry in entry_points(group="console_scripts")}
    seen: dict[str, set[str]] = {}
    for document in documents(repository):
        for block in SHELL_BLOCK.findall(document.read_text()):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if not words or not words[0].startswith("ikc-"):
                    continue
                seen.setdefault(document.name, set()).add(words[0])
                command = commands[words[0]].load()
                known = {option for parameter in command.params for option in parameter.opts}
                for parameter in command.params:
                    known |= set(parameter.secondary_opts)
                used = {word for word in words[1:] if word.startswith("-") and word != "-"}
                assert used <= known, line
                ends = (index for index, word in enumerate(words) if word in ("|", ">", "&&"))
                # Values too: choices, numbers and how many of them.
                command.make_context(words[0], words[1 : next(ends, len(words))])
    assert seen["commands.md"] == {name for name in commands if name.startswith("ikc-")}


def test_the_commands_page_generates_the_reference_of_every_command(repository: Path) -> None:
    text = (repository / "docs" / "commands.md").read_text()
    generated = re.findall(r":prog_name: (ikc-[a-z]+)", text)
    commands = {entry.name for entry in entry_points(group="console_scripts")}
    assert set(generated) == {name for name in commands if name.startswith("ikc-")}
    assert len(generated) == len(set(generated))


@pytest.mark.parametrize("document", ["README.md", "docs/api.md", "docs/offline.md"])
def test_the_python_of_pages_that_need_nothing_else_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    block = "\n".join(PYTHON_BLOCK.findall((repository / document).read_text()))
    write_rgb(photo(32, 40), tmp_path / "photo.png")
    (tmp_path / "samples").symlink_to(repository / "samples")
    monkeypatch.chdir(tmp_path)
    # In this process, which has torch, and the traces of `tests/traced_graphs.py`.
    exec(compile(block, document, "exec"), {"__name__": "__main__"})


def test_every_python_block_is_valid(repository: Path) -> None:
    blocks = 0
    for document in documents(repository):
        for block in PYTHON_BLOCK.findall(document.read_text()):
            compile(block, document.name, "exec")
            blocks += 1
    assert blocks > 8


def test_every_import_of_the_package_in_a_python_block_works(repository: Path) -> None:
    missing = []
    for document in documents(repository):
        for block in PYTHON_BLOCK.findall(document.read_text()):
            for node in ast.walk(ast.parse(block)):
                if not isinstance(node, ast.ImportFrom) or node.module is None:
                    continue
                if node.module.split(".")[0] == "ikc_deploy":
                    module = import_module(node.module)
                    missing += [
                        f"{document.name}: {node.module}.{name.name}"
                        for name in node.names
                        if not hasattr(module, name.name)
                    ]
    assert missing == []


def test_every_shell_block_is_valid(repository: Path) -> None:
    blocks = [
        block
        for document in documents(repository)
        for block in SHELL_BLOCK.findall(document.read_text())
    ]
    assert len(blocks) > 5
    for block in blocks:
        done = subprocess.run(
            ["bash", "-n"], input=block, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{block}"


def test_every_page_is_in_the_navigation_of_the_site(repository: Path) -> None:
    text = (repository / "mkdocs.yml").read_text()
    listed = re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (repository / "docs").glob("*.md"))


def test_the_version_is_the_same_everywhere(repository: Path) -> None:
    changelog = (repository / "CHANGELOG.md").read_text()
    dated = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    citation = (repository / "CITATION.cff").read_text()
    (cited,) = re.findall(r"^version: (.+)$", citation, re.MULTILINE)
    (released,) = re.findall(r'^date-released: "(.+)"$', citation, re.MULTILINE)
    assert dated[0] == (cited, released)
    assert cited == __version__


def test_the_latencies_of_the_h100_are_those_measured(repository: Path) -> None:
    names = {"latency: torch": 3, "latency: plain torch": 4, "latency: torch.compile": 5}
    measured: dict[tuple[str, str, str], dict[int, str]] = {}
    for path in (repository / "benchmarks" / "results").glob("gpu-check-h100*.json"):
        report = json.loads(path.read_text())
        for part in report["parts"]:
            name, _, rest = part["part"].partition(",")
            if name in names and part["status"] == "passed":
                precision = {"32": "float32", "16": "float16"}[rest[-2:]]
                for shape, times in part["facts"].items():
                    row = measured.setdefault((report["weights"], precision, shape), {})
                    row[names[name]] = f"{times['queued_ms']:.1f}"
    text = (repository / "docs" / "cuda.md").read_text()
    table = text.split("<!-- gpu-check-h100 -->")[1].split("<!-- end -->")[0]
    shown = {}
    for line in table.strip().splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        shown[tuple(cells[:3])] = {i: cells[i] for i in (3, 4, 5) if cells[i]}
    assert shown == measured


def test_make_knows_the_targets_that_the_readme_names(repository: Path) -> None:
    text = (repository / "README.md").read_text() + (repository / "CONTRIBUTING.md").read_text()
    for target in sorted(set(re.findall(r"\bmake ([a-z-]+)", text))):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=repository, capture_output=True, check=False
        )
        assert done.returncode == 0, target


def test_the_table_of_places_names_files_and_what_they_hold(repository: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text()
    (section,) = re.findall(r"## Where is \.\.\.\n(.*?)\n## ", text, re.DOTALL)
    rows = [row.strip("|").split("|") for row in section.splitlines()[2:] if row.startswith("|")]
    assert len(rows) >= 10
    for what, file, named in rows:
        files = [repository / path for path in re.findall(r"`([\w/]+\.\w+)`", file + named)]
        assert files, what
        assert all(path.is_file() for path in files), what
        words = re.findall(r"`(\w+)`", named)
        assert words, what
        defined = {
            word
            for path in files
            for word in re.findall(
                r"^ *(?:def |class )?(\w+)(?=[(:\[]| =)", path.read_text(), re.MULTILINE
            )
        }
        assert set(words) <= defined, what


@pytest.mark.parametrize("folder", ["ikc_deploy", "tests", "tools", "examples", "training", "docs"])
def test_nothing_names_a_path_of_one_machine(repository: Path, folder: str) -> None:
    here = str(repository.parent) + "/"
    for path in (repository / folder).rglob("*"):
        if path.suffix in {".py", ".toml", ".md", ".json", ".jsonl"}:
            assert here not in path.read_text(), path
