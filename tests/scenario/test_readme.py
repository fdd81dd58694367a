"""What the documents tell a reader to type is typed here, against a real yard."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from attested_authorities import pem, root
from gpuyard.access.attestation.policy import Policies, parse
from gpuyard.catalog import prices
from gpuyard.cli.app import APP, COMMANDS
from gpuyard.cli.evidence_files import read_policy
from gpuyard.hardware import fleet_file

ROOT = Path(__file__).resolve().parents[2]
_FRONT = ["README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md"]
PAGES = [*_FRONT, *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
# What stands in a `sh` block is typed line by line against a yard of its own.
DOCUMENTS = [page for page in PAGES if "\n```sh\n" in (ROOT / page).read_text()]


def _shell_blocks(document: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)


def _commands(document: str) -> list[str]:
    return [line for block in _shell_blocks(document) for line in block.splitlines() if line.strip()]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment of its own: home, state, and the programs of this checkout."""
    environment = {
        "HOME": str(tmp_path),
        "GPUYARD_STATE": str(tmp_path / "state"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
    }
    yield environment
    announced = tmp_path / "state" / "yard.json"
    if announced.exists():
        os.kill(int(re.findall(r'"pid": (\d+)', announced.read_text())[0]), signal.SIGTERM)


def _start(command: str, environment: dict[str, str], log: Path) -> None:
    """`gpuyard up ... &`, on a port of its own, until it has printed the line to log in with; then logs in."""
    line = command.split("#")[0].strip().removesuffix("&")
    with log.open("w") as file:
        subprocess.Popen(["sh", "-c", f"exec {line} --port 0"], env=environment, stdout=file, stderr=file)
    deadline = time.monotonic() + 30
    while "gpuyard login" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    login = re.findall(r"^\s*(gpuyard login .*)$", log.read_text(), flags=re.MULTILINE)[0]
    subprocess.run(["sh", "-c", login], env=environment, check=True, capture_output=True)


# The same commands in two languages are typed once.
TYPED = list({tuple(_commands(document)): document for document in reversed(DOCUMENTS)}.values())


@pytest.mark.slow
@pytest.mark.parametrize("document", TYPED)
def test_every_command_of_a_document_works_as_it_is_written(
    document: str, shell: dict[str, str], tmp_path: Path
) -> None:
    commands = _commands(document)
    assert commands[0].startswith("gpuyard up")
    for command in commands:
        if command.startswith("gpuyard up"):
            _start(command, shell, tmp_path / "up.log")
            continue
        done = subprocess.run(
            ["sh", "-c", command], env=shell, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_the_documents_that_must_be_typed_are() -> None:
    assert {"README.md", "README.zh.md", "docs/en/tutorial.md", "docs/zh/tutorial.md"} <= set(DOCUMENTS)
    assert {"README.md", "docs/en/tutorial.md"} <= set(TYPED)
    typed = [_commands(document) for document in TYPED]
    assert all(_commands(document) in typed for document in DOCUMENTS)


@pytest.mark.parametrize(
    ("english", "chinese"),
    [("README.md", "README.zh.md")]
    + [(page, page.replace("docs/en/", "docs/zh/")) for page in PAGES if page.startswith("docs/en/")],
)
def test_both_languages_show_the_same_commands(english: str, chinese: str) -> None:
    assert _commands(english) == _commands(chinese)


@pytest.mark.parametrize("document", PAGES)
def test_what_a_document_mentions_of_the_command_line_is_there(document: str) -> None:
    """Commands and options in running text, as `gpuyard COMMAND --option`."""
    for words in re.findall(r"`gpuyard ([a-z][^`]*)`", (ROOT / document).read_text()):
        said = shlex.split(words.split(" -- ")[0])
        assert said[0] in COMMANDS, f"{document}: gpuyard {words}"
        command: Any = typer.main.get_command(APP)
        for word in said:
            inner = command.get_command(None, word) if hasattr(command, "get_command") else None
            command = inner or command
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for option in (word.split("=")[0] for word in said if word.startswith("--")):
            assert option in known | {"--help"}, f"{document}: gpuyard {words}"


@pytest.mark.parametrize("page", [page for page in PAGES if "```toml\n" in (ROOT / page).read_text()])
def test_files_that_a_document_shows_can_be_used(page: str, tmp_path: Path) -> None:
    readers = {"fleet": fleet_file.load, "prices": prices.load, "policy": _policy}
    for name, text in re.findall(r"^```toml\n(# (?:\w+)\.toml\n)(.*?)^```", (ROOT / page).read_text(), re.M | re.S):
        kind = name[2:].split(".")[0]
        path = tmp_path / f"{kind}.toml"
        path.write_text(re.sub(r"<(\d+) [^>]+>", lambda digits: "0" * int(digits[1]), text))
        assert readers[kind](path)


def _policy(path: Path) -> Policies:
    """A policy with roots beside it under the names that it gives them."""
    for name in re.findall(r'"(\S+\.pem)"', path.read_text()):
        (path.parent / name).write_text(pem(root(name).certificate))
    return parse(read_policy(path))


@pytest.mark.parametrize("document", PAGES)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{document} links to {target}"


def test_the_repository_speaks_of_the_product_alone() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    forbidden = re.compile(r"(?<![\w.])/(?:work|farm)/|\bpypi\.org|pythonhosted|registry\.npmjs", re.IGNORECASE)
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".c", ".yml", ".sh", ""} and name != str(
            Path(__file__).relative_to(ROOT)
        ):
            found = forbidden.search(path.read_text())
            assert found is None, f"{name}: {found[0] if found else ''}"


def test_the_base_installation_stays_light() -> None:
    lock = (ROOT / "requirements" / "run.txt").read_text()
    assert len(re.findall(r"^\S+==", lock, flags=re.MULTILINE)) <= 60
