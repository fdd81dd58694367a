"""Files of evidence and policies: what they name lies beside them, as the vendors' tools wrote it."""

from __future__ import annotations

import base64
import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from gpuyard.cli.output import t
from gpuyard.model.errors import YardError


def read_evidence(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """The nonce and each piece of evidence as the API takes it. `report_file`, `certificate_files`, `revocation_files`
    and `collateral_file` stand for what is in those files; certificates may be PEM or DER.

    Raises YardError `evidence_unreadable`.
    """
    found = _parsed(path, "JSON", json.loads)
    pieces = found.get("evidence")
    if not isinstance(found.get("nonce"), str) or not isinstance(pieces, list) or set(found) != {"nonce", "evidence"}:
        raise _unreadable(path, "JSON", 'it needs "nonce" and a list "evidence", and nothing else')
    return found["nonce"], [_piece(path, one) for one in pieces]


def _piece(path: Path, one: Any) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise _unreadable(path, "JSON", '"evidence" holds something that is no object')
    made = dict(one)
    if (named := made.pop("report_file", None)) is not None:
        made["report"] = base64.b64encode(_bytes(path, named)).decode()
    if (named := made.pop("certificate_files", None)) is not None:
        made["certificates"] = "".join(_pem(_bytes(path, each)) for each in _names(path, named))
    if (named := made.pop("revocation_files", None)) is not None:
        made["revocation"] = [base64.b64encode(_bytes(path, each)).decode() for each in _names(path, named)]
    if (named := made.pop("collateral_file", None)) is not None:
        made["collateral"] = _parsed(_beside(path, named), "JSON", json.loads)
    return made


def read_key(path: Path) -> str:
    """A public key as PEM text. Raises YardError `evidence_unreadable`."""
    return _read(path, "PEM").decode("ascii", "replace")


def read_policy(path: Path) -> dict[str, Any]:
    """A policy as the API takes it; `root_files` stands for the certificates in those files.

    Raises YardError `evidence_unreadable`.
    """
    found = _parsed(path, "TOML", tomllib.loads)
    for table in found.values():
        if isinstance(table, dict) and (named := table.pop("root_files", None)) is not None:
            table["roots"] = [_pem(_bytes(path, each)) for each in _names(path, named)]
    return found


def _pem(data: bytes) -> str:
    if b"-----BEGIN" in data:
        return data.decode("ascii", "replace").strip() + "\n"
    lines = "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def _names(path: Path, named: Any) -> list[Any]:
    if not isinstance(named, list):
        raise _unreadable(path, "JSON", "a list of file names is expected")
    return named


def _beside(path: Path, named: Any) -> Path:
    if not isinstance(named, str):
        raise _unreadable(path, "JSON", "a file name is expected")
    return path.parent / named


def _bytes(path: Path, named: Any) -> bytes:
    return _read(_beside(path, named), t("attest.file"))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, what, error.strerror) from None


def _parsed(path: Path, what: str, parse: Any) -> dict[str, Any]:
    try:
        found = parse(_read(path, what).decode())
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, what, str(error)[:200]) from None
    if not isinstance(found, dict):
        raise _unreadable(path, what, "it is no object")
    return found


def _unreadable(path: Path, what: str, reason: object) -> YardError:
    return YardError("evidence_unreadable", path=str(path), what=what, reason=reason)
