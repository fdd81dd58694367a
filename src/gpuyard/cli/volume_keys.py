"""Keys of encrypted volumes: read from files, and given before a workload that needs them is launched."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuyard.cli.output import say, t
from gpuyard.model.errors import YardError
from gpuyard.sdk import volume_calls

if TYPE_CHECKING:
    from gpuyard.sdk.client import Client


def key_of(file: Path) -> str:
    """The one line of a key file; `-` is standard input.

    Raises YardError `invalid_request`.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise YardError("invalid_request", reason="volume_key_file", file=file) from error
    lines = text.rstrip("\r\n").splitlines()
    if len(lines) != 1:
        raise YardError("invalid_request", reason="volume_key_file", file=file)
    return lines[0]


def keys_of(typed: Iterable[str], mounts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """By volume, its key, from `VOLUME=FILE`, or `FILE` alone where one volume is mounted.

    Raises YardError `invalid_request`.
    """
    mounted = sorted({str(mount["volume"]) for mount in mounts})
    found: dict[str, str] = {}
    for text in typed:
        volume, _, file = text.rpartition("=")
        if not volume and len(mounted) == 1:
            volume = mounted[0]
        if volume not in mounted:
            raise YardError(
                "invalid_request", reason="volume_key_of", typed=text[:80], mounted=", ".join(mounted) or "--"
            )
        found[volume] = key_of(Path(file))
    return found


def give(client: Client, keys: Mapping[str, str], tenant: str | None) -> None:
    """Unlocks these volumes; one that does not exist is made, encrypted with its key."""
    for name, key in keys.items():
        try:
            client.send(volume_calls.unlock_volume(name, key, tenant))
        except YardError as error:
            if error.code != "volume_not_found":
                raise
            client.send(volume_calls.create_volume(name, key, tenant))
            say(t("volumes.created", name=name))
