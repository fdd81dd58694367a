"""What people read: both languages say the same, everything that is said has a sentence, and every sentence can be said."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

import gpuyard
from gpuyard.model.errors import STATUS_BY_CODE, YardError
from gpuyard.model.said import Said
from gpuyard.texts import LANGUAGES, language_of_environment, language_of_header, text

EN, ZH = LANGUAGES["en"], LANGUAGES["zh"]
SOURCE = Path(gpuyard.__file__).parent


def placeholders(template: str) -> set[str]:
    return {name.split(".")[0].split("[")[0] for _, name, _, _ in string.Formatter().parse(template) if name}


def test_both_languages_have_the_same_keys() -> None:
    assert set(EN) ^ set(ZH) == set()


def test_both_languages_fill_in_the_same_facts() -> None:
    different = {key for key in EN if placeholders(EN[key]) != placeholders(ZH[key])}
    assert different == set()


def test_chinese_sentences_are_chinese() -> None:
    plain = {key for key in ZH if key.startswith(("error.", "reason.")) and ZH[key] == EN[key]}
    assert plain == set()


@pytest.mark.parametrize("code", sorted(STATUS_BY_CODE))
def test_every_error_code_has_a_sentence_with_what_to_do(code: str) -> None:
    for language in LANGUAGES.values():
        sentence = language[f"error.{code}"]
        assert len(sentence) > 5
        assert "\n" not in sentence


def test_no_sentence_is_for_a_code_that_does_not_exist() -> None:
    assert {key.removeprefix("error.") for key in EN if key.startswith("error.")} == set(STATUS_BY_CODE)


@pytest.mark.parametrize("key", sorted(EN))
def test_every_sentence_can_be_filled_in(key: str) -> None:
    for language in LANGUAGES.values():
        try:
            filled = language[key].format(**dict.fromkeys(placeholders(language[key]), "x"))
        except ValueError:
            filled = language[key].format(**dict.fromkeys(placeholders(language[key]), 1))
        assert filled


def raised_codes() -> dict[str, str]:
    """Every code that the source raises, with the file that does."""
    found: dict[str, str] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "YardError" and node.args:
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    found[str(code.value)] = str(path)
    return found


def test_every_code_that_is_raised_is_declared() -> None:
    undeclared = {code: where for code, where in raised_codes().items() if code not in STATUS_BY_CODE}
    assert undeclared == {}


def asked_for(tree: ast.Module) -> set[str]:
    """Literal keys of calls to functions that come from `gpuyard.texts`, or that the terminal has for its own keys."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            prefix = {"gpuyard.texts": "", "gpuyard.cli.output": "cli."}.get(node.module or "")
            if prefix is not None:
                names.update({(a.asname or a.name): prefix for a in node.names if a.name in {"text", "t"}})
    return {
        names[node.func.id] + node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    }


def test_every_key_that_the_source_asks_for_is_there() -> None:
    asked = {key: str(path) for path in SOURCE.rglob("*.py") for key in asked_for(ast.parse(path.read_text()))}
    assert len(asked) > 100
    assert {key: where for key, where in asked.items() if key not in EN} == {}


def test_an_error_that_was_never_declared_cannot_be_made() -> None:
    with pytest.raises((KeyError, ValueError)):
        YardError("no_such_code")


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "GPUYARD_LANG": "en"}, "en"),
        ({"LC_ALL": "C", "LANG": "zh_CN"}, "en"),
    ],
)
def test_the_terminal_speaks_the_language_of_its_user(environment: dict[str, str], language: str) -> None:
    assert language_of_environment(environment) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("fr, zh", "zh"),
        ("en-US, zh", "en"),
        ("\x00;;,", "en"),
    ],
)
def test_the_api_answers_in_the_language_that_is_asked_for(header: str | None, language: str) -> None:
    assert language_of_header(header) == language


def test_a_sentence_that_is_missing_shows_its_key_rather_than_nothing() -> None:
    assert "no.such.key" in text("no.such.key", "zh", fact=1)


def test_a_fact_that_is_a_sentence_is_told_in_the_readers_language() -> None:
    why = (Said("trial.mps_busy"), Said("trial.got_more", {"got": 3, "way": "plain", "most": 2}), "exit code 3")
    english = text("doctor.mps.missing", "en", detail=why)
    assert "programs use it now, and MPS would lock them out; a program gets 3 bytes (plain) of 2; exit" in english
    chinese = text("doctor.mps.missing", "zh", detail=why)
    assert "现在有程序在用此卡" in chinese
    assert "；程序以 plain 方式得到 3 字节" in chinese
    assert "programs" not in chinese
