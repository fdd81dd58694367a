"""Whatever goes wrong at the terminal: one sentence on stderr, the documented exit code, no traceback, nothing changed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_yard import RealYard

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealYard]:
    yard = RealYard(tmp_path_factory.mktemp("yard"))
    yard.up()
    yield yard
    yard.close()


def refused(yard: RealYard, exit_code: int, *words: str, environment: dict[str, str] | None = None) -> str:
    """The sentence, after it was checked to be one in both languages."""
    sentences: list[str] = []
    for language in ("en", "zh"):
        done = yard.cli(*words, environment={**(environment or {}), "GPUYARD_LANG": language})
        assert done.returncode == exit_code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        assert 0 < len(done.stderr.strip().splitlines()) <= 3, done.stderr
        assert done.stdout == ""
        sentences.append(done.stderr.strip())
    assert sentences[0] != sentences[1]
    assert any("一" <= letter <= "鿿" for letter in sentences[1])
    return sentences[0]


def test_no_yard_to_talk_to(yard: RealYard, tmp_path: Path) -> None:
    elsewhere = {"HOME": str(tmp_path)}
    assert "gpuyard login" in refused(yard, 3, "ps", environment=elsewhere)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gone = {**elsewhere, "GPUYARD_URL": f"http://127.0.0.1:{port}", "GPUYARD_TOKEN": "gy_x"}
    assert str(port) in refused(yard, 7, "ps", environment=gone)


def test_a_wrong_token(yard: RealYard) -> None:
    refused(yard, 3, "ps", environment={"GPUYARD_URL": yard.address, "GPUYARD_TOKEN": "gy_wrong"})


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (5, ["logs", "missing"]),
        (5, ["stop", "missing"]),
        (5, ["rm", "missing"]),
        (5, ["exec", "missing", "--", "true"]),
        (2, ["run", "--offer", "rtx9090-full", "--job", "--", "true"]),
        (2, ["run", "--gpu", "RTX4090", "--gpu-memory", "200GiB", "--gpu-share", "50%", "--job", "--", "true"]),
        (2, ["run", "--gpu-memory", "0GiB", "--gpu-share", "50%", "--job", "--", "true"]),
        (2, ["run", "--gpu-memory", "1e30", "--gpu-share", "50%", "--job", "--", "true"]),
        (2, ["run", "--gpu-memory", "8GiB", "--gpu-share", "300%", "--job", "--", "true"]),
        (2, ["run", "--offer", "rtx4090-half", "--job", "--time-limit", "soon", "--", "true"]),
        (2, ["run", "--offer", "rtx4090-half", "--job", "--name", "No Name", "--", "true"]),
        (2, ["run", "--offer", "rtx4090-half", "--job", "--image", "no such image", "--", "true"]),
        (2, ["bill", "--day", "2026-02-30"]),
        (5, ["tenants", "credit", "nobody", "5"]),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(yard: RealYard, exit_code: int, words: list[str]) -> None:
    before = yard.json("ps", "--all") if "--all" in yard.run("ps", "--help") else yard.json("ps")
    refused(yard, exit_code, *words)
    assert (yard.json("ps", "--all") if "--all" in yard.run("ps", "--help") else yard.json("ps")) == before


def test_a_second_yard_on_the_same_state_is_refused_and_told_who_holds_it(yard: RealYard) -> None:
    assert yard.server is not None
    sentence = refused(yard, 6, "up", "--simulate", "1xRTX4090", "--port", "0")
    assert str(yard.server.pid) in sentence
    assert yard.address in sentence


UPS = [
    ("an unknown model", ["--simulate", "1xRTX9090"]),
    ("no cards", ["--simulate", "0xRTX4090"]),
    ("minus one card", ["--simulate", "-1xRTX4090"]),
    ("too many cards", ["--simulate", "1e30xRTX4090"]),
    ("nonsense", ["--simulate", "lots"]),
    ("all the world", ["--host", "0.0.0.0", "--simulate", "1xRTX4090"]),
    ("a fleet file that is not there", ["--fleet", "missing.toml"]),
    ("a broken fleet file", ["--fleet", "broken.toml"]),
    ("a broken price book", ["--price-book", "broken.toml", "--simulate", "1xRTX4090"]),
    ("no database", ["--database-url", "mysql://nowhere", "--simulate", "1xRTX4090"]),
]


@pytest.mark.parametrize(("what", "options"), UPS, ids=[what for what, _ in UPS])
def test_a_yard_that_cannot_start_says_why_and_leaves_nothing(
    yard: RealYard, tmp_path: Path, what: str, options: list[str]
) -> None:
    (tmp_path / "broken.toml").write_text("[[node]]\nname = \n")
    words = [str(tmp_path / word) if word.endswith(".toml") else word for word in options]
    state = {"GPUYARD_STATE": str(tmp_path / "state")}
    for language in ("en", "zh"):
        done = yard.cli("up", "--port", "0", *words, environment={**state, "GPUYARD_LANG": language})
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3
    assert not (tmp_path / "state" / "yard.db").exists()


def test_a_port_that_is_taken_is_named(yard: RealYard, tmp_path: Path) -> None:
    port = yard.address.rpartition(":")[2]
    state = {"GPUYARD_STATE": str(tmp_path / "state")}
    assert port in refused(yard, 6, "up", "--simulate", "1xRTX4090", "--port", port, environment=state)
    assert not (tmp_path / "state").exists() or not list((tmp_path / "state").iterdir())


def test_state_of_a_newer_version_is_left_as_it_is(yard: RealYard, tmp_path: Path) -> None:
    import sqlite3

    other = RealYard(tmp_path)
    other.up()
    other.run("down")
    assert other.server is not None
    other.server.wait(20)
    with sqlite3.connect(other.state / "yard.db") as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where name like '%version%'")]
        assert tables
        database.execute(f"update {tables[0]} set version_num = '9999'")
        before = list(database.iterdump())
    sentence = refused(other, 6, "up", "--simulate", "1xRTX4090", "--port", "0")
    assert "9999" in sentence
    with sqlite3.connect(other.state / "yard.db") as database:
        assert list(database.iterdump()) == before
