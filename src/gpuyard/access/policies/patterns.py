"""Wildcards and variables in policy strings.

`*` is any run of characters, `?` any one; `${key}` stands for a value of the request, `${*}`, `${?}` and `${$}` for the
characters themselves. A match takes time linear in the text for each `*`: no pattern can be written to stall the yard.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

Values: TypeAlias = str | tuple[str, ...]
Context: TypeAlias = Mapping[str, Values]  # keys in lower case
Matcher: TypeAlias = Callable[[str, Context], bool]

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_LITERAL: Final = frozenset({"*", "?", "$"})
# A wildcard inside a compiled text: characters that no policy can hold, since `parse` refuses control characters.
_ANY, _ONE = "\x00", "\x01"


def variables(text: str) -> list[str]:
    """The keys that a policy string takes from the request, as they are written."""
    return [_name(inside) for inside in _VARIABLE.findall(text) if inside not in _LITERAL]


def _name(inside: str) -> str:
    return inside.split(",", 1)[0].strip()


def compile_text(text: str, *, wildcards: bool, with_variables: bool) -> Matcher:
    """A matcher of whole strings. A variable without exactly one value in the request makes it match nothing."""
    if not with_variables or "${" not in text:
        if not wildcards or ("*" not in text and "?" not in text):
            return lambda value, _: value == text
        glob = _glob(text.replace("*", _ANY).replace("?", _ONE))
        return lambda value, _: glob(value)
    parts = _parts(text, wildcards)
    if all(isinstance(part, str) for part in parts):  # only escapes: nothing depends on the request
        fixed = _glob("".join(part for part in parts if isinstance(part, str)))
        return lambda value, _: fixed(value)

    def matches(value: str, context: Context) -> bool:
        filled = fill(parts, context)
        return filled is not None and _glob(filled)(value)

    return matches


def _parts(text: str, wildcards: bool) -> list[str | tuple[str, str | None]]:
    """Fixed pieces, and variables as (key, what stands in where the request has none)."""
    parts: list[str | tuple[str, str | None]] = []
    at = 0
    for found in _VARIABLE.finditer(text):
        parts.append(_wild(text[at : found.start()], wildcards))
        inside = found.group(1)
        if inside in _LITERAL:
            parts.append(inside)
        else:
            _, comma, default = inside.partition(",")
            default = default.strip()
            quoted = bool(comma) and len(default) >= 2 and default[0] == default[-1] == "'"
            parts.append((_name(inside).lower(), default[1:-1] if quoted else None))
        at = found.end()
    parts.append(_wild(text[at:], wildcards))
    return parts


def _wild(text: str, wildcards: bool) -> str:
    return text.replace("*", _ANY).replace("?", _ONE) if wildcards else text


def fill(parts: list[str | tuple[str, str | None]], context: Context) -> str | None:
    """The text with the request's values in it, which are never wildcards themselves; None where one is missing."""
    filled: list[str] = []
    for part in parts:
        if isinstance(part, str):
            filled.append(part)
            continue
        value = context.get(part[0], part[1])
        # An absent, empty or many-valued key stands for nothing at all: guessing would widen what a policy says.
        if not value or not isinstance(value, str) or _ANY in value or _ONE in value:
            return None
        filled.append(value)
    return "".join(filled)


def _glob(pattern: str) -> Callable[[str], bool]:
    """Matches with `_ANY` and `_ONE` as the wildcards: leftmost piece by piece, which never has to go back."""
    if _ANY not in pattern:
        if _ONE not in pattern:
            return lambda value: value == pattern
        whole = re.compile(_one(pattern), re.DOTALL)
        return lambda value: whole.fullmatch(value) is not None
    first, *middle, last = pattern.split(_ANY)
    middle = [piece for piece in middle if piece]
    if _ONE not in pattern and not middle:
        if not last:
            return (lambda _: True) if not first else (lambda value: value.startswith(first))
        shortest = len(first) + len(last)
        return lambda value: len(value) >= shortest and value.startswith(first) and value.endswith(last)
    return _piecewise(first, middle, last)


def _piecewise(first: str, middle: list[str], last: str) -> Callable[[str], bool]:
    head, tail = re.compile(_one(first), re.DOTALL), re.compile(_one(last), re.DOTALL)
    between = [re.compile(_one(piece), re.DOTALL) for piece in middle]
    first_length, last_length = len(first), len(last)

    def matches(value: str) -> bool:
        end = len(value) - last_length
        if end < first_length or head.match(value) is None or tail.fullmatch(value, end) is None:
            return False
        at = first_length
        for piece in between:
            found = piece.search(value, at, end)
            if found is None:
                return False
            at = found.end()
        return True

    return matches


def _one(piece: str) -> str:
    return "".join("." if character == _ONE else re.escape(character) for character in piece)


def compile_arn(text: str, *, with_variables: bool) -> Matcher:
    """A matcher of ARNs: each of the six parts by itself, so that no wildcard reaches over a colon into the next part.

    `*` alone matches everything, what is no ARN included. A text with fewer parts matches nothing else.
    """
    if text == "*":
        return _everything
    written = _split_arn(text)
    if len(written) != 6:
        return lambda value, _: value == text
    checks = [
        (n, compile_text(part, wildcards=True, with_variables=with_variables))
        for n, part in enumerate(written)
        if part != "*"
    ]
    checks.sort(key=lambda check: -check[0])  # the resource tells most of them apart

    def matches(value: str, context: Context) -> bool:
        parts = value.split(":", 5)
        if len(parts) != 6:
            return False
        return all(check(parts[n], context) for n, check in checks)

    return matches


def _everything(value: str, context: Context) -> bool:
    del value, context
    return True


def _split_arn(text: str) -> list[str]:
    """At colons, but not at those inside a variable."""
    hidden = _VARIABLE.sub(lambda found: found.group().replace(":", "\x02"), text)
    return [part.replace("\x02", ":") for part in hidden.split(":", 5)]
