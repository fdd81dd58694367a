"""A policy as it is written, taken apart. Only its grammar is checked here; what it means is the linter's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from gpuyard.model.errors import YardError

MAX_POLICY_BYTES: Final = 20_480
MAX_STATEMENTS: Final = 100
MAX_VALUES: Final = 500  # of one element or condition
_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_ELEMENTS: Final = ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition")
_PRINCIPALS: Final = ("Principal", "NotPrincipal")


@dataclass(frozen=True, slots=True)
class Condition:
    """One line of a condition block: an operator, a key, and the values it is compared with."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `not_actions` and `not_resources` say that the lists hold what is left out."""

    label: str  # its Sid, or `#n` for the n-th
    deny: bool
    actions: tuple[str, ...]
    not_actions: bool
    resources: tuple[str, ...]
    not_resources: bool
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A named document. Variables are read only where its version says so."""

    name: str
    statements: tuple[Statement, ...]
    with_variables: bool


def parse(name: str, text: str) -> Policy:
    """Raises YardError `invalid_policy`, which says where and what."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_POLICY_BYTES:
        raise _refused(name, "policy_too_large", maximum=MAX_POLICY_BYTES)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except _TwiceError as twice:
        raise _refused(name, "policy_key_twice", key=str(twice)) from None
    except (ValueError, RecursionError):
        raise _refused(name, "policy_not_json") from None
    document = _mapping(name, value)
    for key in document:
        if key not in ("Version", "Id", "Statement"):
            raise _refused(name, "policy_unknown_element", element=key)
    version = document.get("Version", "2008-10-17")
    if version not in _VERSIONS:
        raise _refused(name, "policy_version", found=version, known=", ".join(_VERSIONS))
    found: Any = document.get("Statement")
    written: list[Any] = cast("list[Any]", found) if isinstance(found, list) else [found]
    if not written or len(written) > MAX_STATEMENTS:
        raise _refused(name, "policy_statements", maximum=MAX_STATEMENTS)
    statements = tuple(_statement(name, n, each) for n, each in enumerate(written, 1))
    return Policy(name, statements, version != "2008-10-17")


class _TwiceError(Exception):
    """A key that an object has twice: readers differ in which one counts, so neither does."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise _TwiceError(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return found


def _constant(text: str) -> Any:
    raise ValueError(text)


def _statement(name: str, n: int, value: Any) -> Statement:
    where = f"{name} #{n}"
    written = _mapping(where, value)
    sid = written.get("Sid", f"#{n}")
    if not isinstance(sid, str) or len(sid) > 128 or not sid.isprintable():
        raise _refused(where, "policy_sid")
    label = sid or f"#{n}"
    for element in written:
        if element in _PRINCIPALS:
            raise _refused(where, "policy_principal", element=element)
        if element not in _ELEMENTS:
            raise _refused(where, "policy_unknown_element", element=element)
    if written.get("Effect") not in ("Allow", "Deny"):
        raise _refused(where, "policy_effect")
    actions, not_actions = _either(where, written, "Action")
    resources, not_resources = _either(where, written, "Resource")
    conditions = tuple(_conditions(where, written.get("Condition", {})))
    return Statement(label, written["Effect"] == "Deny", actions, not_actions, resources, not_resources, conditions)


def _either(where: str, written: Mapping[str, Any], element: str) -> tuple[tuple[str, ...], bool]:
    if (element in written) == (f"Not{element}" in written):
        raise _refused(where, "policy_one_of", element=element)
    negated = element not in written
    values = _values(where, written[f"Not{element}" if negated else element])
    if not values:
        raise _refused(where, "policy_empty", element=element)
    return values, negated


def _conditions(where: str, value: Any) -> Iterable[Condition]:
    for operator, keys in _mapping(where, value).items():
        for key, values in _mapping(where, keys).items():
            _text(where, key)
            yield Condition(_text(where, operator), key, _values(where, values, scalars=True))


def _values(where: str, value: Any, *, scalars: bool = False) -> tuple[str, ...]:
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    if len(values) > MAX_VALUES:
        raise _refused(where, "policy_values", maximum=MAX_VALUES)
    return tuple(_text(where, _scalar(each) if scalars else each) for each in values)


def _scalar(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or any(
        ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in value
    ):
        raise _refused(where, "policy_text")
    return value


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refused(where, "policy_object")
    return cast("Mapping[str, Any]", value)


def _refused(where: str, reason: str, **facts: object) -> YardError:
    return YardError("invalid_policy", where=where, reason=reason, **facts)
