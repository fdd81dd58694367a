"""Which yard is meant, and the token that opens it."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from gpuyard.sdk.client import Client


@dataclass(slots=True)
class Chosen:
    """What the root options chose; None is looked for elsewhere."""

    url: str | None = None
    token: str | None = None


CHOSEN = Chosen()


def config_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where `gpuyard login` keeps what it was given."""
    env = os.environ if environment is None else environment
    base = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".config")
    return Path(base) / "gpuyard" / "config.toml"


def state_dir(environment: Mapping[str, str] | None = None) -> Path:
    """Where a yard of this user keeps its state unless told otherwise."""
    env = os.environ if environment is None else environment
    if env.get("GPUYARD_STATE"):
        return Path(env["GPUYARD_STATE"])
    base = env.get("XDG_STATE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(base) / "gpuyard"


def save(url: str, token: str, ca: str | None = None) -> Path:
    """Writes the login down, readable by this user alone."""
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        kept = {"url": url, "token": token, **({} if ca is None else {"ca": ca})}
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in kept.items())  # TOML's strings are JSON's
    draft.rename(path)
    return path


def connect() -> Client:
    """A client of the chosen yard: options, then environment, then the login.

    Raises YardError `no_credentials`.
    """
    from gpuyard.sdk.client import Client

    saved: Mapping[str, object] = {}
    if config_file().exists():
        try:
            saved = tomllib.loads(config_file().read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise YardError("no_credentials") from error
    url = CHOSEN.url or os.environ.get("GPUYARD_URL") or saved.get("url")
    token = CHOSEN.token or os.environ.get("GPUYARD_TOKEN") or saved.get("token")
    if not url or not token:
        raise YardError("no_credentials")
    return Client(str(url), str(token), ca=_authority(str(url), saved))


def _authority(url: str, saved: Mapping[str, object]) -> str | None:
    """The authority that alone is trusted for this URL: the environment's file, else what the login pinned for it.

    Raises YardError `tls_unusable`.
    """
    if file := os.environ.get("GPUYARD_CA"):
        return read_authority(Path(file))
    pinned = saved.get("ca") if saved.get("url") == url else None
    return None if pinned is None else str(pinned)


def read_authority(file: Path) -> str:
    """A file with certificates (PEM).

    Raises YardError `tls_unusable`.
    """
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise YardError("tls_unusable", path=str(file), reason=str(error)) from error
