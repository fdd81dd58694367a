"""How ECS writes: parameters as a flat form with numbered lists, answers in JSON or XML with lists wrapped twice."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from gpuyard.api.dialects.faults import Fault

COMMON: Final = frozenset(
    {
        "Action",
        "Version",
        "Format",
        "AccessKeyId",
        "Signature",
        "SignatureMethod",
        "SignatureVersion",
        "SignatureNonce",
        "SignatureType",
        "Timestamp",
        "SecurityToken",
    }
)
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Parameters:
    """A request's parameters, read as the type that each is meant to have."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.all = {name: value for name, value in pairs if name not in COMMON}
        if len(self.all) != sum(name not in COMMON for name, _ in pairs):
            raise Fault("InvalidParameter", "A parameter is given twice.")

    def text(self, name: str) -> str | None:
        """The value; None where it is not given or empty."""
        return self.all.get(name) or None

    def needed(self, name: str) -> str:
        """Raises Fault where it is not given."""
        value = self.text(name)
        if value is None:
            raise Fault(f"MissingParameter.{name}", f'The input parameter "{name}" that is mandatory is not supplied.')
        return value

    def number(self, name: str, otherwise: int, least: int, most: int) -> int:
        """A whole number within bounds. Raises Fault."""
        value = self.text(name)
        if value is None:
            return otherwise
        if not value.isascii() or not value.isdecimal() or len(value) > 9 or not least <= int(value) <= most:
            raise Fault(f"InvalidParameter.{name}", f"{name} must be a whole number from {least} to {most}.")
        return int(value)

    def flag(self, name: str) -> bool:
        """SDKs write True, true or 1. Raises Fault for anything else."""
        value = (self.text(name) or "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise Fault(f"InvalidParameter.{name}", f"{name} must be true or false.")
        return value in ("true", "1")

    def listed(self, name: str) -> list[str]:
        """`Name.1`, `Name.2`, or a JSON array in one string. Raises Fault."""
        whole = self.text(name)
        if whole is not None and whole.startswith("["):
            try:
                found = json.loads(whole)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
                raise Fault(f"InvalidParameter.{name}", f"{name} must be a JSON array of texts.")
            return found
        if whole is not None:
            return whole.split(",")
        return [value for _, value in sorted(self._numbered(name, r"").items())]

    def tags(self) -> dict[str, str]:
        """`Tag.1.Key` and `Tag.1.Value`."""
        keys = self._numbered("Tag", r"\.[Kk]ey")
        values = self._numbered("Tag", r"\.[Vv]alue")
        return {key: values.get(number, "") for number, key in sorted(keys.items())}

    def _numbered(self, name: str, rest: str) -> dict[int, str]:
        pattern = re.compile(rf"{re.escape(name)}\.([0-9]{{1,4}}){rest}")
        return {int(m[1]): value for key, value in self.all.items() if (m := pattern.fullmatch(key))}


def as_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def as_xml(root: str, value: Mapping[str, Any]) -> bytes:
    """A list of {"Instance": [...]} repeats its element; everything else nests as it stands."""
    out = ['<?xml version="1.0" encoding="UTF-8"?>\n']
    _element(root, value, out)
    return "".join(out).encode(errors="replace")


def _element(name: str, value: Any, out: list[str]) -> None:
    if isinstance(value, list):
        for one in value:
            _element(name, one, out)
        return
    out.append(f"<{name}>")
    if isinstance(value, Mapping):
        for inner, one in value.items():
            _element(inner, one, out)
    elif isinstance(value, bool):
        out.append("true" if value else "false")
    else:
        out.append(escape(_NOT_XML.sub("\ufffd", str(value))))
    out.append(f"</{name}>")
