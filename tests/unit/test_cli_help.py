"""The menu: quick, complete, in both languages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import gpuyard
from gpuyard.cli.app import COMMANDS

HEAVY = {"sqlalchemy", "fastapi", "uvicorn", "numpy", "rich", "httpx", "cryptography", "alembic", "pynvml"}


def run(*words: str, language: str = "en") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GPUYARD_LANG": language, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "gpuyard", *words], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_menu_names_every_command(language: str) -> None:
    told = run("--help", language=language)
    assert told.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in told.stdout
    assert any("一" <= letter <= "鿿" for letter in told.stdout) == (language == "zh")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_in_both_languages(command: str) -> None:
    english, chinese = run(command, "--help"), run(command, "--help", language="zh")
    assert english.returncode == chinese.returncode == 0
    assert english.stdout != chinese.stdout
    assert any("一" <= letter <= "鿿" for letter in chinese.stdout)


def test_the_menu_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['gpuyard', '--help']\ntry:\n    from gpuyard.main import run; run()\nexcept SystemExit:\n    pass\nprint(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name for name in HEAVY if f"'{name}'" in done.stderr} == set()


def test_the_version_is_the_packages() -> None:
    assert gpuyard.__version__ in run("--version").stdout


def test_a_command_that_does_not_exist_is_said_so() -> None:
    done = run("dance")
    assert done.returncode == 2
    assert "dance" in done.stderr
    assert "Traceback" not in done.stderr


def test_completion_for_a_shell_can_be_shown() -> None:
    done = run("--show-completion", "bash")
    assert done.returncode == 0 or "shell" in done.stderr.lower()
