"""Every sentence a person reads, in English and Chinese, under one key.

The tables are plain Python modules, because they are on the path of `gpuyard --help`, which must be quick.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping

from gpuyard.texts import en


class _Languages(Mapping[str, Mapping[str, str]]):
    """The tables by language, each loaded when it is first looked at: most processes speak one."""

    def __getitem__(self, language: str) -> Mapping[str, str]:
        if language == "en":
            return en.TEXTS
        if language != "zh":
            raise KeyError(language)
        return importlib.import_module("gpuyard.texts.zh").TEXTS

    def __iter__(self) -> Iterator[str]:
        return iter(("en", "zh"))

    def __len__(self) -> int:
        return 2


LANGUAGES: Mapping[str, Mapping[str, str]] = _Languages()


def language_of_environment(environment: Mapping[str, str] | None = None) -> str:
    """`zh` where GPUYARD_LANG or the locale asks for Chinese, else `en`."""
    env = os.environ if environment is None else environment
    for name in ("GPUYARD_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = env.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def language_of_header(accept_language: str | None) -> str:
    """The first of the languages that an Accept-Language header names and that there is; `en` otherwise."""
    for part in (accept_language or "").split(","):
        tag = part.split(";")[0].strip().lower()
        if tag.startswith("zh"):
            return "zh"
        if tag.startswith("en"):
            return "en"
    return "en"


def text(key: str, language: str, /, **params: object) -> str:
    """The sentence of `key`, filled in. A key that has no sentence shows as itself, so that nothing is hidden."""
    template = LANGUAGES[language].get(key) or en.TEXTS.get(key)
    if template is None:
        return f"{key} {dict(params)}" if params else key
    told = {name: in_words(value, language) for name, value in params.items()}
    try:
        return template.format(**told)
    except (KeyError, IndexError):
        return f"{template} {told}"


def in_words(value: object, language: str) -> object:
    """A fact of a sentence. One that is a sentence itself (`model.said`), or several, is told in the language; all else
    stays as it is."""
    if isinstance(value, tuple):
        parts: tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]
        return ("；" if language == "zh" else "; ").join(str(in_words(part, language)) for part in parts)
    key, params = getattr(value, "key", None), getattr(value, "params", None)
    if not (isinstance(key, str) and isinstance(params, Mapping)):
        return value
    facts: Mapping[str, object] = params  # pyright: ignore[reportUnknownVariableType]
    return text(key, language, **facts)


def error_text(code: str, language: str, params: Mapping[str, object]) -> str:
    """The sentence of an error code: what was wrong, where, and what to do. A fact that has words of its own (under
    `word.<parameter>.<value>`) is told in them."""
    told = {name: _in_words(name, value, language, params) for name, value in params.items()}
    return text(f"error.{code}", language, **told)


def _in_words(name: str, value: object, language: str, params: Mapping[str, object]) -> object:
    key = f"word.{name}.{value}"
    return text(key, language, **params) if key in en.TEXTS else value


def reason_text(reason: str, language: str, params: Mapping[str, object] | None = None) -> str:
    """The sentence of a reason: why a workload, lease or unit is in its state."""
    return text(f"reason.{reason}", language, **(params or {}))
