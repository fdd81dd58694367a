"""Writes the reference pages from the code, in each language; `--check` only says whether they are up to date."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gpuyard.catalog import cards
from gpuyard.cli.app import COMMANDS
from gpuyard.model.errors import STATUS_BY_CODE, YardError
from gpuyard.model.states import MACHINES
from gpuyard.model.units import format_size
from gpuyard.texts import LANGUAGES

DOCS = Path(__file__).parent
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "generated": "Generated from the code by `make docs`.",
        "errors": "Errors",
        "errors_intro": "Every refusal has a stable code, an HTTP status and an exit code of the command line.",
        "states": "States",
        "states_intro": "Each drawing is one table in `gpuyard.model.states`.",
        "cards": "Card catalogue",
        "cards_intro": "Bandwidth is computed from bus width and data rate. What could not be verified is absent (--).",
        "cli": "Command line",
        "rest": "REST API",
        "rest_intro": "Described in full by `GET /v1/openapi.json`. Errors are RFC 9457 problem details.",
        "code": "code", "sentence": "sentence", "exit": "exit", "model": "model", "memory": "memory",
        "bandwidth": "bandwidth", "power": "power", "source": "source", "method": "method", "path": "path",
        "what": "what it does",
    },
    "zh": {
        "generated": "由 `make docs` 从代码生成。",
        "errors": "错误",
        "errors_intro": "每个拒绝都有稳定的代码、HTTP 状态和命令行退出码。",
        "states": "状态",
        "states_intro": "每张图对应 `gpuyard.model.states` 中的一张表。",
        "cards": "显卡目录",
        "cards_intro": "带宽由位宽和数据速率算出。无法核实的数值留空（--）。",
        "cli": "命令行",
        "rest": "REST 接口",
        "rest_intro": "完整描述见 `GET /v1/openapi.json`。错误为 RFC 9457 问题详情。",
        "code": "代码", "sentence": "说明", "exit": "退出码", "model": "型号", "memory": "显存",
        "bandwidth": "带宽", "power": "功耗", "source": "来源", "method": "方法", "path": "路径",
        "what": "作用",
    },
}  # fmt: skip


def main() -> int:
    pages = {
        DOCS / language / "reference" / f"{name}.md": f"# {words[name]}\n\n{words['generated']}\n\n{make(language)}"
        for language, words in WORDS.items()
        for name, make in (("errors", errors), ("states", states), ("cards", catalogue), ("cli", cli), ("rest", rest))
    }
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(DOCS.parent)} is out of date: run `make docs`")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path])
        print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


def errors(language: str) -> str:
    words = WORDS[language]
    rows = [
        f"| `{code}` | {status} | {YardError(code).exit_code} | {_cell(LANGUAGES[language][f'error.{code}'])} |"
        for code, status in STATUS_BY_CODE.items()
    ]
    head = f"| {words['code']} | HTTP | {words['exit']} | {words['sentence']} |\n|---|---|---|---|"
    return f"{words['errors_intro']}\n\n{head}\n" + "\n".join(rows) + "\n"


def states(language: str) -> str:
    drawings = [f"## {machine.noun}\n\n```mermaid\n{machine.mermaid()}\n```\n" for machine in MACHINES]
    return f"{WORDS[language]['states_intro']}\n\n" + "\n".join(drawings)


def catalogue(language: str) -> str:
    words = WORDS[language]
    head = (
        f"| {words['model']} | {words['memory']} | {words['bandwidth']} GB/s | {words['power']} W "
        f"| {words['source']} |\n"
        "|---|---|---|---|---|"
    )
    rows = [
        f"| {model.name} | {format_size(model.memory_bytes)} | {float(model.bandwidth_bytes_per_second) / 1e9:g} "
        f"| {model.tdp_watts} | {_cell(model.source)} |"
        for model in cards.load().values()
    ]
    return f"{words['cards_intro']}\n\n{head}\n" + "\n".join(rows) + "\n"


def cli(language: str) -> str:
    """What `--help` says, of every command."""
    environment = {**os.environ, "GPUYARD_LANG": language, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    parts = []
    for command in ["", *COMMANDS]:
        arguments = [sys.executable, "-m", "gpuyard", *([command] if command else []), "--help"]
        shown = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout  # noqa: S603
        parts.append(f"## gpuyard {command}".rstrip() + f"\n\n```text\n{shown.strip()}\n```\n")
    return "\n".join(parts)


def rest(language: str) -> str:
    words = WORDS[language]
    rows = [
        f"| {method.upper()} | `{path}` | {_cell((operation.get('description') or '').split(chr(10))[0])} |"
        for path, operations in _openapi()["paths"].items()
        for method, operation in operations.items()
    ]
    head = f"| {words['method']} | {words['path']} | {words['what']} |\n|---|---|---|"
    return f"{words['rest_intro']}\n\n{head}\n" + "\n".join(rows) + "\n"


def _openapi() -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    from gpuyard.api.app import About, build

    return build(None, About("", "", "")).openapi()  # type: ignore[arg-type]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
